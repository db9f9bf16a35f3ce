//! Statistics, and the pitfall "a stats number without a test of its exact value drifts": every
//! number after histories of each kind.

use std::{sync::Arc, time::Duration};

use larder::{Cache, Key, Loaded, Policy, ReadOptions, ServedBy, SetOptions, Stats, TierStats};

use crate::{
    harness::{Bench, bring, failure, joined, key, load_gated, never, until, within},
    tools::{Below, any, fresh, set, tier_stats},
};

const LONG: Duration = Duration::from_hours(1);

/// Counts of a tier, all zero but those that `change` sets.
fn tier(name: &'static str, change: impl FnOnce(&mut TierStats)) -> TierStats {
    let mut stats = TierStats::default();
    stats.name = name;
    change(&mut stats);
    stats
}

/// Counts of a chain, all zero but those that `change` sets.
fn chain(tiers: impl Into<Vec<TierStats>>, change: impl FnOnce(&mut Stats)) -> Stats {
    let mut stats = Stats::default();
    stats.tiers = tiers.into();
    change(&mut stats);
    stats
}

/// Waits for the fills behind answers.
async fn stored_below(cache: &Cache, entries: u64) {
    until(|| tier_stats(cache, "below").stored == entries).await;
}

async fn load(cache: &Cache, key: &Key, value: &'static str) {
    let hit = within(cache.get_or_load(key, bring(value))).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (value.as_bytes(), ServedBy::Origin));
}

#[tokio::test]
async fn stale_hits_and_what_is_behind_them() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let policy = Policy::ttl(Duration::from_secs(10)).stale_while_revalidate(LONG);
    let cache = below.builder(&bench).default_policy(policy).build().unwrap();

    assert_eq!(fresh(&cache, &a).await, None);
    load(&cache, &a, "one").await;
    stored_below(&cache, 1).await;
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("one"));
    let expected = chain(
        [
            tier("memory", |t| (t.served, t.found, t.not_found, t.stored) = (1, 1, 2, 1)),
            tier("below", |t| (t.not_found, t.stored) = (2, 1)),
        ],
        |c| (c.hits, c.misses, c.loads) = (1, 2, 1),
    );
    assert_eq!(cache.stats(), expected);

    // Stale, served at once and refreshed behind.
    bench.advance(11_000);
    let hit = within(cache.get_or_load(&a, bring("two"))).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.is_stale()), (&b"one"[..], true));
    stored_below(&cache, 2).await;
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("two"));
    let mut expected = expected;
    (expected.hits, expected.stale_hits, expected.loads, expected.refreshes) = (2, 1, 2, 1);
    let [memory, lower] = &mut expected.tiers[..] else { unreachable!() };
    (memory.served, memory.served_stale, memory.stored) = (2, 1, 2);
    (memory.found, memory.found_stale) = (2, 1);
    (lower.found_stale, lower.stored) = (1, 2);
    assert_eq!(cache.stats(), expected);

    // Expired: not served to who does not ask for stale values, a fallback to who would load.
    within(cache.expire(&a)).await.unwrap();
    assert_eq!(fresh(&cache, &a).await, None);
    assert_eq!(any(&cache, &a).await.as_deref(), Some("two"));
    let failing = |_| async { Err(failure("down")) };
    let hit = within(cache.get_or_load(&a, failing)).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.is_stale()), (&b"two"[..], true));
    // The load is throttled: no second one, but somebody else may have stored a newer value below.
    let hit = within(cache.get_or_load(&a, never())).await.unwrap();
    assert!(hit.is_stale());
    (expected.misses, expected.stale_hits) = (3, 4);
    (expected.loads, expected.load_failures) = (3, 1);
    let [memory, lower] = &mut expected.tiers[..] else { unreachable!() };
    (memory.served_stale, memory.found_stale) = (4, 5);
    lower.found_stale = 5;
    assert_eq!(cache.stats(), expected);
    assert_eq!(cache.stats().reads(), 9);
    assert_eq!(cache.stats().hit_rate(), Some(6.0 / 9.0));
}

