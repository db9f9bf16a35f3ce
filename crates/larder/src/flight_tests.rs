//! The flight table, one step after the other; `tests/flight_schedules.rs` has the many schedules.

use std::sync::Arc;

use cache_core::Stamp;

use crate::flight::{Flights, Follower, Leader, Part, Progress};

type Table = Arc<Flights<&'static str, u32, u32>>;

fn join(flights: &Table, joinable: bool) -> Part<&'static str, u32, u32> {
    flights.join(["a"], 0, |_, _| joinable, || Stamp::from_packed(1)).pop().unwrap()
}

fn lead(flights: &Table) -> (Leader<&'static str, u32, u32>, Follower<u32, u32>) {
    match join(flights, false) {
        Part::Lead(leader, follower) => (leader, follower),
        Part::Follow(_) => panic!("should lead"),
    }
}

fn follow(flights: &Table) -> Follower<u32, u32> {
    match join(flights, true) {
        Part::Follow(follower) => follower,
        Part::Lead(..) => panic!("should follow"),
    }
}

#[tokio::test]
async fn all_get_the_leaders_outcome_and_the_table_is_empty_afterwards() {
    let flights = Table::default();
    let (leader, mut first) = lead(&flights);
    let mut second = follow(&flights);
    assert_eq!(flights.keys(), ["a"]);
    leader.land(7);
    assert!(flights.keys().is_empty());
    assert_eq!((first.outcome().await, second.outcome().await), (Some(7), Some(7)));
}

#[tokio::test]
async fn a_leader_that_is_dropped_tells_those_who_wait() {
    let flights = Table::default();
    let (leader, mut first) = lead(&flights);
    drop(leader);
    assert_eq!(first.outcome().await, None);
    assert!(flights.keys().is_empty());
}

#[tokio::test]
async fn a_flight_that_is_not_joined_is_replaced_and_does_not_disturb_the_new_one() {
    let flights = Table::default();
    let (old, mut old_follower) = lead(&flights);
    let (new, mut new_follower) = lead(&flights);
    assert!(!old.is_current() && new.is_current());
    old.land(1);
    let mut joined = follow(&flights);
    new.land(2);
    assert_eq!(old_follower.outcome().await, Some(1));
    assert_eq!((new_follower.outcome().await, joined.outcome().await), (Some(2), Some(2)));
}

#[tokio::test]
async fn a_detached_flight_is_not_joined() {
    let flights = Table::default();
    let (_old, _follower) = lead(&flights);
    flights.detach(&"a");
    assert!(matches!(join(&flights, true), Part::Lead(..)));
}

#[tokio::test]
async fn a_candidate_comes_before_the_outcome_and_only_to_those_who_want_it() {
    let flights = Table::default();
    let (leader, mut follower) = lead(&flights);
    leader.offer(5);
    assert!(matches!(follower.progress().await, Progress::Candidate(5)));
    leader.land(7);
    assert!(matches!(follower.progress().await, Progress::Landed(7)));
    assert_eq!((follower.outcome().await, follower.candidate()), (Some(7), Some(5)));
}

#[tokio::test]
async fn an_abandoned_flight_is_joined_by_nobody() {
    let flights = Table::default();
    let (leader, follower) = lead(&flights);
    drop(follower);
    Leader::all_abandoned(&[&leader]).await;
    assert!(flights.keys().is_empty());
}

#[test]
fn several_keys_are_joined_at_one_instant() {
    let flights = Table::default();
    let (_leader, _follower) = lead(&flights);
    let parts = flights.join(["a", "b"], 0, |_, _| true, || Stamp::from_packed(1));
    assert!(matches!(parts[..], [Part::Follow(_), Part::Lead(..)]));
}
