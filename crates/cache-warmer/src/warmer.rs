//! Warming: asking for markets x sources until all of it is stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::{Future, ready},
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt, StreamExt,
    future::{Either, select},
    stream,
};
use larder::{Cache, Error, ReadOptions, Request, ServedBy, Tag};

use crate::Market;

/// The tag that answers about a market are stored with.
///
/// # Errors
/// When the slug cannot be part of a tag.
pub fn market_tag(market: &Market) -> Result<Tag, larder::InvalidTag> {
    Tag::new(format!("market:{}", market.slug()))
}

/// The question to `source` about a market; `extra` overrides the market's values and those that the
/// source has by default. What the source does not use is left out.
///
/// # Errors
/// [`Error::NoOrigin`] if the source has no origin, [`Error::Origin`] if it needs a value that is
/// not there.
pub fn market_request(
    cache: &Cache,
    source: &str,
    market: &Market,
    extra: &BTreeMap<String, String>,
) -> Result<Request, Error> {
    let mut values = market.params();
    values.extend(extra.iter().map(|(name, value)| (name.clone(), value.clone())));
    let mut request = cache.request_for(source, &values)?;
    for (name, value) in extra {
        if request.params().contains_key(name) {
            request = request.param(name, value);
        }
    }
    // Slugs are letters, digits and hyphens: the tag is always valid.
    Ok(match market_tag(market) {
        Ok(tag) => request.tag(tag),
        Err(_invalid) => request,
    })
}

/// One thing to have in the cache.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Task {
    /// The source.
    pub source: String,
    /// The market's slug.
    pub market: String,
    request: Result<Request, Error>,
}

/// What becomes of a [`Task`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskOutcome {
    /// A tier had it.
    Fresh,
    /// The origin gave it.
    Fetched,
    /// Neither.
    Failed(Error),
}

/// Tells that a task has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The task.
    pub task: &'a Task,
    /// How it ended.
    pub outcome: &'a TaskOutcome,
    /// Length of the value, in bytes.
    pub bytes: u64,
    /// From asking to having, waiting for the rate limit included.
    pub elapsed: Duration,
}

/// Asks a cache for markets x sources, several at a time.
pub struct Warmer {
    cache: Cache,
    tasks: Vec<Task>,
    parallel: usize,
}

/// What a run did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Tasks planned.
    pub planned: usize,
    /// Values that a tier had, fresh.
    pub fresh: usize,
    /// Values that the origin gave.
    pub fetched: usize,
    /// Bytes that the origin gave.
    pub fetched_bytes: u64,
    /// Tasks that failed, and why, in the order they ended.
    pub failed: Vec<(Task, Error)>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Summary {
    /// Tasks that were not begun because the run was stopped.
    pub fn left(&self) -> usize {
        self.planned - self.fresh - self.fetched - self.failed.len()
    }
}

impl Warmer {
    /// Plans `sources` for each market. Sources take turns, so that one that is slow or paced holds
    /// up the others as little as possible.
    pub fn new<'m>(
        cache: &Cache,
        sources: &[String],
        markets: impl IntoIterator<Item = (&'m Market, &'m BTreeMap<String, String>)>,
    ) -> Self {
        let mut seen = BTreeSet::new();
        let mut tasks = Vec::new();
        for (market, extra) in markets {
            for source in sources {
                let request = market_request(cache, source, market, extra);
                // Rows that differ only in values the source does not use ask the same.
                if let Ok(request) = &request
                    && !seen.insert(request.key())
                {
                    continue;
                }
                tasks.push(Task {
                    source: source.clone(),
                    market: market.slug().to_owned(),
                    request,
                });
            }
        }
        Self { cache: cache.clone(), tasks, parallel: 5 }
    }

    /// Most questions under way at a time, at least one. Default: 5.
    #[must_use]
    pub fn parallel(mut self, parallel: usize) -> Self {
        self.parallel = parallel.max(1);
        self
    }

    /// The plan.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// Runs the plan. What has been answered is stored whatever happens later: running it again
    /// asks origins only for the rest.
    ///
    /// `observe` is told the end of each task. When `stop` completes no further task is begun, and
    /// those under way are waited for.
    pub async fn run(
        self,
        mut observe: impl FnMut(&Event<'_>),
        stop: impl Future<Output = ()>,
    ) -> Summary {
        let Self { cache, tasks, parallel } = self;
        let began = Instant::now();
        let mut summary = Summary { planned: tasks.len(), ..Summary::default() };
        let (cache, stopped) = (&cache, &AtomicBool::new(false));
        let tasks = stream::iter(tasks).take_while(|_| ready(!stopped.load(Ordering::Relaxed)));
        let answers = tasks.map(async |task| {
            let began = Instant::now();
            let answer = match &task.request {
                Ok(request) => {
                    cache.request_with(request, ReadOptions::default().in_background()).await
                }
                Err(error) => Err(error.clone()),
            };
            (task, answer, began.elapsed())
        });
        let mut answers = pin!(answers.buffer_unordered(parallel));
        let mut stop = pin!(stop.fuse());
        loop {
            // Watched beside the answers, not between them: whoever asks to stop sees it at once.
            let next = match select(stop.as_mut(), answers.next()).await {
                Either::Left(((), _)) => {
                    stopped.store(true, Ordering::Relaxed);
                    continue;
                }
                Either::Right((next, _)) => next,
            };
            let Some((task, answer, elapsed)) = next else { break };
            let bytes = answer.as_ref().map_or(0, |hit| hit.value().len() as u64);
            let outcome = match answer {
                Ok(hit) if hit.served_by() == ServedBy::Origin => TaskOutcome::Fetched,
                Ok(_) => TaskOutcome::Fresh,
                Err(error) => TaskOutcome::Failed(error),
            };
            observe(&Event { task: &task, outcome: &outcome, bytes, elapsed });
            match outcome {
                TaskOutcome::Fresh => summary.fresh += 1,
                TaskOutcome::Fetched => {
                    summary.fetched += 1;
                    summary.fetched_bytes += bytes;
                }
                TaskOutcome::Failed(error) => summary.failed.push((task, error)),
            }
        }
        summary.elapsed = began.elapsed();
        summary
    }
}

impl fmt::Debug for Warmer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Warmer")
            .field("tasks", &self.tasks.len())
            .field("parallel", &self.parallel)
            .finish_non_exhaustive()
    }
}
