//! Tiers failing, and the pitfall "options accepted and never read: test each option for its
//! effect": those of a tier and of its breaker. `required` is in `tiers.rs`.

use std::time::Duration;

use larder::{
    BreakerOptions, BuildError, Cache, ErrorKind, Filter, Policy, PutOutcome, PutReport,
    SetOptions, TierOptions,
};
use tier_testkit::{Call, Fault};
use tokio::time::Instant;

use crate::{
    harness::{Bench, bring, close, key, tag, within},
    tools::{Below, any, fresh, set, tier_stats},
};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn options(change: impl FnOnce(&mut TierOptions)) -> TierOptions {
    let mut options = TierOptions::default();
    change(&mut options);
    options
}

/// Options of the breaker alone.
fn breaker(change: impl FnOnce(&mut BreakerOptions)) -> TierOptions {
    options(|options| change(&mut options.breaker))
}

#[test]
fn the_defaults_are_those_that_are_documented() {
    let TierOptions { required, read_only, max_ttl, read_timeout, write_timeout, breaker, .. } =
        TierOptions::default();
    assert_eq!((required, read_only, max_ttl), (false, false, None));
    assert_eq!((read_timeout, write_timeout), (seconds(2), seconds(10)));
    let BreakerOptions { failures, error_share, window, cooldown, max_cooldown, .. } = breaker;
    assert_eq!((failures, window), (5, seconds(10)));
    assert!((error_share - 0.5).abs() < f64::EPSILON);
    assert_eq!((cooldown, max_cooldown), (seconds(5), seconds(60)));
}

// `read_only`: "Whether the tier is asked only, never written to. What was invalidated here is not
// served from it by this process; others are not told."

/// Memory over a tier that is only read, and the tier, which another process has filled.
async fn read_only(bench: &Bench) -> (Cache, Below) {
    let below = Below::new(bench);
    let other = below.alone(bench);
    for text in ["a:1", "a:2", "b:1"] {
        let options = SetOptions::default().tag(tag("co"));
        within(other.set(&key(text), "theirs", options)).await.unwrap();
    }
    bench.advance(1);
    let read_only = TierOptions::default().read_only();
    let builder = bench.bare().tier(bench.memory()).shared_tier_with(below.tier(), read_only);
    (builder.build().unwrap(), below)
}

#[tokio::test]
async fn a_read_only_tier_is_asked_and_never_written_to() {
    let bench = Bench::new();
    let (cache, below) = read_only(&bench).await;
    let puts = below.chaos.calls(Call::Put);
    assert_eq!(fresh(&cache, &key("a:1")).await.as_deref(), Some("theirs"));
    within(cache.get_or_load(&key("c:1"), bring("loaded"))).await.unwrap();
    let outcome = within(cache.set(&key("a:2"), "ours", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory"]);
    let (name, PutReport::Done(PutOutcome::Refused { reason })) = &outcome.tiers[1] else {
        panic!("{outcome:?}")
    };
    assert_eq!((*name, reason.as_str()), ("below", "the tier is only read"));
    close(cache).await;
    assert_eq!(below.chaos.calls(Call::Put), puts);
    assert_eq!(below.inside(&key("a:2")).await.unwrap().value(), "theirs");
}

#[tokio::test]
async fn a_read_only_tier_is_not_promoted_into() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (upper, lower) = (Below::named("upper", &bench), Below::named("lower", &bench));
    set(&lower.alone(&bench), &a, "v").await;
    bench.advance(1);
    let read_only = TierOptions::default().read_only();
    let builder = bench.bare().shared_tier_with(upper.tier(), read_only);
    let cache = builder.shared_tier(lower.tier()).build().unwrap();
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
    close(cache.clone()).await;
    assert_eq!((upper.inside(&a).await, cache.stats().promotions), (None, 0));
}

#[tokio::test]
async fn what_was_invalidated_here_is_not_served_from_a_read_only_tier_and_others_are_not_told() {
    for filter in [Filter::prefix("a:1"), Filter::source("a"), Filter::tag(tag("co"))] {
        let (bench, a) = (Bench::new(), key("a:1"));
        let (cache, below) = read_only(&bench).await;
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("theirs"));
        let removed = within(cache.invalidate(&filter)).await.unwrap();
        assert_eq!(removed.tiers, [("memory", Some(1)), ("below", Some(0))]);
        assert_eq!(any(&cache, &a).await, None);
        assert_eq!(below.barriers(), []);
        assert_eq!(fresh(&below.alone(&bench), &a).await.as_deref(), Some("theirs"));
    }
}

