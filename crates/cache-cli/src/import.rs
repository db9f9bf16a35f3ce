//! `larder import`: what a Python cache holds, copied.

use std::{fs, path::Path};

use larder::{
    Cache, Chained, Escaped,
    config::TierKind,
    import::{ImportError, ImportOptions, ImportReport},
};
use serde_json::{Value, json};

use crate::{
    args::{Format, Global, ImportArgs},
    context::{Context, shown},
    exit::{Exit, Failure},
    output, table,
    warm::CLOSE_WITHIN,
};

/// Reasons told one by one to people; JSON has a few more.
const TOLD: usize = 5;

pub(crate) async fn run(global: &Global, args: &ImportArgs) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    let config = &context.loaded.config;
    if !config.tiers().contains(&TierKind::Sqlite) {
        return Err(Failure::failed("no tier of this configuration outlives a program")
            .hint("enable one, for example `cache.sqlite.enable: true`"));
    }
    let store = context.store();
    refuse_same(&args.file, &config.sqlite.path, &store)?;
    let mut options = ImportOptions::default();
    options.dry_run = args.dry_run;
    // A look must not create what is looked at.
    let missing = args.dry_run && !store.exists();
    let cache = if missing {
        let empty = Cache::builder().build();
        empty.map_err(Failure::from)?
    } else {
        context.cache()?
    };
    let imported = cache.import_python(&args.file, options).await;
    let closed = cache.close(CLOSE_WITHIN).await;
    if !closed.is_clean() {
        tracing::warn!(?closed, "closed before everything was stored");
    }
    let report = imported.map_err(|error| failure(&error))?;
    match global.format {
        Format::Json => output::print_json(&document(args, &store, &report))?,
        Format::Table => output::print(&text(args, &store, &report))?,
    }
    Ok(Exit::Done)
}

/// The cache imports by itself what it is configured to be beside of.
fn refuse_same(file: &Path, configured: &Path, store: &Path) -> Result<(), Failure> {
    let same = |other: &Path| match (fs::canonicalize(file), fs::canonicalize(other)) {
        (Ok(file), Ok(other)) => file == other,
        _ => false,
    };
    if same(configured) && store != configured {
        let message = format!("{} is the file that `cache.sqlite.path` names", shown(file));
        return Err(Failure::usage(message).hint(format!(
            "it is imported automatically, into {}, whenever the cache is opened",
            shown(store)
        )));
    }
    if same(store) {
        let message = format!("{} is the configured cache itself", shown(file));
        return Err(Failure::usage(message).hint("give the path of the Python cache file"));
    }
    Ok(())
}

fn failure(error: &ImportError) -> Failure {
    let message = Escaped(&Chained(error).to_string()).to_string();
    match error {
        ImportError::File(_) => Failure::usage(message),
        ImportError::Tier(_) => Failure::failed(message)
            .hint("what was imported is stored; the same command again goes on"),
        _ => Failure::failed(message),
    }
}

fn document(args: &ImportArgs, store: &Path, report: &ImportReport) -> Value {
    let example = |(key, reason): &(String, String)| json!({"key": key, "reason": reason});
    json!({
        "schema": "larder.import/1",
        "file": args.file.display().to_string(),
        "store": store.display().to_string(),
        "dry_run": args.dry_run,
        "rows": report.rows,
        "imported": report.imported,
        "kept_as_pickle": report.kept_as_pickle,
        "superseded": report.superseded,
        "barred": report.barred,
        "expired": report.expired,
        "unreadable": report.unreadable,
        "too_large": report.too_large,
        "bytes": report.bytes,
        "examples": report.examples.iter().map(example).collect::<Vec<_>>(),
    })
}

fn text(args: &ImportArgs, store: &Path, report: &ImportReport) -> String {
    let imported = if args.dry_run { "to be imported" } else { "imported" };
    let figures = [
        (imported, report.imported),
        ("  of these kept as pickles", report.kept_as_pickle),
        ("stored already, the same or later", report.superseded),
        ("invalidated since", report.barred),
        ("expired", report.expired),
        ("unreadable", report.unreadable),
        ("too large", report.too_large),
    ];
    let rows = figures.map(|(what, rows)| vec![what.to_owned(), table::count(rows)]);
    let mut text = table::render(&["WHAT", ">ROWS"], &rows);
    let example =
        |(key, reason): &(String, String)| format!("`{}`: {}\n", Escaped(key), Escaped(reason));
    text.extend(report.examples.iter().take(TOLD).map(example));
    let all = report.kept_as_pickle + report.unreadable + report.too_large;
    let more = all.saturating_sub(TOLD as u64);
    text.extend((more > 0).then(|| format!("and {} more like these\n", table::count(more))));
    let verb = if args.dry_run { "Would import" } else { "Imported" };
    text + &format!(
        "{verb} {} of {} rows of {} into {} ({})\n",
        table::count(report.imported),
        table::count(report.rows),
        shown(&args.file),
        shown(store),
        table::size(report.bytes),
    )
}
