//! Tiers that hang. Time is tokio's, and stands still while anything can run.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_delays_an_answer_by_no_more_than_the_limit() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    switches.gets(Mode::Hangs);
    for n in 0..2 {
        let began = Instant::now();
        let asked = key(&format!("a:{n}"));
        let hit = within(cache.get_or_load(&asked, bring("v"))).await.unwrap();
        assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Origin));
        // tokio's timer counts whole milliseconds, and rounds up.
        assert!(began.elapsed() <= Duration::from_millis(2_001), "{:?}", began.elapsed());
    }
    assert_eq!(stats_of(&cache, "chaos").errors, 2);
    let began = Instant::now();
    let hit = within(cache.get_or_load(&key("a:0"), never())).await.unwrap();
    assert_eq!((hit.served_by(), began.elapsed()), (ServedBy::Tier("memory"), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_keeps_hanging_is_skipped_and_delays_nobody() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    switches.gets(Mode::Hangs);
    for n in 0..5 {
        assert!(within(cache.get(&key(&format!("a:{n}")))).await.unwrap().is_none());
    }
    let began = Instant::now();
    for n in 0..20 {
        within(cache.get_or_load(&key(&format!("b:{n}")), bring("v"))).await.unwrap();
    }
    assert_eq!((began.elapsed(), switches.get_calls()), (Duration::ZERO, 5));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_hangs_does_not_delay_an_answer_that_memory_took() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    switches.puts(Mode::Hangs);
    let began = Instant::now();
    for n in 0..3 {
        let asked = key(&format!("a:{n}"));
        let hit = within(cache.get_or_load(&asked, bring("v"))).await.unwrap();
        assert_eq!(hit.served_by(), ServedBy::Origin);
        let hit = within(cache.get_or_load(&asked, never())).await.unwrap();
        assert_eq!(hit.served_by(), ServedBy::Tier("memory"));
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    // Tokio's time, which runs ahead as soon as all others wait.
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(stats_of(&cache, "chaos").errors, 3);
}

#[tokio::test(start_paused = true)]
async fn a_set_waits_for_a_hanging_tier_no_longer_than_the_limit_and_names_it() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    switches.puts(Mode::Hangs);
    let began = Instant::now();
    let outcome = within(cache.set(&key("a:1"), "v", SetOptions::default())).await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(10_001), "{:?}", began.elapsed());
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory"]);
    let (name, PutReport::Failed(why)) = &outcome.tiers[1] else { panic!("{outcome:?}") };
    assert_eq!((*name, why.kind(), why.op()), ("chaos", ErrorKind::Timeout, Op::Put));
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_that_hangs_ends_within_the_limit_and_still_holds() {
    let bench = Bench::new();
    let (cache, switches) = chaos_alone(&bench);
    within(cache.set(&key("a:1"), "old", SetOptions::default())).await.unwrap();
    switches.bars(Mode::Hangs);
    let began = Instant::now();
    let removed = within(cache.invalidate(&key("a:1"))).await.unwrap();
    assert!(began.elapsed() <= Duration::from_millis(10_001), "{:?}", began.elapsed());
    assert_eq!(removed.tiers, [("chaos", None)]);
    assert!(within(cache.get(&key("a:1"))).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_a_hanging_write_until_its_deadline_and_says_so() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    switches.puts(Mode::Hangs);
    within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    let began = Instant::now();
    let report = within(cache.close(Duration::from_secs(2))).await;
    assert_eq!(report.unfinished, 1);
    assert!(!report.is_clean());
    assert!(began.elapsed() <= Duration::from_millis(2_001), "{:?}", began.elapsed());
    assert!(matches!(within(cache.get(&key("a:2"))).await, Err(Error::Closed)));
}