#[tokio::test]
async fn what_expired_here_is_served_from_a_read_only_tier_as_stale_only() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (cache, below) = read_only(&bench).await;
    within(cache.expire(&a)).await.unwrap();
    assert_eq!(fresh(&cache, &a).await, None);
    assert_eq!(any(&cache, &a).await.as_deref(), Some("theirs"));
    assert!(!below.inside(&a).await.unwrap().is_expired());
}

// `max_ttl`: "Longest time that this tier keeps its copy of an entry." And of "Time": "A tier may cap
// its own copies (`max_ttl`)."

/// A tier that keeps its copies for 10 s over one that does not.
fn capped(bench: &Bench) -> (Cache, Below, Below) {
    let (upper, lower) = (Below::named("upper", bench), Below::named("lower", bench));
    let cap = TierOptions::default().max_ttl(seconds(10));
    let policy = Policy::ttl(seconds(60)).stale_if_error(seconds(600));
    let builder = bench.bare().shared_tier_with(upper.tier(), cap).shared_tier(lower.tier());
    (builder.default_policy(policy).build().unwrap(), upper, lower)
}

#[tokio::test]
async fn a_capped_copy_is_dead_after_its_time_and_the_one_below_lives_on() {
    let (bench, a) = (Bench::new(), key("a:1"));
    for fill in [false, true] {
        let (cache, upper, lower) = capped(&bench);
        if fill {
            within(cache.get_or_load(&a, bring("v"))).await.unwrap();
        } else {
            set(&cache, &a, "v").await;
        }
        let end = larder::Clock::now(&*bench.clock).saturating_add(seconds(10));
        let copy = upper.inside(&a).await.unwrap();
        assert_eq!((copy.expires_at(), copy.stale_until()), (end, end));
        let whole = lower.inside(&a).await.unwrap();
        let of_policy = (end.saturating_add(seconds(50)), end.saturating_add(seconds(650)));
        assert_eq!((whole.expires_at(), whole.stale_until()), of_policy);
        assert_eq!(copy.as_of(), whole.as_of());
        bench.advance(10_000);
        assert_eq!(upper.inside(&a).await, None);
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
    }
}

#[tokio::test]
async fn a_copy_that_reached_its_cap_is_promoted_again_and_capped_again() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (cache, upper, lower) = capped(&bench);
    set(&cache, &a, "v").await;
    for round in 1..=5 {
        bench.advance(10_000);
        assert_eq!(upper.inside(&a).await, None, "round {round}");
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"), "round {round}");
        crate::harness::until(|| cache.stats().promotions == round).await;
        let end = larder::Clock::now(&*bench.clock).saturating_add(seconds(10));
        assert_eq!(upper.inside(&a).await.unwrap().stale_until(), end, "round {round}");
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"), "round {round}");
        assert_eq!(lower.gets(), round, "the copy serves until then");
    }
    assert_eq!(tier_stats(&cache, "upper").superseded, 0);
}

#[tokio::test]
async fn a_copy_in_memory_is_capped_and_promoted_again_too() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cap = TierOptions::default().max_ttl(seconds(10));
    let builder = bench.bare().tier_with(bench.memory(), cap).shared_tier(below.tier());
    let cache = builder.build().unwrap();
    set(&cache, &a, "v").await;
    for round in 1..=3 {
        bench.advance(9_999);
        assert!(cache.peek(&a).is_some(), "round {round}");
        bench.advance(1);
        assert!(cache.peek(&a).is_none(), "round {round}");
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"), "round {round}");
        assert_eq!(cache.stats().promotions, round);
    }
}

#[tokio::test]
async fn what_lives_shorter_than_the_cap_is_kept_as_it_is() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (cache, upper, lower) = capped(&bench);
    let options = SetOptions::ttl(seconds(3)).stale_for(seconds(7));
    within(cache.set(&a, "v", options)).await.unwrap();
    assert_eq!(upper.inside(&a).await, lower.inside(&a).await);
}

