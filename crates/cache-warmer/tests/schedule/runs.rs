//! What one node runs.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use cache_warmer::{Job, ScheduleError, Scheduler};
use larder::{Cache, Error, Policy, Timestamp, tiers::MemoryTier};
use tier_testkit::{Call, ChaosTier, Fault, Faults};
use tokio::sync::{mpsc, oneshot};

use crate::world::{World, at, job, ran, shared, shown};

const HOUR: Duration = Duration::from_hours(1);

#[tokio::test]
async fn the_first_start_does_not_run_the_past() {
    let world = World::new("2026-01-01T12:00:00Z");
    let node = world.node(1, vec![job("daily", "0 3 * * *")]);
    let next = node.scheduler.next_runs().await.unwrap();
    assert_eq!(shown(next.first().unwrap().due), "2026-01-02T03:00:00Z");
    let round = node.round().await;
    assert!(round.ran.is_empty() && round.failed.is_empty(), "{round:?}");
    assert_eq!(round.look_again, Some(at("2026-01-02T03:00:00Z")));
    world.set("2026-01-02T02:59:59.999Z");
    node.round().await;
    assert_eq!(world.take_ran(), []);
    world.set("2026-01-02T03:00:00Z");
    node.round().await;
    assert_eq!(world.take_ran(), [ran(1, "daily", "2026-01-02T03:00:00Z")]);
}

#[tokio::test]
async fn what_was_missed_is_caught_up_once() {
    let world = World::new("2026-01-01T12:00:00Z");
    let jobs = || vec![job("daily", "0 3 * * *"), job("weekly", "0 4 * * SUN")];
    let node = world.node(1, jobs());
    node.round().await;
    node.close().await;
    world.set("2026-03-20T10:00:00Z");
    let node = world.node(2, jobs());
    let next = node.scheduler.next_runs().await.unwrap();
    let dues: Vec<String> = next.iter().map(|next| shown(next.due)).collect();
    assert_eq!(dues, ["2026-03-20T03:00:00Z", "2026-03-15T04:00:00Z"], "they are to be caught up");
    let round = node.round().await;
    let expected =
        [ran(2, "daily", "2026-03-20T03:00:00Z"), ran(2, "weekly", "2026-03-15T04:00:00Z")];
    assert_eq!(world.take_ran(), expected);
    assert_eq!(round.look_again, Some(at("2026-03-21T03:00:00Z")));
    node.round().await;
    assert_eq!(world.take_ran(), []);
    let next = node.scheduler.next_runs().await.unwrap();
    let daily = next.first().unwrap();
    assert_eq!(shown(daily.due), "2026-03-21T03:00:00Z");
    let last = daily.last.as_ref().unwrap();
    assert_eq!(
        (shown(last.due), last.began),
        (shown(at("2026-03-20T03:00:00Z")), at("2026-03-20T10:00:00Z"))
    );
    assert_eq!((last.succeeded, last.note.as_str()), (true, "done"));
}

#[tokio::test]
async fn a_restart_does_not_run_it_again() {
    let world = World::new("2026-01-01T12:00:00Z");
    // A year is longer than anything is kept by default.
    let jobs = || vec![job("hourly", "@hourly"), job("yearly", "30 13 1 1 *")];
    let node = world.node(1, jobs());
    node.round().await;
    world.set("2026-01-01T13:30:00Z");
    node.round().await;
    assert_eq!(world.take_ran().len(), 2);
    node.close().await;
    let node = world.node(2, jobs());
    node.round().await;
    assert_eq!(world.take_ran(), []);
    node.close().await;
    world.set("2026-12-31T23:10:00Z");
    let node = world.node(3, jobs());
    node.round().await;
    assert_eq!(world.take_ran(), [ran(3, "hourly", "2026-12-31T23:00:00Z")]);
    let next = node.scheduler.next_runs().await.unwrap();
    let yearly = next.last().unwrap();
    assert_eq!(shown(yearly.due), "2027-01-01T13:30:00Z");
    assert_eq!(shown(yearly.last.as_ref().unwrap().due), "2026-01-01T13:30:00Z");
}

#[tokio::test]
async fn a_failing_run_is_noted_and_not_repeated() {
    let world = World::new("2026-01-01T12:00:00Z");
    let node = world.node(1, vec![job("hourly", "@hourly"), job("panics", "@hourly")]);
    node.round().await;
    world.set("2026-01-01T13:00:10Z");
    let fail = async |job: &Job, due| {
        node.note(job, due);
        assert!(job.name() != "panics", "the {} job is broken", job.name());
        world.clock.advance(Duration::from_secs(5));
        Err("3 of 20 markets failed".to_owned())
    };
    let round = node.scheduler.run_due(fail).await;
    assert_eq!(round.ran.len(), 2);
    assert_eq!(world.take_ran().len(), 2);
    node.round().await;
    assert_eq!(world.take_ran(), [], "not before it is due again");
    let again = world.node(2, vec![job("hourly", "@hourly"), job("panics", "@hourly")]);
    let lasts = again.scheduler.next_runs().await.unwrap();
    let lasts: Vec<_> = lasts.into_iter().map(|next| next.last.unwrap()).collect();
    let [failed, panicked] = lasts.as_slice() else { unreachable!("there are two jobs") };
    assert_eq!((failed.succeeded, failed.note.as_str()), (false, "3 of 20 markets failed"));
    assert_eq!(failed.ended, at("2026-01-01T13:00:15Z"));
    assert!(!panicked.succeeded);
    assert_eq!(panicked.note, "it panicked: the panics job is broken");
    world.set("2026-01-01T14:00:00Z");
    again.round().await;
    assert_eq!(world.take_ran().len(), 2);
}

