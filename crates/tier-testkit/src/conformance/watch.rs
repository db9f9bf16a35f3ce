//! A limit of time that needs no runtime.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    thread,
    time::Duration,
};

/// Longer than any check takes on any tier that works.
const PATIENCE: Duration = Duration::from_mins(1);

/// Awaits `future`, which makes calls about `what`.
///
/// # Panics
/// When it is not done in time.
pub(super) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    within_time(PATIENCE, what, future).await
}

async fn within_time<F: Future>(time: Duration, what: &str, future: F) -> F::Output {
    let alarm = Alarm::new(time);
    // Boxed: a check is large, and the suite awaits many.
    let mut future = Box::pin(future);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        let rang = alarm.wakes(context.waker());
        assert!(!rang, "promise broken: every call is answered: one hangs ({what})");
        Poll::Pending
    })
    .await
}

/// Awaits `future`; `None` when it panics.
pub(super) async fn unless_it_panics<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_panic) => Poll::Ready(None),
    })
    .await
}

/// A thread that wakes a task when the time is over.
struct Alarm(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waker: Option<Waker>,
    rang: bool,
    done: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alarm {
    fn new(patience: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let alarm = Self(Arc::clone(&shared));
        thread::spawn(move || {
            let waits = shared.changed.wait_timeout_while(shared.lock(), patience, |at| !at.done);
            let (mut state, _) = waits.unwrap_or_else(PoisonError::into_inner);
            state.rang = true;
            let waker = state.waker.take();
            drop(state);
            waker.map(Waker::wake)
        });
        alarm
    }

    /// Has it wake this task; whether the time is over already.
    fn wakes(&self, waker: &Waker) -> bool {
        let mut state = self.0.lock();
        state.waker = Some(waker.clone());
        state.rang
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.done = true;
        state.waker = None;
        drop(state);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "promise broken: every call is answered: one hangs (a test)")]
    async fn a_call_that_hangs_is_named() {
        within_time(Duration::from_millis(20), "a test", std::future::pending::<()>()).await;
    }

    #[tokio::test]
    async fn one_that_waits_is_awaited() {
        let slow = tokio::time::sleep(Duration::from_millis(20));
        within_time(Duration::from_mins(1), "a test", slow).await;
    }

    #[tokio::test]
    async fn a_panic_is_noticed() {
        assert_eq!(unless_it_panics(async { 7 }).await, Some(7));
        assert_eq!(unless_it_panics(async { panic!("on purpose") }).await, None::<()>);
    }
}