#[tokio::test]
async fn a_stale_value_that_is_promoted_is_capped_too() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (cache, upper, lower) = capped(&bench);
    set(&lower.builder(&bench).build().unwrap(), &a, "v").await;
    within(cache.expire(&a)).await.unwrap();
    assert_eq!(any(&cache, &a).await.as_deref(), Some("v"));
    crate::harness::until(|| cache.stats().promotions == 1).await;
    let copy = upper.inside(&a).await.unwrap();
    assert!(copy.is_expired());
    let end = larder::Clock::now(&*bench.clock).saturating_add(seconds(10));
    assert_eq!(copy.stale_until(), end);
}

// `read_timeout` and `write_timeout`, of tokio's time.

#[tokio::test(start_paused = true)]
async fn a_read_goes_on_without_the_tier_after_its_read_timeout() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.with(&bench, options(|o| o.read_timeout = Duration::from_millis(50)));
    below.hangs(Call::Get);
    let began = Instant::now();
    let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    assert_eq!(hit.value(), "v");
    let took = began.elapsed().as_millis();
    assert!((50..=51).contains(&took), "{took} ms");
    assert_eq!(tier_stats(&cache, "below").errors, 1);
}

#[tokio::test(start_paused = true)]
async fn writes_and_invalidations_go_on_without_the_tier_after_its_write_timeout() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.with(&bench, options(|o| o.write_timeout = Duration::from_millis(70)));
    below.chaos.set(tier_testkit::Faults::none().on(Call::Put, Fault::Hang, 1.0).on(
        Call::Bar,
        Fault::Hang,
        1.0,
    ));
    let began = Instant::now();
    let outcome = within(cache.set(&a, "v", SetOptions::default())).await.unwrap();
    let [("below", PutReport::Failed(error))] = &outcome.tiers[..] else { panic!("{outcome:?}") };
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let took = began.elapsed().as_millis();
    assert!((70..=71).contains(&took), "{took} ms");
    let began = Instant::now();
    assert_eq!(within(cache.invalidate(&a)).await.unwrap().tiers, [("below", None)]);
    let took = began.elapsed().as_millis();
    assert!((70..=71).contains(&took), "{took} ms");
}

// The breaker's.

/// Reads `n` keys that nothing is stored under.
async fn read(cache: &Cache, n: u64) {
    for _ in 0..n {
        assert_eq!(fresh(cache, &key("none:1")).await, None);
    }
}

#[tokio::test]
async fn the_tier_is_skipped_after_as_many_failures_in_a_row_as_asked_for() {
    for failures in [1, 2, 9] {
        let bench = Bench::new();
        let below = Below::new(&bench);
        let cache = below.with(&bench, breaker(|breaker| breaker.failures = failures));
        below.chaos.down(true);
        read(&cache, 12).await;
        assert_eq!(below.gets(), u64::from(failures));
    }
}

#[tokio::test]
async fn the_tier_is_skipped_at_the_share_of_failures_asked_for() {
    // Of the twenty that begin with the first failure five fail.
    for (share, skipped) in [(0.25, 1), (0.26, 0)] {
        let bench = Bench::new();
        let below = Below::new(&bench);
        let cache = below.with(&bench, breaker(|breaker| breaker.error_share = share));
        for sound in [4, 4, 4, 3] {
            below.chaos.next(Call::Get, Fault::Error);
            read(&cache, 1 + sound).await;
        }
        below.chaos.next(Call::Get, Fault::Error);
        read(&cache, 2).await;
        let stats = tier_stats(&cache, "below");
        assert_eq!((stats.errors, stats.skipped), (5, skipped), "share {share}");
    }
}

#[tokio::test]
async fn a_share_of_one_leaves_only_failures_in_a_row() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.with(&bench, breaker(|breaker| breaker.error_share = 1.0));
    for _ in 0..20 {
        for _ in 0..4 {
            below.chaos.next(Call::Get, Fault::Error);
        }
        read(&cache, 5).await;
    }
    assert_eq!(tier_stats(&cache, "below").skipped, 0);
}

