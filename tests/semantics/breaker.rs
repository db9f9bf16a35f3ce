//! Tiers failing: breakers. Cool-downs and windows are of the manual clock, time limits of tokio's,
//! which is paused where they matter. The options are in `options.rs`.

use std::time::Duration;

use larder::{Cache, ErrorKind, SetOptions};
use tier_testkit::{Call, Fault};
use tokio::time::Instant;

use crate::{
    harness::{Bench, bring, joined, key, until, within},
    log::Log,
    tools::{Below, fresh, set, tier_stats},
};

/// Reads `n` keys that nothing is stored under.
async fn read(cache: &Cache, n: u64) {
    for _ in 0..n {
        assert_eq!(fresh(cache, &key("none:1")).await, None);
    }
}

/// Memory over a tier that is skipped because its reads failed.
async fn opened(bench: &Bench) -> (Cache, Below) {
    let below = Below::new(bench);
    let cache = below.under_memory(bench);
    below.fails(Call::Get, ErrorKind::Unavailable);
    read(&cache, 5).await;
    assert_eq!(below.gets(), 5);
    (cache, below)
}

// "Transport errors and timeouts feed the breaker ..."
// "Breaker: opens at `failures` in a row (default 5) ..."

#[tokio::test]
async fn opens_at_the_fifth_failure_in_a_row_and_not_before() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    below.fails(Call::Get, ErrorKind::Unavailable);
    for n in 1..=5 {
        read(&cache, 1).await;
        assert_eq!((below.gets(), tier_stats(&cache, "below").skipped), (n, 0));
    }
    read(&cache, 1).await;
    assert_eq!((below.gets(), tier_stats(&cache, "below").skipped), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn opens_at_the_fifth_read_that_does_not_end_in_time() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    below.hangs(Call::Get);
    read(&cache, 8).await;
    let stats = tier_stats(&cache, "below");
    assert_eq!((below.gets(), stats.errors, stats.skipped), (5, 5, 3));
}

#[tokio::test]
async fn failed_writes_and_invalidations_count_like_failed_reads() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    below.chaos.down(true);
    read(&cache, 1).await;
    for _ in 0..2 {
        set(&cache, &key("a:1"), "v").await;
        within(cache.invalidate(&key("a:1"))).await.unwrap();
    }
    assert_eq!(below.calls(), 5);
    read(&cache, 1).await;
    assert_eq!(below.calls(), 5);
}

#[tokio::test]
async fn a_success_between_failures_starts_the_count_anew() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    for _ in 0..5 {
        below.fails(Call::Get, ErrorKind::Unavailable);
        read(&cache, 4).await;
        below.chaos.heal();
        read(&cache, 1).await;
        // Out of the window, where the share of failures would count.
        bench.advance(10_000);
    }
    assert_eq!((below.gets(), tier_stats(&cache, "below").skipped), (25, 0));
}

#[tokio::test]
async fn a_write_that_is_refused_does_not_count() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    below.fails(Call::Put, ErrorKind::Refused);
    for _ in 0..30 {
        set(&cache, &key("a:1"), "v").await;
        read(&cache, 1).await;
    }
    let stats = tier_stats(&cache, "below");
    assert_eq!((below.gets(), stats.errors, stats.skipped), (30, 30, 0));
}

#[tokio::test]
async fn each_tier_has_a_breaker_of_its_own() {
    let bench = Bench::new();
    let (failing, sound) = (Below::named("failing", &bench), Below::named("sound", &bench));
    let builder = bench.bare().shared_tier(failing.tier()).shared_tier(sound.tier());
    let cache = builder.build().unwrap();
    failing.chaos.down(true);
    read(&cache, 9).await;
    assert_eq!((failing.gets(), sound.gets()), (5, 9));
}

// "... or at an error share over a window ..."

#[tokio::test]
async fn opens_when_half_of_twenty_operations_within_ten_seconds_failed() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    for _ in 0..9 {
        below.chaos.next(Call::Get, Fault::Error);
        read(&cache, 2).await;
        bench.advance(1_000);
    }
    below.chaos.next(Call::Get, Fault::Error);
    read(&cache, 1).await;
    assert_eq!(tier_stats(&cache, "below").skipped, 0, "19 operations say nothing yet");
    below.chaos.next(Call::Get, Fault::Error);
    read(&cache, 2).await;
    assert_eq!((below.gets(), tier_stats(&cache, "below").skipped), (20, 1));
}

#[tokio::test]
async fn stays_closed_when_less_than_half_failed_or_the_window_is_over() {
    // Two of five fail; or every second one, but fewer than twenty of them within ten seconds.
    for (sound, millis) in [(3, 0), (2, 2_000)] {
        let bench = Bench::new();
        let below = Below::new(&bench);
        let cache = below.under_memory(&bench);
        for _ in 0..40 {
            below.chaos.next(Call::Get, Fault::Error);
            below.chaos.next(Call::Get, Fault::Error);
            read(&cache, 2 + sound).await;
            bench.advance(millis);
        }
        let stats = tier_stats(&cache, "below");
        assert_eq!((below.gets(), stats.errors, stats.skipped), (40 * (2 + sound), 80, 0));
    }
}

// "... open for `cooldown` (default 5 s, doubling to 60 s while probes fail) ..."

