//! What nodes that share a file run among them.

use std::time::Duration;

use cache_warmer::{Job, Round};
use futures_util::{
    future::{join, join_all},
    poll,
};
use tokio::sync::Notify;

use crate::world::{Node, World, at, job, ran, shown};

/// A round in which each job waits until it is told to end.
async fn held(node: &Node, begun: &Notify, end: &Notify) -> Round {
    let run = async |job: &Job, due| {
        node.note(job, due);
        begun.notify_one();
        end.notified().await;
        Ok(String::new())
    };
    node.scheduler.run_due(run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_run_an_occurrence_once() {
    let world = World::new("2026-01-01T12:30:00Z");
    let jobs = || vec![job("a", "@hourly"), job("b", "0 * * * *"), job("c", "*/20 * * * *")];
    let nodes: Vec<Node> = (0..4).map(|number| world.node(number, jobs())).collect();
    join_all(nodes.iter().map(Node::round)).await;
    for hour in 13..18 {
        world.set(&format!("2026-01-01T{hour}:00:00Z"));
        let rounds = join_all(nodes.iter().map(Node::round)).await;
        let mut names: Vec<_> =
            rounds.iter().flat_map(|round| &round.ran).map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["a", "b", "c"], "at {hour}:00: {rounds:?}");
        assert!(rounds.iter().all(|round| round.failed.is_empty()), "{rounds:?}");
        assert_eq!(world.take_ran().len(), 3, "at {hour}:00");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_schedulers_of_one_process_run_it_once() {
    let world = World::new("2026-01-01T12:30:00Z");
    let cache = world.cache(Duration::from_secs(5));
    let one = world.node_with(1, cache.clone(), vec![job("a", "@hourly")]);
    let other = world.node_with(2, cache, vec![job("a", "@hourly")]);
    join(one.round(), other.round()).await;
    world.set("2026-01-01T13:00:00Z");
    join(one.round(), other.round()).await;
    assert_eq!(world.take_ran().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_on_one_node_at_a_time_even_when_it_is_due_again() {
    let world = World::new("2026-01-01T12:30:00Z");
    let one = world.node(1, vec![job("long", "@hourly")]);
    let other = world.node(2, vec![job("long", "@hourly"), job("quick", "@hourly")]);
    join(one.round(), other.round()).await;
    world.set("2026-01-01T13:00:00Z");
    let (begun, end) = (Notify::new(), Notify::new());
    let watch = async {
        begun.notified().await;
        // Not the file's: a lease is kept, but not so fast.
        world.clock.set(at("2026-01-01T14:00:00Z").as_millis());
        let round = other.round().await;
        assert_eq!(round.elsewhere, ["long"]);
        let again = round.look_again.unwrap();
        assert_eq!(shown(again), "2026-01-01T14:00:30Z", "it is looked at again soon");
        end.notify_one();
    };
    let (round, ()) = join(held(&one, &begun, &end), watch).await;
    assert_eq!(round.ran.len(), 1);
    let expected =
        [ran(1, "long", "2026-01-01T13:00:00Z"), ran(2, "quick", "2026-01-01T14:00:00Z")];
    assert_eq!(world.take_ran(), expected);
    other.round().await;
    assert_eq!(world.take_ran(), [ran(2, "long", "2026-01-01T14:00:00Z")]);
}

#[tokio::test]
async fn a_run_that_takes_hours_stays_the_nodes() {
    let world = World::new("2026-01-01T12:30:00Z");
    let lease = Duration::from_millis(300);
    let one = world.node_with(1, world.cache(lease), vec![job("long", "@hourly")]);
    let other = world.node_with(2, world.cache(lease), vec![job("long", "@hourly")]);
    join(one.round(), other.round()).await;
    world.set("2026-01-01T13:00:00Z");
    let (begun, end) = (Notify::new(), Notify::new());
    let watch = async {
        begun.notified().await;
        // Three hours pass for what measures the run, and then as much as the lease for the file.
        tokio::time::pause();
        tokio::time::advance(Duration::from_hours(3)).await;
        tokio::time::resume();
        for _ in 0..10 {
            tokio::time::sleep(lease / 3).await;
            world.file_clock.advance(lease / 5);
        }
        let round = other.round().await;
        assert_eq!(round.elsewhere, ["long"]);
        end.notify_one();
    };
    join(held(&one, &begun, &end), watch).await;
    assert_eq!(world.take_ran(), [ran(1, "long", "2026-01-01T13:00:00Z")]);
    other.round().await;
    assert_eq!(world.take_ran(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_cleared_during_a_run_repeats_nothing() {
    let world = World::new("2026-01-01T12:30:00Z");
    let one = world.node(1, vec![job("long", "@hourly")]);
    let other = world.node(2, vec![job("long", "@hourly")]);
    join(one.round(), other.round()).await;
    world.set("2026-01-01T13:00:00Z");
    let (begun, end) = (Notify::new(), Notify::new());
    let watch = async {
        begun.notified().await;
        // It gives up the leases, too.
        other.cache.clear().await.unwrap();
        other.round().await;
        end.notify_one();
    };
    join(held(&one, &begun, &end), watch).await;
    other.round().await;
    assert_eq!(world.take_ran(), [ran(1, "long", "2026-01-01T13:00:00Z")]);
}

#[tokio::test]
async fn a_run_that_was_dropped_is_run_by_another() {
    let world = World::new("2026-01-01T12:30:00Z");
    let one = world.node(1, vec![job("a", "@hourly")]);
    let other = world.node(2, vec![job("a", "@hourly")]);
    join(one.round(), other.round()).await;
    world.set("2026-01-01T13:00:00Z");
    let (begun, end) = (Notify::new(), Notify::new());
    let mut running = Box::pin(held(&one, &begun, &end));
    assert!(poll!(&mut running).is_pending());
    tokio::select! {
        _ = &mut running => unreachable!("it is not told to end"),
        () = begun.notified() => {}
    }
    drop(running);
    other.round().await;
    let runs = [ran(1, "a", "2026-01-01T13:00:00Z"), ran(2, "a", "2026-01-01T13:00:00Z")];
    assert_eq!(world.take_ran(), runs);
    one.round().await;
    assert_eq!(world.take_ran(), []);
}
