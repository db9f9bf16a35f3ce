//! The end of a history: nothing is left that should not be, and the counts add up.

use std::{sync::Arc, time::Duration};

use larder::{Freshness, ReadOptions};

use crate::{
    ops::Op,
    steps::Player,
    world::{World, rounds},
};

/// By now every breaker lets a probe through, and whatever waits has ended.
const CALM: Duration = Duration::from_secs(70);

pub(crate) async fn end(world: &Arc<World>, player: &mut Player) {
    player.settle().await;
    if is_over(world) {
        return;
    }
    world.model().say("the end: all tiers work");
    rounds(200).await;
    world
        .advance(if world.plan.breaker.cooldown < Duration::from_secs(5) {
            Duration::from_secs(11)
        } else {
            CALM
        })
        .await;
    rounds(200).await;
    // Each tier is read, so that each is given what it missed; then the chain.
    for only in world.plan.names() {
        let others = world.plan.names().into_iter().filter(|name| *name != only);
        let options = others.fold(ReadOptions::cached_only(), ReadOptions::skip).allow_stale();
        player.spawn(Op::Get(world.plan.keys.clone(), Some(options)));
        rounds(80).await;
    }
    player.settle().await;
    for at in 0..3 {
        check_left(world, at);
    }
    for key in &world.plan.keys {
        player.spawn(Op::Get(vec![key.clone()], None));
        let options = ReadOptions::default().allow_stale();
        player.spawn(Op::Get(vec![key.clone()], Some(options)));
    }
    player.settle().await;
    if is_over(world) {
        return;
    }
    let report = world.cache.close(Duration::from_secs(400)).await;
    if !report.is_clean() || !report.dropped_loads.is_empty() {
        world.model().broken("nothing is under way at the end", format!("{report:?}"));
    }
    check_counts(world);
}

fn is_over(world: &World) -> bool {
    world.model().violation.is_some()
}

/// Checks what a tier has left, past the chain.
fn check_left(world: &World, at: usize) {
    let name = world.plan.names()[at];
    let now = world.now();
    // It was not told what was invalidated.
    let told = at < 2 || !world.plan.read_only;
    for key in &world.plan.keys {
        let Some(entry) = world.held(key)[at].clone() else { continue };
        let mut model = world.model();
        model.counts.armed.leftovers += 1;
        let one = match model.identify(key, &entry) {
            Ok(id) => model.instances[id].clone(),
            Err(problem) => {
                model.broken("a tier holds what was brought for the key", problem);
                continue;
            }
        };
        if !one.storable {
            model.broken("what is not to be stored is not", format!("{name} has {one}"));
        }
        if now >= one.latest_death() {
            model.broken("nothing outlives its stale limit", format!("{name} has {one}"));
        }
        let end = model.tick();
        if let Some(change) = model.barred(&one, end, true).filter(|_| told) {
            let text = format!("{name} has {one}, though {change:?}");
            model.broken("nothing invalidated is left", text);
        }
        let fresh = entry.freshness(now) == Freshness::Fresh;
        if let Some(change) = model.barred(&one, end, false).filter(|_| told && fresh) {
            let text = format!("{name} has {one}, fresh, though {change:?}");
            model.broken("nothing expired is left fresh", text);
        }
    }
}

fn check_counts(world: &World) {
    let stats = world.cache.stats();
    let mut model = world.model();
    let counts = model.counts.clone();
    let names = world.plan.names();
    let mut wrong = Vec::new();
    let mut compare = |what: String, counted: u64, expected: u64, slack: u64| {
        if counted < expected || counted > expected + slack {
            wrong.push(format!("{what}: {counted}, not {expected}"));
        }
    };
    for (at, tier) in stats.tiers.iter().enumerate() {
        compare(format!("hits of {}", names[at]), tier.served, counts.hits[at], counts.dropped);
        let stale = counts.stale_hits[at];
        compare(format!("stale hits of {}", names[at]), tier.served_stale, stale, counts.dropped);
    }
    compare("misses".to_owned(), stats.misses, counts.misses, counts.dropped);
    let (hits, stale_hits) = (counts.hits.iter().sum(), counts.stale_hits.iter().sum());
    compare("hits".to_owned(), stats.hits, hits, counts.dropped);
    compare("stale hits".to_owned(), stats.stale_hits, stale_hits, counts.dropped);
    compare("reads".to_owned(), stats.reads(), hits + stale_hits + counts.misses, counts.dropped);
    compare("loads".to_owned(), stats.loads, counts.loads, 0);
    if stats.load_failures > stats.loads || stats.refreshes > stats.loads + stats.reads() {
        wrong.push(format!("more failures or refreshes than loads: {stats:?}"));
    }
    if !wrong.is_empty() {
        model.broken("the counts add up", format!("{}; {counts:?}", wrong.join(", ")));
    }
}