#[tokio::test]
async fn is_open_for_five_seconds_to_the_millisecond() {
    let bench = Bench::new();
    let (cache, below) = opened(&bench).await;
    below.chaos.heal();
    bench.advance(4_999);
    read(&cache, 1).await;
    assert_eq!(below.gets(), 5);
    bench.advance(1);
    read(&cache, 2).await;
    assert_eq!(below.gets(), 7, "the probe, and what came after it");
}

#[tokio::test]
async fn the_cool_down_doubles_to_a_minute_while_probes_fail_and_starts_anew_after_a_success() {
    let bench = Bench::new();
    let (cache, below) = opened(&bench).await;
    let mut gets = 5;
    for seconds in [5, 10, 20, 40, 60, 60, 60] {
        bench.advance(seconds * 1_000 - 1);
        read(&cache, 1).await;
        assert_eq!(below.gets(), gets, "before {seconds} s are over");
        bench.advance(1);
        read(&cache, 2).await;
        gets += 1;
        assert_eq!(below.gets(), gets, "one probe after {seconds} s");
    }
    below.chaos.heal();
    bench.advance(60_000);
    read(&cache, 1).await;
    below.fails(Call::Get, ErrorKind::Unavailable);
    read(&cache, 6).await;
    gets += 6;
    assert_eq!(below.gets(), gets, "closed, then five failures, then open");
    bench.advance(5_000);
    read(&cache, 2).await;
    assert_eq!(below.gets(), gets + 1, "after 5 s again");
}

// "... half-open lets one probe through ..."

#[tokio::test]
async fn half_open_lets_one_probe_through_while_the_others_are_spared() {
    let bench = Bench::new();
    let (cache, below) = opened(&bench).await;
    below.hangs(Call::Get);
    bench.advance(5_000);
    let probe = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(&key("probe:1")).await }
    });
    until(|| below.chaos.hanging() == 1).await;
    read(&cache, 20).await;
    set(&cache, &key("a:1"), "v").await;
    within(cache.invalidate(&key("a:1"))).await.unwrap();
    assert_eq!((below.calls(), tier_stats(&cache, "below").skipped), (6, 22));
    below.chaos.heal();
    joined(probe).await.unwrap();
    read(&cache, 3).await;
    assert_eq!(tier_stats(&cache, "below").skipped, 22, "closed");
}

#[tokio::test]
async fn a_probe_that_a_caller_gave_up_makes_way_for_the_next() {
    let bench = Bench::new();
    let (cache, below) = opened(&bench).await;
    below.hangs(Call::Get);
    bench.advance(5_000);
    let probe = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(&key("probe:1")).await }
    });
    until(|| below.chaos.hanging() == 1).await;
    probe.abort();
    assert!(within(probe).await.unwrap_err().is_cancelled());
    let answered = tier_stats(&cache, "below").not_found;
    below.chaos.heal();
    // The look goes on without its caller, and ends now.
    until(|| tier_stats(&cache, "below").not_found > answered).await;
    read(&cache, 1).await;
    assert_eq!((below.gets(), tier_stats(&cache, "below").skipped), (7, 0));
}

#[tokio::test]
async fn a_write_may_be_the_probe() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (cache, below) = opened(&bench).await;
    below.chaos.heal();
    bench.advance(5_000);
    let outcome = within(cache.set(&a, "v", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory", "below"]);
    read(&cache, 1).await;
    assert_eq!(tier_stats(&cache, "below").skipped, 0);
}

// "... one log line per change of state."

#[tokio::test]
async fn each_change_of_state_is_told_once() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    let (log, _guard) = Log::capture();
    let told = || {
        let (warnings, infos) = (log.texts(tracing::Level::WARN), log.texts(tracing::Level::INFO));
        assert!(warnings.iter().chain(&infos).all(|text| text.contains("below")), "{warnings:#?}");
        (warnings.len(), infos.len())
    };
    below.fails(Call::Get, ErrorKind::Unavailable);
    read(&cache, 1).await;
    assert_eq!(told(), (1, 0), "it no longer works");
    read(&cache, 3).await;
    assert_eq!(told(), (1, 0));
    read(&cache, 1).await;
    assert_eq!(told(), (2, 0), "it is skipped");
    read(&cache, 50).await;
    assert_eq!(told(), (2, 0));
    bench.advance(5_000);
    read(&cache, 50).await;
    assert_eq!(told(), (3, 0), "it is skipped for longer");
    below.chaos.heal();
    bench.advance(10_000);
    read(&cache, 50).await;
    assert_eq!(told(), (3, 1), "it works again");
}

// "An open tier costs a read nothing."

#[tokio::test(start_paused = true)]
async fn an_open_tier_costs_a_read_neither_a_call_nor_time() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    below.hangs(Call::Get);
    read(&cache, 5).await;
    let (began, calls) = (Instant::now(), below.calls());
    read(&cache, 100).await;
    let keys: Vec<_> = (0..10).map(|n| key(&format!("a:{n}"))).collect();
    within(cache.get_many(&keys)).await.unwrap();
    within(cache.get_or_load(&key("b:1"), bring("v"))).await.unwrap();
    assert_eq!((began.elapsed(), below.calls()), (Duration::ZERO, calls));
}
