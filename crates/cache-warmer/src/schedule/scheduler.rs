//! Running jobs when they are due.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{Either, join_all, select, try_join_all},
};
use larder::{Cache, Clock, Error, Escaped, Timestamp};
use tokio::{sync::watch, time::timeout};

use crate::schedule::{
    Job, LastRun, ScheduleError,
    records::{self, turn_key},
    turn::{Turn, Whose},
};

/// How long it sleeps at most: the clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);
/// When a job is looked at again that another node runs, or of which the cache could not tell.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How often a turn that others have had is asked for again at once.
const TRIES: usize = 3;

/// Runs jobs when they are due, once among all nodes whose caches share a tier that can lease.
///
/// An occurrence has been run when its entry is stored, under source `larder-jobs`. A run that failed
/// is stored too: the job is not run again before it is due again. One that was not finished, because
/// its process was killed or the future dropped, is not stored, and is run again by whoever looks next.
///
/// If nobody was there to run a job, only the latest of the occurrences that were missed is run, as
/// soon as somebody is. A job that is seen for the first time, with another schedule, or after the
/// cache was cleared, has missed none.
///
/// A job is run by one node at a time, however long that takes; different jobs run side by side. Nodes
/// must agree on the time, and on the job's schedule and jitter. While the shared tier does not answer,
/// each node is on its own, and runs no occurrence twice itself.
pub struct Scheduler {
    cache: Cache,
    jobs: Vec<Job>,
    clock: Arc<dyn Clock>,
    /// The latest occurrence of each job that is known to have been run, whatever becomes of the cache.
    done: Mutex<BTreeMap<String, Timestamp>>,
}

/// When a job runs next, and how its last run went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NextRun {
    /// The job's name.
    pub job: String,
    /// When it is due. In the past: it is running, is delayed by its jitter, or was missed and will be
    /// run as soon as a node is there. [`Timestamp::NEVER`] if it is not due any more.
    pub due: Timestamp,
    /// When it begins: when it is due, and its jitter later.
    pub begins: Timestamp,
    /// The last run, if it was one of the latest five occurrences.
    pub last: Option<LastRun>,
}

/// What [`Scheduler::run_due`] did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Round {
    /// What was run, by the job's name, in the order of the jobs.
    pub ran: Vec<(String, LastRun)>,
    /// Names of the jobs that another node is running.
    pub elsewhere: Vec<String>,
    /// Names of the jobs that were not run because the cache could not tell whether to, and why.
    pub failed: Vec<(String, Error)>,
    /// When to look again; `None` if there is nothing to come.
    pub look_again: Option<Timestamp>,
}

/// What became of one job.
enum Looked {
    /// Nothing was to be run at this instant.
    NotDue(Timestamp),
    Ran(LastRun),
    Elsewhere,
}

impl Scheduler {
    /// Runs `jobs`, and remembers in `cache` what has been run. `clock` tells when they are due:
    /// usually a [`WallClock`](crate::WallClock).
    ///
    /// # Errors
    /// [`ScheduleError::DuplicateJob`].
    pub fn new(
        cache: &Cache,
        jobs: Vec<Job>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ScheduleError> {
        let mut names = BTreeSet::new();
        if let Some(twice) = jobs.iter().find(|job| !names.insert(job.name())) {
            return Err(ScheduleError::DuplicateJob { name: twice.name().to_owned() });
        }
        Ok(Self { cache: cache.clone(), jobs, clock, done: Mutex::default() })
    }

    /// The jobs.
    pub fn jobs(&self) -> &[Job] {
        &self.jobs
    }

    /// When each job runs next, in the order of the jobs. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn next_runs(&self) -> Result<Vec<NextRun>, Error> {
        try_join_all(self.jobs.iter().map(|job| self.next_run(job))).await
    }

