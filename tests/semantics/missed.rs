//! Tiers failing: barriers that a tier missed.
//!
//! Not yet: "persisted in the journal when there is one" (this version has no journal).

use std::time::Duration;

use larder::{
    Barrier, Cache, Effect, ErrorKind, Filter, Selector, ServedBy, SetOptions, Stamp, TierOptions,
};
use tier_testkit::{Call, Fault};
use tokio::time::Instant;

use crate::{
    harness::{Bench, bring, key, never, tag, within},
    tools::{Below, any, fresh, set, tier_stats},
};

/// Invalidations of `census:a`, version 1, with the tag `co`; the one by its name alone.
fn selectors() -> [Selector; 6] {
    [
        Selector::Key(key("census:a")),
        Selector::Tag(tag("co")),
        Selector::source("census"),
        Selector::prefix("census:a"),
        Filter::source("census").and_tag(tag("co")).selector(),
        Selector::All,
    ]
}

/// A tier with `census:a` and `bls:b`, and a chain of it alone.
async fn filled(bench: &Bench) -> (Cache, Below) {
    let below = Below::new(bench);
    let cache = below.alone(bench);
    let options = SetOptions::default().tag(tag("co")).version("1");
    within(cache.set(&key("census:a"), "old", options)).await.unwrap();
    set(&cache, &key("bls:b"), "kept").await;
    bench.advance(1);
    (cache, below)
}

/// A read of something else, after which the tier must have what it missed.
async fn read_another(cache: &Cache) {
    assert_eq!(fresh(cache, &key("none:1")).await, None);
}

// "Barriers that a tier missed are kept (bounded, one per selector, persisted in the journal when
// there is one) and applied before the tier is read again."

#[tokio::test]
async fn a_missed_invalidation_is_in_the_tier_before_it_is_read_again_whatever_it_selects() {
    let a = key("census:a");
    for selector in selectors() {
        for how in ["fails", "is down", "is skipped"] {
            let bench = Bench::new();
            let (cache, below) = filled(&bench).await;
            match how {
                "fails" => below.fails(Call::Bar, ErrorKind::Unavailable),
                _ => below.chaos.down(true),
            }
            if how == "is skipped" {
                for _ in 0..5 {
                    read_another(&cache).await;
                }
            }
            let removed = within(cache.invalidate(selector.clone())).await.unwrap();
            assert_eq!(removed.tiers, [("below", None)], "{how}, {selector}");
            assert!(below.inside(&a).await.is_some(), "{how}, {selector}: it has not heard of it");

            below.chaos.heal();
            bench.advance(5_000);
            read_another(&cache).await;
            assert_eq!(below.inside(&a).await, None, "{how}, {selector}");
            let other = below.under_memory(&bench);
            assert_eq!(any(&other, &a).await, None, "{how}, {selector}, another process");
            let kept = below.inside(&key("bls:b")).await.is_some();
            assert_eq!(kept, selector != Selector::All, "{how}, {selector}");
        }
    }
}

#[tokio::test]
async fn a_missed_expiry_is_in_the_tier_before_it_is_read_again_whatever_it_selects() {
    let a = key("census:a");
    for selector in selectors() {
        let bench = Bench::new();
        let (cache, below) = filled(&bench).await;
        below.chaos.down(true);
        let removed = within(cache.expire(selector.clone())).await.unwrap();
        assert_eq!(removed.tiers, [("below", None)], "{selector}");
        below.chaos.heal();
        read_another(&cache).await;
        assert!(below.inside(&a).await.unwrap().is_expired(), "{selector}");
        let other = below.under_memory(&bench);
        assert_eq!(fresh(&other, &a).await, None, "{selector}, another process");
        assert_eq!(any(&other, &a).await.as_deref(), Some("old"), "{selector}, another process");
    }
}

#[tokio::test]
async fn a_missed_change_of_version_is_in_the_tier_before_it_is_read_again() {
    let bench = Bench::new();
    let (cache, below) = filled(&bench).await;
    below.chaos.down(true);
    within(cache.set_source_version("census", "2")).await.unwrap();
    below.chaos.heal();
    read_another(&cache).await;
    assert!(below.inside(&key("census:a")).await.unwrap().is_expired());
    assert!(!below.inside(&key("bls:b")).await.unwrap().is_expired());
}