#[tokio::test]
async fn another_schedule_has_not_missed_anything() {
    let world = World::new("2026-01-01T00:30:00Z");
    let node = world.node(1, vec![job("daily", "0 3 * * *")]);
    node.round().await;
    node.close().await;
    world.set("2026-01-05T12:00:00Z");
    let node = world.node(2, vec![job("daily", "0 4 * * *")]);
    node.round().await;
    assert_eq!(world.take_ran(), []);
}

#[tokio::test]
async fn a_cleared_cache_and_a_clock_set_back_repeat_nothing() {
    let world = World::new("2026-01-01T11:30:00Z");
    let node = world.node(1, vec![job("hourly", "@hourly")]);
    node.round().await;
    world.set("2026-01-01T12:00:00Z");
    node.round().await;
    world.set("2026-01-01T13:00:00Z");
    node.round().await;
    assert_eq!(world.take_ran().len(), 2);
    world.set("2026-01-01T12:10:00Z");
    node.round().await;
    world.set("2026-01-01T13:00:01Z");
    node.cache.clear().await.unwrap();
    node.round().await;
    let other = world.node(2, vec![job("hourly", "@hourly")]);
    other.round().await;
    assert_eq!(world.take_ran(), []);
    world.set("2026-01-01T14:00:00Z");
    other.round().await;
    assert_eq!(world.take_ran(), [ran(2, "hourly", "2026-01-01T14:00:00Z")]);
}

#[tokio::test]
async fn the_default_policy_of_a_cache_does_not_matter() {
    let world = World::new("2026-01-01T12:00:00Z");
    let policy = Policy::ttl(Duration::from_secs(1)).jitter(1.0).refresh_ahead(0.01);
    let cache = Cache::builder()
        .tier(MemoryTier::with_clock(1 << 20, shared(&world.clock)))
        .clock(shared(&world.clock))
        .default_policy(policy);
    // Many: what is shortened at random may last long enough by chance.
    let jobs = || (0..30).map(|n| job(&format!("yearly-{n}"), "0 13 1 1 *")).collect();
    let node = world.node_with(1, cache.build().unwrap(), jobs());
    node.round().await;
    world.set("2026-01-01T13:00:00Z");
    node.round().await;
    assert_eq!(world.take_ran().len(), 30);
    world.set("2026-12-31T00:00:00Z");
    let again = world.node_with(2, node.cache.clone(), jobs());
    again.round().await;
    assert_eq!(world.take_ran(), []);
}

#[tokio::test]
async fn what_could_not_be_stored_is_not_run_again_by_the_same_process() {
    let world = World::new("2026-01-01T12:30:00Z");
    let tier = ChaosTier::new("flaky", MemoryTier::with_clock(1 << 20, shared(&world.clock)), 7);
    let chaos = tier.chaos();
    let cache = Cache::builder().tier(tier).clock(shared(&world.clock)).build().unwrap();
    let node = world.node_with(1, cache, vec![job("hourly", "@hourly")]);
    node.round().await;
    world.set("2026-01-01T13:00:00Z");
    chaos.set(Faults::none().on(Call::Put, Fault::Error, 1.0));
    let round = node.round().await;
    assert_eq!(round.ran.len(), 1, "{round:?}");
    let last = node.scheduler.next_runs().await.unwrap().remove(0);
    assert_eq!((shown(last.due).as_str(), last.last), ("2026-01-01T14:00:00Z", None));
    chaos.heal();
    node.round().await;
    assert_eq!(world.take_ran().len(), 1);
}

#[test]
fn jitter_delays_less_than_it_may_and_not_beyond_the_next() {
    let delays = |name: &str, jitter| {
        let job = job(name, "@hourly").jitter(jitter);
        let due = |hour| at("2026-01-01T00:00:00Z").saturating_add(HOUR * hour);
        let delay = |hour| job.begins(due(hour)).saturating_since(due(hour));
        (0..1_000).map(delay).collect::<Vec<_>>()
    };
    let short = delays("a", Duration::from_mins(10));
    assert!(short.iter().all(|delay| *delay < Duration::from_mins(10)));
    assert!(short.iter().any(|delay| *delay < Duration::from_mins(1)));
    assert!(short.iter().any(|delay| *delay > Duration::from_mins(9)));
    assert!(delays("a", HOUR * 5).iter().all(|delay| *delay < HOUR));
    assert_eq!(short, delays("a", Duration::from_mins(10)), "all nodes agree");
    assert_ne!(short, delays("b", Duration::from_mins(10)), "jobs do not begin together");
    assert!(delays("a", Duration::ZERO).iter().all(Duration::is_zero));
    // Nodes of different builds agree, too.
    let begins = job("a", "@hourly").jitter(HOUR).begins(at("2026-01-01T00:00:00Z"));
    assert_eq!(shown(begins), "2026-01-01T00:31:03.807Z");
}