    async fn next_run(&self, job: &Job) -> Result<NextRun, Error> {
        let now = self.clock.now();
        let last = records::last_run(&self.cache, job, now).await?;
        let since = records::was_first_seen(&self.cache, job).await?;
        let done = self.done(job).max(last.as_ref().map(|last| last.due));
        let missed = |due: &Timestamp| since.is_some_and(|since| *due > since) && Some(*due) > done;
        let due = job.schedule().latest_until(now).filter(missed);
        let due = due.or_else(|| job.schedule().next_after(now)).unwrap_or(Timestamp::NEVER);
        Ok(NextRun { job: job.name().to_owned(), due, begins: job.begins(due), last })
    }

    /// Runs each job whose latest occurrence has come and has not been run. Waits for what it runs, and
    /// a few seconds at most for what other nodes run.
    ///
    /// `run` is given the job and when it was due, and says what it did or why it failed, for people:
    /// no secrets. Different jobs run side by side, in this task; a panic is a failure. For a future
    /// that can be sent to another thread, what `run` uses must be its own: `async move |job, due|`.
    ///
    /// Dropping the future drops what is being run, which is then not taken for run.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn run_due(
        &self,
        run: impl AsyncFn(&Job, Timestamp) -> Result<String, String>,
    ) -> Round {
        let run = &run;
        let looks = join_all(self.jobs.iter().map(|job| self.look(job, run))).await;
        let mut round = Round::default();
        for (job, looked) in self.jobs.iter().zip(looks) {
            let name = job.name().to_owned();
            let again = self.look_again(job, &looked);
            round.look_again = round.look_again.into_iter().chain(again).min();
            match looked {
                Ok(Looked::NotDue(_)) => {}
                Ok(Looked::Ran(run)) => round.ran.push((name, run)),
                Ok(Looked::Elsewhere) => round.elsewhere.push(name),
                Err(error) => round.failed.push((name, error)),
            }
        }
        round
    }

    /// Runs jobs as [`Scheduler::run_due`] does, each when it is due, until `stop` completes; what is
    /// being run then is waited for. Without jobs it waits for `stop`.
    ///
    /// Dropping the future drops what is being run, which is then not taken for run.
    ///
    /// # Errors
    /// [`Error::Closed`] when the cache is closed meanwhile, which drops what is being run. Other
    /// failures are logged, and what could not be done is tried again.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn run_until(
        &self,
        stop: impl Future<Output = ()>,
        run: impl AsyncFn(&Job, Timestamp) -> Result<String, String>,
    ) -> Result<(), Error> {
        let (stopping, stopped) = watch::channel(false);
        let run = &run;
        let each = self.jobs.iter().map(|job| self.keep_running(job, run, stopped.clone()));
        let all = pin!(try_join_all(each));
        let stop = pin!(stop);
        let all = match select(stop, all).await {
            Either::Left(((), all)) => all,
            Either::Right((ended, stop)) => {
                ended?;
                // Only without jobs.
                stop.await;
                return Ok(());
            }
        };
        stopping.send_replace(true);
        all.await.map(drop)
    }

    /// Runs one job each time it is due.
    async fn keep_running(
        &self,
        job: &Job,
        run: &impl AsyncFn(&Job, Timestamp) -> Result<String, String>,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), Error> {
        while !*stopped.borrow() {
            let looked = self.look(job, run).await;
            match &looked {
                Err(Error::Closed) => return Err(Error::Closed),
                Err(error) => {
                    tracing::warn!(
                        job = job.name(),
                        %error,
                        "the cache cannot tell whether the job has been run; it is tried again"
                    );
                }
                Ok(_) => {}
            }
            let again = self.look_again(job, &looked).unwrap_or(Timestamp::NEVER);
            let wait = again.saturating_since(self.clock.now()).min(LONGEST_SLEEP);
            if timeout(wait, stopped.changed()).await.is_ok() {
                break;
            }
        }
        Ok(())
    }

    /// When a job is to be looked at again.
    fn look_again(&self, job: &Job, looked: &Result<Looked, Error>) -> Option<Timestamp> {
        let next = |after| job.schedule().next_after(after).map(|due| job.begins(due));
        match looked {
            Ok(Looked::NotDue(at)) => {
                // The latest may be delayed.
                let latest = job.schedule().latest_until(*at).map(|due| job.begins(due));
                latest.filter(|begins| begins > at).or_else(|| next(*at))
            }
            // At once if it has come to be due while it ran.
            Ok(Looked::Ran(run)) => next(run.due),
            Ok(Looked::Elsewhere) | Err(_) => {
                let now = self.clock.now();
                let soon = now.saturating_add(LOOK_AGAIN);
                Some(next(now).map_or(soon, |next| next.min(soon)))
            }
        }
    }

    /// Runs a job if it is due.
    async fn look(
        &self,
        job: &Job,
        run: &impl AsyncFn(&Job, Timestamp) -> Result<String, String>,
    ) -> Result<Looked, Error> {
        let now = self.clock.now();
        let since = records::first_seen(&self.cache, job, now).await?;
        let Some(due) = job.schedule().latest_until(now) else { return Ok(Looked::NotDue(now)) };
        if due <= since || job.begins(due) > now {
            return Ok(Looked::NotDue(now));
        }
        let key = turn_key(job);
        for _ in 0..TRIES {
            if self.has_run(job, due).await? {
                return Ok(Looked::NotDue(now));
            }
            let turn = match Turn::take(&self.cache, &key).await? {
                Whose::Ours(turn) => turn,
                Whose::Ended => continue,
                Whose::Others => return Ok(Looked::Elsewhere),
            };
            // Whoever had the turn before may have run it.
            let looked = match self.has_run(job, due).await {
                Ok(false) => Ok(Looked::Ran(self.run(job, due, run).await)),
                Ok(true) => Ok(Looked::NotDue(now)),
                Err(error) => Err(error),
            };
            turn.end().await;
            return looked;
        }
        Ok(Looked::Elsewhere)
    }

    /// Runs a job, and remembers that.
    async fn run(
        &self,
        job: &Job,
        due: Timestamp,
        run: &impl AsyncFn(&Job, Timestamp) -> Result<String, String>,
    ) -> LastRun {
        let began = self.clock.now();
        tracing::info!(job = job.name(), late = ?began.saturating_since(due), "a job begins");
        let running = AssertUnwindSafe(async { run(job, due).await }).catch_unwind();
        let outcome = running.await.unwrap_or_else(|panic| Err(message(&*panic)));
        let ended = self.clock.now();
        let (succeeded, note) = match outcome {
            Ok(note) => (true, note),
            Err(why) => (false, why),
        };
        if succeeded {
            tracing::info!(job = job.name(), note, "a job has ended");
        } else {
            tracing::warn!(
                job = job.name(),
                note,
                "a job has failed; it is run when it is due next"
            );
        }
        let run = LastRun { due, began, ended, succeeded, note };
        self.note_done(job, due);
        if let Err(error) = records::remember(&self.cache, job, &run).await {
            tracing::warn!(
                job = job.name(),
                %error,
                "it could not be stored that the job has been run; other nodes may run it again"
            );
        }
        run
    }

    async fn has_run(&self, job: &Job, due: Timestamp) -> Result<bool, Error> {
        if self.done(job) >= Some(due) {
            return Ok(true);
        }
        let has_run = records::has_run(&self.cache, job, due).await?;
        if has_run {
            self.note_done(job, due);
        }
        Ok(has_run)
    }

    fn done(&self, job: &Job) -> Option<Timestamp> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.get(job.name()).copied()
    }

    fn note_done(&self, job: &Job, due: Timestamp) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = done.entry(job.name().to_owned()).or_insert(due);
        *latest = due.max(*latest);
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler").field("jobs", &self.jobs).finish_non_exhaustive()
    }
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", Escaped(text.unwrap_or("no message")))
}
