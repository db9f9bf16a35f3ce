//! From YAML to a chain: every setting does what it says.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{Router, routing::get};
use larder::{
    BuildError, Cache, CacheBuilder, Error, ErrorKind, Filter, Key, OriginErrorKind, PutReport,
    Request, ServedBy, SetOptions, Timestamp, config::CacheConfig,
};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tier_testkit::ManualClock;
use tokio::runtime::Runtime;

use crate::{
    harness::{bring, close, key, never, within},
    outage::Log,
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

    /// The configuration with these lines, and SQLite in this place.
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
        let told = log.texts(tracing::Level::INFO, "larder::hits");
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

// Sources.

/// An HTTP server on the loopback interface with a runtime of its own; dropping it cuts all
/// connections.
struct Server {
    port: u16,
    requests: Arc<AtomicU64>,
    asked: Arc<Mutex<Vec<String>>>,
    runtime: Option<Runtime>,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, asked) = (Arc::new(AtomicU64::new(0)), Arc::<Mutex<Vec<String>>>::default());
        let (count, note) = (Arc::clone(&requests), Arc::clone(&asked));
        let answer = move |uri: axum::http::Uri| async move {
            let n = count.fetch_add(1, Ordering::SeqCst) + 1;
            note.lock().unwrap().push(uri.to_string());
            format!("{{\"uri\": \"{uri}\", \"answer\": {n}}}")
        };
        let router = Router::new().fallback(get(answer));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        Self { port, requests, asked, runtime: Some(runtime) }
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Two sources at `server`: one fresh for two hours, one by the default of 3 days.
fn sources(place: &Path, server: &Server) -> CacheConfig {
    let (place, port) = (place.display(), server.port);
    load(&format!(
        "cache:
  sqlite: {{path: '{place}'}}
  defaults: {{ttl: 3d}}
  ttl_policies: {{epa_aqs: 2h, live: 0s, frozen: never, census_acs: 365}}
  sources:
    epa_aqs: {{url: 'http://127.0.0.1:{port}/air/{{cbsa}}', query: {{key: hush}}}}
    census: {{url: 'http://127.0.0.1:{port}/people/{{cbsa}}', params: {{year: 2022}}}}
    live: {{url: 'http://127.0.0.1:{port}/live/{{cbsa}}'}}
    frozen: {{url: 'http://127.0.0.1:{port}/frozen/{{cbsa}}'}}
    own: {{url: 'http://127.0.0.1:{port}/own/{{cbsa}}', ttl: 90s}}
    census_acs: {{url: 'http://127.0.0.1:{port}/acs/{{cbsa}}'}}
"
    ))
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

const MARKETS: [u32; 3] = [14_500, 19_740, 22_660];

async fn ask(cache: &Cache, source: &str, market: u32) -> Result<larder::Hit, Error> {
    let values = [("cbsa".to_owned(), market.to_string())].into();
    let request = cache.request_for(source, &values).unwrap();
    within(cache.request(&request)).await
}

#[tokio::test]
async fn each_market_is_asked_for_once_and_never_again_while_it_is_fresh() {
    let (place, server) = (Place::new(), Server::start());
    let config = sources(&place.path(), &server);
    let cache = Cache::from_config(&config).unwrap();
    for round in 0..2 {
        for (n, market) in MARKETS.into_iter().enumerate() {
            let hit = ask(&cache, "census", market).await.unwrap();
            let by = if round == 0 { ServedBy::Origin } else { ServedBy::Tier("memory") };
            assert_eq!(hit.served_by(), by);
            let text =
                format!("{{\"uri\": \"/people/{market}?year=2022\", \"answer\": {}}}", n + 1);
            assert_eq!(hit.value(), text.as_bytes());
        }
        assert_eq!(server.requests(), 3, "round {round}");
    }
    close(cache).await;

    let restarted = Cache::from_config(&config).unwrap();
    for market in MARKETS {
        let hit = ask(&restarted, "census", market).await.unwrap();
        assert_eq!(hit.served_by(), ServedBy::Tier("sqlite"));
    }
    assert_eq!((server.requests(), restarted.stats().loads), (3, 0));
}

#[tokio::test]
async fn a_source_that_is_down_costs_only_what_is_not_stored() {
    let (place, server) = (Place::new(), Server::start());
    let config = sources(&place.path(), &server);
    let cache = Cache::from_config(&config).unwrap();
    let before = ask(&cache, "census", 14_500).await.unwrap();
    drop(server);
    let after = ask(&cache, "census", 14_500).await.unwrap();
    assert_eq!((after.value(), after.served_by()), (before.value(), ServedBy::Tier("memory")));

    for attempt in 1..=2 {
        let Err(Error::Origin(error)) = ask(&cache, "census", 19_740).await else { panic!() };
        assert_eq!((error.origin(), error.kind()), ("census", OriginErrorKind::Network));
        let text = Error::Origin(error).to_string();
        assert!(text.contains("source `census`") && text.contains("http://127.0.0.1:"), "{text}");
        assert_eq!(cache.stats().load_failures, attempt, "a failure is not stored");
    }
    close(cache).await;
    let restarted = Cache::from_config(&config).unwrap();
    let hit = ask(&restarted, "census", 14_500).await.unwrap();
    assert_eq!((hit.value(), hit.served_by()), (before.value(), ServedBy::Tier("sqlite")));
}

#[tokio::test]
async fn a_secret_of_a_source_reaches_the_server_and_neither_key_nor_error() {
    let (place, server) = (Place::new(), Server::start());
    let cache = Cache::from_config(&sources(&place.path(), &server)).unwrap();
    ask(&cache, "epa_aqs", 14_500).await.unwrap();
    assert_eq!(*server.asked.lock().unwrap(), ["/air/14500?key=hush"]);
    let keys = within(cache.list_keys(10)).await.unwrap();
    assert_eq!(keys.iter().map(Key::as_str).collect::<Vec<_>>(), ["epa_aqs:cbsa=14500"]);
    drop(server);
    let error = ask(&cache, "epa_aqs", 19_740).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
}

#[tokio::test]
async fn answers_stay_fresh_as_long_as_the_policy_of_their_source_says() {
    let (place, server) = (Place::new(), Server::start());
    let config = sources(&place.path(), &server);
    // At the time of the tiers, whose clocks are the machine's.
    let began = now();
    let clock = Arc::new(ManualClock::at(began));
    let builder = CacheBuilder::from_config(&config).unwrap();
    let cache = builder.clock(Arc::<ManualClock>::clone(&clock)).build().unwrap();
    let hours =
        |hours: u64| Timestamp::from_millis(began).saturating_add(Duration::from_hours(hours));
    for (source, expected) in [
        ("epa_aqs", hours(2)),
        ("census", hours(3 * 24)),
        ("frozen", Timestamp::NEVER),
        ("own", Timestamp::from_millis(began + 90_000)),
        ("census_acs", hours(365 * 24)),
    ] {
        let hit = ask(&cache, source, 14_500).await.unwrap();
        assert_eq!(hit.entry().expires_at(), expected, "{source}");
    }
    ask(&cache, "live", 14_500).await.unwrap();
    assert_eq!(server.requests(), 6);
    assert!(
        within(cache.get(&Request::new("live").param("cbsa", 14_500).key()))
            .await
            .unwrap()
            .is_none()
    );
    ask(&cache, "live", 14_500).await.unwrap();
    assert_eq!(server.requests(), 7, "what is fresh for no time is asked for each time");
    let stored = within(cache.list_keys(10)).await.unwrap();
    assert_eq!(stored.len(), 5, "and is not stored: {stored:?}");

    clock.advance(Duration::from_millis(2 * 3_600_000 - 1));
    ask(&cache, "epa_aqs", 14_500).await.unwrap();
    assert_eq!(server.requests(), 7, "fresh to the last millisecond");
    clock.advance(Duration::from_millis(1));
    let hit = ask(&cache, "epa_aqs", 14_500).await.unwrap();
    assert_eq!((hit.served_by(), server.requests()), (ServedBy::Origin, 8));
    assert_eq!(hit.entry().expires_at(), hours(4));
    for source in ["census", "frozen", "census_acs"] {
        ask(&cache, source, 14_500).await.unwrap();
    }
    assert_eq!(server.requests(), 8, "each source has its own time");
}
