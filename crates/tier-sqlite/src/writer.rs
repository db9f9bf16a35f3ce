//! The writer: commits whatever is queued in one transaction.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::{
    batch::Batch,
    bound,
    checkpoint::{self, Checkpoints},
    error::Failure,
    shared::{Outcome, Shared, Slot},
};

/// Most writes in one transaction.
const GROUP: usize = 512;
/// How long nothing is evicted for writes that then found no room all the same.
const NO_ROOM: Duration = Duration::from_secs(5);

/// A write that waits in the queue.
pub(crate) trait WriteJob: Send {
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, committed: Outcome<()>);
}

pub(crate) struct Write<F, T> {
    job: F,
    done: Option<T>,
    reply: oneshot::Sender<Outcome<T>>,
}

impl<F, T> Write<F, T>
where
    F: FnMut(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    T: Send + 'static,
{
    pub(crate) fn boxed(job: F, reply: oneshot::Sender<Outcome<T>>) -> Box<dyn WriteJob> {
        Box::new(Self { job, done: None, reply })
    }
}

impl<F, T> WriteJob for Write<F, T>
where
    F: FnMut(&mut Batch<'_>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()> {
        self.done = Some((self.job)(batch)?);
        Ok(())
    }

    fn finish(self: Box<Self>, committed: Outcome<()>) {
        let Self { done, reply, .. } = *self;
        let result = committed.and_then(|()| done.ok_or_else(|| Arc::new(Failure::Panicked)));
        // The caller may have gone away meanwhile; what was committed stays.
        _ = reply.send(result);
    }
}

/// Commits what is queued until nobody can queue any more; then does what `last` says.
pub(crate) fn run_until_closed(
    mut slot: Slot,
    mut jobs: mpsc::Receiver<Box<dyn WriteJob>>,
    mut checkpoints: Checkpoints,
    last: impl FnOnce(&mut Slot),
) {
    let mut group = Vec::with_capacity(GROUP);
    let mut no_room_until = None;
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        let result = commit_or_make_room(&mut slot, &mut group, &checkpoints, &mut no_room_until);
        // A busy or full file is so for each of them; only a fault of one is worth finding.
        let of_one =
            result.as_ref().is_err_and(|failure| failure.kind() == cache_core::ErrorKind::Internal);
        if of_one && group.len() > 1 {
            for job in group.drain(..) {
                let mut alone = [job];
                let result = commit(&mut slot, &mut alone, &checkpoints);
                let [job] = alone;
                job.finish(result);
            }
        } else {
            group.drain(..).for_each(|job| job.finish(result.clone()));
        }
        // After the answers: nobody waits for these.
        while jobs.is_empty() && shrink(&mut slot) {}
        checkpoints.bound_log(&mut slot);
    }
    drop(checkpoints);
    last(&mut slot);
}

/// Runs the jobs in one transaction; in a file that is full, again after its log was emptied, and
/// after entries have made room.
fn commit_or_make_room(
    slot: &mut Slot,
    jobs: &mut [Box<dyn WriteJob>],
    checkpoints: &Checkpoints,
    no_room_until: &mut Option<Instant>,
) -> Outcome<()> {
    let is_full = |result: &Outcome<()>| result.as_ref().is_err_and(|failure| failure.is_full());
    let mut result = commit(slot, jobs, checkpoints);
    if is_full(&result) && checkpoint::cut(slot).is_ok_and(|progress| !progress.busy) {
        result = commit(slot, jobs, checkpoints);
    }
    let now = Instant::now();
    if !is_full(&result) || no_room_until.is_some_and(|until| now < until) {
        return result;
    }
    let mut room: [Box<dyn WriteJob>; 1] = [Write::boxed(
        |batch| {
            let used = bound::used_pages(batch.connection)?;
            bound::make_room(batch, used - used / 16)
        },
        oneshot::channel().0,
    )];
    // On a disk that is full this fails, too.
    let result =
        commit(slot, &mut room, checkpoints).and_then(|()| commit(slot, jobs, checkpoints));
    // What entries left behind was not enough; not all of them are to go in vain.
    *no_room_until = is_full(&result).then(|| now + NO_ROOM);
    result
}

/// Gives back to the disk a piece of what is free in the file; whether there was one.
fn shrink(slot: &mut Slot) -> bool {
    slot.is_open()
        && slot.run(|connection, shared| Ok(bound::shrink(connection, shared)?)).unwrap_or(false)
}

/// Runs the jobs in one transaction.
fn commit(
    slot: &mut Slot,
    jobs: &mut [Box<dyn WriteJob>],
    checkpoints: &Checkpoints,
) -> Outcome<()> {
    slot.run(|connection, shared| {
        let now = shared.options.clock.now();
        let result = catch_unwind(AssertUnwindSafe(|| {
            // Not deferred: a transaction that reads first cannot wait for the write lock.
            limit_pages(connection, shared)?;
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut batch =
                Batch::new(&transaction, now, &shared.options, &shared.uses, shared.node);
            jobs.iter_mut().try_for_each(|job| job.run(&mut batch))?;
            bound::keep(&mut batch, shared)?;
            batch.finish()?;
            let evicted = batch.evicted;
            transaction.commit()?;
            shared.bound.note(evicted);
            // Who could only read does not see this.
            shared.renew_if_only_read();
            Ok(())
        }));
        result.unwrap_or(Err(Failure::Panicked))?;
        checkpoints.ask_if_due(shared);
        Ok(())
    })
}

/// Tells SQLite how large the file may become: it knows for one connection only.
fn limit_pages(connection: &Connection, shared: &Shared) -> rusqlite::Result<()> {
    let sql = format!("PRAGMA max_page_count = {}", shared.bound.hard_limit());
    connection.prepare_cached(&sql)?.query_row([], |_| Ok(()))
}