#[tokio::test]
async fn the_very_read_that_applies_it_does_not_return_what_it_covers() {
    let bench = Bench::new();
    let (cache, below) = filled(&bench).await;
    below.chaos.down(true);
    within(cache.invalidate(&key("census:a"))).await.unwrap();
    below.chaos.heal();
    assert_eq!(any(&cache, &key("census:a")).await, None);
    assert_eq!(below.barriers().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_that_ended_too_late_or_unconfirmed_is_applied_again_before_the_next_read()
{
    for hangs in [true, false] {
        let bench = Bench::new();
        let (cache, below) = filled(&bench).await;
        if hangs {
            below.chaos.next(Call::Bar, Fault::Hang);
        } else {
            below.chaos.next(Call::Bar, Fault::Unconfirmed);
        }
        let removed = within(cache.invalidate(&key("census:a"))).await.unwrap();
        assert_eq!(removed.tiers, [("below", None)]);
        let done = below.barriers().len();
        assert_eq!(done, usize::from(!hangs));
        read_another(&cache).await;
        assert_eq!(below.barriers().len(), done + 1);
        assert_eq!(below.inside(&key("census:a")).await, None);
    }
}

#[tokio::test]
async fn a_barrier_is_given_to_a_tier_once_when_it_has_taken_it() {
    let bench = Bench::new();
    let (cache, below) = filled(&bench).await;
    below.chaos.down(true);
    within(cache.invalidate(&key("census:a"))).await.unwrap();
    below.chaos.heal();
    for _ in 0..5 {
        read_another(&cache).await;
    }
    assert_eq!(below.barriers().len(), 1);
}

#[tokio::test]
async fn one_barrier_is_kept_per_selector_and_effect_the_latest() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let (cache, below) = filled(&bench).await;
    let other = below.alone(&bench);
    below.fails(Call::Bar, ErrorKind::Unavailable);
    let before = Stamp::at(larder::Clock::now(&*bench.clock));
    for n in 0..4 {
        bench.advance(10);
        // Another process stores anew what the one before covered.
        set(&other, &a, "theirs").await;
        bench.advance(10);
        within(cache.invalidate(&a)).await.unwrap();
        within(cache.expire(&key(&format!("bls:{}", n % 2)))).await.unwrap();
        within(cache.expire(&a)).await.unwrap();
        bench.advance(5_000);
    }
    below.chaos.heal();
    read_another(&cache).await;
    let taken = below.barriers();
    let of = |selector: &Selector, effect| {
        taken
            .iter()
            .filter(|barrier| barrier.selector == *selector && barrier.effect == effect)
            .count()
    };
    assert_eq!(of(&Selector::Key(a.clone()), Effect::Forget), 1, "{taken:#?}");
    assert_eq!(of(&Selector::Key(a.clone()), Effect::Expire), 1, "{taken:#?}");
    assert_eq!(of(&Selector::Key(key("bls:0")), Effect::Expire), 1, "{taken:#?}");
    assert_eq!(of(&Selector::Key(key("bls:1")), Effect::Expire), 1, "{taken:#?}");
    assert_eq!(taken.len(), 4, "{taken:#?}");
    assert!(taken.iter().all(|barrier| barrier.stamp > before));
    assert_eq!(below.inside(&a).await, None, "the latest covers what came between them");
}

#[tokio::test]
async fn a_missed_barrier_spares_what_was_stored_after_it() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let (cache, below) = filled(&bench).await;
    below.fails(Call::Bar, ErrorKind::Unavailable);
    within(cache.invalidate(&a)).await.unwrap();
    set(&cache, &a, "new").await;
    below.chaos.heal();
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("new"));
    assert_eq!(below.inside(&a).await.unwrap().value(), "new");
}

#[tokio::test]
async fn a_tier_that_fails_to_take_what_it_missed_is_not_read() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let (cache, below) = filled(&bench).await;
    below.fails(Call::Bar, ErrorKind::Unavailable);
    within(cache.invalidate(&a)).await.unwrap();
    for n in 1..=3 {
        assert_eq!(fresh(&cache, &key("bls:b")).await, None, "it is there, but cannot be trusted");
        assert_eq!(below.gets(), 0);
        assert_eq!(below.chaos.calls(Call::Bar), 1 + n);
    }
    assert_eq!(tier_stats(&cache, "below").errors, 4);
    let hit = within(cache.get_or_load(&key("bls:b"), bring("loaded"))).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Origin);
    below.chaos.heal();
    bench.advance(5_000);
    assert_eq!(fresh(&cache, &key("bls:b")).await.as_deref(), Some("kept"));
    assert_eq!(below.inside(&a).await, None);
}

