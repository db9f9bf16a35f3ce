//! The tier's threads: readers, and one writer that commits whatever is queued in one transaction.
//!
//! They are threads of their own because SQLite blocks, and because a tier must work without an
//! async runtime's help and outlive it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::{
    SqliteOptions,
    error::Failure,
    open::{self, Role},
};

/// Writes that may wait; more wait for room.
const QUEUE: usize = 4_096;
/// Most writes in one transaction.
const GROUP: usize = 512;

type Shared<T> = Result<T, Arc<Failure>>;
type ReadJob = Box<dyn FnOnce(&mut Slot) + Send>;

/// Handles to the threads; dropping it lets them finish what is queued and end.
#[derive(Debug)]
pub(crate) struct Workers {
    reads: crossbeam_channel::Sender<ReadJob>,
    writes: mpsc::Sender<Box<dyn WriteJob>>,
}

impl Workers {
    /// Starts the threads; the file is opened by the first job. The receiver is closed when the
    /// last thread has ended.
    pub(crate) fn start(
        options: &Arc<SqliteOptions>,
    ) -> std::io::Result<(Self, mpsc::Receiver<()>)> {
        let (reads, read_jobs) = crossbeam_channel::unbounded::<ReadJob>();
        let (writes, write_jobs) = mpsc::channel(QUEUE);
        let (alive, ended) = mpsc::channel(1);
        let opening = Arc::new(Mutex::new(()));
        let slot = |role| Slot {
            options: Arc::clone(options),
            opening: Arc::clone(&opening),
            role,
            open: None,
        };

        for n in 0..options.readers {
            let (jobs, mut slot, alive) = (read_jobs.clone(), slot(Role::Reader), alive.clone());
            thread::Builder::new().name(format!("larder-sqlite-r{n}")).spawn(move || {
                let _alive = alive;
                while let Ok(job) = jobs.recv() {
                    // A panic inside a job ends that job: its caller sees the reply dropped.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut slot))).is_err() {
                        slot.open = None;
                    }
                }
            })?;
        }
        let mut slot = slot(Role::Writer);
        thread::Builder::new().name("larder-sqlite-w".to_owned()).spawn(move || {
            let _alive = alive;
            write_until_closed(&mut slot, write_jobs);
        })?;
        Ok((Self { reads, writes }, ended))
    }

    /// Runs `job` on a reader's connection.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection, &SqliteOptions) -> Result<T, Failure> + Send + 'static,
    ) -> Shared<T> {
        let (reply, answer) = oneshot::channel();
        let job: ReadJob = Box::new(move |slot| {
            if reply.is_closed() {
                return;
            }
            let options = Arc::clone(&slot.options);
            let result = slot.connection().and_then(|connection| job(connection, &options));
            // The caller may have gone away meanwhile.
            _ = reply.send(slot.judged(result));
        });
        self.reads.send(job).map_err(|_closed| Failure::Closed)?;
        answer.await.map_err(|_dropped| Failure::Panicked)?
    }

    /// Runs work that needs a processor rather than the file, off the async workers.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Shared<T> {
        let (reply, answer) = oneshot::channel();
        let job: ReadJob = Box::new(move |_| _ = reply.send(work()));
        self.reads.send(job).map_err(|_closed| Failure::Closed)?;
        Ok(answer.await.map_err(|_dropped| Failure::Panicked)?)
    }

    /// Runs `job` in a write transaction and answers once it is committed.
    ///
    /// `job` may run twice: when another job of its group fails, each is tried alone.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        job: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Shared<T> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Write { job, done: None, reply });
        self.writes.send(job).await.map_err(|_closed| Failure::Closed)?;
        answer.await.map_err(|_dropped| Failure::Panicked)?
    }

    /// Queues `job` if there is room, without waiting for anything.
    pub(crate) fn try_write(
        &self,
        job: impl FnMut(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> bool {
        let (reply, _) = oneshot::channel();
        self.writes.try_send(Box::new(Write { job, done: None, reply })).is_ok()
    }
}

/// A thread's connection, opened when it is needed and again after it failed.
pub(crate) struct Slot {
    options: Arc<SqliteOptions>,
    opening: Arc<Mutex<()>>,
    role: Role,
    open: Option<Connection>,
}

impl Slot {
    fn connection(&mut self) -> Result<&mut Connection, Failure> {
        if self.open.is_none() {
            // One at a time: two connections that both make the schema would wait for each other.
            let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
            self.open = Some(open::open(&self.options, self.role)?);
        }
        self.open.as_mut().ok_or(Failure::Closed)
    }

    /// Drops the connection if the result casts doubt on it.
    fn judged<T>(&mut self, result: Result<T, Failure>) -> Shared<T> {
        result.map_err(|failure| {
            let failure = failure.at(&self.options.path);
            if failure.spoils_connection() {
                self.open = None;
            }
            Arc::new(failure)
        })
    }
}

/// A write that waits in the queue.
trait WriteJob: Send {
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, committed: Shared<()>);
}

struct Write<F, T> {
    job: F,
    done: Option<T>,
    reply: oneshot::Sender<Shared<T>>,
}

impl<F, T> WriteJob for Write<F, T>
where
    F: FnMut(&Connection) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.done = Some((self.job)(connection)?);
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Shared<()>) {
        let Self { done, reply, .. } = *self;
        let result = committed.and_then(|()| done.ok_or_else(|| Arc::new(Failure::Panicked)));
        // The caller may have gone away meanwhile; what was committed stays.
        _ = reply.send(result);
    }
}

fn write_until_closed(slot: &mut Slot, mut jobs: mpsc::Receiver<Box<dyn WriteJob>>) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        let result = commit(slot, &mut group);
        // A busy or full file is so for each of them; only a fault of one is worth finding.
        let of_one =
            result.as_ref().is_err_and(|failure| failure.kind() == cache_core::ErrorKind::Internal);
        if of_one && group.len() > 1 {
            for job in group.drain(..) {
                let mut alone = [job];
                let result = commit(slot, &mut alone);
                let [job] = alone;
                job.finish(result);
            }
        } else {
            group.drain(..).for_each(|job| job.finish(result.clone()));
        }
    }
}

/// Runs the jobs in one transaction.
fn commit(slot: &mut Slot, jobs: &mut [Box<dyn WriteJob>]) -> Shared<()> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let connection = slot.connection()?;
        // Not deferred: a transaction that reads first cannot wait for the write lock.
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        jobs.iter_mut().try_for_each(|job| job.run(&transaction))?;
        transaction.commit()?;
        Ok(())
    }));
    slot.judged(result.unwrap_or(Err(Failure::Panicked)))
}
