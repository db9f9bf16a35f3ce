//! `larder daemon`: warming by schedules.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use cache_warmer::{Job, MarketRow, Schedule, Scheduler, WallClock, Warmer, Watch};
use larder::{
    Cache, Chained, Escaped,
    config::{CacheConfig, JobConfig, Provenance},
};
use tokio::sync::Notify;

use crate::{
    args::Global,
    changes,
    context::Context,
    exit::{Exit, Failure},
    interrupts::Interrupts,
    output,
    warm::{self, CLOSE_WITHIN, report},
};

pub(crate) async fn run(global: &Global) -> Result<Exit, Failure> {
    let context = Context::load(global)?;
    let cache = context.cache()?;
    let config = &context.loaded.config;
    let scheduler = scheduler(&context, &cache)?;
    let watch = changes::watch(&context)?;
    for (name, job) in &config.jobs {
        // What is wrong is told now, not at three in the morning.
        rows(job).map_err(|failure| about(&context, name, failure))?;
        warm::known(&cache.sources(), &job.sources)
            .map_err(|failure| about(&context, name, failure))?;
    }
    let interrupts = Interrupts::watch();
    let running = Arc::new(Running::default());
    let say = |text: String| {
        if !global.quiet {
            output::remark(&text);
        }
    };
    say(format!("{} jobs; Ctrl-C stops\n", config.jobs.len()));
    let jobs = async |job: &Job, _due| {
        let under_way = running.begin();
        let name = job.name();
        let Some(described) = config.jobs.get(name) else { return Err("it is gone".to_owned()) };
        say(format!("{}: {name} begins\n", now()));
        let outcome = warm_job(&cache, config, described, watch.clone(), interrupts.first()).await;
        let (Ok(said) | Err(said)) = &outcome;
        say(format!("{}: {name}: {said}\n", now()));
        drop(under_way);
        if interrupts.stopped() {
            // Not run to its end: it is for the next start to do.
            std::future::pending::<()>().await;
        }
        outcome
    };
    let ended = tokio::select! {
        ended = scheduler.run_until(std::future::pending(), jobs) => ended,
        () = async {
            interrupts.first().await;
            running.none().await;
        } => Ok(()),
    };
    interrupts.close();
    let closed = cache.close(CLOSE_WITHIN).await;
    if !closed.is_clean() {
        tracing::warn!(?closed, "closed before everything was stored");
    }
    ended?;
    Ok(Exit::Interrupted)
}

/// What is to be run when, as the configuration says.
pub(crate) fn scheduler(context: &Context, cache: &Cache) -> Result<Scheduler, Failure> {
    let config = &context.loaded.config;
    if config.jobs.is_empty() {
        return Err(Failure::usage("there are no jobs").hint(
            "write them under `cache.jobs`, such as {name: weekly, cron: '0 3 * * SUN', all_metros: \
             true, sources: census_acs}",
        ));
    }
    let job = |(name, described): (&String, &JobConfig)| {
        let wrong = |error: String| about(context, name, Failure::usage(error));
        let cron =
            described.cron.as_deref().ok_or_else(|| wrong("`cron` is missing".to_owned()))?;
        if described.sources.is_empty() {
            return Err(wrong("`sources` is missing".to_owned()));
        }
        let schedule = Schedule::parse(cron, described.time_zone.as_deref())
            .map_err(|error| wrong(error.to_string()))?;
        let job = Job::new(name, schedule).map_err(|error| wrong(error.to_string()))?;
        Ok(job.jitter(described.jitter))
    };
    let jobs = config.jobs.iter().map(job).collect::<Result<Vec<_>, Failure>>()?;
    Scheduler::new(cache, jobs, Arc::new(WallClock))
        .map_err(|error| Failure::usage(error.to_string()))
}

/// Says which job a failure is about, and where that is written.
fn about(context: &Context, name: &str, failure: Failure) -> Failure {
    let start = format!("cache.jobs.{name}.");
    let written = |from: &Provenance| !matches!(from, Provenance::Default);
    let mut settings = context.loaded.settings.iter();
    let place = settings.find(|one| one.path.starts_with(&start) && written(&one.from));
    let place = place.map(|one| format!("{}: ", one.from)).unwrap_or_default();
    let message = format!("{place}job `{}`: {}", Escaped(name), failure.message);
    Failure { message, ..failure }
}

/// The markets of a job.
fn rows(job: &JobConfig) -> Result<Vec<MarketRow>, Failure> {
    let file = job.markets.as_deref();
    let list = warm::gathered(file, &job.market, job.all_metros, job.nearby_miles)?;
    if let Some((line, unknown)) = list.unknown.first() {
        return Err(Failure::usage(format!("line {line}: {unknown}")));
    }
    if list.rows.is_empty() {
        let message = "it has no market; write `markets`, `market` or `all_metros: true`";
        return Err(Failure::usage(message));
    }
    Ok(list.rows)
}

/// Warms what a job says; tells what was done, or why not all of it was.
async fn warm_job(
    cache: &Cache,
    config: &CacheConfig,
    job: &JobConfig,
    watch: Watch,
    stop: impl Future<Output = ()>,
) -> Result<String, String> {
    // Read anew each time: it may have been edited.
    let rows = rows(job).map_err(|failure| failure.message)?;
    let markets = rows.iter().map(|row| (&row.market, &row.extra));
    let mut warmer = Warmer::new(cache, &job.sources, markets)
        .parallel(config.prefetch.max_parallel_requests as usize)
        .refresh(job.refresh)
        .watch(watch);
    if let Some(age) = job.max_age {
        warmer = warmer.max_age(age);
    }
    let summary = warmer.run(|_event| {}, stop).await;
    let did = report::line(&summary).trim_end().to_owned();
    let total = summary.total();
    match summary.failed.first().map(|(_, error)| error).or(total.left_because.as_ref()) {
        None => Ok(did),
        Some(why) => Err(format!("{did}; first: {}", Chained(why))),
    }
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Counts what is being run.
#[derive(Default)]
struct Running {
    count: AtomicUsize,
    changed: Notify,
}

/// One that is being run.
struct UnderWay<'r>(&'r Running);

impl Running {
    fn begin(&self) -> UnderWay<'_> {
        self.count.fetch_add(1, Ordering::SeqCst);
        UnderWay(self)
    }

    /// Waits until nothing is being run.
    async fn none(&self) {
        loop {
            let changed = self.changed.notified();
            if self.count.load(Ordering::SeqCst) == 0 {
                return;
            }
            changed.await;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

/// The sources of all jobs, each once, for people.
pub(crate) fn described(job: &JobConfig) -> BTreeMap<&'static str, String> {
    let mut what = Vec::new();
    what.extend(job.markets.as_ref().map(|file| file.display().to_string()));
    what.extend(job.market.iter().cloned());
    if job.all_metros {
        what.push("all metros".to_owned());
    }
    what.extend(job.nearby_miles.map(|miles| format!("within {miles} miles")));
    BTreeMap::from([("markets", what.join(", ")), ("sources", job.sources.join(", "))])
}
