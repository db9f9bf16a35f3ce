//! Who shares whose work, and what those get who wait.

use std::sync::Arc;

use cache_core::Stamp;
use shuttle::future::{spawn, yield_now};
use tokio::sync::watch;

use crate::{
    check,
    flight::{Flight, Progress},
    step,
    world::{Answer, Wait, Work, World, work_together},
};

#[test]
fn one_load() {
    check(one_load_scenario);
}

/// Callers of one missing key, a refresh in the background, and one who only listens: one load for
/// all.
async fn one_load_scenario() {
    let world = World::new();
    let callers = [(); 3].map(|()| spawn(Arc::clone(&world).ask(["a"])));
    step();
    if let Some(work) = world.lead("a") {
        world.spawn(work_together(vec![work]));
    }
    if let Some(mut wait) = world.follow("a", |_| true) {
        assert_eq!(wait.outcome().await, Some(Ok(1)));
    }
    for caller in callers {
        assert_eq!(caller.await.unwrap(), [Some(Ok(1))]);
    }
    world.rest().await;
    assert_eq!(world.loads("a"), 1);
}

#[test]
fn overlapping_batches() {
    check(overlapping_batches_scenario);
}

/// Batches that overlap in different orders, one even with itself: one load per key.
async fn overlapping_batches_scenario() {
    let world = World::new();
    let batches = [["a", "b"], ["b", "a"], ["b", "b"]];
    let batches = batches.map(|keys| spawn(Arc::clone(&world).ask(keys)));
    for batch in batches {
        assert_eq!(batch.await.unwrap(), [Some(Ok(1)); 2]);
    }
    world.rest().await;
    assert_eq!((world.loads("a"), world.loads("b")), (1, 1));
}

#[test]
fn kinds() {
    check(kinds_scenario);
}

/// Who wants a load shares a flight that may do without only once it loads.
async fn kinds_scenario() {
    const STORED: u64 = 0;
    const ANY: u64 = 0;
    const FORCED: u64 = 1;

    async fn caller(world: Arc<World>, kind: u64) -> Option<u64> {
        let joinable = |flight: &Flight<Answer, u64>| {
            kind == ANY || kind == flight.kind || flight.is_loading()
        };
        let mut seat = world.join(["a"], kind, joinable).pop().unwrap();
        if let Some(work) = seat.work {
            let stored = Arc::clone(&world);
            world.spawn(async move {
                step();
                match stored.stored(work.key()) {
                    Some(value) if kind == ANY => work.land(Ok(value)),
                    _ => {
                        let value = work.load().await;
                        work.land(Ok(value));
                    }
                }
            });
        }
        seat.wait.outcome().await.unwrap().ok()
    }

    let world = World::new();
    world.store("a", Stamp::ZERO, STORED);
    let any = [(); 2].map(|()| spawn(caller(Arc::clone(&world), ANY)));
    let forced = [(); 2].map(|()| spawn(caller(Arc::clone(&world), FORCED)));
    step();
    world.forget("a");
    for caller in any {
        assert!(caller.await.unwrap().is_some());
    }
    for caller in forced {
        assert_ne!(caller.await.unwrap().unwrap(), STORED);
    }
    world.rest().await;
}

#[test]
fn candidates() {
    check(candidates_scenario);
}

/// A candidate is enough for some; the others wait for the outcome, whoever leaves meanwhile. The
/// load takes until all have the candidate who want it: so whoever waits must be told of it.
async fn candidates_scenario() {
    /// What a flight brings, less the stamp that tells which one; a candidate is the stamp alone.
    const OUTCOME: u64 = 1000;

    /// The flights whose candidate somebody waits for.
    type Hopes = Arc<watch::Sender<Vec<Stamp>>>;

    async fn work(work: Work, hopes: Hopes) {
        yield_now().await;
        work.offer(work.started.packed());
        work.load().await;
        let mut hopes = hopes.subscribe();
        assert!(hopes.wait_for(|hopes| !hopes.contains(&work.started)).await.is_ok());
        let outcome = OUTCOME + work.started.packed();
        work.land(Ok(outcome));
    }
    fn join(world: &Arc<World>, hopes: &Hopes) -> Wait {
        let seat = world.join_any("a");
        if let Some(leads) = seat.work {
            world.spawn(work(leads, Arc::clone(hopes)));
        }
        seat.wait
    }
    fn check(wait: &Wait, outcome: Option<Answer>) {
        let flight = wait.started.packed();
        assert_eq!((wait.candidate(), outcome), (Some(flight), Some(Ok(OUTCOME + flight))));
    }
    async fn soft(world: Arc<World>, hopes: Hopes) {
        let mut wait = join(&world, &hopes);
        let started = wait.started;
        hopes.send_modify(|hopes| hopes.push(started));
        match wait.progress().await {
            Progress::Candidate(candidate) => {
                assert_eq!(candidate, started.packed());
                wait.content();
            }
            Progress::Landed(answer) => check(&wait, Some(answer)),
            Progress::Lost => panic!("nobody gave up"),
        }
        hopes.send_modify(|hopes| {
            let own = hopes.iter().position(|flight| *flight == started);
            hopes.swap_remove(own.unwrap());
        });
    }
    async fn hard(world: Arc<World>, hopes: Hopes) {
        let mut wait = join(&world, &hopes);
        let outcome = match wait.progress().await {
            Progress::Landed(answer) => Some(answer),
            _ => wait.outcome().await,
        };
        check(&wait, outcome);
    }
    /// Leaves in the middle of its wait.
    async fn hasty(world: Arc<World>, hopes: Hopes) {
        tokio::select! {
            biased;
            () = hard(world, hopes) => {}
            () = yield_now() => {}
        }
    }
    /// Stops waiting after a while, and then waits again.
    async fn patient(world: Arc<World>, hopes: Hopes) {
        let mut wait = join(&world, &hopes);
        let outcome = tokio::select! {
            biased;
            outcome = wait.outcome() => Some(outcome),
            () = yield_now() => None,
        };
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => wait.outcome().await,
        };
        check(&wait, outcome);
    }

    let (world, hopes) = (World::new(), Hopes::default());
    let softs = [(); 2].map(|()| spawn(soft(Arc::clone(&world), Arc::clone(&hopes))));
    let patient = spawn(patient(Arc::clone(&world), Arc::clone(&hopes)));
    let hasty = spawn(hasty(Arc::clone(&world), Arc::clone(&hopes)));
    hard(Arc::clone(&world), hopes).await;
    for caller in softs.into_iter().chain([patient, hasty]) {
        caller.await.unwrap();
    }
    world.rest().await;
}
