//! The tasks of a chain: closing waits for them, and ends those that take too long.

use std::{
    future::{Future, poll_fn},
    task::Poll,
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

/// Work that has been begun.
#[derive(Debug)]
pub(crate) enum Begun<T> {
    Done(T),
    /// In a task, that gives `None` if closing ends it.
    GoesOn(JoinHandle<Option<T>>),
}

/// The tasks of a chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Starts one; it gives `None` if closing ends it.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        self.tracker.spawn(self.stop.clone().run_until_cancelled_owned(work))
    }

    /// Begins `work` here, and starts a task for it only if it does not end without waiting: a task
    /// and its way to another thread cost more than what a tier that answers at once takes.
    ///
    /// `work` must not be polled by anything that its caller's task may stop polling: it is moved on
    /// before this waits.
    pub(crate) async fn begin<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Begun<T> {
        let mut work = Box::pin(work);
        match poll_fn(|context| Poll::Ready(work.as_mut().poll(context))).await {
            Poll::Ready(done) => Begun::Done(done),
            Poll::Pending => Begun::GoesOn(self.spawn(work)),
        }
    }

    /// Closing waits until this is dropped, too.
    pub(crate) fn token(&self) -> TaskTrackerToken {
        self.tracker.token()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Waits until all have ended, for at most `limit`; whether they have.
    pub(crate) async fn end_within(&self, limit: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }

    /// Ends them where they wait.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }
}
