//! `larder dictionary`: what small values are compressed with.

use larder::{Cache, Chained, DictionaryError, Escaped, KeptDictionary, TrainedDictionary};
use serde_json::{Value, json};

use crate::{
    args::{DictionaryCommand, Format, Global},
    context::{Context, shown},
    exit::{Exit, Failure},
    output,
    stats::ratio,
    table,
    warm::CLOSE_WITHIN,
};

pub(crate) async fn run(global: &Global, command: &DictionaryCommand) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    let cache = context.cache()?;
    if !context.has_store()? {
        return match command {
            DictionaryCommand::Train { .. } => Err(Failure::failed(format!(
                "nothing is stored yet: {} does not exist",
                shown(&context.store())
            ))
            .hint("fill it first, with `larder warm` or `larder get`")),
            DictionaryCommand::List => list(global, &[]),
        };
    }
    let done = match command {
        DictionaryCommand::Train { source } => train(global, &cache, source).await,
        DictionaryCommand::List => {
            let kept = cache.dictionaries().await;
            kept.map_err(Failure::from).and_then(|kept| list(global, &kept))
        }
    };
    cache.close(CLOSE_WITHIN).await;
    done
}

async fn train(global: &Global, cache: &Cache, sources: &[String]) -> Result<Exit, Failure> {
    let mut trained = Vec::new();
    let mut failed = None;
    for source in sources {
        match cache.train_dictionary(source).await {
            Ok(one) => trained.push(one),
            Err(error) => {
                failed = Some(failure(&error));
                break;
            }
        }
    }
    if global.format == Format::Json {
        let one = |one: &TrainedDictionary| {
            json!({
                "source": one.dictionary.source,
                "version": one.dictionary.version,
                "dictionary": one.dictionary.id.to_string(),
                "samples": one.dictionary.samples,
                "dictionary_bytes": one.dictionary.content.len(),
                "tried_raw_bytes": one.raw_bytes,
                "tried_stored_bytes": one.stored_bytes,
            })
        };
        output::print_json(&json!({
            "schema": "larder.dictionary.train/1",
            "trained": trained.iter().map(one).collect::<Vec<_>>(),
        }))?;
    } else {
        trained.iter().try_for_each(|one| output::print(&told(one)))?;
    }
    // What was trained before is told: it is stored.
    failed.map_or(Ok(Exit::Done), Err)
}

fn told(one: &TrainedDictionary) -> String {
    format!(
        "{}: version {} ({}, {}) was trained on {} values; of those it makes {} from {} ({}). New \
         values are compressed with it.\n",
        Escaped(&one.dictionary.source),
        one.dictionary.version,
        one.dictionary.id,
        table::size(one.dictionary.content.len() as u64),
        table::count(one.dictionary.samples),
        table::size(one.stored_bytes),
        table::size(one.raw_bytes),
        ratio(one.raw_bytes, one.stored_bytes),
    )
}

fn failure(error: &DictionaryError) -> Failure {
    let failure = Failure::failed(Escaped(&Chained(error).to_string()).to_string());
    match error {
        DictionaryError::TooFew { .. } => failure.hint("`larder stats` shows what is stored"),
        DictionaryError::Unused { .. } => {
            failure.hint("see `cache.compression` in `larder config show`")
        }
        _ => failure,
    }
}

fn list(global: &Global, kept: &[KeptDictionary]) -> Result<Exit, Failure> {
    match global.format {
        Format::Json => output::print_json(&document(kept))?,
        Format::Table if kept.is_empty() => output::print(
            "No dictionary is stored. `larder dictionary train --source NAME` makes one of what is \
             stored of a source.\n",
        )?,
        Format::Table => output::print(&text(kept))?,
    }
    Ok(Exit::Done)
}

fn document(kept: &[KeptDictionary]) -> Value {
    let one = |kept: &KeptDictionary| {
        let dictionary = &kept.dictionary;
        json!({
            "source": dictionary.source,
            "version": dictionary.version,
            "dictionary": dictionary.id.to_string(),
            "created_at": rfc3339(dictionary.created_at),
            "samples": dictionary.samples,
            "dictionary_bytes": dictionary.content.len(),
            "entries": kept.entries,
            "raw_bytes": kept.raw_bytes,
            "stored_bytes": kept.stored_bytes,
        })
    };
    json!({
        "schema": "larder.dictionary.list/1",
        "dictionaries": kept.iter().map(one).collect::<Vec<_>>(),
    })
}

fn text(kept: &[KeptDictionary]) -> String {
    let row = |kept: &KeptDictionary| {
        let dictionary = &kept.dictionary;
        vec![
            Escaped(&dictionary.source).to_string(),
            dictionary.version.to_string(),
            dictionary.id.to_string(),
            rfc3339(dictionary.created_at),
            table::count(dictionary.samples),
            table::size(dictionary.content.len() as u64),
            table::count(kept.entries),
            ratio(kept.raw_bytes, kept.stored_bytes),
        ]
    };
    let rows: Vec<_> = kept.iter().map(row).collect();
    let headings =
        ["SOURCE", ">VERSION", "DICTIONARY", "TRAINED", ">SAMPLES", ">SIZE", ">ENTRIES", ">RATIO"];
    table::render(&headings, &rows)
}

fn rfc3339(instant: larder::Timestamp) -> String {
    jiff::Timestamp::from_millisecond(instant.as_millis())
        .map_or_else(|_| "–".to_owned(), |instant| format!("{instant:.0}"))
}