#[tokio::test]
async fn a_delayed_job_begins_when_its_delay_is_over() {
    let world = World::new("2026-01-01T12:30:00Z");
    let delayed = job("delayed", "@hourly").jitter(Duration::from_mins(30));
    let due = at("2026-01-01T13:00:00Z");
    let begins = delayed.begins(due);
    assert!(begins > due);
    let node = world.node(1, vec![delayed]);
    node.round().await;
    world.clock.set(begins.as_millis() - 1);
    let round = node.round().await;
    assert_eq!((round.ran.len(), round.look_again), (0, Some(begins)));
    let next = node.scheduler.next_runs().await.unwrap();
    let next = next.first().unwrap();
    assert_eq!((next.due, next.begins), (due, begins));
    world.clock.set(begins.as_millis());
    node.round().await;
    assert_eq!(world.take_ran(), [ran(1, "delayed", "2026-01-01T13:00:00Z")]);
}

#[tokio::test]
async fn names_are_given_once() {
    let world = World::new("2026-01-01T12:00:00Z");
    let cache = world.cache(Duration::from_secs(5));
    let jobs = vec![job("a", "@hourly"), job("b", "@hourly"), job("a", "@daily")];
    let error = Scheduler::new(&cache, jobs, shared(&world.clock)).unwrap_err();
    assert_eq!(error, ScheduleError::DuplicateJob { name: "a".to_owned() });
}

/// A node that runs until it is told to stop, in a task of its own: so its future can be sent.
#[tokio::test(flavor = "multi_thread")]
async fn it_runs_until_it_is_stopped_and_finishes_what_it_runs() {
    let world = World::new("2026-01-01T12:59:59.900Z");
    let node = world.node(1, vec![job("hourly", "@hourly"), job("other", "0 0 1 1 *")]);
    node.round().await;
    let scheduler = Arc::new(node.scheduler);
    let (began, mut heard) = mpsc::unbounded_channel();
    let (go_on, gone_on) = oneshot::channel::<()>();
    let gone_on = Mutex::new(Some(gone_on));
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn({
        let scheduler = Arc::clone(&scheduler);
        async move {
            let stop = async { drop(stopped.await) };
            let run = async move |job: &Job, due: Timestamp| {
                began.send((job.name().to_owned(), shown(due))).unwrap();
                let gone_on = gone_on.lock().unwrap().take();
                if let Some(gone_on) = gone_on {
                    gone_on.await.unwrap();
                }
                Ok(String::new())
            };
            scheduler.run_until(stop, run).await
        }
    });
    world.set("2026-01-01T13:00:00Z");
    let patience = Duration::from_secs(20);
    let first = tokio::time::timeout(patience, heard.recv()).await.unwrap().unwrap();
    assert_eq!(first, ("hourly".to_owned(), "2026-01-01T13:00:00Z".to_owned()));
    // It comes to be due again while it runs: then it follows at once.
    world.set("2026-01-01T15:20:00Z");
    go_on.send(()).unwrap();
    let second = tokio::time::timeout(patience, heard.recv()).await.unwrap().unwrap();
    assert_eq!(second, ("hourly".to_owned(), "2026-01-01T15:00:00Z".to_owned()));
    stop.send(()).unwrap();
    tokio::time::timeout(patience, running).await.unwrap().unwrap().unwrap();
    let next = scheduler.next_runs().await.unwrap();
    assert_eq!(shown(next.first().unwrap().last.as_ref().unwrap().due), "2026-01-01T15:00:00Z");
}

#[tokio::test]
async fn one_that_is_stopped_already_begins_nothing() {
    let world = World::new("2026-01-01T12:00:00Z");
    let node = world.node(1, vec![job("hourly", "@hourly")]);
    node.round().await;
    world.set("2026-01-01T13:00:00Z");
    let run = async |job: &Job, due| {
        node.note(job, due);
        Ok(String::new())
    };
    node.scheduler.run_until(std::future::ready(()), run).await.unwrap();
    assert_eq!(world.take_ran(), []);
}

#[tokio::test]
async fn it_ends_when_the_cache_is_closed() {
    let world = World::new("2026-01-01T12:00:00Z");
    let node = world.node(1, vec![job("hourly", "@hourly")]);
    assert!(node.cache.close(Duration::from_secs(5)).await.is_clean());
    let run = async |_: &Job, _| Ok(String::new());
    let ended = node.scheduler.run_until(std::future::pending(), run).await;
    assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
}
