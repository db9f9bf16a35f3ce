//! The handle of a chaos tier.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use cache_core::{Entry, ErrorKind, Key, Tier};

use super::faults::{Call, Fate, Fault, Faults};
use crate::dice::Dice;

/// Controls a [`ChaosTier`](super::ChaosTier), and counts; a cheap clone.
#[derive(Clone, Debug)]
pub struct Chaos(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: &'static str,
    inner: Arc<dyn Tier>,
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    down: bool,
    next: Vec<(Call, Fault)>,
    calls: [u64; Call::ALL.len()],
    injected: [u64; Fault::ALL.len()],
    held: Vec<Held>,
    /// How often it was healed; a call that hangs waits for it to change.
    healed: u64,
    hung: HashMap<u64, Waker>,
    hangs: u64,
}

/// A put that is carried out late.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) key: Key,
    pub(super) entry: Entry,
    /// Later writes it is still to wait for.
    pub(super) overtaken_by: usize,
}

impl Chaos {
    pub(super) fn new(name: &'static str, inner: Arc<dyn Tier>, seed: u64) -> Self {
        Self(Arc::new(Shared { name, inner, seed, state: Mutex::default() }))
    }

    /// Faults of the calls that begin from now on.
    pub fn set(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// The next call of this kind meets this fault; asked for several times, the next several do,
    /// in this order.
    ///
    /// # Panics
    /// When such a call cannot have this fault.
    pub fn next(&self, call: Call, fault: Fault) {
        assert!(fault.applies_to(call), "{fault:?} is no fault of {call:?}");
        self.state().next.push((call, fault));
    }

    /// While it is down every call fails at once, with [`ErrorKind::Unavailable`].
    pub fn down(&self, down: bool) {
        self.state().down = down;
    }

    /// No more faults: it is up, calls that hang go on, late puts are carried out before whatever
    /// is called next.
    pub fn heal(&self) {
        let hung = {
            let mut state = self.state();
            state.faults = Faults::none();
            state.down = false;
            state.next.clear();
            state.held.iter_mut().for_each(|held| held.overtaken_by = 0);
            state.healed += 1;
            std::mem::take(&mut state.hung)
        };
        hung.into_values().for_each(Waker::wake);
    }

    /// Carries out the late puts now.
    pub async fn settle(&self) {
        self.state().held.iter_mut().for_each(|held| held.overtaken_by = 0);
        self.carry_out_due(false).await;
    }

    /// Calls of a kind so far; a batch is one.
    pub fn calls(&self, call: Call) -> u64 {
        self.state().calls[call as usize]
    }

    /// Calls that met this fault so far. One that found the tier down met an [`Fault::Error`].
    pub fn faults(&self, fault: Fault) -> u64 {
        self.state().injected[fault as usize]
    }

    /// Calls that hang now.
    pub fn hanging(&self) -> usize {
        self.state().hung.len()
    }

    /// The tier inside, without faults.
    pub fn inner(&self) -> &dyn Tier {
        &*self.0.inner
    }

    pub(super) fn name(&self) -> &'static str {
        self.0.name
    }

    pub(super) fn error_kind(&self) -> ErrorKind {
        self.state().faults.error_kind
    }

    /// Counts a call, and says what becomes of it; fails where the tier is down.
    pub(super) fn draw(&self, call: Call) -> Result<Fate, ErrorKind> {
        let mut state = self.state();
        let n = state.calls[call as usize];
        state.calls[call as usize] += 1;
        if state.down {
            state.injected[Fault::Error as usize] += 1;
            return Err(ErrorKind::Unavailable);
        }
        // Every call has numbers of its own: what is called meanwhile does not change its fate.
        let mut random = Dice::stream(self.0.seed ^ call as u64, n);
        let mut fate = state.faults.draw(call, &mut random);
        if let Some(at) = state.next.iter().position(|(next, _)| *next == call) {
            let (_, fault) = state.next.remove(at);
            fate.end = None;
            fate.meets(fault);
        }
        for fault in fate.faults() {
            state.injected[fault as usize] += 1;
        }
        Ok(fate)
    }

    pub(super) fn hold(&self, late: impl Iterator<Item = Held>) {
        self.state().held.extend(late);
    }

    /// Carries out the late puts whose time has come; `wrote` when another write has passed them.
    ///
    /// If the call that does so is dropped meanwhile, they are lost.
    pub(super) async fn carry_out_due(&self, wrote: bool) {
        let due: Vec<Held> = {
            let mut state = self.state();
            if wrote {
                for held in &mut state.held {
                    held.overtaken_by = held.overtaken_by.saturating_sub(1);
                }
            }
            state.held.extract_if(.., |held| held.overtaken_by == 0).collect()
        };
        for Held { key, entry, .. } in due {
            // Acknowledged long ago: nobody is there to be told.
            drop(self.0.inner.put(&key, &entry).await);
        }
    }

    /// Waits for [`Chaos::heal`].
    pub(super) async fn until_healed(&self) {
        let (id, healed) = {
            let mut state = self.state();
            state.hangs += 1;
            (state.hangs, state.healed)
        };
        let _hangs = Hangs { chaos: self, id };
        poll_fn(|context| {
            let mut state = self.state();
            if state.healed != healed {
                return Poll::Ready(());
            }
            state.hung.insert(id, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets the waker of a call that no longer hangs, or was dropped.
struct Hangs<'a> {
    chaos: &'a Chaos,
    id: u64,
}

impl Drop for Hangs<'_> {
    fn drop(&mut self) {
        let waker = self.chaos.state().hung.remove(&self.id);
        // Outside the lock: dropping it may drop a task, and calls of this tier within it.
        drop(waker);
    }
}
