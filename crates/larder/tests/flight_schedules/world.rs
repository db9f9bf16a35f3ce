//! A table of flights, those who use it, and an account of what they see.
//!
//! Whatever a scenario does with the table goes through here, and is checked against the account.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cache_core::Stamp;
use shuttle::future::{JoinHandle, spawn, yield_now};

use crate::{
    flight::{Flight, Flights, Follower, Leader, Part, Progress},
    step,
    sync::{Mutex, PoisonError},
};

pub(crate) type Key = &'static str;

/// What a flight lands.
pub(crate) type Answer = Result<u64, Failed>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

#[derive(Debug)]
pub(crate) struct World {
    flights: Arc<Flights<Key, Answer, u64>>,
    store: Mutex<BTreeMap<Key, (Stamp, u64)>>,
    // Locks of the standard library: a look into the account is no step. Nobody keeps them over one.
    tasks: std::sync::Mutex<Vec<JoinHandle<()>>>,
    account: std::sync::Mutex<Account>,
}

/// What the tests know of flights, and the table need not.
#[derive(Debug, Default)]
struct Account {
    stamps: u64,
    loads: BTreeMap<Key, u64>,
    /// Those that somebody has seen end, or that gave up.
    ended: BTreeSet<Stamp>,
    /// Those whose candidate somebody took: they are not to be given up.
    enough: BTreeSet<Stamp>,
    /// Those that somebody would not join.
    refused: BTreeSet<Stamp>,
    /// What started before this has been detached.
    detached: u64,
    /// What started before this may have been detached.
    maybe_detached: u64,
}

/// A caller's part in a flight.
#[derive(Debug)]
pub(crate) struct Seat {
    /// What it is to do, if it leads.
    pub(crate) work: Option<Work>,
    pub(crate) wait: Wait,
}

#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) started: Stamp,
    leader: Leader<Key, Answer, u64>,
    world: Arc<World>,
}

#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) started: Stamp,
    follower: Follower<Answer, u64>,
    world: Arc<World>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            flights: Arc::default(),
            store: Mutex::new(BTreeMap::new()),
            tasks: std::sync::Mutex::default(),
            account: std::sync::Mutex::default(),
        })
    }

    fn account<T>(&self, look: impl FnOnce(&mut Account) -> T) -> T {
        look(&mut self.account.lock().unwrap())
    }

    pub(crate) fn stamp(&self) -> Stamp {
        self.account(|account| {
            account.stamps += 1;
            Stamp::from_packed(account.stamps)
        })
    }

    /// A flight of kind 0 that is there is joined.
    pub(crate) fn join_any(self: &Arc<Self>, key: Key) -> Seat {
        self.join([key], 0, |_| true).pop().unwrap()
    }

    pub(crate) fn join(
        self: &Arc<Self>,
        keys: impl IntoIterator<Item = Key>,
        kind: u64,
        joinable: impl Fn(&Flight<Answer, u64>) -> bool,
    ) -> Vec<Seat> {
        step();
        let (started, too_late) = (RefCell::new(Vec::new()), Cell::new(false));
        // Under the table's lock.
        let joinable = |_: &Key, flight: &Flight<Answer, u64>| {
            let joins = joinable(flight);
            self.account(|account| {
                if joins {
                    started.borrow_mut().push(flight.started);
                    too_late.set(too_late.get() || account.ended.contains(&flight.started));
                } else {
                    account.refused.insert(flight.started);
                }
            });
            joins
        };
        let now = || {
            let now = self.stamp();
            started.borrow_mut().push(now);
            now
        };
        let parts = self.flights.join(keys, kind, joinable, now);
        assert!(!too_late.get(), "joined a flight that had ended");
        let seats = parts.into_iter().zip(started.into_inner()).map(|(part, started)| {
            let (work, follower) = match part {
                Part::Follow(follower) => (None, follower),
                Part::Lead(leader, follower) => (Some(leader), follower),
            };
            let work = work.map(|leader| Work { started, leader, world: Arc::clone(self) });
            Seat { work, wait: Wait { started, follower, world: Arc::clone(self) } }
        });
        seats.collect()
    }

    /// A place with those who wait already, if there are any whom one may join.
    pub(crate) fn follow(
        self: &Arc<Self>,
        key: Key,
        joinable: impl Fn(&Flight<Answer, u64>) -> bool,
    ) -> Option<Wait> {
        step();
        let (started, too_late) = (Cell::new(Stamp::ZERO), Cell::new(false));
        let joinable = |_: &Key, flight: &Flight<Answer, u64>| {
            started.set(flight.started);
            too_late.set(self.account(|account| account.ended.contains(&flight.started)));
            joinable(flight)
        };
        let follower = self.flights.follow(&key, joinable)?;
        assert!(!too_late.get(), "joined a flight that had ended");
        Some(Wait { started: started.get(), follower, world: Arc::clone(self) })
    }

    /// Work that nobody waits for, unless there is some to join.
    pub(crate) fn lead(self: &Arc<Self>, key: Key) -> Option<Work> {
        let mut started = Stamp::ZERO;
        let now = || {
            started = self.stamp();
            started
        };
        let leader = self.flights.lead(&key, 0, |_, _| true, now)?;
        Some(Work { started, leader, world: Arc::clone(self) })
    }

    pub(crate) fn detach(&self, key: Key) {
        self.detaching(|flights| flights.detach(&key));
    }

    pub(crate) fn detach_where(&self, outdated: impl Fn(&Key) -> bool) {
        self.detaching(|flights| flights.detach_where(outdated));
    }

    fn detaching(&self, detach: impl FnOnce(&Flights<Key, Answer, u64>)) {
        step();
        let before = self.stamp().packed();
        self.account(|account| account.maybe_detached = u64::MAX);
        detach(&self.flights);
        let after = self.stamp().packed();
        self.account(|account| {
            account.detached = account.detached.max(before);
            account.maybe_detached = after;
        });
    }

    pub(crate) fn stored(&self, key: Key) -> Option<u64> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        store.get(key).map(|(_, value)| *value)
    }

    /// Stores a value, unless there is a newer one.
    pub(crate) fn store(&self, key: Key, as_of: Stamp, value: u64) {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if store.get(key).is_none_or(|(stored, _)| *stored <= as_of) {
            store.insert(key, (as_of, value));
        }
    }

    pub(crate) fn forget(&self, key: Key) {
        self.store.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    pub(crate) fn loads(&self, key: Key) -> u64 {
        self.account(|account| account.loads.get(key).copied().unwrap_or(0))
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = spawn(task);
        self.tasks.lock().unwrap().push(task);
    }

    /// Waits for what was spawned; then nothing is left.
    pub(crate) async fn rest(&self) {
        loop {
            let Some(task) = self.tasks.lock().unwrap().pop() else { break };
            task.await.unwrap();
        }
        assert!(self.flights.keys().is_empty(), "a flight was left behind");
    }

    /// Asks as the chain does: the store, then whoever works on it already, else oneself.
    pub(crate) async fn ask<const N: usize>(
        self: Arc<Self>,
        keys: [Key; N],
    ) -> [Option<Answer>; N] {
        let mut answers = keys.map(|key| self.stored(key).map(Ok));
        let places: Vec<usize> = (0..N).filter(|place| answers[*place].is_none()).collect();
        let seats = self.join(places.iter().map(|place| keys[*place]), 0, |_| true);
        step();
        let (mut works, mut waits) = (Vec::new(), Vec::new());
        for (place, Seat { work, wait }) in places.into_iter().zip(seats) {
            works.extend(work);
            waits.push((place, wait));
        }
        if !works.is_empty() {
            self.spawn(work_together(works));
        }
        for (place, mut wait) in waits {
            answers[place] = wait.outcome().await;
        }
        answers
    }
}

