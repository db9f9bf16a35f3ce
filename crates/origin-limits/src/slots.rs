//! A bound for the calls of several sources together.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Bounds the calls that are under way at a time, whatever their source; clones are the same bound.
///
/// A call that waits for its source's limits takes none of them: sources that are slow to let calls
/// through do not hold up the others.
#[derive(Clone, Debug)]
pub struct Slots {
    shared: Arc<Inner>,
    /// Calls made with this handle and its clones.
    calls: Arc<AtomicU64>,
    /// When the first call with this handle began.
    first: Arc<OnceLock<Instant>>,
}

#[derive(Debug)]
struct Inner {
    free: Arc<Semaphore>,
    most: usize,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Paused,
    Closed,
}

impl Slots {
    /// So many calls at a time, at least one.
    pub fn new(most: usize) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        let (free, state) = (Arc::new(Semaphore::new(most)), watch::Sender::new(State::Open));
        let shared = Arc::new(Inner { free, most, state });
        Self { shared, calls: Arc::default(), first: Arc::default() }
    }

    /// The same bound, with a count of calls of its own.
    #[must_use]
    pub fn counted_apart(&self) -> Self {
        Self { calls: Arc::default(), ..self.timed_apart() }
    }

    /// The same bound and count, with a first call of its own.
    #[must_use]
    pub fn timed_apart(&self) -> Self {
        Self { first: Arc::default(), ..self.clone() }
    }

    /// When the first call with this handle and its clones was begun.
    pub fn first_call(&self) -> Option<Instant> {
        self.first.get().copied()
    }

    /// Calls that were begun with this handle and its clones.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Notes that a call begins.
    pub fn note_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.first.get_or_init(Instant::now);
    }

    /// Calls that are under way now.
    pub fn under_way(&self) -> usize {
        self.shared.most - self.shared.free.available_permits().min(self.shared.most)
    }

    /// Lets no further call begin until [`Slots::resume`].
    pub fn pause(&self) {
        self.change(State::Paused);
    }

    /// Lets calls begin again.
    pub fn resume(&self) {
        self.change(State::Open);
    }

    /// Lets no further call begin, ever; those that wait are refused. Those under way are left alone.
    pub fn close(&self) {
        self.change(State::Closed);
    }

    fn change(&self, to: State) {
        self.shared.state.send_if_modified(|state| {
            let changes = *state != State::Closed && *state != to;
            if changes {
                *state = to;
            }
            changes
        });
    }

    /// Whether no further call begins.
    pub fn is_closed(&self) -> bool {
        *self.shared.state.borrow() == State::Closed
    }

    /// Waits until no further call begins. Cancel safe.
    pub async fn closed(&self) {
        // The sender is not dropped while it is borrowed.
        _ = self.shared.state.subscribe().wait_for(|state| *state == State::Closed).await;
    }

    /// A place for one call, held while it is under way; `None` if no further one begins. Cancel safe.
    pub async fn take(&self) -> Option<Slot> {
        let mut states = self.shared.state.subscribe();
        loop {
            let state = *states.wait_for(|state| *state != State::Paused).await.ok()?;
            if state == State::Closed {
                return None;
            }
            let permit = tokio::select! {
                biased;
                // It may be paused or closed while this waits.
                _ = states.changed() => continue,
                permit = Arc::clone(&self.shared.free).acquire_owned() => permit.ok()?,
            };
            if *states.borrow() == State::Open {
                return Some(Slot(permit));
            }
        }
    }
}

impl PartialEq for Slots {
    /// Whether both are the same bound.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Slots {}

/// The place of a call that is under way.
#[derive(Debug)]
#[must_use = "a call is under way as long as its slot is held"]
pub struct Slot(
    #[expect(dead_code, reason = "it is given back when it is dropped")] OwnedSemaphorePermit,
);
