//! Writes that wait in a queue, and the thread that commits them: whatever is queued in one
//! transaction.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use tokio::sync::{mpsc, oneshot};

use crate::{
    batch::Batch,
    committer::Committer,
    error::Failure,
    shared::{Outcome, Shared},
};

/// Most writes in one transaction.
const GROUP: usize = 512;

/// A write that waits in the queue.
pub(crate) trait WriteJob: Send {
    fn run(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<()>;
    fn finish(self: Box<Self>, committed: Outcome<()>);
}

pub(crate) struct Write<F, T> {
    job: F,
    done: Option<T>,
    reply: oneshot::Sender<Outcome<T>>,
    waiting: Option<Waiting>,
}

/// Counted among the writes that are queued or being committed, and that later ones must not overtake.
pub(crate) struct Waiting(Arc<Shared>);

impl Waiting {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        shared.writes_waiting.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.writes_waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<F, T> Write<F, T>
where
    F: FnMut(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    T: Send + 'static,
{
    pub(crate) fn boxed(
        job: F,
        reply: oneshot::Sender<Outcome<T>>,
        waiting: Option<Waiting>,
    ) -> Box<dyn WriteJob> {
        Box::new(Self { job, done: None, reply, waiting })
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
        let Self { done, reply, waiting, .. } = *self;
        let result = committed.and_then(|()| done.ok_or_else(|| Arc::new(Failure::Panicked)));
        // Before the answer: whoever has it may write on without the queue.
        drop(waiting);
        // The caller may have gone away meanwhile; what was committed stays.
        _ = reply.send(result);
    }
}

/// Commits what is queued until nobody can queue any more.
pub(crate) fn run_until_closed(
    committer: &Mutex<Committer>,
    mut jobs: mpsc::Receiver<Box<dyn WriteJob>>,
) {
    let mut group = Vec::with_capacity(GROUP);
    while jobs.blocking_recv_many(&mut group, GROUP) > 0 {
        // A job that panicked was undone.
        let mut committer = committer.lock().unwrap_or_else(PoisonError::into_inner);
        committer.commit_group(&mut group);
        // After the answers: nobody waits for these.
        while jobs.is_empty() && committer.shrink() {}
        committer.bound_log();
    }
}
