//! Invalidation: "`expire(key)` (mark stale, keep as fallback)"; by key, tag, source, filter, all.

use std::time::Duration;

use larder::{Cache, Error, Filter, Loaded, Policy, Removed, Selector, SetOptions, StaleReason};

use crate::{
    harness::{Bench, bring, close, failure, joined, key, load_gated, never, tag, until, within},
    tools::{Below, any, fresh, set},
};

/// Selectors of `census:a`, and whether they cover `census:b` and `bls:a` too. All have the tag `co`
/// but `census:b`.
fn selectors() -> [(Selector, bool, bool); 7] {
    [
        (Selector::Key(key("census:a")), false, false),
        (Selector::Tag(tag("co")), false, true),
        (Selector::source("census"), true, false),
        (Selector::prefix("census:a"), false, false),
        ((&Filter::source("census").and_tag(tag("co"))).into(), false, false),
        (Selector::OtherVersion("census".into(), "2".into()), true, false),
        (Selector::All, true, true),
    ]
}

/// Memory over SQLite with the three.
async fn filled(bench: &Bench) -> Cache {
    let cache = bench.cache();
    for (text, market) in [("census:a", "co"), ("census:b", "ny"), ("bls:a", "co")] {
        let options = SetOptions::default().tag(tag(market)).version("1");
        within(cache.set(&key(text), "old", options)).await.unwrap();
    }
    bench.advance(1);
    cache
}

fn fails(
    message: &'static str,
) -> impl FnOnce(larder::LoadContext) -> std::future::Ready<Result<Loaded, larder::OriginError>>
+ Send
+ 'static {
    move |_| std::future::ready(Err(failure(message)))
}

// "mark stale"

#[tokio::test]
async fn what_expired_is_stale_at_once_and_counted_by_tier_whatever_selects_it() {
    for (selector, b, bls) in selectors() {
        let bench = Bench::new();
        let cache = filled(&bench).await;
        let removed = within(cache.expire(selector.clone())).await.unwrap();
        let count = 1 + u64::from(b) + u64::from(bls);
        assert_eq!(removed.tiers, [("memory", Some(count)), ("sqlite", Some(count))], "{selector}");
        for (text, expired) in [("census:a", true), ("census:b", b), ("bls:a", bls)] {
            for cache in [&cache, &bench.sqlite_only()] {
                let found = fresh(cache, &key(text)).await;
                assert_eq!(found.is_none(), expired, "{selector}, {text}");
                let found = any(cache, &key(text)).await;
                assert_eq!(found.as_deref(), Some("old"), "{selector}, {text}");
            }
        }
    }
}

#[tokio::test]
async fn what_expired_is_loaded_anew_when_it_is_asked_for() {
    for (selector, ..) in selectors() {
        let (bench, a) = (Bench::new(), key("census:a"));
        let cache = filled(&bench).await;
        within(cache.expire(selector.clone())).await.unwrap();
        let load = |context: larder::LoadContext| async move {
            assert_eq!(context.stored.unwrap().value(), "old", "for validation");
            Ok(Loaded::new("new").version("1"))
        };
        assert_eq!(within(cache.get_or_load(&a, load)).await.unwrap().value(), "new", "{selector}");
        let hit = within(cache.get_or_load(&a, never())).await.unwrap();
        assert_eq!((hit.value().as_ref(), hit.is_stale()), (&b"new"[..], false), "{selector}");
    }
}

#[tokio::test]
async fn what_expired_is_not_served_while_it_is_refreshed() {
    // Whoever made it stale wants another.
    let (bench, a) = (Bench::new(), key("a:1"));
    let policy = Policy::default().stale_while_revalidate(Duration::from_hours(1));
    let cache = bench.builder().default_policy(policy).build().unwrap();
    set(&cache, &a, "old").await;
    within(cache.expire(&a)).await.unwrap();
    assert_eq!(within(cache.get_or_load(&a, bring("new"))).await.unwrap().value(), "new");
}

// "keep as fallback"

