//! What is told of failures, and how often.

use super::*;

#[tokio::test]
async fn failing_reads_are_told_once_opening_once_and_recovery_once() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    let (log, _guard) = Log::capture();
    let told = |level| log.texts(level);
    switches.gets(DOWN);
    for n in 0..30 {
        within(cache.get(&key(&format!("a:{n}")))).await.unwrap();
    }
    let warnings = told(tracing::Level::WARN);
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    assert!(warnings[0].contains("chaos") && warnings[0].contains("unavailable"), "{warnings:#?}");
    assert!(warnings[1].contains("skipped") && warnings[1].contains("5s"), "{warnings:#?}");
    assert!(told(tracing::Level::INFO).is_empty());

    switches.gets(Mode::Works);
    forward(&bench, 5);
    for n in 0..30 {
        within(cache.get(&key(&format!("b:{n}")))).await.unwrap();
    }
    let recovered = told(tracing::Level::INFO);
    assert_eq!(recovered.len(), 1, "{recovered:#?}");
    assert!(recovered[0].contains("works again"), "{recovered:#?}");
    assert_eq!(told(tracing::Level::WARN).len(), 2);
}

#[tokio::test]
async fn refused_writes_are_told_once_and_reads_in_between_do_not_make_them_news() {
    let bench = Bench::new();
    let (cache, switches) = over_chaos(&bench);
    let (log, _guard) = Log::capture();
    switches.puts(Mode::Fails(ErrorKind::Refused));
    for n in 0..30 {
        let asked = key(&format!("a:{n}"));
        within(cache.set(&asked, "v", SetOptions::default())).await.unwrap();
        within(cache.get(&key(&format!("b:{n}")))).await.unwrap();
    }
    let warnings = log.texts(tracing::Level::WARN);
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(log.texts(tracing::Level::INFO).is_empty());
    switches.puts(Mode::Works);
    for n in 0..3 {
        within(cache.set(&key(&format!("c:{n}")), "v", SetOptions::default())).await.unwrap();
    }
    assert_eq!(log.texts(tracing::Level::INFO).len(), 1);
}

#[tokio::test]
async fn an_unusable_file_is_told_once_with_its_path_and_what_to_do() {
    let bench = Bench::new();
    fs::write(bench.path(), "Dear diary, ".repeat(1_000)).unwrap();
    let cache = bench.cache();
    let (log, _guard) = Log::capture();
    for n in 0..10 {
        within(cache.get(&key(&format!("a:{n}")))).await.unwrap();
    }
    let warnings = log.texts(tracing::Level::WARN);
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    let path = bench.path().display().to_string();
    for part in [&path, "sqlite", "left untouched", "cache.sqlite.path"] {
        assert!(warnings[0].contains(part), "{part}: {warnings:#?}");
    }
}

#[tokio::test]
async fn a_tier_that_fails_only_to_write_is_skipped_too() {
    let bench = Bench::new();
    let clock = Arc::clone(&bench.clock) as Arc<dyn larder::Clock>;
    let options = larder::tiers::SqliteOptions::new(bench.path()).clock(clock);
    let options = options.busy_timeout(Duration::from_millis(1));
    let tier = larder::tiers::SqliteTier::new(options).unwrap();
    let cache = bench.bare().tier(tier).build().unwrap();
    within(cache.set(&key("a:0"), "v", SetOptions::default())).await.unwrap();
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 0..8 {
        within(cache.set(&key(&format!("a:{n}")), "w", SetOptions::default())).await.unwrap();
    }
    let stats = stats_of(&cache, "sqlite");
    assert_eq!((stats.errors, stats.skipped), (5, 3), "the looks before the writes do not count");
}