#[tokio::test]
async fn what_was_taken_before_a_failure_is_not_given_again() {
    let bench = Bench::new();
    let (cache, below) = filled(&bench).await;
    below.fails(Call::Bar, ErrorKind::Unavailable);
    for n in 0..3 {
        within(cache.invalidate(&key(&format!("a:{n}")))).await.unwrap();
    }
    below.chaos.heal();
    // The first is taken, the second fails.
    below.chaos.next(Call::Bar, Fault::Delay);
    below.chaos.next(Call::Bar, Fault::Error);
    read_another(&cache).await;
    assert_eq!((below.barriers().len(), below.gets()), (1, 0));
    read_another(&cache).await;
    assert_eq!((below.barriers().len(), below.gets()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn giving_a_tier_what_it_missed_takes_a_read_no_longer_than_its_limit() {
    let bench = Bench::new();
    let (cache, below) = filled(&bench).await;
    below.chaos.next(Call::Bar, Fault::Error);
    within(cache.invalidate(&key("census:a"))).await.unwrap();
    below.hangs(Call::Bar);
    let began = Instant::now();
    assert_eq!(fresh(&cache, &key("bls:b")).await, None);
    // Tokio's timer counts whole milliseconds, and rounds up.
    assert!(began.elapsed() <= Duration::from_millis(2_001), "{:?}", began.elapsed());
    assert_eq!(below.gets(), 0);
}

#[tokio::test]
async fn a_tier_that_refuses_barriers_is_read_and_never_serves_what_they_cover() {
    let a = key("census:a");
    for selector in selectors() {
        let bench = Bench::new();
        let (cache, below) = filled(&bench).await;
        below.fails(Call::Bar, ErrorKind::Refused);
        let removed = within(cache.invalidate(selector.clone())).await.unwrap();
        assert_eq!(removed.tiers, [("below", None)], "{selector}");
        for _ in 0..3 {
            assert_eq!(any(&cache, &a).await, None, "{selector}");
            let kept = any(&cache, &key("bls:b")).await;
            assert_eq!(kept.is_some(), selector != Selector::All, "{selector}");
        }
        assert_eq!(below.gets(), 6, "{selector}");
        assert!(below.inside(&a).await.is_some(), "{selector}: it has not taken it");
        assert_eq!(tier_stats(&cache, "below").skipped, 0, "{selector}");

        below.chaos.heal();
        bench.advance(5_000);
        read_another(&cache).await;
        assert_eq!(below.inside(&a).await, None, "{selector}: it has taken it after all");
    }
}

#[tokio::test]
async fn a_tier_that_refuses_expiries_is_read_and_serves_what_they_cover_as_stale_only() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let (cache, below) = filled(&bench).await;
    below.fails(Call::Bar, ErrorKind::Refused);
    within(cache.expire(Selector::source("census"))).await.unwrap();
    assert_eq!(fresh(&cache, &a).await, None);
    assert_eq!(any(&cache, &a).await.as_deref(), Some("old"));
    let hit = within(cache.get_or_load(&key("bls:b"), never())).await.unwrap();
    assert_eq!(hit.value(), "kept");
}

#[tokio::test]
async fn a_tier_that_missed_nothing_itself_is_not_given_what_another_missed() {
    let bench = Bench::new();
    let (upper, lower) = (Below::named("upper", &bench), Below::named("lower", &bench));
    let builder = bench.bare().shared_tier(upper.tier()).shared_tier(lower.tier());
    let cache = builder.build().unwrap();
    set(&cache, &key("a:1"), "old").await;
    lower.chaos.down(true);
    let removed = within(cache.invalidate(&key("a:1"))).await.unwrap();
    assert_eq!(removed.tiers, [("upper", Some(1)), ("lower", None)]);
    lower.chaos.heal();
    read_another(&cache).await;
    assert_eq!((upper.barriers().len(), lower.barriers().len()), (1, 1));
    assert_eq!(upper.barriers(), lower.barriers());
}

#[tokio::test]
async fn a_list_of_keys_does_not_show_what_a_tier_missed_the_invalidation_of() {
    let bench = Bench::new();
    let (cache, below) = filled(&bench).await;
    below.chaos.down(true);
    within(cache.invalidate(&key("census:a"))).await.unwrap();
    below.chaos.heal();
    assert_eq!(within(cache.list_keys(9)).await.unwrap(), [key("bls:b")]);
}

// "If too many were missed to know, the tier is cleared rather than trusted."

/// Invalidates this many keys that nothing is stored under while the tier is down.
async fn miss(bench: &Bench, n: usize) -> (Cache, Below) {
    let (cache, below) = filled(bench).await;
    below.chaos.down(true);
    let keys: Vec<_> = (0..n).map(|n| key(&format!("other:{n}"))).collect();
    let removed = within(cache.invalidate_many(&keys)).await.unwrap();
    assert_eq!(removed.tiers, [("below", None)]);
    below.chaos.heal();
    bench.advance(5_000);
    (cache, below)
}

#[tokio::test]
async fn ten_thousand_missed_barriers_are_all_applied_and_spare_what_they_do_not_cover() {
    let bench = Bench::new();
    // Replaying that many must not take longer than a read may, however slow the machine.
    let mut options = TierOptions::default();
    options.read_timeout = Duration::from_secs(25);
    let (_, below) = filled(&bench).await;
    let cache = below.with(&bench, options);
    below.chaos.down(true);
    let keys: Vec<_> = (0..10_000).map(|n| key(&format!("other:{n}"))).collect();
    within(cache.invalidate_many(&keys)).await.unwrap();
    below.chaos.heal();
    bench.advance(5_000);
    read_another(&cache).await;
    assert_eq!(below.barriers().len(), 10_000);
    assert!(below.inside(&key("census:a")).await.is_some());
}

#[tokio::test]
async fn a_tier_that_missed_more_than_ten_thousand_barriers_is_cleared_before_it_is_read() {
    let bench = Bench::new();
    let (cache, below) = miss(&bench, 10_001).await;
    assert!(below.inside(&key("census:a")).await.is_some());
    assert_eq!(fresh(&cache, &key("census:a")).await, None);
    let [Barrier { selector: Selector::All, effect: Effect::Forget, stamp, .. }] =
        below.barriers()[..]
    else {
        panic!("{} barriers", below.barriers().len())
    };
    assert!(stamp > Stamp::ZERO);
    for text in ["census:a", "bls:b"] {
        assert_eq!(below.inside(&key(text)).await, None, "{text}");
    }
    set(&cache, &key("census:a"), "new").await;
    assert_eq!(fresh(&cache, &key("census:a")).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn what_is_stored_after_too_many_were_missed_is_not_cleared() {
    let bench = Bench::new();
    let (cache, below) = miss(&bench, 10_001).await;
    set(&cache, &key("new:1"), "v").await;
    read_another(&cache).await;
    assert!(below.inside(&key("new:1")).await.is_some());
    assert_eq!(below.inside(&key("census:a")).await, None);
}

#[tokio::test]
async fn a_barrier_missed_after_the_tier_is_to_be_cleared_counts_too() {
    let bench = Bench::new();
    let (cache, below) = miss(&bench, 10_001).await;
    set(&cache, &key("new:1"), "v").await;
    below.chaos.down(true);
    within(cache.invalidate(&key("new:1"))).await.unwrap();
    below.chaos.heal();
    read_another(&cache).await;
    assert_eq!(below.inside(&key("new:1")).await, None);
    assert_eq!(below.inside(&key("census:a")).await, None);
}

#[tokio::test]
async fn a_second_reader_waits_until_the_tier_has_what_it_missed_and_does_not_give_it_again() {
    let (bench, a) = (Bench::new(), key("census:a"));
    let (cache, below) = filled(&bench).await;
    below.chaos.next(Call::Bar, Fault::Error);
    within(cache.invalidate(&a)).await.unwrap();
    below.hangs(Call::Bar);
    let readers = ["census:a", "bls:b"].map(|text| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get(&key(text)).await.unwrap().is_some() })
    });
    crate::harness::until(|| below.chaos.hanging() == 1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!((below.chaos.hanging(), below.gets()), (1, 0));
    below.chaos.heal();
    let [first, second] = readers;
    assert!(!crate::harness::joined(first).await);
    assert!(crate::harness::joined(second).await);
    assert_eq!(below.barriers().len(), 1);
}

#[tokio::test]
async fn a_late_fill_of_a_tier_that_missed_the_invalidation_is_forgotten_before_the_next_read() {
    let (bench, a) = (Bench::new(), key("new:1"));
    let (cache, below) = filled(&bench).await;
    below.hangs(Call::Put);
    let loading = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get_or_load(&a, bring("from before")).await }
    });
    crate::harness::until(|| below.chaos.hanging() == 1).await;
    below.chaos.next(Call::Bar, Fault::Error);
    within(cache.invalidate(&a)).await.unwrap();
    below.chaos.heal();
    crate::harness::joined(loading).await.unwrap();
    assert!(below.inside(&a).await.is_some(), "it came after the tier had missed its barrier");
    read_another(&cache).await;
    assert_eq!(below.inside(&a).await, None);
}
