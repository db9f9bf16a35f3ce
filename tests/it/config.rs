//! From YAML to a chain: every setting does what it says.

mod sources;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use larder::{
    BuildError, Cache, CacheBuilder, Error, ErrorKind, Filter, Key, PutReport, ServedBy,
    SetOptions, config::CacheConfig,
};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tier_testkit::ManualClock;

use crate::{
    harness::{bring, close, key, never, within},
    log::Log,
};

const RAW: u8 = 0;
const ZLIB: u8 = 1;
const ZSTD: u8 = 2;

/// A directory for one test's file.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("cache.db")
    }

    /// The configuration with these lines, and SQLite in this place; a first line that is indented
    /// is in its section.
    fn config(&self, lines: &[&str]) -> CacheConfig {
        let mut yaml = format!("cache:\n  sqlite:\n    path: '{}'\n", self.path().display());
        for line in lines {
            yaml.extend(["  ", line, "\n"]);
        }
        load(&yaml)
    }

    fn cache(&self, lines: &[&str]) -> Cache {
        Cache::from_config(&self.config(lines)).unwrap()
    }

    /// The codec of a stored value, and its length as stored.
    fn stored(&self, key: &Key) -> (u8, usize) {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let connection = Connection::open_with_flags(self.path(), flags).unwrap();
        let query = "SELECT codec, length(value) FROM entries WHERE key = ?1";
        connection.query_row(query, [key.as_str()], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    }
}

fn load(yaml: &str) -> CacheConfig {
    CacheConfig::loader().yaml(yaml, "t.yaml").load().unwrap().config
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

/// Names of a chain's tiers, in its order.
fn tiers(cache: &Cache) -> Vec<&'static str> {
    cache.stats().tiers.iter().map(|tier| tier.name).collect()
}

async fn set(cache: &Cache, name: &str, value: &[u8]) -> Key {
    let key = key(name);
    let outcome = cache.set(&key, value.to_vec(), SetOptions::default());
    let outcome = within(outcome).await.unwrap();
    assert!(outcome.stored_in().any(|tier| tier == "sqlite"), "{outcome:?}");
    key
}

async fn value(cache: &Cache, key: &Key) -> Vec<u8> {
    within(cache.get(key)).await.unwrap().unwrap().value().to_vec()
}

/// JSON of exactly `len` bytes.
fn json(len: usize) -> Vec<u8> {
    let text = r#"{"name": "Boulder, CO", "cbsa": 14500, "population": 330758},"#;
    text.bytes().cycle().take(len).collect()
}

// The chain.

#[tokio::test]
async fn memory_gives_up_what_was_used_longest_ago_where_that_is_asked_for() {
    let lines = ["memory: {size_mb: 1, policy: lru}", "chain: [memory]"];
    let cache = Place::new().cache(&lines);
    let name = |n: usize| key(&format!("a:{n}"));
    for n in 0..9 {
        let value = vec![7_u8; 100 << 10];
        within(cache.set(&name(n), value, SetOptions::default())).await.unwrap();
    }
    assert!(cache.peek(&name(0)).is_some());
    let large = vec![7_u8; 250 << 10];
    within(cache.set(&name(9), large, SetOptions::default())).await.unwrap();
    let left: Vec<usize> = (0..10).filter(|n| cache.peek(&name(*n)).is_some()).collect();
    assert_eq!(left, [0, 3, 4, 5, 6, 7, 8, 9]);
    let unknown = CacheConfig::loader().yaml("cache: {memory: {policy: fifo}}", "t.yaml").load();
    let refused = unknown.unwrap_err().to_string();
    assert!(refused.contains("t.yaml:1") && refused.contains("clock_pro or lru"), "{refused}");
}

