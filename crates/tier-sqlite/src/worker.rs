//! The tier's threads: readers, one writer, one that checkpoints, one that imports, and a keeper.
//!
//! They are threads of their own because SQLite blocks, and because a tier must work without an
//! async runtime's help and outlive it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use cache_core::Follower;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::{
    SqliteOptions,
    batch::Batch,
    checkpoint::{self, Checkpoints},
    committer::{self, Committer},
    error::Failure,
    here::Here,
    importer::Importer,
    keeper::{Followed, Keeper},
    open::Role,
    shared::{Outcome, Shared, Slot},
    writer::{self, Waiting, Write, WriteJob},
};

/// Writes that may wait; more wait for room.
const QUEUE: usize = 4_096;

type ReadJob = Box<dyn FnOnce(&mut Slot) + Send>;

/// Handles to the threads; dropping it lets them finish what is queued and end.
#[derive(Debug)]
pub(crate) struct Workers {
    shared: Arc<Shared>,
    followed: Followed,
    /// Closed to end the keeper.
    _stop: crossbeam_channel::Sender<()>,
    here: Arc<Here>,
    reads: crossbeam_channel::Sender<ReadJob>,
    writes: mpsc::Sender<Box<dyn WriteJob>>,
    committer: Arc<Mutex<Committer>>,
}

impl Workers {
    /// Starts the threads; the file is opened by the first job. The receiver is closed when the
    /// last thread has ended, and every connection is closed.
    pub(crate) fn start(options: SqliteOptions) -> std::io::Result<(Self, mpsc::Receiver<()>)> {
        let (reads, read_jobs) = crossbeam_channel::unbounded::<ReadJob>();
        let (writes, write_jobs) = mpsc::channel(QUEUE);
        // Kept by each thread until its connection is closed: by all but the writer, and by that.
        let (others, others_ended) = crossbeam_channel::bounded::<()>(0);
        let (alive, ended) = mpsc::channel(1);
        let readers = options.readers;
        let (import, imports) = crossbeam_channel::bounded(1);
        let shared = Arc::new(Shared::new(options, import));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let here = Arc::new(Here::new(&shared, cores.min(4)));

        for n in 0..readers {
            let (jobs, here, other) = (read_jobs.clone(), Arc::clone(&here), others.clone());
            let mut slot = Slot::new(&shared, Role::Reader);
            thread::Builder::new().name(format!("larder-sqlite-r{n}")).spawn(move || {
                while let Ok(job) = jobs.recv() {
                    // A panic inside a job ends that job: its caller sees the reply dropped.
                    if catch_unwind(AssertUnwindSafe(|| job(&mut slot))).is_err() {
                        slot.close();
                    }
                    // What comes next can be read without this thread.
                    if slot.is_open() {
                        here.warm();
                    }
                }
                slot.close();
                drop(other);
            })?;
        }
        let (checkpoints, wanted) = Checkpoints::new();
        let (slot, other) = (Slot::new(&shared, Role::Checkpoint), others.clone());
        thread::Builder::new().name("larder-sqlite-c".to_owned()).spawn(move || {
            checkpoint::run_until_closed(slot, &wanted);
            drop(other);
        })?;
        let followed = Followed::default();
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let importer = Importer::new(&shared, writes.downgrade(), stopped.clone());
        let other = others.clone();
        thread::Builder::new().name("larder-sqlite-i".to_owned()).spawn(move || {
            importer.run(&imports);
            drop(other);
        })?;
        let keeper = Keeper::new(&shared, writes.downgrade(), followed.clone());
        thread::Builder::new().name("larder-sqlite-k".to_owned()).spawn(move || {
            keeper.run(&stopped);
            drop(others);
        })?;
        let slot = Slot::new(&shared, Role::Writer);
        let committer = Arc::new(Mutex::new(Committer::new(slot, checkpoints)));
        let (own, own_here) = (Arc::clone(&committer), Arc::clone(&here));
        thread::Builder::new().name("larder-sqlite-w".to_owned()).spawn(move || {
            writer::run_until_closed(&own, write_jobs);
            let mut committer = own.lock().unwrap_or_else(PoisonError::into_inner);
            committer.end_checkpoints();
            // The last connection to close empties the log into the file.
            own_here.close();
            _ = others_ended.recv();
            committer.close_last();
            drop(alive);
        })?;
        Ok((Self { shared, followed, _stop: stop, here, reads, writes, committer }, ended))
    }

    /// Runs `job` here and now, if that will be quick; see [`Here::run`].
    pub(crate) fn read_here<T>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<Option<T>>,
    ) -> Option<T> {
        self.here.run(job)
    }

    /// Runs `job` on a reader's connection.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        mut job: impl FnMut(&Connection, &SqliteOptions) -> Result<T, Failure> + Send + 'static,
    ) -> Outcome<T> {
        let (reply, answer) = oneshot::channel();
        let job: ReadJob = Box::new(move |slot| {
            if reply.is_closed() {
                return;
            }
            let result = slot.run(|connection, shared| job(connection, &shared.options));
            // The caller may have gone away meanwhile.
            _ = reply.send(result);
        });
        self.reads.send(job).map_err(|_closed| Failure::Closed)?;
        answer.await.map_err(|_dropped| Failure::Panicked)?
    }

    /// Runs work that needs a processor rather than the file, off the async workers.
    pub(crate) async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Outcome<T> {
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
        job: impl FnMut(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Outcome<T> {
        let (reply, answer) = oneshot::channel();
        let write = Write::boxed(job, reply, Some(Waiting::new(&self.shared)));
        self.writes.send(write).await.map_err(|_closed| Failure::Closed)?;
        answer.await.map_err(|_dropped| Failure::Panicked)?
    }

    /// The same of a job that is small, and is not to be kept waiting for a thread: on this one, if
    /// that will be quick.
    pub(crate) async fn write_soon<T: Send + 'static>(
        &self,
        mut job: impl FnMut(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Outcome<T> {
        match self.write_here(&mut job) {
            Some(done) => Ok(done),
            None => self.write(job).await,
        }
    }

    /// Whether [`Workers::write_here`] is worth preparing a job for.
    pub(crate) fn may_write_here(&self) -> bool {
        committer::may_commit_here(&self.shared)
    }

    /// Runs a small `job` and commits it here and now, if that will be quick; see
    /// [`committer::commit_here`].
    pub(crate) fn write_here<T>(
        &self,
        job: &mut impl FnMut(&mut Batch<'_>) -> rusqlite::Result<T>,
    ) -> Option<T> {
        committer::commit_here(&self.committer, &self.shared, job)
    }

    /// Queues `job` if there is room, without waiting for anything.
    pub(crate) fn try_write(
        &self,
        job: impl FnMut(&mut Batch<'_>) -> rusqlite::Result<()> + Send + 'static,
    ) -> bool {
        queue(&self.writes, Some(Waiting::new(&self.shared)), job)
    }

    /// What the threads share.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Has `follower` told what other processes change.
    pub(crate) fn follow(&self, follower: Follower) {
        self.followed.set(follower);
    }
}

/// Queues a write if there is room; whether there is.
pub(crate) fn queue(
    writes: &mpsc::Sender<Box<dyn WriteJob>>,
    waiting: Option<Waiting>,
    job: impl FnMut(&mut Batch<'_>) -> rusqlite::Result<()> + Send + 'static,
) -> bool {
    let (reply, _) = oneshot::channel();
    writes.try_send(Write::boxed(job, reply, waiting)).is_ok()
}