#[tokio::test]
async fn reads_that_join_a_load_or_a_look() {
    let (bench, a, b) = (Bench::new(), key("a:1"), key("b:1"));
    let below = Below::new(&bench);
    set(&below.alone(&bench), &b, "v").await;
    bench.advance(1);
    let cache = below.under_memory(&bench);

    let (gate, leader) = load_gated(&cache, &a);
    let begun = gate.begun().await;
    let followers = [(); 3].map(|()| {
        let (cache, a) = (cache.clone(), a.clone());
        tokio::spawn(async move { cache.get_or_load(&a, never()).await })
    });
    until(|| cache.stats().joined == 3).await;
    begun.bring("v");
    joined(leader).await.unwrap();
    for follower in followers {
        assert_eq!(joined(follower).await.unwrap().served_by(), ServedBy::Origin);
    }
    stored_below(&cache, 1).await;
    let mut expected = chain(
        [
            tier("memory", |t| (t.not_found, t.stored) = (4, 1)),
            tier("below", |t| (t.not_found, t.stored) = (1, 1)),
        ],
        |c| (c.misses, c.loads, c.joined) = (4, 1, 3),
    );
    assert_eq!(cache.stats(), expected);

    // One looks, another shares the look, a third would load if the look found nothing.
    below.hold_next_get();
    let look = |loads: bool| {
        let (cache, b) = (cache.clone(), b.clone());
        tokio::spawn(async move {
            if loads {
                cache.get_or_load(&b, never()).await.unwrap().served_by()
            } else {
                cache.get(&b).await.unwrap().unwrap().served_by()
            }
        })
    };
    let first = look(false);
    below.held().await;
    let others = [look(false), look(true)];
    until(|| cache.stats().joined == 5).await;
    below.release();
    for reader in [first].into_iter().chain(others) {
        assert_eq!(joined(reader).await, ServedBy::Tier("below"));
    }
    (expected.hits, expected.joined, expected.promotions) = (3, 5, 1);
    let [memory, lower] = &mut expected.tiers[..] else { unreachable!() };
    (memory.not_found, memory.stored) = (7, 2);
    (lower.served, lower.found) = (3, 1);
    assert_eq!(cache.stats(), expected);
}

#[tokio::test]
async fn batches_with_duplicates() {
    let [a, b, c] = ["a:1", "b:1", "c:1"].map(key);
    let bench = Bench::new();
    let below = Below::new(&bench);
    set(&below.alone(&bench), &b, "b").await;
    bench.advance(1);
    let cache = below.under_memory(&bench);
    set(&cache, &a, "a").await;
    let keys = [&a, &b, &a, &c, &c].map(Key::clone);

    let found = within(cache.get_many(&keys)).await.unwrap();
    let found: Vec<bool> = found.into_iter().map(|found| found.unwrap().is_some()).collect();
    assert_eq!(found, [true, true, true, false, false]);
    let mut expected = chain(
        [
            tier("memory", |t| (t.served, t.found, t.not_found, t.stored) = (2, 1, 2, 2)),
            tier("below", |t| (t.served, t.found, t.not_found, t.stored) = (1, 1, 1, 1)),
        ],
        |chain| (chain.hits, chain.misses, chain.promotions) = (3, 2, 1),
    );
    assert_eq!(cache.stats(), expected);

    let load = |contexts: Vec<larder::LoadContext>| async move {
        assert_eq!(contexts.len(), 1);
        let answer = |context: larder::LoadContext| (context.key, Ok(Loaded::new("c")));
        Ok(contexts.into_iter().map(answer).collect())
    };
    let answers = within(cache.get_or_load_many(&keys, load)).await.unwrap();
    let values: Vec<_> = answers.iter().map(|hit| hit.as_ref().unwrap().value()).collect();
    assert_eq!(values, ["a", "b", "a", "c", "c"]);
    stored_below(&cache, 2).await;
    (expected.hits, expected.misses, expected.loads) = (6, 4, 1);
    let [memory, lower] = &mut expected.tiers[..] else { unreachable!() };
    (memory.served, memory.found, memory.not_found, memory.stored) = (5, 3, 3, 3);
    (lower.not_found, lower.stored) = (2, 2);
    assert_eq!(cache.stats(), expected);
}

