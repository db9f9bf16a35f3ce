//! What the tests stand on: instants as people write them, and nodes that share a file.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use cache_warmer::{Job, Round, Schedule, Scheduler};
use larder::{
    Cache, Clock, Timestamp,
    tiers::{MemoryTier, SqliteOptions, SqliteTier},
};
use tempfile::TempDir;
use tier_testkit::ManualClock;

/// The instant that is written so, with `Z` or an offset.
pub(crate) fn at(text: &str) -> Timestamp {
    Timestamp::from_millis(text.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

/// The instant as people write it, in UTC.
pub(crate) fn shown(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap().to_string()
}

/// The clock, for one more who reads it.
pub(crate) fn shared(clock: &Arc<ManualClock>) -> Arc<dyn Clock> {
    Arc::<ManualClock>::clone(clock)
}

pub(crate) fn schedule(cron: &str, zone: &str) -> Schedule {
    Schedule::parse(cron, Some(zone)).unwrap()
}

pub(crate) fn job(name: &str, cron: &str) -> Job {
    Job::new(name, Schedule::parse(cron, None).unwrap()).unwrap()
}

/// A file and a clock that nodes share.
pub(crate) struct World {
    directory: TempDir,
    /// The clock of the schedulers and caches.
    pub(crate) clock: Arc<ManualClock>,
    /// The clock of the file, by which leases end.
    pub(crate) file_clock: Arc<ManualClock>,
    /// What was run: the node, the job, and when it was due.
    pub(crate) ran: Arc<Mutex<Vec<(u8, String, String)>>>,
}

/// One process, as far as the others can tell.
pub(crate) struct Node {
    number: u8,
    pub(crate) cache: Cache,
    pub(crate) scheduler: Scheduler,
    ran: Arc<Mutex<Vec<(u8, String, String)>>>,
}

impl World {
    pub(crate) fn new(now: &str) -> Self {
        let clock = || Arc::new(ManualClock::at(at(now).as_millis()));
        let directory = tempfile::tempdir().unwrap();
        Self { directory, clock: clock(), file_clock: clock(), ran: Arc::default() }
    }

    /// Sets both clocks.
    pub(crate) fn set(&self, now: &str) {
        self.clock.set(at(now).as_millis());
        self.file_clock.set(at(now).as_millis());
    }

    pub(crate) fn cache(&self, lease: Duration) -> Cache {
        let options = SqliteOptions::new(self.directory.path().join("cache.db"))
            .clock(shared(&self.file_clock));
        let memory = MemoryTier::with_clock(1 << 20, shared(&self.clock));
        let builder = Cache::builder().tier(memory).tier(SqliteTier::new(options).unwrap());
        builder.clock(shared(&self.clock)).lease(lease).build().unwrap()
    }

    pub(crate) fn node(&self, number: u8, jobs: Vec<Job>) -> Node {
        self.node_with(number, self.cache(Duration::from_secs(5)), jobs)
    }

    pub(crate) fn node_with(&self, number: u8, cache: Cache, jobs: Vec<Job>) -> Node {
        let scheduler = Scheduler::new(&cache, jobs, shared(&self.clock)).unwrap();
        Node { number, cache, scheduler, ran: Arc::clone(&self.ran) }
    }

    /// What was run since the last call, sorted.
    pub(crate) fn take_ran(&self) -> Vec<(u8, String, String)> {
        let mut ran = std::mem::take(&mut *self.ran.lock().unwrap());
        ran.sort();
        ran
    }
}

impl Node {
    /// Notes that a job runs.
    pub(crate) fn note(&self, job: &Job, due: Timestamp) {
        let run = (self.number, job.name().to_owned(), shown(due));
        self.ran.lock().unwrap().push(run);
    }

    /// A round in which each job notes that it runs.
    pub(crate) async fn round(&self) -> Round {
        let run = async |job: &Job, due| {
            self.note(job, due);
            Ok("done".to_owned())
        };
        self.scheduler.run_due(run).await
    }

    /// Ends it as a process does that ends in an orderly way.
    pub(crate) async fn close(self) {
        assert!(self.cache.close(Duration::from_secs(5)).await.is_clean());
    }
}

/// What one node has run.
pub(crate) fn ran(node: u8, job: &str, due: &str) -> (u8, String, String) {
    (node, job.to_owned(), due.to_owned())
}
