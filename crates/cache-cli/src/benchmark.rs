//! `larder benchmark`: what the codecs make of what is stored.

mod trial;

use larder::{Cache, Escaped};
use serde_json::{Value, json};

use crate::{
    args::{BenchmarkArgs, Format, Global},
    context::{Context, shown},
    exit::{Exit, Failure},
    output,
    stats::ratio,
    table,
    warm::CLOSE_WITHIN,
};

use self::trial::{Corpus, Timed, Trial};

/// Bytes of values that are tried, at most: the slowest level does some 2 MB a second.
const MOST_BYTES: u64 = 16 << 20;

pub(crate) async fn run(global: &Global, args: &BenchmarkArgs) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    let cache = context.cache()?;
    let nothing = || {
        Failure::failed(format!("no values are stored in {}", shown(&context.store())))
            .hint("fill it first, with `larder warm` or `larder get`")
    };
    if !context.has_store()? {
        return Err(nothing());
    }
    let corpus = collect(&cache, args).await;
    cache.close(CLOSE_WITHIN).await;
    let corpus = corpus?;
    if corpus.is_empty() {
        return Err(nothing());
    }
    let threshold = context.loaded.config.compression.threshold_bytes();
    let report = tokio::task::spawn_blocking(move || {
        let trials = trial::all(&corpus, threshold)?;
        let document = trial::document(&corpus)?;
        Ok((corpus, trials, document))
    });
    let report: Result<_, larder::CodecError> =
        report.await.map_err(|error| Failure::failed(error.to_string()))?;
    let (corpus, trials, document) = report.map_err(|error| Failure::failed(error.to_string()))?;
    let best = trial::best(&trials);
    match global.format {
        Format::Json => output::print_json(&as_json(&corpus, &trials, best, document.as_ref()))?,
        Format::Table => output::print(&as_text(&corpus, &trials, best, document.as_ref()))?,
    }
    Ok(Exit::Done)
}

/// Values of the sources, as many of each as were asked for and as fit.
async fn collect(cache: &Cache, args: &BenchmarkArgs) -> Result<Corpus, Failure> {
    let mut sources = args.source.clone();
    if sources.is_empty() {
        for (_, usage) in cache.usage().await? {
            let usage = usage?;
            sources.extend(usage.sources.into_iter().map(|one| one.source));
        }
        sources.sort_unstable();
        sources.dedup();
    }
    let mut corpus = Corpus::default();
    let share = MOST_BYTES / sources.len().max(1) as u64;
    for source in sources {
        let values = cache.stored_values(&source, args.values as usize, share).await?;
        corpus.add(source, values);
    }
    Ok(corpus)
}

fn as_json(
    corpus: &Corpus,
    trials: &[Trial],
    best: Option<&Trial>,
    document: Option<&Timed>,
) -> Value {
    let one = |trial: &Trial| {
        json!({
            "algorithm": trial.algorithm,
            "level": trial.level,
            "dictionaries": trial.dictionaries,
            "stored_bytes": trial.stored_bytes,
            "compress_s": trial.compress.as_secs_f64(),
            "decompress_s": trial.decompress.as_secs_f64(),
        })
    };
    json!({
        "schema": "larder.benchmark.compression/1",
        "sources": corpus.sources(),
        "values": corpus.count(),
        "raw_bytes": corpus.bytes(),
        "trials": trials.iter().map(one).collect::<Vec<_>>(),
        "recommended": best.map(one),
        "document_of_100_kb": document.map(|document| json!({
            "bytes": document.bytes,
            "compress_s": document.compress.as_secs_f64(),
            "decompress_s": document.decompress.as_secs_f64(),
        })),
    })
}

fn as_text(
    corpus: &Corpus,
    trials: &[Trial],
    best: Option<&Trial>,
    document: Option<&Timed>,
) -> String {
    let raw_bytes = corpus.bytes();
    let row = |trial: &Trial| {
        vec![
            trial.name(),
            table::size(trial.stored_bytes),
            ratio(raw_bytes, trial.stored_bytes),
            table::latency(trial.compress / corpus.count().max(1)),
            table::latency(trial.decompress / corpus.count().max(1)),
        ]
    };
    let rows: Vec<_> = trials.iter().map(row).collect();
    let headings = ["CODEC", ">STORED", ">RATIO", ">COMPRESS", ">DECOMPRESS"];
    let mut text = format!(
        "{} values of {}, {}; times are a value\u{2019}s in the mean. Of sources with enough small values, a \
         dictionary\nis trained on others than these.\n\n{}",
        table::count(u64::from(corpus.count())),
        corpus
            .sources()
            .iter()
            .map(|name| Escaped(name).to_string())
            .collect::<Vec<_>>()
            .join(", "),
        table::size(raw_bytes),
        table::render(&headings, &rows),
    );
    if let Some(document) = document {
        text = format!(
            "{text}\nA document of {} takes {} to compress at the default setting, and {} to \
             decompress.\n",
            table::size(document.bytes),
            table::latency(document.compress),
            table::latency(document.decompress),
        );
    }
    match best {
        Some(best) => format!("{text}\nRecommended:\n{}", best.settings()),
        None => format!(
            "{text}\nNo setting makes these values 5 % smaller fast enough. Smaller ones than \
             `threshold_kb` are compressed with dictionaries only, which takes 50 of a source.\n"
        ),
    }
}