/// Looks again, loads what is still missing, and stores it before it lands.
pub(crate) async fn work_together(works: Vec<Work>) {
    let mut missing = Vec::new();
    for work in works {
        match work.world.stored(work.key()) {
            Some(value) => work.land(Ok(value)),
            None => missing.push(work),
        }
    }
    let mut loaded = Vec::new();
    for work in missing {
        let value = work.load().await;
        loaded.push((work, value));
    }
    for (work, value) in loaded {
        work.store(value);
        work.land(Ok(value));
    }
}

impl Work {
    pub(crate) fn key(&self) -> Key {
        self.leader.key()
    }

    /// Another value each time.
    pub(crate) async fn load(&self) -> u64 {
        self.leader.begin_load();
        yield_now().await;
        self.world.account(|account| {
            let loads = account.loads.entry(self.key()).or_default();
            *loads += 1;
            *loads
        })
    }

    pub(crate) fn store(&self, value: u64) {
        self.world.store(self.key(), self.started, value);
    }

    pub(crate) fn offer(&self, candidate: u64) {
        step();
        self.leader.offer(candidate);
    }

    /// Whether who asks now would join. Only what was refused or detached may have lost its place.
    pub(crate) fn is_current(&self) -> bool {
        let detached = self.world.account(|account| self.started.packed() < account.detached);
        let current = self.leader.is_current();
        assert!(!(current && detached), "was detached, and is joined");
        let outdated = self.world.account(|account| {
            account.refused.contains(&self.started)
                || self.started.packed() < account.maybe_detached
        });
        assert!(
            current || outdated,
            "another flight of the key began while this one could be joined"
        );
        let own = |flight: &Flight<Answer, u64>| flight.started == self.started;
        assert!(current || !self.world.flights.is_under_way(&self.key(), own), "has come back");
        current
    }

    /// Stores a value, unless somebody has seen to it that this flight ends unseen.
    pub(crate) fn store_if_current(&self, value: u64) -> bool {
        let stored = self.leader.if_current(|| {
            step();
            let detached = self.world.account(|account| account.detached);
            assert!(self.started.packed() >= detached, "was detached meanwhile");
            self.store(value);
        });
        stored.is_some()
    }

    /// Until nobody waits for any of these.
    pub(crate) async fn all_abandoned(works: &[Self]) {
        let leaders: Vec<_> = works.iter().map(|work| &work.leader).collect();
        Leader::all_abandoned(&leaders).await;
        for Self { started, leader, world } in works {
            let enough = world.account(|account| {
                account.ended.insert(*started);
                account.enough.contains(started)
            });
            assert!(!enough, "was given up, though somebody took its candidate");
            assert!(!leader.is_current(), "was given up, and can be joined");
        }
    }

    pub(crate) fn land(self, answer: Answer) {
        self.is_current();
        self.leader.land(answer);
    }
}

impl Wait {
    pub(crate) async fn outcome(&mut self) -> Option<Answer> {
        step();
        let outcome = self.follower.outcome().await;
        self.world.account(|account| account.ended.insert(self.started));
        outcome
    }

    pub(crate) async fn progress(&mut self) -> Progress<Answer, u64> {
        step();
        let progress = self.follower.progress().await;
        if !matches!(progress, Progress::Candidate(_)) {
            self.world.account(|account| account.ended.insert(self.started));
        }
        progress
    }

    pub(crate) fn content(self) {
        // With what follows it is one step.
        self.world.account(|account| account.enough.insert(self.started));
        self.follower.content();
    }

    pub(crate) fn candidate(&self) -> Option<u64> {
        self.follower.candidate()
    }
}