#[tokio::test]
async fn refreshes_ahead() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let policy = Policy::ttl(Duration::from_secs(10)).refresh_ahead(0.5);
    let cache = below.builder(&bench).default_policy(policy).build().unwrap();
    set(&cache, &a, "old").await;
    bench.advance(5_000);
    let hit = within(cache.get_or_load(&a, bring("new"))).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.is_stale()), (&b"old"[..], false));
    stored_below(&cache, 2).await;
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("new"));
    let expected = chain(
        [
            tier("memory", |t| (t.served, t.found, t.stored) = (2, 2, 2)),
            tier("below", |t| (t.found, t.stored) = (1, 2)),
        ],
        |c| (c.hits, c.loads, c.refreshes) = (2, 1, 1),
    );
    assert_eq!(cache.stats(), expected);
}

#[tokio::test]
async fn promotions_through_several_tiers() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (upper, lower) = (Below::named("upper", &bench), Below::named("lower", &bench));
    set(&lower.alone(&bench), &a, "v").await;
    bench.advance(1);
    let cache = upper.builder(&bench).shared_tier(lower.tier()).build().unwrap();
    for served_by in ["lower", "memory"] {
        let hit = within(cache.get(&a)).await.unwrap().unwrap();
        assert_eq!(hit.served_by(), ServedBy::Tier(served_by));
    }
    until(|| cache.stats().promotions == 2).await;
    let options = ReadOptions::default().skip("memory");
    let hit = within(cache.get_with(&a, options)).await.unwrap().unwrap();
    assert_eq!(hit.served_by(), ServedBy::Tier("upper"));
    let expected = chain(
        [
            tier("memory", |t| (t.served, t.found, t.not_found, t.stored) = (1, 1, 1, 1)),
            tier("upper", |t| (t.served, t.found, t.not_found, t.stored) = (1, 1, 1, 1)),
            tier("lower", |t| (t.served, t.found) = (1, 1)),
        ],
        |c| (c.hits, c.promotions) = (3, 2),
    );
    assert_eq!(cache.stats(), expected);
}

#[tokio::test]
async fn values_that_are_not_stored_and_tiers_that_fail() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    // A key that cannot be stored, a lifetime of zero, "do not store", and an invalidation.
    load(&cache, &key("a:\u{7}"), "v").await;
    let fleeting = |_| async { Ok(Loaded::new("v").ttl(Duration::ZERO)) };
    within(cache.get_or_load(&key("a:1"), fleeting)).await.unwrap();
    let private = |_| async { Ok(Loaded::new("v").do_not_store()) };
    within(cache.get_or_load(&key("a:2"), private)).await.unwrap();
    let (gate, caller) = load_gated(&cache, &key("a:3"));
    let begun = gate.begun().await;
    within(cache.invalidate(&key("a:3"))).await.unwrap();
    begun.bring("v");
    joined(caller).await.unwrap();
    let mut expected =
        chain([tier("memory", |t| t.not_found = 4), tier("below", |t| t.not_found = 4)], |c| {
            (c.misses, c.loads, c.not_stored) = (4, 4, 4);
        });
    assert_eq!(cache.stats(), expected);

    // Of six writes to a tier that is down one more than five is skipped.
    below.chaos.down(true);
    for n in 0..6 {
        set(&cache, &key(&format!("b:{n}")), "v").await;
    }
    assert_eq!(fresh(&cache, &key("b:9")).await, None);
    within(cache.set(&key("a:\u{7}"), "v", SetOptions::default())).await.unwrap();
    expected.misses = 5;
    let [memory, lower] = &mut expected.tiers[..] else { unreachable!() };
    (memory.not_found, memory.stored, memory.refused) = (5, 6, 1);
    (lower.errors, lower.skipped) = (5, 3);
    assert_eq!(cache.stats(), expected);
}

#[tokio::test]
async fn a_chain_counts_what_its_own_handles_did_and_not_what_others_who_share_a_tier_did() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let memory: Arc<dyn larder::Tier> = Arc::new(bench.memory());
    let one = bench.bare().shared_tier(Arc::clone(&memory)).build().unwrap();
    let other = bench.bare().shared_tier(memory).build().unwrap();
    set(&one, &a, "v").await;
    let handle = one.clone();
    for _ in 0..3 {
        assert_eq!(fresh(&handle, &a).await.as_deref(), Some("v"));
    }
    let of_one = tier("memory", |t| (t.served, t.found, t.stored) = (3, 3, 1));
    assert_eq!(one.stats(), chain([of_one], |c| c.hits = 3));
    assert_eq!(other.stats(), chain([tier("memory", |_| ())], |_| ()));
}
