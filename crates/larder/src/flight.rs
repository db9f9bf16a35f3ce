//! Single flight: one load per key at a time, shared by all who ask meanwhile.

use std::{
    collections::{HashMap, hash_map},
    sync::{Arc, Mutex, PoisonError},
};

use cache_core::{Key, Stamp};
use tokio::sync::watch;

use crate::{Error, Hit};

type Outcome = Result<Hit, Error>;

/// The loads under way.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    table: Mutex<HashMap<Key, Arc<Flight>>>,
}

#[derive(Debug)]
struct Flight {
    started: Stamp,
    outcome: watch::Sender<Option<Outcome>>,
}

/// A caller's part in a flight.
pub(crate) enum Part {
    /// It waits for the one that loads.
    Follow(Follower),
    /// It must load, and land the flight.
    Lead(Leader, Follower),
}

/// The right, and the duty, to end a flight. Dropped without a result, it ends as aborted.
#[derive(Debug)]
pub(crate) struct Leader {
    flights: Arc<Flights>,
    key: Key,
    flight: Arc<Flight>,
}

/// Waits for a flight's outcome.
#[derive(Debug)]
pub(crate) struct Follower {
    key: Key,
    outcome: watch::Receiver<Option<Outcome>>,
}

impl Flights {
    /// Joins the flight of `key`, or starts one at `now()`.
    ///
    /// A flight that started before an invalidation, as `outdated` tells, is not joined: those who
    /// wait for it get its value, who comes later must not.
    pub(crate) fn join(
        self: &Arc<Self>,
        key: &Key,
        outdated: impl FnOnce(Stamp) -> bool,
        now: impl FnOnce() -> Stamp,
    ) -> Part {
        let mut table = self.lock();
        match table.get(key) {
            Some(flight) if !outdated(flight.started) => Part::Follow(flight.follower(key)),
            _ => {
                let flight = Arc::new(Flight { started: now(), outcome: watch::Sender::new(None) });
                table.insert(key.clone(), Arc::clone(&flight));
                let follower = flight.follower(key);
                let leader = Leader { flights: Arc::clone(self), key: key.clone(), flight };
                Part::Lead(leader, follower)
            }
        }
    }

    /// Lets the flight of `key` end unseen by those who ask from now on.
    pub(crate) fn detach(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// The same for all whose key `outdated` selects.
    pub(crate) fn detach_where(&self, mut outdated: impl FnMut(&Key) -> bool) {
        self.lock().retain(|key, _| !outdated(key));
    }

    /// Loads under way.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Flight>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes exactly this flight: another one of the same key may have taken its place.
    fn remove(&self, key: &Key, flight: &Arc<Flight>) {
        if let hash_map::Entry::Occupied(entry) = self.lock().entry(key.clone())
            && Arc::ptr_eq(entry.get(), flight)
        {
            entry.remove();
        }
    }
}

impl Flight {
    fn follower(&self, key: &Key) -> Follower {
        Follower { key: key.clone(), outcome: self.outcome.subscribe() }
    }
}

impl Leader {
    /// Ends the flight for all who wait.
    pub(crate) fn land(self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&self, outcome: Outcome) {
        // First out of the table: nobody joins a flight that has landed.
        self.flights.remove(&self.key, &self.flight);
        self.flight.outcome.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(outcome);
            }
            first
        });
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        // Without effect after `land`.
        self.end(Err(Error::LoadAborted { key: self.key.clone() }));
    }
}

impl Follower {
    /// The flight's outcome. Dropping this future ends only this wait.
    pub(crate) async fn outcome(mut self) -> Outcome {
        match self.outcome.wait_for(Option::is_some).await {
            Ok(outcome) => match &*outcome {
                Some(outcome) => outcome.clone(),
                None => Err(Error::LoadAborted { key: self.key.clone() }),
            },
            // The leader always sends before it goes.
            Err(_closed) => Err(Error::LoadAborted { key: self.key.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use cache_core::Entry;

    use super::*;
    use crate::ServedBy;

    fn hit(value: &'static str) -> Hit {
        Hit::new(Entry::builder(value, Stamp::ZERO).build(), ServedBy::Origin)
    }

    fn join(flights: &Arc<Flights>, outdated: bool) -> Part {
        flights.join(&Key::new("a:1"), |_| outdated, || Stamp::from_packed(1))
    }

    fn lead(flights: &Arc<Flights>, outdated: bool) -> (Leader, Follower) {
        match join(flights, outdated) {
            Part::Lead(leader, follower) => (leader, follower),
            Part::Follow(_) => panic!("should lead"),
        }
    }

    fn follow(flights: &Arc<Flights>) -> Follower {
        match join(flights, false) {
            Part::Follow(follower) => follower,
            Part::Lead(..) => panic!("should follow"),
        }
    }

    #[tokio::test]
    async fn all_get_the_leaders_outcome_and_the_table_is_empty_afterwards() {
        let flights = Arc::new(Flights::default());
        let (leader, first) = lead(&flights, false);
        let second = follow(&flights);
        assert_eq!(flights.len(), 1);
        leader.land(Ok(hit("v")));
        assert_eq!(flights.len(), 0);
        for follower in [first, second] {
            assert_eq!(follower.outcome().await.unwrap().value(), "v");
        }
    }

    #[tokio::test]
    async fn a_leader_that_is_dropped_tells_those_who_wait() {
        let flights = Arc::new(Flights::default());
        let (leader, first) = lead(&flights, false);
        drop(leader);
        assert!(matches!(first.outcome().await, Err(Error::LoadAborted { .. })));
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test]
    async fn an_outdated_flight_is_replaced_and_lands_without_disturbing_the_new_one() {
        let flights = Arc::new(Flights::default());
        let (old, old_follower) = lead(&flights, false);
        let (new, new_follower) = lead(&flights, true);
        old.land(Ok(hit("old")));
        let joined = follow(&flights);
        new.land(Ok(hit("new")));
        assert_eq!(old_follower.outcome().await.unwrap().value(), "old");
        assert_eq!(new_follower.outcome().await.unwrap().value(), "new");
        assert_eq!(joined.outcome().await.unwrap().value(), "new");
    }

    #[tokio::test]
    async fn a_detached_flight_is_not_joined() {
        let flights = Arc::new(Flights::default());
        let (_old, _follower) = lead(&flights, false);
        flights.detach(&Key::new("a:1"));
        let (_new, _) = lead(&flights, false);
    }
}
