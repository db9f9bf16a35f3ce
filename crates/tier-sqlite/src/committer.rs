//! The connection that writes, and transactions on it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, TryLockError, atomic::Ordering},
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use crate::{
    batch::Batch,
    bound,
    checkpoint::{self, Checkpoints},
    error::Failure,
    shared::{Idle, Outcome, Shared, Slot},
    writer::{Write, WriteJob},
};

/// How long nothing is evicted for writes that then found no room all the same.
const NO_ROOM: Duration = Duration::from_secs(5);

/// The connection that writes.
#[derive(Debug)]
pub(crate) struct Committer {
    slot: Slot,
    checkpoints: Checkpoints,
    no_room_until: Option<Instant>,
}

impl Committer {
    pub(crate) const fn new(slot: Slot, checkpoints: Checkpoints) -> Self {
        Self { slot, checkpoints, no_room_until: None }
    }

    /// Commits the jobs, together if possible, and answers them.
    pub(crate) fn commit_group(&mut self, group: &mut Vec<Box<dyn WriteJob>>) {
        let result = self.commit_or_make_room(group);
        // A busy or full file is so for each of them; only a fault of one is worth finding.
        let of_one =
            result.as_ref().is_err_and(|failure| failure.kind() == cache_core::ErrorKind::Internal);
        if of_one && group.len() > 1 {
            for job in group.drain(..) {
                let mut alone = [job];
                let result = self.commit(&mut alone);
                let [job] = alone;
                job.finish(result);
            }
        } else {
            group.drain(..).for_each(|job| job.finish(result.clone()));
        }
    }

    /// Runs the jobs in one transaction; in a file that is full, again after its log was emptied, and
    /// after entries have made room.
    fn commit_or_make_room(&mut self, jobs: &mut [Box<dyn WriteJob>]) -> Outcome<()> {
        let is_full =
            |result: &Outcome<()>| result.as_ref().is_err_and(|failure| failure.is_full());
        let mut result = self.commit(jobs);
        if is_full(&result) && checkpoint::cut(&mut self.slot).is_ok_and(|progress| !progress.busy)
        {
            result = self.commit(jobs);
        }
        let now = Instant::now();
        if !is_full(&result) || self.no_room_until.is_some_and(|until| now < until) {
            return result;
        }
        let mut room: [Box<dyn WriteJob>; 1] = [Write::boxed(
            |batch| {
                let used = bound::used_pages(batch.connection)?;
                bound::make_room(batch, used - used / 16).map(drop)
            },
            oneshot::channel().0,
            None,
        )];
        // On a disk that is full this fails, too.
        let result = self.commit(&mut room).and_then(|()| self.commit(jobs));
        // What entries left behind was not enough; not all of them are to go in vain.
        self.no_room_until = is_full(&result).then(|| now + NO_ROOM);
        result
    }

    /// Runs the jobs in one transaction.
    fn commit(&mut self, jobs: &mut [Box<dyn WriteJob>]) -> Outcome<()> {
        self.transact(|batch| jobs.iter_mut().try_for_each(|job| job.run(batch)))
    }

    fn transact<T>(
        &mut self,
        mut work: impl FnMut(&mut Batch<'_>) -> rusqlite::Result<T>,
    ) -> Outcome<T> {
        let Self { slot, checkpoints, .. } = self;
        slot.run(|connection, shared| {
            let now = shared.options.clock.now();
            let result = catch_unwind(AssertUnwindSafe(|| {
                // Not deferred: a transaction that reads first cannot wait for the write lock.
                limit_pages(connection, shared)?;
                let transaction =
                    connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                let mut batch =
                    Batch::new(&transaction, now, &shared.options, &shared.uses, shared.node);
                let done = work(&mut batch)?;
                bound::keep(&mut batch, shared)?;
                batch.finish()?;
                let evicted = batch.evicted;
                transaction.commit()?;
                shared.bound.note(evicted);
                shared.note_commit();
                // Who could only read does not see this.
                shared.renew_if_only_read();
                Ok(done)
            }));
            let done = result.unwrap_or(Err(Failure::Panicked))?;
            checkpoints.ask_if_due(shared);
            Ok(done)
        })
    }

    /// Gives back to the disk a piece of what is free in the file; whether there was one.
    pub(crate) fn shrink(&mut self) -> bool {
        self.slot.is_open()
            && self
                .slot
                .run(|connection, shared| Ok(bound::shrink(connection, shared)?))
                .unwrap_or(false)
    }

    /// Cuts the log if it is too long.
    pub(crate) fn bound_log(&mut self) {
        self.checkpoints.bound_log(&mut self.slot);
    }

    /// Sets how long it waits for other processes' locks, if it is open.
    fn set_wait(&mut self, wait: Duration) -> bool {
        let idle = self.slot.idle();
        let connection = idle.as_ref().and_then(Idle::connection);
        connection.is_some_and(|connection| connection.busy_timeout(wait).is_ok())
    }

    /// Asks for no more checkpoints.
    pub(crate) fn end_checkpoints(&mut self) {
        self.checkpoints.end();
    }

    /// Closes the connection, as the last of all.
    pub(crate) fn close_last(&mut self) {
        self.slot.close_last();
    }
}

/// Whether [`commit_here`] is worth preparing a write for.
pub(crate) fn may_commit_here(shared: &Shared) -> bool {
    // What was queued before comes first. Evictions take long, as do a log that is to be moved into the
    // file, and the first write to one that begins anew, which waits for the disk.
    shared.writes_waiting.load(Ordering::SeqCst) == 0
        && shared.bound.has_room()
        && !checkpoint::is_due(shared)
        && !shared.log_begins()
}

/// Commits a small write on the caller's thread, if nothing suggests that it would take longer than
/// handing it to the writer's and back, which takes some 100 µs. `None` if it was not done: it is to be
/// queued, where whatever went wrong is dealt with.
pub(crate) fn commit_here<T>(
    committer: &Mutex<Committer>,
    shared: &Shared,
    work: &mut impl FnMut(&mut Batch<'_>) -> rusqlite::Result<T>,
) -> Option<T> {
    // Poisoned: the writer's thread takes care of that.
    let mut committer = match committer.try_lock() {
        Ok(committer) => committer,
        Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => return None,
    };
    // Opening takes long.
    if !may_commit_here(shared) || !committer.set_wait(Duration::ZERO) {
        return None;
    }
    let done = committer.transact(&mut *work);
    // If there is no connection any more, the next one waits as it should.
    committer.set_wait(shared.options.busy_timeout);
    done.ok()
}

/// Tells SQLite how large the file may become: it knows for one connection only.
fn limit_pages(connection: &Connection, shared: &Shared) -> rusqlite::Result<()> {
    let sql = format!("PRAGMA max_page_count = {}", shared.bound.hard_limit());
    connection.prepare_cached(&sql)?.query_row([], |_| Ok(()))
}
