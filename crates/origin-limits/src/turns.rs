//! Who is next: foreground calls before background ones, else in the order they came.

use tokio::sync::{Mutex, MutexGuard, watch};

use crate::Urgency;

/// The order in which calls pass a door, one at a time.
#[derive(Debug)]
pub(crate) struct Turns {
    door: Mutex<()>,
    /// Of background calls only the first queues at the door, so that all others are behind any
    /// foreground call that comes.
    anteroom: Mutex<()>,
    /// Foreground calls that are at the door.
    waiting: watch::Sender<usize>,
}

/// A place in the order; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Place<'t> {
    turns: &'t Turns,
    urgency: Urgency,
    _first: Option<MutexGuard<'t, ()>>,
}

/// The door, open for one.
#[derive(Debug)]
pub(crate) struct Turn<'t> {
    _door: MutexGuard<'t, ()>,
}

impl Turns {
    pub(crate) fn new() -> Self {
        Self { door: Mutex::default(), anteroom: Mutex::default(), waiting: watch::Sender::new(0) }
    }

    /// Queues. Cancel safe.
    pub(crate) async fn queue(&self, urgency: Urgency) -> Place<'_> {
        let first = match urgency {
            Urgency::Foreground => {
                self.waiting.send_modify(|waiting| *waiting += 1);
                None
            }
            Urgency::Background => Some(self.anteroom.lock().await),
        };
        Place { turns: self, urgency, _first: first }
    }
}

impl Place<'_> {
    /// Waits until it is this one's turn. Cancel safe.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn { _door: self.turns.door.lock().await }
    }

    /// Waits until somebody is to be let go first, which is never for a foreground call. Cancel safe.
    pub(crate) async fn must_give_way(&self) {
        match self.urgency {
            Urgency::Foreground => std::future::pending().await,
            Urgency::Background => {
                // The sender is not dropped while it is borrowed.
                _ = self.turns.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.urgency == Urgency::Foreground {
            self.turns.waiting.send_modify(|waiting| *waiting -= 1);
        }
    }
}
