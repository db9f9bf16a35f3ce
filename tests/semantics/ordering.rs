//! Stamps and order: of several puts the latest stays, and each says what became of it.

use std::sync::Arc;

use cache_core::Result as TierResult;
use larder::{
    Barrier, Clock, Entry, Freshness, PutOutcome, PutReport, Selector, SetOptions, Stamp, Tier,
    Timestamp,
};

use crate::{
    harness::{Bench, bring, close, joined, key, load_gated, tag, within},
    log::Log,
    tools::{Below, fresh, set, tier_stats},
};

const NOON: i64 = 1_767_268_800_000;

/// A tier of each kind, empty.
fn tiers(bench: &Bench) -> [(&'static str, Arc<dyn Tier>); 3] {
    let below = Below::new(bench).tier();
    [("memory", Arc::new(bench.memory())), ("sqlite", Arc::new(bench.sqlite())), ("below", below)]
}

/// The n-th of several entries, with its number as value.
fn entry(n: u64) -> Entry {
    let stamp = Stamp::from_packed(Stamp::at(Timestamp::from_millis(NOON)).packed() + n);
    Entry::builder(n.to_string(), stamp).tags([tag("co")]).build()
}

async fn value(tier: &dyn Tier) -> String {
    let found = within(tier.get(&key("a:1"))).await.unwrap().unwrap();
    String::from_utf8(found.value().to_vec()).unwrap()
}

async fn put(tier: &dyn Tier, entry: &Entry) -> TierResult<PutOutcome> {
    within(tier.put(&key("a:1"), entry)).await
}

// "`put` into any tier is an upsert guarded by `as_of`: the later one stays, in whatever order they
// arrive; an equal stamp is a no-op."

#[tokio::test]
async fn the_later_of_three_puts_stays_in_whatever_order_they_arrive() {
    for order in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let bench = Bench::new();
        for (name, tier) in tiers(&bench) {
            let mut latest = 0;
            for n in order {
                let outcome = put(&*tier, &entry(n)).await.unwrap();
                let newest = n > latest;
                latest = latest.max(n);
                let expected = if newest { PutOutcome::Stored } else { PutOutcome::Superseded };
                assert_eq!(outcome, expected, "{name}, {n} of {order:?}");
                assert_eq!(value(&*tier).await, latest.to_string(), "{name}, {n} of {order:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_batch_is_ordered_like_single_puts() {
    let bench = Bench::new();
    for (name, tier) in tiers(&bench) {
        let entries = [2, 1, 3, 3, 2].map(|n| (key("a:1"), entry(n)));
        let outcomes = within(tier.put_many(&entries)).await.unwrap();
        let (stored, superseded) = (PutOutcome::Stored, PutOutcome::Superseded);
        let expected =
            [&stored, &superseded, &stored, &superseded, &superseded].map(PutOutcome::clone);
        assert_eq!(outcomes, expected, "{name}");
        assert_eq!(value(&*tier).await, "3", "{name}");
    }
}

#[tokio::test]
async fn a_put_with_an_equal_stamp_changes_nothing() {
    let bench = Bench::new();
    for (name, tier) in tiers(&bench) {
        put(&*tier, &entry(5)).await.unwrap();
        let twin = Entry::builder("another value", entry(5).as_of()).build();
        assert_eq!(put(&*tier, &twin).await.unwrap(), PutOutcome::Superseded, "{name}");
        assert_eq!(value(&*tier).await, "5", "{name}");
    }
}

#[tokio::test]
async fn an_earlier_put_does_not_replace_a_later_one_that_is_stale() {
    let bench = Bench::new();
    let now = bench.clock.now();
    let second = |n: u64| now.saturating_add(std::time::Duration::from_secs(n));
    for (name, tier) in tiers(&bench) {
        let later = entry(2).to_builder().expires_at(second(1)).stale_until(second(90)).build();
        put(&*tier, &later).await.unwrap();
        bench.advance(2_000);
        assert_eq!(put(&*tier, &entry(1)).await.unwrap(), PutOutcome::Superseded, "{name}");
        assert_eq!(value(&*tier).await, "2", "{name}");
        let found = within(tier.get(&key("a:1"))).await.unwrap().unwrap();
        assert_eq!(found.freshness(bench.clock.now()), Freshness::Stale, "{name}");
        bench.clock.set(NOON);
    }
}

// "The outcome says `Stored`, `Superseded` (a newer entry is there) or `Barred` (a barrier covers
// it) ..."

#[tokio::test]
async fn a_put_that_a_barrier_covers_is_barred_whatever_selects_it() {
    for selector in [
        Selector::Key(key("a:1")),
        Selector::Tag(tag("co")),
        Selector::source("a"),
        Selector::prefix("a:1"),
        Selector::PrefixTag("a".into(), tag("co")),
        Selector::OtherVersion("a".into(), "2022".into()),
        Selector::All,
    ] {
        let bench = Bench::new();
        for (name, tier) in tiers(&bench) {
            let barrier = Barrier::forget(selector.clone(), entry(5).as_of());
            within(tier.bar(&barrier)).await.unwrap();
            for (n, expected) in
                [(4, PutOutcome::Barred), (5, PutOutcome::Barred), (6, PutOutcome::Stored)]
            {
                let outcome = put(&*tier, &entry(n)).await.unwrap();
                assert_eq!(outcome, expected, "{name}, {selector}, {n}");
            }
            assert_eq!(value(&*tier).await, "6", "{name}, {selector}");
        }
    }
}

#[tokio::test]
async fn a_set_tells_of_each_tier_what_became_of_the_value() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (first, second) = (Below::named("first", &bench), Below::named("second", &bench));
    let cache = bench.bare().shared_tier(first.tier()).shared_tier(second.tier()).build().unwrap();
    // Of a process whose clock is ahead, and that this one has not heard of.
    let ahead = Stamp::at(Timestamp::from_millis(NOON + 1_000));
    within(first.tier().put(&a, &Entry::builder("theirs", ahead).build())).await.unwrap();
    within(second.tier().bar(&Barrier::forget(Selector::All, ahead))).await.unwrap();
    let outcome = within(cache.set(&a, "ours", SetOptions::default())).await.unwrap();
    let reports: Vec<_> = outcome
        .tiers
        .iter()
        .map(|(name, report)| match report {
            PutReport::Done(outcome) => (*name, outcome.clone()),
            other => panic!("{name}: {other:?}"),
        })
        .collect();
    assert_eq!(reports, [("first", PutOutcome::Superseded), ("second", PutOutcome::Barred)]);
    assert_eq!(outcome.stored_in().count(), 0);
}

// "... the last two are counted and logged at debug."

#[tokio::test]
async fn what_is_superseded_or_barred_is_counted_by_its_tier_and_logged_at_debug_once() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (first, second) = (Below::named("first", &bench), Below::named("second", &bench));
    let cache = bench.bare().shared_tier(first.tier()).shared_tier(second.tier()).build().unwrap();
    let ahead = Stamp::at(Timestamp::from_millis(NOON + 1_000));
    within(first.tier().put(&a, &Entry::builder("theirs", ahead).build())).await.unwrap();
    within(second.tier().bar(&Barrier::forget(Selector::All, ahead))).await.unwrap();
    let (log, _guard) = Log::capture();
    set(&cache, &a, "ours").await;
    let counts = |name| {
        let stats = tier_stats(&cache, name);
        (stats.stored, stats.superseded, stats.barred, stats.refused)
    };
    assert_eq!(counts("first"), (0, 1, 0, 0));
    assert_eq!(counts("second"), (0, 0, 1, 0));
    let told = log.texts(tracing::Level::DEBUG);
    for (tier, outcome) in [("first", "Superseded"), ("second", "Barred")] {
        let of_it = |text: &&String| text.contains(tier) && text.contains(outcome);
        assert_eq!(told.iter().filter(of_it).count(), 1, "{told:#?}");
    }
    for level in [tracing::Level::INFO, tracing::Level::WARN, tracing::Level::ERROR] {
        assert_eq!(log.texts(level), [""; 0]);
    }
}

#[tokio::test]
async fn a_fill_that_another_process_superseded_is_counted_and_leaves_nothing_older_above() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let (cache, other) = (below.under_memory(&bench), below.alone(&bench));
    let (gate, caller) = load_gated(&cache, &a);
    let load = gate.begun().await;
    bench.advance(1);
    set(&other, &a, "theirs").await;
    load.bring("ours");
    assert_eq!(joined(caller).await.unwrap().value(), "ours");
    close(cache.clone()).await;
    let stats = tier_stats(&cache, "below");
    assert_eq!((stats.stored, stats.superseded, stats.barred), (0, 1, 0));
    assert_eq!(below.inside(&a).await.unwrap().value(), "theirs");
}

#[tokio::test]
async fn what_another_process_put_later_is_read_after_a_fill_that_it_superseded() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let (cache, other) = (below.under_memory(&bench), below.alone(&bench));
    let (gate, caller) = load_gated(&cache, &a);
    let load = gate.begun().await;
    bench.advance(1);
    set(&other, &a, "theirs").await;
    load.bring("ours");
    joined(caller).await.unwrap();
    crate::harness::until(|| tier_stats(&cache, "below").superseded == 1).await;
    // Memory gives up what it took.
    within(async {
        while fresh(&cache, &a).await.as_deref() != Some("theirs") {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_fill_that_another_process_barred_is_counted_and_not_served() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let (cache, other) = (below.alone(&bench), below.alone(&bench));
    let (gate, caller) = load_gated(&cache, &a);
    let load = gate.begun().await;
    bench.advance(1);
    within(other.invalidate(&a)).await.unwrap();
    load.bring("from before");
    assert_eq!(joined(caller).await.unwrap().value(), "from before", "its waiters get its value");
    let stats = tier_stats(&cache, "below");
    assert_eq!((stats.stored, stats.superseded, stats.barred), (0, 0, 1));
    assert_eq!(fresh(&cache, &a).await, None);
    within(cache.get_or_load(&a, bring("after"))).await.unwrap();
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("after"));
}