#[tokio::test]
async fn the_chain_has_the_tiers_that_are_on_in_the_order_given() {
    for (lines, expected) in [
        (&[][..], &["memory", "sqlite"][..]),
        (&["chain: [memory, sqlite]"], &["memory", "sqlite"]),
        (&["chain: [sqlite, memory]"], &["sqlite", "memory"]),
        (&["chain: [sqlite]"], &["sqlite"]),
        (&["chain: [memory]"], &["memory"]),
        (&["memory: {enable: false}"], &["sqlite"]),
    ] {
        let place = Place::new();
        let cache = place.cache(lines);
        assert_eq!(tiers(&cache), expected, "{lines:?}");
        let outcome = within(cache.set(&key("a:1"), "v", SetOptions::default())).await.unwrap();
        assert_eq!(outcome.stored_in().collect::<Vec<_>>(), expected, "{lines:?}");
        let hit = within(cache.get(&key("a:1"))).await.unwrap().unwrap();
        assert_eq!(hit.served_by(), ServedBy::Tier(expected[0]), "{lines:?}");
        assert_eq!(place.path().exists(), expected.contains(&"sqlite"), "{lines:?}");
        close(cache).await;
    }
}

#[tokio::test]
async fn a_tier_that_is_off_is_absent_and_its_file_is_not_made() {
    let place = Place::new();
    let yaml = format!(
        "cache:\n  sqlite: {{enable: false, path: '{}'}}\n  memory: {{size_mb: 1}}\n",
        place.path().display()
    );
    let cache = Cache::from_config(&load(&yaml)).unwrap();
    assert_eq!(tiers(&cache), ["memory"]);
    within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    close(cache).await;
    assert!(!place.path().exists());

    let none = load("cache: {memory: {enable: false}, sqlite: {enable: false}}");
    let cache = Cache::from_config(&none).unwrap();
    assert!(tiers(&cache).is_empty());
    let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Origin);
}

#[tokio::test]
async fn memory_is_as_large_as_the_configuration_says() {
    let place = Place::new();
    let cache = place.cache(&["memory: {size_mb: 3}"]);
    let usage = within(cache.usage()).await.unwrap();
    let (name, usage) = usage.into_iter().next().unwrap();
    assert_eq!((name, usage.unwrap().capacity_bytes), ("memory", Some(3 << 20)));
}