#[tokio::test]
async fn failures_are_counted_together_within_the_window_asked_for() {
    // Every second read fails, one a second.
    for (window, skips) in [(seconds(19), false), (seconds(21), true)] {
        let bench = Bench::new();
        let below = Below::new(&bench);
        let cache = below.with(&bench, breaker(|breaker| breaker.window = window));
        for _ in 0..30 {
            below.chaos.next(Call::Get, Fault::Error);
            read(&cache, 1).await;
            bench.advance(1_000);
            read(&cache, 1).await;
            bench.advance(1_000);
        }
        assert_eq!(tier_stats(&cache, "below").skipped > 0, skips, "{window:?}");
    }
}

#[tokio::test]
async fn the_tier_is_skipped_for_the_cool_down_asked_for_and_never_longer_than_the_longest() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let options = breaker(|breaker| {
        breaker.failures = 1;
        breaker.cooldown = seconds(2);
        breaker.max_cooldown = seconds(7);
    });
    let cache = below.with(&bench, options);
    below.chaos.down(true);
    read(&cache, 1).await;
    let mut gets = 1;
    for cooldown in [2, 4, 7, 7] {
        bench.advance(cooldown * 1_000 - 1);
        read(&cache, 1).await;
        assert_eq!(below.gets(), gets, "before {cooldown} s are over");
        bench.advance(1);
        read(&cache, 2).await;
        gets += 1;
        assert_eq!(below.gets(), gets, "after {cooldown} s");
    }
}

#[tokio::test]
async fn a_cool_down_above_the_longest_is_refused_or_held_to_it() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let options = breaker(|breaker| {
        breaker.failures = 1;
        breaker.cooldown = seconds(100);
        breaker.max_cooldown = seconds(10);
    });
    let Ok(cache) = bench.bare().shared_tier_with(below.tier(), options).build() else { return };
    below.chaos.down(true);
    read(&cache, 1).await;
    bench.advance(10_000);
    read(&cache, 1).await;
    assert_eq!(below.gets(), 2);
}

// Options that make no sense.

#[test]
fn options_that_make_no_sense_are_refused_at_build_and_the_error_names_tier_and_option() {
    let cases = [
        (options(|o| (o.required, o.read_only) = (true, true)), "only read"),
        (options(|o| o.read_timeout = Duration::ZERO), "time limit of zero"),
        (options(|o| o.write_timeout = Duration::ZERO), "time limit of zero"),
        (breaker(|breaker| breaker.failures = 0), "failure"),
        (breaker(|breaker| breaker.error_share = 0.0), "error_share"),
        (breaker(|breaker| breaker.error_share = -0.5), "error_share"),
        (breaker(|breaker| breaker.error_share = 1.01), "error_share"),
        (breaker(|breaker| breaker.error_share = f64::NAN), "error_share"),
    ];
    for (options, expected) in cases {
        let bench = Bench::new();
        let built = bench.bare().tier_with(bench.memory(), options.clone()).build();
        let Err(BuildError::TierOptions { tier: "memory", problem }) = built else {
            panic!("{options:?}: {built:?}")
        };
        assert!(problem.contains(expected), "{options:?}: {problem}");
    }
}

#[tokio::test]
async fn a_longest_lifetime_of_zero_is_refused_or_stores_nothing() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cap = TierOptions::default().max_ttl(Duration::ZERO);
    let Ok(cache) = bench.bare().tier_with(bench.memory(), cap).build() else { return };
    let outcome = within(cache.set(&a, "v", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().count(), 0, "said to be stored, and never served");
}

#[tokio::test]
async fn what_was_invalidated_here_stays_so_in_a_read_only_tier_however_many_invalidations_follow()
{
    let (bench, a) = (Bench::new(), key("a:1"));
    let (cache, below) = read_only(&bench).await;
    within(cache.invalidate(&a)).await.unwrap();
    bench.advance(25 * 60 * 60 * 1_000);
    for batch in 0..5 {
        let keys: Vec<_> = (0..1_000).map(|n| key(&format!("z:{batch}-{n}"))).collect();
        within(cache.invalidate_many(&keys)).await.unwrap();
    }
    assert!(below.inside(&a).await.is_some());
    assert_eq!(any(&cache, &a).await, None);
}