#[tokio::test]
async fn what_expired_is_served_when_its_load_fails() {
    for (selector, ..) in selectors() {
        let (bench, a) = (Bench::new(), key("census:a"));
        let cache = filled(&bench).await;
        within(cache.expire(selector.clone())).await.unwrap();
        let hit = within(cache.get_or_load(&a, fails("down"))).await.unwrap();
        assert_eq!(hit.value(), "old", "{selector}");
        assert_eq!(hit.stale_reason(), Some(StaleReason::LoadFailed), "{selector}");
        assert!(matches!(hit.failure(), Some(Error::Origin(_))), "{selector}");
    }
}

#[tokio::test]
async fn what_expired_dies_when_it_would_have_died() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    let options = SetOptions::ttl(Duration::from_secs(10)).stale_for(Duration::from_secs(5));
    within(cache.set(&a, "old", options)).await.unwrap();
    bench.advance(1_000);
    within(cache.expire(&a)).await.unwrap();
    bench.advance(13_999);
    assert_eq!(any(&cache, &a).await.as_deref(), Some("old"));
    bench.advance(1);
    assert_eq!(any(&cache, &a).await, None);
}

#[tokio::test]
async fn an_expiry_persists_over_a_restart() {
    for (selector, b, _) in selectors() {
        let bench = Bench::new();
        let cache = filled(&bench).await;
        within(cache.expire(selector.clone())).await.unwrap();
        close(cache).await;
        for text in ["census:a", "census:b"] {
            let expired = text == "census:a" || b;
            let cache = bench.cache();
            assert_eq!(fresh(&cache, &key(text)).await.is_none(), expired, "{selector}");
            assert_eq!(any(&cache, &key(text)).await.as_deref(), Some("old"), "{selector}");
        }
        let cache = bench.cache();
        let hit = within(cache.get_or_load(&key("census:a"), fails("down"))).await.unwrap();
        assert_eq!(hit.value(), "old", "{selector}");
    }
}

#[tokio::test]
async fn expiring_again_changes_nothing_and_counts_nothing() {
    let bench = Bench::new();
    let cache = filled(&bench).await;
    let expire =
        async |selector: Selector| -> Removed { within(cache.expire(selector)).await.unwrap() };
    assert_eq!(expire(Selector::source("census")).await.entries(), 2);
    for selector in [Selector::Key(key("census:a")), Selector::source("census")] {
        let removed = expire(selector).await;
        assert_eq!(removed.tiers, [("memory", Some(0)), ("sqlite", Some(0))]);
    }
    let removed = expire(Selector::All).await;
    assert_eq!(removed.tiers, [("memory", Some(1)), ("sqlite", Some(1))], "the one that was not");
    assert_eq!(expire(Selector::Tag(tag("tx"))).await.entries(), 0, "unknown tag");
}

#[tokio::test]
async fn what_is_set_after_an_expiry_in_the_same_millisecond_is_fresh() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    for _ in 0..10 {
        within(cache.expire(Selector::All)).await.unwrap();
        set(&cache, &a, "new").await;
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("new"));
    }
    close(cache).await;
    assert_eq!(fresh(&bench.cache(), &a).await.as_deref(), Some("new"));
}

// In-flight loads: the waiters get their value, which is stored as expired.

#[tokio::test]
async fn a_load_from_before_an_expiry_is_stored_as_expired() {
    for (selector, ..) in selectors() {
        let (bench, a) = (Bench::new(), key("census:a"));
        let cache = bench.cache();
        let (gate, caller) = load_gated(&cache, &a);
        let load = gate.begun().await;
        within(cache.expire(selector.clone())).await.unwrap();
        load.end(Ok(Loaded::new("from before").tag(tag("co")).version("1")));
        assert_eq!(joined(caller).await.unwrap().value(), "from before", "{selector}");
        assert_eq!(fresh(&cache, &a).await, None, "{selector}");
        assert_eq!(any(&cache, &a).await.as_deref(), Some("from before"), "{selector}");
        close(cache).await;
        let cache = bench.cache();
        assert_eq!(fresh(&cache, &a).await, None, "{selector}, after a restart");
        assert_eq!(any(&cache, &a).await.as_deref(), Some("from before"), "{selector}");
    }
}