#[test]
fn a_tier_that_is_not_built_yet_is_refused_with_what_to_do() {
    let place = Place::new();
    for lines in
        [&["redis: {enable: true}"][..], &["redis: {enable: true}", "chain: [memory, redis]"]]
    {
        let error = Cache::from_config(&place.config(lines)).unwrap_err();
        assert!(matches!(error, BuildError::Unsupported(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("cache.redis.enable: false"), "{text}");
    }
    // On, but no part of the chain.
    let unused = place.config(&["redis: {enable: true}", "chain: [memory]"]);
    assert_eq!(tiers(&Cache::from_config(&unused).unwrap()), ["memory"]);
}

// Options of tiers.

#[tokio::test]
async fn a_tier_that_is_only_read_is_not_written_to() {
    let place = Place::new();
    let before = place.cache(&[]);
    set(&before, "a:1", b"v").await;
    close(before).await;
    let cache = place.cache(&["  read_only: true"]);
    let hit = within(cache.get(&key("a:1"))).await.unwrap().unwrap();
    assert_eq!(hit.served_by(), ServedBy::Tier("sqlite"));
    let outcome = within(cache.set(&key("a:2"), "v", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory"]);
    close(cache).await;
    let after = place.cache(&[]);
    assert!(within(after.get(&key("a:2"))).await.unwrap().is_none());
}

#[tokio::test]
async fn a_set_fails_without_a_tier_that_is_required() {
    for (line, required) in [("  required: true", true), ("  required: false", false)] {
        let place = Place::new();
        std::fs::write(place.path(), "no database, ".repeat(1_000)).unwrap();
        let cache = place.cache(&[line]);
        let outcome = within(cache.set(&key("a:1"), "v", SetOptions::default())).await;
        match outcome {
            Err(Error::NotStored { tier, .. }) => assert!(required && tier == "sqlite"),
            other => assert!(!required && other.is_ok(), "{line}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_tier_keeps_its_copies_no_longer_than_it_is_told() {
    let place = Place::new();
    let config = place.config(&["memory: {max_ttl: 1m}"]);
    let clock = Arc::new(ManualClock::at(now()));
    let builder = CacheBuilder::from_config(&config).unwrap();
    let cache = builder.clock(Arc::<ManualClock>::clone(&clock)).build().unwrap();
    let a = set(&cache, "a:1", b"v").await;
    for (step, expected) in [(59_999, "memory"), (1, "sqlite"), (0, "memory")] {
        clock.advance(Duration::from_millis(step));
        let hit = within(cache.get(&a)).await.unwrap().unwrap();
        assert_eq!(hit.served_by(), ServedBy::Tier(expected), "after {step} ms more");
    }
}

// Compression.

#[tokio::test]
async fn values_from_the_threshold_on_are_compressed_and_smaller_ones_are_not() {
    let place = Place::new();
    let cache = place.cache(&["compression: {threshold_kb: 10, algorithm: zstd}"]);
    for (len, compressed) in
        [(0, false), (1, false), (10_239, false), (10_240, true), (200_000, true)]
    {
        let raw = json(len);
        let a = set(&cache, &format!("a:{len}"), &raw).await;
        let (codec, stored) = place.stored(&a);
        if compressed {
            assert_eq!(codec, ZSTD, "{len}");
            assert!(stored < len / 5, "{stored} of {len}");
        } else {
            assert_eq!((codec, stored), (RAW, len));
        }
        assert_eq!(value(&cache, &a).await, raw);
    }
    close(cache).await;
}

#[tokio::test]
async fn the_threshold_of_zero_compresses_what_gets_smaller() {
    let place = Place::new();
    let cache = place.cache(&["compression: {threshold_kb: 0, algorithm: zlib}"]);
    let large = set(&cache, "a:large", &json(2_000)).await;
    assert_eq!(place.stored(&large).0, ZLIB);
    // Three bytes and what looks random do not get smaller.
    let mut state = 1_u64;
    let noise: Vec<u8> = (0..20_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    for raw in [b"abc".to_vec(), noise] {
        let a = set(&cache, "a:noise", &raw).await;
        assert_eq!(place.stored(&a), (RAW, raw.len()));
    }
    close(cache).await;
}

#[tokio::test]
async fn the_algorithm_is_the_one_that_the_section_means() {
    for (section, expected) in [
        ("{}", ZSTD),
        ("{level: 6}", ZSTD),
        ("{level: 9}", ZSTD),
        ("{level: 1}", ZSTD),
        ("{level: 0}", RAW),
        ("{enable: false}", RAW),
        ("{enable: false, algorithm: zlib, level: 9}", RAW),
        ("{algorithm: none}", RAW),
        ("{algorithm: zlib, level: 0}", RAW),
        ("{algorithm: zlib}", ZLIB),
        ("{algorithm: zlib, level: 9}", ZLIB),
        ("{algorithm: zstd}", ZSTD),
        ("{algorithm: zstd, level: 19}", ZSTD),
    ] {
        let place = Place::new();
        let cache = place.cache(&[&format!("compression: {section}")]);
        let a = set(&cache, "a:1", &json(20_000)).await;
        assert_eq!(place.stored(&a).0, expected, "{section}");
        close(cache).await;
    }
}

#[tokio::test]
async fn the_level_changes_what_is_stored() {
    // Text with enough variety that the levels differ.
    let raw: Vec<u8> = (0..4_000_u32)
        .flat_map(|n| format!("{},{};", n.wrapping_mul(2_654_435_761) % 977, n % 31).into_bytes())
        .collect();
    for algorithm in ["zlib", "zstd"] {
        let mut sizes = Vec::new();
        for level in [1, 9] {
            let place = Place::new();
            let section = format!("compression: {{algorithm: {algorithm}, level: {level}}}");
            let cache = place.cache(&[&section]);
            let a = set(&cache, "a:1", &raw).await;
            sizes.push(place.stored(&a).1);
            close(cache).await;
        }
        assert!(sizes[1] < sizes[0], "{algorithm}: {sizes:?}");
    }
}

#[tokio::test]
async fn values_stay_readable_whatever_the_compression_is_changed_to() {
    let place = Place::new();
    let settings = [
        ("compression: {algorithm: zlib}", ZLIB),
        ("compression: {algorithm: zstd}", ZSTD),
        ("compression: {enable: false}", RAW),
        ("compression: {algorithm: zlib, level: 9}", ZLIB),
        ("compression: {algorithm: none}", RAW),
    ];
    let mut written = Vec::new();
    for (n, (section, codec)) in settings.into_iter().enumerate() {
        let cache = place.cache(&["memory: {enable: false}", section]);
        for (key, raw, stored_as) in &written {
            assert_eq!(&value(&cache, key).await, raw, "{section}");
            assert_eq!(place.stored(key).0, *stored_as, "reading rewrites nothing");
        }
        let raw = json(20_000 + n);
        let a = set(&cache, &format!("a:{n}"), &raw).await;
        assert_eq!(place.stored(&a).0, codec, "{section}");
        written.push((a, raw, codec));
        close(cache).await;
    }
}

// Strictness and logging.

#[tokio::test]
async fn graceful_mode_decides_whose_error_a_tiers_is() {
    let place = Place::new();
    std::fs::write(place.path(), "no database, ".repeat(1_000)).unwrap();
    let graceful = place.cache(&["graceful_mode: true"]);
    within(graceful.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    let outcome = within(graceful.set(&key("a:2"), "v", SetOptions::default())).await.unwrap();
    assert!(matches!(&outcome.tiers[..], [("memory", _), ("sqlite", PutReport::Failed(_))]));

    let strict = place.cache(&["graceful_mode: false"]);
    for told in [
        within(strict.get_or_load(&key("a:1"), never())).await.map(drop),
        within(strict.set(&key("a:2"), "v", SetOptions::default())).await.map(drop),
    ] {
        let Err(Error::Tier(error)) = told else { panic!("{told:?}") };
        assert_eq!((error.tier(), error.kind()), ("sqlite", ErrorKind::Unusable));
    }
}

#[tokio::test]
async fn hits_are_logged_if_asked_for_and_otherwise_not() {
    for (line, expected) in [
        ("monitoring: {log_cache_hits: true}", &["memory", "memory", "sqlite"][..]),
        ("monitoring: {log_cache_hits: false}", &[]),
        ("monitoring: {}", &[]),
    ] {
        let place = Place::new();
        let before = place.cache(&[]);
        set(&before, "a:below", b"v").await;
        close(before).await;

        let cache = place.cache(&[line]);
        let (log, guard) = Log::capture();
        within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
        within(cache.get_or_load(&key("a:1"), never())).await.unwrap();
        within(cache.get(&key("a:1"))).await.unwrap().unwrap();
        within(cache.get(&key("a:none"))).await.unwrap();
        within(cache.get(&key("a:below"))).await.unwrap().unwrap();
        drop(guard);
        let told = log.texts_of(tracing::Level::INFO, "larder::hits");
        assert_eq!(told.len(), expected.len(), "{line}: {told:#?}");
        for (text, tier) in told.iter().zip(expected) {
            let key = if *tier == "memory" { "a:1" } else { "a:below" };
            assert!(text.contains(&format!("tier=\"{tier}\"")) && text.contains(key), "{text}");
        }
    }
}

#[tokio::test]
async fn two_processes_on_one_file_see_each_others_fills_and_invalidations() {
    let place = Place::new();
    let (one, other) = (place.cache(&[]), place.cache(&[]));
    let a = key("a:1");
    within(one.set(&a, "v", SetOptions::default())).await.unwrap();
    let hit = within(other.get_or_load(&a, never())).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Tier("sqlite")));
    within(other.get_or_load(&key("a:2"), bring("w"))).await.unwrap();
    close(other).await;
    let hit = within(one.get_or_load(&key("a:2"), never())).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"w"[..], ServedBy::Tier("sqlite")));

    within(one.purge(&Filter::source("a"))).await.unwrap();
    let third = place.cache(&[]);
    assert!(within(third.get(&a)).await.unwrap().is_none());
    assert!(within(third.list_keys(10)).await.unwrap().is_empty());
}
