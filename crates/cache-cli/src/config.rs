//! `larder config`: what the configuration says, and whether it can be used.

use serde_json::json;

use crate::{
    args::{Format, Global},
    context::{Context, layer, shown},
    exit::{Exit, Failure},
    output, table,
};

/// Checks that a chain can be built.
pub(crate) fn check(global: &Global) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    context.cache()?;
    let file = context.file.as_deref().map_or_else(|| "defaults".to_owned(), shown);
    let tiers = chain(&context);
    match global.format {
        Format::Json => {
            let warnings: Vec<String> =
                context.loaded.warnings.iter().map(ToString::to_string).collect();
            output::print_json(&json!({
                "schema": "larder.config_check/1",
                "file": context.file.as_ref().map(|file| file.display().to_string()),
                "chain": tiers,
                "sources": context.loaded.config.sources.keys().collect::<Vec<_>>(),
                "warnings": warnings,
            }))?;
        }
        Format::Table => {
            context.warn();
            let sources = &context.loaded.config.sources;
            let sources = sources.values().filter(|source| source.url.is_some()).count();
            let chain = tiers.join(" -> ");
            output::print(&format!(
                "{file}: ok (chain: {chain} -> origin; sources with an origin: {sources})\n"
            ))?;
        }
    }
    Ok(Exit::Done)
}

/// Shows every setting and where it came from.
pub(crate) fn show(global: &Global) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    let settings = &context.loaded.settings;
    match global.format {
        Format::Json => {
            let settings: Vec<_> = settings
                .iter()
                .map(|one| {
                    let set = (one.value != "null").then_some(&one.value);
                    json!({
                        "setting": one.path,
                        "value": set,
                        "from": layer(&one.from),
                    })
                })
                .collect();
            output::print_json(&json!({"schema": "larder.config/1", "settings": settings}))?;
        }
        Format::Table => {
            let chain = chain(&context);
            let rows: Vec<_> = settings
                .iter()
                .map(|one| {
                    let value = match one.value.as_str() {
                        "null" if one.path == "cache.chain" => chain.join(", "),
                        "null" => "–".to_owned(),
                        value => larder::Escaped(value).to_string(),
                    };
                    vec![one.path.clone(), value, layer(&one.from)]
                })
                .collect();
            output::print(&table::render(&["SETTING", "VALUE", "FROM"], &rows))?;
        }
    }
    Ok(Exit::Done)
}

fn chain(context: &Context) -> Vec<&'static str> {
    context.loaded.config.tiers().iter().map(|tier| tier.name()).collect()
}
