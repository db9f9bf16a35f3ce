//! `larder demo`: ten markets, three sources, one slow API, and what a cache makes of it.

mod documents;
mod origin;
mod report;
mod store;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Instant,
};

use cache_warmer::{Gazetteer, Market, TaskOutcome, Warmer, market_request};
use larder::{Cache, Chained, Request, config::CacheConfig};

use self::{
    documents::Document,
    origin::{DemoOrigin, OriginOptions},
    report::{Phase, Report},
    store::Store,
};
use crate::{
    args::{DemoArgs, Format, Global},
    context::shown,
    exit::{Exit, Failure},
    output,
    progress::Progress,
    warm::CLOSE_WITHIN,
};

/// Boulder, Denver, Fort Collins, Greeley, Colorado Springs, Austin, Seattle, Boise City, Raleigh
/// and Pittsburgh.
const MARKETS: [u32; 10] = [14500, 19740, 22660, 24540, 17820, 12420, 42660, 14260, 39580, 38300];

/// What the API answers within a second before it refuses; the sources are paced to stay below.
const API_RATE: u32 = 20;

pub(crate) async fn run(global: &Global, args: &DemoArgs) -> Result<Exit, Failure> {
    if global.offline {
        return Err(Failure::usage("the demo fetches from an API of its own on this machine")
            .hint("leave `--offline` out"));
    }
    let store = Store::open(&args.dir, args.fresh)?;
    let origin = start_origin(store.port()).await?;
    let config = store.config(origin.addr().port())?;
    let talk = !global.quiet && global.format == Format::Table;
    let say = |text: &str| {
        if talk {
            output::remark(text);
        }
    };
    say(&format!(
        "A slow API is up on {}: it takes 200 to 600 ms an answer, and refuses more than {API_RATE} a \
         second.\nWarming {} markets x {} sources into {} ...\n",
        origin.addr(),
        MARKETS.len(),
        Document::ALL.len(),
        store.named().display(),
    ));

    let outcome = phases(global, &config, origin, &say).await;
    let (phases, stored_bytes, raw_bytes) = outcome?;
    let report = Report { phases, stored_bytes, raw_bytes };
    match global.format {
        Format::Json => output::print_json(&report.document())?,
        Format::Table => output::print(&report.text(&store))?,
    }
    Ok(Exit::Done)
}

/// Starts the API where the configuration says it is, or wherever there is room.
async fn start_origin(port: Option<u16>) -> Result<DemoOrigin, Failure> {
    let start = async |port| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let options = OriginOptions { rate_per_second: API_RATE, ..OriginOptions::default() };
        DemoOrigin::start(address, options).await
    };
    let started = match port {
        Some(port) => start(port).await,
        None => start(0).await,
    };
    let started = match started {
        Err(_taken) if port.is_some() => start(0).await,
        started => started,
    };
    started.map_err(|error| Failure::failed(format!("cannot start the demo's API: {error}")))
}

async fn phases(
    global: &Global,
    config: &CacheConfig,
    origin: DemoOrigin,
    say: &impl Fn(&str),
) -> Result<(Vec<Phase>, u64, u64), Failure> {
    let markets = MARKETS.map(|code| Gazetteer::us().get(code));
    let markets: Vec<&Market> = markets.into_iter().flatten().collect();
    let cache = Cache::from_config(config)?;
    let mut all = vec![warm(global, &cache, &origin, &markets, config).await?];
    let requests = requests(&cache, &markets)?;

    say("Reading everything again ...\n");
    all.push(read("memory", &cache, &origin, &requests).await?);
    close(&cache).await?;

    say("Dropping the process's memory and reading everything again ...\n");
    let cache = Cache::from_config(config)?;
    all.push(read("sqlite", &cache, &origin, &requests).await?);

    say("Stopping the API and reading everything again ...\n");
    let before = origin.calls();
    origin.stop().await.map_err(|error| Failure::failed(format!("the API failed: {error}")))?;
    let mut down = Phase::begin("origin_down", &cache, before);
    down.read_all(&cache, &requests).await?;
    all.push(down.end(&cache, before, 0));

    let usage = cache.usage().await?;
    let stored = usage.into_iter().find_map(|(name, usage)| (name == "sqlite").then_some(usage));
    let stored = match stored {
        Some(Ok(usage)) => usage.total(),
        Some(Err(error)) => return Err(error.into()),
        None => larder::SourceUsage::default(),
    };
    close(&cache).await?;
    Ok((all, stored.stored_bytes, stored.raw_bytes))
}

async fn warm(
    global: &Global,
    cache: &Cache,
    origin: &DemoOrigin,
    markets: &[&Market],
    config: &CacheConfig,
) -> Result<Phase, Failure> {
    let none = BTreeMap::new();
    let sources = Document::ALL.map(|document| document.name().to_owned());
    let plan = markets.iter().map(|market| (*market, &none));
    let parallel = config.prefetch.max_parallel_requests as usize;
    let warmer = Warmer::new(cache, &sources, plan).parallel(parallel);
    let mut progress =
        Progress::new(cache, warmer.tasks(), global.quiet || global.format == Format::Json);
    let mut phase = Phase::begin("warm", cache, origin.calls());
    let summary = warmer.run(
        |event| {
            progress.observe(event);
            phase.took(event.elapsed);
            if matches!(event.outcome, TaskOutcome::Fetched) {
                phase.origin_took(event.elapsed);
            }
        },
        std::future::pending(),
    );
    let summary = summary.await;
    progress.finish();
    match summary.failed.first() {
        None => Ok(phase.end(cache, origin.calls(), origin.refused())),
        Some((task, error)) => Err(Failure::failed(format!(
            "{} of {} requests failed; the first, {} of {}: {}",
            summary.failed.len(),
            summary.total().planned,
            task.source,
            task.market,
            Chained(error)
        ))
        .hint("run the demo again: only what is not stored yet is fetched")),
    }
}

async fn read(
    name: &'static str,
    cache: &Cache,
    origin: &DemoOrigin,
    requests: &[Request],
) -> Result<Phase, Failure> {
    let mut phase = Phase::begin(name, cache, origin.calls());
    phase.read_all(cache, requests).await?;
    Ok(phase.end(cache, origin.calls(), origin.refused()))
}

fn requests(cache: &Cache, markets: &[&Market]) -> Result<Vec<Request>, Failure> {
    let none = BTreeMap::new();
    let mut requests = Vec::new();
    for market in markets {
        for document in Document::ALL {
            requests.push(market_request(cache, document.name(), market, &none)?);
        }
    }
    Ok(requests)
}

async fn close(cache: &Cache) -> Result<(), Failure> {
    let report = cache.close(CLOSE_WITHIN).await;
    if report.is_clean() {
        return Ok(());
    }
    let failed: Vec<String> =
        report.failed.iter().map(|(tier, why)| format!("{tier}: {why}")).collect();
    Err(Failure::failed(format!(
        "the cache did not close cleanly: {} tasks unfinished, {}",
        report.unfinished,
        failed.join(", ")
    )))
}

impl Phase {
    /// Asks for everything once, one after the other.
    async fn read_all(&mut self, cache: &Cache, requests: &[Request]) -> Result<(), Failure> {
        for request in requests {
            let began = Instant::now();
            cache.request(request).await?;
            self.took(began.elapsed());
        }
        Ok(())
    }
}

/// The command that shows a user the same store, as this one was called.
fn command(config: &Path, rest: &str) -> String {
    let program = std::env::args_os().next().map_or_else(|| "larder".into(), PathBuf::from);
    format!("{} --config {} {rest}", shown(&program), shown(config))
}
