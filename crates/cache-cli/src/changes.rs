//! What refreshes have changed: noticing it, and `larder changes`.

use std::time::Duration;

use cache_warmer::{
    Watch,
    changes::{Change, ChangeLog, ChangeRule, Command, Notifier, Webhook},
};
use larder::{Escaped, Timestamp, config::CacheConfig};
use serde_json::json;

use crate::{
    args::{ChangesArgs, Format, Global},
    context::{Context, shown},
    exit::{Exit, Failure},
    output, table,
};

/// What runs compare, and who is told, as the configuration says.
pub(crate) fn watch(context: &Context) -> Result<Watch, Failure> {
    let config = &context.loaded.config;
    let wrong = |setting: String, error: &dyn std::fmt::Display| {
        let place = context.loaded.settings.iter().find(|one| one.path == setting);
        let place = place.map(|one| format!("{}: ", one.from)).unwrap_or_default();
        Failure::usage(format!("{place}`{setting}`: {error}"))
    };
    let mut watch = Watch::default();
    if let Some(path) = config.changes_path() {
        watch = watch.log(ChangeLog::at(path));
    }
    for (name, source) in &config.sources {
        let rule = ChangeRule::new(&source.changes.pointers, &source.changes.ignore)
            .map_err(|error| wrong(format!("cache.sources.{name}.changes.pointers"), &error))?;
        watch = watch.rule(name, rule);
        if source.critical {
            watch = watch.critical(name);
        }
    }
    Ok(watch.notifier(
        notifier(config)
            .map_err(|(setting, error)| wrong(format!("cache.notify.{setting}"), &error))?,
    ))
}

/// An error is the setting, and what is wrong with it.
fn notifier(config: &CacheConfig) -> Result<Notifier, (&'static str, String)> {
    let mut notifier = Notifier::new();
    if let Some(url) = &config.notify.webhook {
        let secret = config.notify.secret.as_ref().map(larder::config::Secret::expose);
        let webhook = Webhook::new(url, secret).map_err(|error| ("webhook", error.to_string()))?;
        notifier = notifier.webhook(webhook);
    }
    if let Some((program, args)) = config.notify.command.split_first() {
        notifier = notifier.command(Command::new(program, args));
    }
    Ok(notifier)
}

pub(crate) async fn run(global: &Global, args: &ChangesArgs) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    let Some(path) = context.loaded.config.changes_path() else {
        return Err(Failure::failed("changes are not noted anywhere")
            .hint("name a file in `cache.changes_log`"));
    };
    let since = since(args.since);
    let log = ChangeLog::at(&path);
    let list = tokio::task::spawn_blocking(move || log.since(since)).await;
    let list = list
        .map_err(|error| Failure::failed(format!("cannot read changes: {error}")))?
        .map_err(|error| Failure::failed(error.to_string()))?;
    if list.skipped > 0 {
        output::remark(&format!(
            "warning: {}: {} lines are no changes, and were left out\n",
            shown(&path),
            list.skipped
        ));
    }
    let is_asked =
        |change: &&Change| args.source.is_empty() || args.source.contains(&change.source);
    let changes: Vec<&Change> = list.changes.iter().filter(is_asked).collect();
    match global.format {
        Format::Json => output::print_json(&json!({
            "schema": "larder.changes/1",
            "changes": changes,
            "skipped": list.skipped,
        }))?,
        Format::Table if changes.is_empty() => output::print("nothing has changed\n")?,
        Format::Table => {
            let headings = ["WHEN", "SOURCE", "MARKET", ">DIFFERENCES", "VERSION", "FIRST"];
            let rows: Vec<Vec<String>> = changes.iter().map(|change| row(change)).collect();
            output::print(&table::render(&headings, &rows))?;
        }
    }
    Ok(Exit::Done)
}

/// The instant so long ago.
fn since(age: Duration) -> Timestamp {
    let now = jiff::Timestamp::now().as_millisecond();
    let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(now.saturating_sub(age))
}

fn row(change: &Change) -> Vec<String> {
    let at = jiff::Timestamp::from_millisecond(change.at.as_millis());
    let version = match (&change.old_version, &change.new_version) {
        (Some(old), Some(new)) if old != new => format!("{old} -> {new}"),
        (_, Some(new)) => new.clone(),
        _ => String::new(),
    };
    let first = change.deltas.first().map_or_else(String::new, |delta| {
        let part = |text: &Option<String>| text.clone().unwrap_or_else(|| "nothing".to_owned());
        format!("{}: {} -> {}", delta.pointer, part(&delta.old), part(&delta.new))
    });
    vec![
        at.map_or_else(|_never| String::new(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()),
        Escaped(&change.source).to_string(),
        Escaped(change.market.as_deref().unwrap_or_default()).to_string(),
        table::count(change.changed),
        Escaped(&version).to_string(),
        Escaped(&first).to_string(),
    ]
}
