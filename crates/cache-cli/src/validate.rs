//! `larder validate`: whether what is stored is sound.

use larder::{Chained, Error, Validation};
use serde_json::{Value, json};

use crate::{
    args::{Format, Global, ValidateArgs},
    context::{Context, shown},
    exit::{Exit, Failure},
    output, table,
    warm::CLOSE_WITHIN,
};

type Checked = (&'static str, Result<Validation, Error>);

pub(crate) async fn run(global: &Global, args: &ValidateArgs) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    let cache = context.cache()?;
    let path = &context.store();
    let exists = context.has_store()?;
    let mut checked = Vec::new();
    if exists {
        let all = cache.validate(args.repair).await?;
        // This process's memory is empty.
        checked.extend(all.into_iter().filter(|(name, _)| *name != "memory"));
    }
    cache.close(CLOSE_WITHIN).await;
    match global.format {
        Format::Json => output::print_json(&document(&checked, args.repair))?,
        Format::Table if !exists => {
            output::print(&format!("Nothing is stored yet: {} does not exist.\n", shown(path)))?;
        }
        Format::Table => output::print(&text(&checked, args.repair))?,
    }
    for (name, result) in &checked {
        if let Err(error) = result {
            let message = format!("tier `{name}` cannot be checked: {}", Chained(error));
            return Err(Failure::failed(message));
        }
    }
    let left = |(_, result): &Checked| {
        result.as_ref().is_ok_and(|found| !found.is_sound() && !found.is_repaired())
    };
    Ok(if checked.iter().any(left) { Exit::ProblemsFound } else { Exit::Done })
}

fn document(checked: &[Checked], repair: bool) -> Value {
    let tier = |(name, result): &Checked| match result {
        Ok(found) => json!({
            "name": name,
            "entries": found.entries,
            "sound": found.is_sound(),
            "problems": found.problems.iter().map(|problem| json!({
                "kind": problem.kind.to_string(),
                "count": problem.count,
                "repaired": problem.repaired,
                "examples": problem.examples,
            })).collect::<Vec<_>>(),
        }),
        Err(error) => json!({"name": name, "error": Chained(error).to_string()}),
    };
    json!({
        "schema": "larder.validate/1",
        "repair": repair,
        "tiers": checked.iter().map(tier).collect::<Vec<_>>(),
    })
}

fn text(checked: &[Checked], repair: bool) -> String {
    let mut text = String::new();
    let mut rows = Vec::new();
    for (name, result) in checked {
        let Ok(found) = result else { continue };
        let entries = table::count(found.entries);
        if found.is_sound() {
            text = format!("{text}{name}: {entries} entries checked, no problems\n");
            continue;
        }
        text = format!("{text}{name}: {entries} entries checked\n");
        for problem in &found.problems {
            rows.push(vec![
                (*name).to_owned(),
                problem.kind.to_string(),
                table::count(problem.count),
                table::count(problem.repaired),
                problem.examples.first().cloned().unwrap_or_default(),
            ]);
        }
    }
    if !rows.is_empty() {
        let headings = ["TIER", "PROBLEM", ">FOUND", ">REPAIRED", "FIRST"];
        text = format!("{text}{}", table::render(&headings, &rows));
        if !repair {
            text.push_str("`larder validate --repair` mends or removes what is wrong.\n");
        }
    }
    text
}
