//! The breaker. Its time is the manual clock's.

use super::*;

#[tokio::test]
async fn five_failures_in_a_row_open_the_breaker_and_then_a_read_costs_no_call() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    switches.gets(DOWN);
    for n in 1..=5 {
        within(cache.get(&key(&format!("a:{n}")))).await.unwrap();
        assert_eq!(switches.get_calls(), n);
    }
    forward(&bench, 4);
    bench.advance(999);
    for n in 0..50 {
        within(cache.get(&key(&format!("b:{n}")))).await.unwrap();
    }
    let stats = stats_of(&cache, "chaos");
    assert_eq!((switches.get_calls(), stats.errors, stats.skipped), (5, 5, 50));
    // Writes and invalidations too are kept from it.
    within(cache.set(&key("a:1"), "v", SetOptions::default())).await.unwrap();
    within(cache.invalidate(&key("a:1"))).await.unwrap();
    assert_eq!((switches.calls(), stats_of(&cache, "chaos").skipped), (5, 52));
}

#[tokio::test]
async fn four_failures_and_a_success_do_not_open_the_breaker() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    for round in 0..5 {
        switches.gets(DOWN);
        for n in 0..4 {
            within(cache.get(&key(&format!("a:{round}-{n}")))).await.unwrap();
        }
        switches.gets(Mode::Works);
        within(cache.get(&key("a:ok"))).await.unwrap();
        // The share of failures is another matter.
        bench.advance(10_000);
    }
    let stats = stats_of(&cache, "chaos");
    assert_eq!((switches.get_calls(), stats.errors, stats.skipped), (25, 20, 0));
}

#[tokio::test]
async fn after_the_cool_down_exactly_one_probe_goes_through_while_the_others_are_spared() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    switches.gets(DOWN);
    for n in 0..5 {
        within(cache.get(&key(&format!("a:{n}")))).await.unwrap();
    }
    switches.gets(Mode::Held);
    forward(&bench, 5);
    let probe = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(&key("probe:1")).await }
    });
    switches.held().await;
    for n in 0..20 {
        assert!(within(cache.get(&key(&format!("b:{n}")))).await.unwrap().is_none());
    }
    assert_eq!((switches.get_calls(), stats_of(&cache, "chaos").skipped), (6, 20));

    switches.gets(Mode::Works);
    switches.release();
    within(probe).await.unwrap().unwrap();
    for n in 0..3 {
        within(cache.get(&key(&format!("c:{n}")))).await.unwrap();
    }
    assert_eq!((switches.get_calls(), stats_of(&cache, "chaos").skipped), (9, 20));
}

#[tokio::test]
async fn a_failed_probe_doubles_the_cool_down_and_a_success_starts_it_anew() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    let mut asked = 0;
    let mut ask = async || {
        asked += 1;
        within(cache.get(&key(&format!("a:{asked}")))).await.unwrap();
        switches.get_calls()
    };
    switches.gets(DOWN);
    for n in 1..=5 {
        assert_eq!(ask().await, n);
    }
    let mut calls = 5;
    for cool_down in [5, 10, 20, 40, 60, 60] {
        forward(&bench, cool_down - 1);
        assert_eq!(ask().await, calls, "before {cool_down} s are over");
        forward(&bench, 1);
        calls += 1;
        assert_eq!(ask().await, calls, "the probe after {cool_down} s");
        assert_eq!(ask().await, calls, "one probe only");
    }
    switches.gets(Mode::Works);
    forward(&bench, 60);
    for _ in 0..3 {
        calls += 1;
        assert_eq!(ask().await, calls, "closed");
    }
    switches.gets(DOWN);
    for _ in 0..5 {
        calls += 1;
        assert_eq!(ask().await, calls);
    }
    assert_eq!(ask().await, calls, "open");
    forward(&bench, 5);
    assert_eq!(ask().await, calls + 1, "5 s again");
}

#[tokio::test]
async fn a_probe_whose_caller_goes_away_leaves_the_tier_to_the_next_probe() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    switches.gets(DOWN);
    for n in 0..5 {
        within(cache.get(&key(&format!("a:{n}")))).await.unwrap();
    }
    forward(&bench, 5);
    switches.gets(Mode::Hangs);
    let probe = tokio::spawn({
        let cache = cache.clone();
        async move { cache.get(&key("probe:1")).await }
    });
    until(|| switches.get_calls() == 6).await;
    probe.abort();
    assert!(within(probe).await.unwrap_err().is_cancelled());
    switches.gets(Mode::Works);
    // It goes on without its caller, until its time is up.
    until(|| stats_of(&cache, "chaos").errors == 6).await;
    forward(&bench, 10);
    within(cache.get(&key("probe:2"))).await.unwrap();
    assert_eq!((switches.get_calls(), stats_of(&cache, "chaos").skipped), (7, 0));
}

#[tokio::test]
async fn a_tier_that_refuses_writes_keeps_being_read() {
    let bench = Bench::new();
    let (cache, switches) = chaos_alone(&bench);
    within(cache.set(&key("a:kept"), "v", SetOptions::default())).await.unwrap();
    switches.puts(Mode::Fails(ErrorKind::Refused));
    for n in 0..20 {
        within(cache.get_or_load(&key(&format!("a:{n}")), bring("w"))).await.unwrap();
        let hit = within(cache.get_or_load(&key("a:kept"), never())).await.unwrap();
        assert_eq!(hit.served_by(), ServedBy::Tier("chaos"));
    }
    let stats = stats_of(&cache, "chaos");
    assert_eq!((stats.errors, stats.skipped, stats.served), (20, 0, 20));
    assert_eq!(switches.get_calls(), 40);
}