#[tokio::test]
async fn who_asks_after_an_expiry_does_not_join_a_load_from_before_it() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    let (gate, early) = load_gated(&cache, &a);
    let old = gate.begun().await;
    within(cache.expire(&a)).await.unwrap();
    let (gate, late) = load_gated(&cache, &a);
    let new = gate.begun().await;
    assert_eq!(cache.stats().joined, 0);
    new.bring("new");
    assert_eq!(joined(late).await.unwrap().value(), "new");
    old.bring("old");
    joined(early).await.unwrap();
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("new"), "the later load stays");
}

#[tokio::test]
async fn a_late_fill_of_another_process_is_stored_as_expired() {
    for (selector, ..) in selectors() {
        let (bench, a) = (Bench::new(), key("census:a"));
        let (loading, expiring) = (bench.cache(), bench.cache());
        let (gate, caller) = load_gated(&loading, &a);
        let load = gate.begun().await;
        bench.advance(1);
        within(expiring.expire(selector.clone())).await.unwrap();
        load.end(Ok(Loaded::new("late").tag(tag("co")).version("1")));
        joined(caller).await.unwrap();
        close(loading).await;
        assert_eq!(fresh(&expiring, &a).await, None, "{selector}");
        assert_eq!(any(&expiring, &a).await.as_deref(), Some("late"), "{selector}");
    }
}

#[tokio::test]
async fn a_copy_promoted_from_below_is_expired_too() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    set(&below.alone(&bench), &a, "old").await;
    bench.advance(1);
    let cache = below.under_memory(&bench);
    below.hold_next_get();
    let asking = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get(&a).await }
    });
    below.held().await;
    within(cache.expire(&a)).await.unwrap();
    below.release();
    assert!(joined(asking).await.unwrap().is_none());
    assert_eq!(fresh(&cache, &a).await, None);
    assert_eq!(any(&cache, &a).await.as_deref(), Some("old"));
}

#[tokio::test]
async fn a_refresh_that_an_expiry_overtakes_is_stored_as_expired() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let policy = Policy::ttl(Duration::from_secs(10)).refresh_ahead(0.5);
    let cache = bench.builder().default_policy(policy).build().unwrap();
    set(&cache, &a, "old").await;
    bench.advance(6_000);
    let (gate, caller) = load_gated(&cache, &a);
    assert_eq!(joined(caller).await.unwrap().value(), "old");
    let refresh = gate.begun().await;
    within(cache.expire(&a)).await.unwrap();
    refresh.bring("refreshed");
    until(|| cache.peek(&a).is_none()).await;
    within(async {
        while any(&cache, &a).await.as_deref() != Some("refreshed") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(fresh(&cache, &a).await, None);
}

// Forgetting beats expiring.

#[tokio::test]
async fn what_was_forgotten_and_expired_is_gone_in_either_order() {
    for forget_first in [true, false] {
        for (selector, ..) in selectors() {
            let (bench, a) = (Bench::new(), key("census:a"));
            let cache = filled(&bench).await;
            let (gate, caller) = load_gated(&cache, &key("census:a:late"));
            let load = gate.begun().await;
            for n in 0..2 {
                if forget_first == (n == 0) {
                    within(cache.invalidate(Selector::source("census"))).await.unwrap();
                } else {
                    within(cache.expire(selector.clone())).await.unwrap();
                }
            }
            load.end(Ok(Loaded::new("late").tag(tag("co")).version("1")));
            joined(caller).await.unwrap();
            assert_eq!(any(&cache, &a).await, None, "{selector}");
            assert_eq!(any(&cache, &key("census:a:late")).await, None, "{selector}");
            close(cache).await;
            let cache = bench.cache();
            assert_eq!(any(&cache, &a).await, None, "{selector}, after a restart");
            assert_eq!(any(&cache, &key("census:a:late")).await, None, "{selector}");
        }
    }
}

#[tokio::test]
async fn an_expired_entry_counts_when_it_is_forgotten() {
    let bench = Bench::new();
    let cache = filled(&bench).await;
    within(cache.expire(Selector::All)).await.unwrap();
    let removed = within(cache.clear()).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(3)), ("sqlite", Some(3))]);
}
