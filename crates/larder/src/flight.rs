//! Single flight: one piece of work per key at a time, shared by all who ask meanwhile.
//!
//! Knows nothing of tiers and loads, so that a test can run it under every schedule.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use cache_core::Stamp;
use tokio::sync::watch;

use crate::sync::{Mutex, MutexGuard, PoisonError};

/// The flights under way: each brings an outcome `O`, and may offer a candidate `C` before, which is
/// better than nothing.
#[derive(Debug)]
pub(crate) struct Flights<K, O, C> {
    table: Mutex<HashMap<K, Arc<Flight<O, C>>>>,
}

/// One flight, as those see it who think of joining.
#[derive(Debug)]
pub(crate) struct Flight<O, C> {
    /// When it started.
    pub(crate) started: Stamp,
    /// Which kind of answer it may bring, in the caller's code; flights of different kinds are not
    /// shared until they load.
    pub(crate) kind: u64,
    loading: AtomicBool,
    /// Set by one who was content with a candidate: the flight goes on though nobody waits.
    goes_on: Arc<AtomicBool>,
    state: watch::Sender<State<O, C>>,
}

#[derive(Debug)]
struct State<O, C> {
    candidate: Option<C>,
    ending: Ending<O>,
}

#[derive(Debug)]
enum Ending<O> {
    NotYet,
    Landed(O),
    /// Its leader went without landing it.
    Lost,
}

/// A caller's part in a flight.
#[derive(Debug)]
pub(crate) enum Part<K: Eq + Hash, O, C> {
    /// It waits for the one that works.
    Follow(Follower<O, C>),
    /// It must work, and land the flight.
    Lead(Leader<K, O, C>, Follower<O, C>),
}

/// The right, and the duty, to end a flight. Dropped without an outcome, the flight is lost.
#[derive(Debug)]
pub(crate) struct Leader<K: Eq + Hash, O, C> {
    flights: Arc<Flights<K, O, C>>,
    key: K,
    flight: Arc<Flight<O, C>>,
}

/// Waits for a flight.
#[derive(Debug)]
pub(crate) struct Follower<O, C> {
    goes_on: Arc<AtomicBool>,
    state: watch::Receiver<State<O, C>>,
}

/// What a flight has brought so far.
#[derive(Debug)]
pub(crate) enum Progress<O, C> {
    /// Something better than nothing; the flight goes on.
    Candidate(C),
    /// Its outcome.
    Landed(O),
    /// Its leader went without landing it.
    Lost,
}

impl<K, O, C> Default for Flights<K, O, C> {
    fn default() -> Self {
        Self { table: Mutex::new(HashMap::new()) }
    }
}

impl<K: Clone + Eq + Hash, O, C> Flights<K, O, C> {
    /// For each key joins its flight, or starts one of this kind at `now()`; all at one instant.
    ///
    /// Only a flight that is `joinable` is joined. Another one is left to those who wait for it
    /// already: one that started before an invalidation, for example.
    pub(crate) fn join(
        self: &Arc<Self>,
        keys: impl IntoIterator<Item = K>,
        kind: u64,
        joinable: impl Fn(&K, &Flight<O, C>) -> bool,
        mut now: impl FnMut() -> Stamp,
    ) -> Vec<Part<K, O, C>> {
        let mut table = self.lock();
        let parts = keys.into_iter().map(|key| match table.get(&key) {
            Some(flight) if joinable(&key, flight) => Part::Follow(flight.follower()),
            _ => {
                let flight = Arc::new(Flight::new(now(), kind));
                table.insert(key.clone(), Arc::clone(&flight));
                let follower = flight.follower();
                Part::Lead(Leader { flights: Arc::clone(self), key, flight }, follower)
            }
        });
        parts.collect()
    }

    /// Joins the flight of `key` if there is one that is `joinable`.
    pub(crate) fn follow(
        &self,
        key: &K,
        joinable: impl Fn(&K, &Flight<O, C>) -> bool,
    ) -> Option<Follower<O, C>> {
        let table = self.lock();
        let flight = table.get(key).filter(|flight| joinable(key, flight))?;
        Some(flight.follower())
    }

    /// Starts a flight that nobody waits for yet, unless there is one that is `joinable`.
    pub(crate) fn lead(
        self: &Arc<Self>,
        key: &K,
        kind: u64,
        joinable: impl Fn(&K, &Flight<O, C>) -> bool,
        now: impl FnMut() -> Stamp,
    ) -> Option<Leader<K, O, C>> {
        match self.join([key.clone()], kind, joinable, now).pop()? {
            Part::Lead(leader, _follower) => Some(leader),
            Part::Follow(_) => None,
        }
    }

    /// Whether a flight of `key` is under way that `selects` selects.
    pub(crate) fn is_under_way(&self, key: &K, selects: impl Fn(&Flight<O, C>) -> bool) -> bool {
        self.lock().get(key).is_some_and(|flight| selects(flight))
    }

    /// Lets the flight of `key` end unseen by those who ask from now on.
    pub(crate) fn detach(&self, key: &K) {
        self.lock().remove(key);
    }

    /// The same for all whose key `outdated` selects.
    pub(crate) fn detach_where(&self, mut outdated: impl FnMut(&K) -> bool) {
        self.lock().retain(|key, _| !outdated(key));
    }

