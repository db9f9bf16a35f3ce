//! Warming: asking for markets x sources until all of it is stored.

mod check;
mod forecast;
mod handle;
mod run;
mod summary;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    sync::Arc,
    time::Duration,
};

use larder::{Cache, Error, Slots};

use crate::{Market, task::Task};

pub use self::{
    forecast::{Forecast, SourceForecast},
    handle::Warming,
    summary::{SourceSummary, Summary},
    watch::Watch,
};

/// What becomes of a [`Task`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TaskOutcome {
    /// A tier had it.
    Fresh,
    /// The origin gave it.
    Fetched,
    /// The origin says that what is stored still holds.
    Revalidated,
    /// It failed in a way that may pass: it is tried again when the others are done.
    Retrying(Error),
    /// Neither a tier nor the origin.
    Failed(Error),
    /// It was not asked for any more: its source is to be left alone for longer than this run waits, or
    /// the run was stopped.
    Left(Option<Error>),
}

/// Tells what has become of a task.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Event {
    /// The task.
    pub task: Arc<Task>,
    /// How it ended, unless it is tried again.
    pub outcome: TaskOutcome,
    /// Length of the value, in bytes.
    pub bytes: u64,
    /// From its first call being begun to having it; what it waited for before that is left out.
    pub elapsed: Duration,
}

/// Asks a cache for markets x sources, several at a time.
///
/// What has been answered is stored whatever happens later: there is no other state of a run. The same
/// plan, run again, asks origins only for the rest.
#[derive(Clone)]
pub struct Warmer {
    cache: Cache,
    tasks: Vec<Arc<Task>>,
    parallel: usize,
    refresh: bool,
    max_age: Option<Duration>,
    fail_fast: bool,
    retry_after: Duration,
    watch: Option<Watch>,
}

impl Warmer {
    /// Plans `sources` for each market.
    pub fn new<'m>(
        cache: &Cache,
        sources: &[String],
        markets: impl IntoIterator<Item = (&'m Market, &'m BTreeMap<String, String>)>,
    ) -> Self {
        let mut seen = BTreeSet::new();
        let mut tasks = Vec::new();
        for (market, extra) in markets {
            for source in sources {
                let task = Task::new(cache, source, market, extra);
                // Rows that differ only in values the source does not use ask the same.
                if let Ok(request) = &task.request
                    && !seen.insert(request.key())
                {
                    continue;
                }
                tasks.push(Arc::new(task));
            }
        }
        Self {
            cache: cache.clone(),
            tasks,
            parallel: 5,
            refresh: false,
            max_age: None,
            fail_fast: false,
            retry_after: Duration::from_secs(2),
            watch: None,
        }
    }

    /// Most calls under way at a time, at least one; those that wait for the limits of their source do
    /// not count. Default: 5.
    #[must_use]
    pub fn parallel(mut self, parallel: usize) -> Self {
        self.parallel = parallel.max(1);
        self
    }

    /// Whether what is fresh is asked for, too. Default: no.
    #[must_use]
    pub fn refresh(mut self, refresh: bool) -> Self {
        self.refresh = refresh;
        self
    }

    /// What was loaded longer ago than this is asked for although it is fresh. Default: nothing is.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Whether the first failure ends the run. Default: no, and what may pass is tried again at the end.
    #[must_use]
    pub fn fail_fast(mut self, fail_fast: bool) -> Self {
        self.fail_fast = fail_fast;
        self
    }

    /// How long failures are given to pass before they are tried again at the end, the first time; three
    /// times as long each time after. Default: 2 s.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = pause;
        self
    }

    /// Compares what is fetched with what was stored before. Default: nothing is compared.
    #[must_use]
    pub fn watch(mut self, watch: Watch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// The plan.
    pub fn tasks(&self) -> &[Arc<Task>] {
        &self.tasks
    }

    /// Runs the plan. Each source goes at its own pace: one that is slow, limited or failing holds up no
    /// other.
    ///
    /// `observe` is told what becomes of each task. When `stop` completes no further call is begun, and
    /// those under way are waited for.
    ///
    /// Cancel safe: what has been answered is stored; calls under way go on in the cache.
    pub async fn run(self, observe: impl FnMut(&Event), stop: impl Future<Output = ()>) -> Summary {
        let slots = Slots::new(self.parallel);
        self.run_within(&slots, observe, stop).await
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