    /// The keys of the flights under way.
    #[cfg(test)]
    pub(crate) fn keys(&self) -> Vec<K> {
        self.lock().keys().cloned().collect()
    }
}

impl<K, O, C> Flights<K, O, C> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Arc<Flight<O, C>>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<O, C> Flight<O, C> {
    fn new(started: Stamp, kind: u64) -> Self {
        let state = State { candidate: None, ending: Ending::NotYet };
        let (loading, goes_on) = (AtomicBool::new(false), Arc::default());
        Self { started, kind, loading, goes_on, state: watch::Sender::new(state) }
    }

    /// Whether what it brings will come from where it is born.
    pub(crate) fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Acquire)
    }

    fn follower(&self) -> Follower<O, C> {
        Follower { goes_on: Arc::clone(&self.goes_on), state: self.state.subscribe() }
    }
}

impl<K: Eq + Hash, O, C> Leader<K, O, C> {
    /// What it works on.
    pub(crate) fn key(&self) -> &K {
        &self.key
    }

    /// Notes that the outcome will come from where it is born.
    pub(crate) fn begin_load(&self) {
        self.flight.loading.store(true, Ordering::Release);
    }

    /// Gives those who wait something that some of them may be content with.
    pub(crate) fn offer(&self, candidate: C) {
        self.flight.state.send_modify(|state| state.candidate = Some(candidate));
    }

    /// Whether who asks now would still join this flight.
    pub(crate) fn is_current(&self) -> bool {
        self.flights.lock().get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
    }

    /// Waits until nobody waits for any of these flights, and nobody was content with a candidate;
    /// from then on nobody can wait for them. Until then all can be joined.
    pub(crate) async fn all_abandoned(leaders: &[&Self]) {
        let Some(first) = leaders.first() else { return std::future::pending().await };
        loop {
            for leader in leaders {
                leader.flight.state.closed().await;
            }
            if leaders.iter().any(|leader| leader.flight.goes_on.load(Ordering::Acquire)) {
                return std::future::pending().await;
            }
            let mut table = first.flights.lock();
            // Under the lock: who joins does so under it too.
            if leaders.iter().all(|leader| leader.flight.state.receiver_count() == 0) {
                for leader in leaders {
                    remove(&mut table, &leader.key, &leader.flight);
                }
                return;
            }
        }
    }

    /// Does `work` unless somebody has seen to it that this flight ends unseen; nobody can while it
    /// is done, so it must be quick.
    pub(crate) fn if_current<R>(&self, work: impl FnOnce() -> R) -> Option<R> {
        let table = self.flights.lock();
        let current = table.get(&self.key).is_some_and(|one| Arc::ptr_eq(one, &self.flight));
        current.then(work)
    }

    /// Ends the flight for all who wait.
    pub(crate) fn land(self, outcome: O) {
        self.end(Ending::Landed(outcome));
    }

    fn end(&self, ending: Ending<O>) {
        // First out of the table: nobody joins a flight that has landed.
        remove(&mut self.flights.lock(), &self.key, &self.flight);
        self.flight.state.send_if_modified(|state| {
            let first = matches!(state.ending, Ending::NotYet);
            if first {
                state.ending = ending;
            }
            first
        });
    }
}

impl<K: Eq + Hash, O, C> Drop for Leader<K, O, C> {
    fn drop(&mut self) {
        // Without effect after `land`.
        self.end(Ending::Lost);
    }
}

/// Removes exactly this flight: another one of the same key may have taken its place.
fn remove<K: Eq + Hash, O, C>(
    table: &mut HashMap<K, Arc<Flight<O, C>>>,
    key: &K,
    flight: &Arc<Flight<O, C>>,
) {
    if table.get(key).is_some_and(|found| Arc::ptr_eq(found, flight)) {
        table.remove(key);
    }
}

impl<O: Clone, C: Clone> Follower<O, C> {
    /// What the flight brings first. Dropping this future ends only this wait.
    pub(crate) async fn progress(&mut self) -> Progress<O, C> {
        self.wait(|state| state.candidate.is_some()).await
    }

    /// The flight's outcome, or none if it is lost.
    pub(crate) async fn outcome(&mut self) -> Option<O> {
        match self.wait(|_| false).await {
            Progress::Landed(outcome) => Some(outcome),
            Progress::Candidate(_) | Progress::Lost => None,
        }
    }

    async fn wait(&mut self, content: impl Fn(&State<O, C>) -> bool) -> Progress<O, C> {
        let ended = |state: &State<O, C>| !matches!(state.ending, Ending::NotYet) || content(state);
        match self.state.wait_for(ended).await.as_deref() {
            Ok(State { ending: Ending::Landed(outcome), .. }) => Progress::Landed(outcome.clone()),
            Ok(State { ending: Ending::NotYet, candidate: Some(candidate) }) => {
                Progress::Candidate(candidate.clone())
            }
            // The leader always says how it ended before it goes.
            Ok(_) | Err(_) => Progress::Lost,
        }
    }

    /// Ends the wait, content with the candidate; the flight is to go on.
    pub(crate) fn content(self) {
        self.goes_on.store(true, Ordering::Release);
    }

    /// What was offered.
    pub(crate) fn candidate(&self) -> Option<C> {
        self.state.borrow().candidate.clone()
    }
}
