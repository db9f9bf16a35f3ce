//! Pitfalls: "options accepted and never read: test each option for its effect". Those of a tier in
//! its chain are in `options.rs`; those of reads and of policies with what they are about.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, mpsc},
    task::Poll,
    time::Duration,
};

use larder::{
    Cache, Codec, CodecError, CodecId, Entry, Error, ErrorKind, Policy, PutOutcome, SetOptions,
    Stamp, Tier, Ttl,
    tiers::{Compressor, MemoryTier, SqliteOptions, SqliteTier, Zlib, Zstd},
};
use tier_testkit::{CountingOrigin, ManualClock};

use crate::{
    harness::{Bench, key, never, tag, within},
    log::Log,
    tools::{any, fresh, set},
};

// `SetOptions`.

async fn entry_of(options: SetOptions) -> (Bench, Cache, Entry) {
    let bench = Bench::new();
    let cache = bench.cache();
    within(cache.set(&key("a:1"), "v", options)).await.unwrap();
    let entry = within(cache.get(&key("a:1"))).await.unwrap().unwrap().into_entry();
    // SQLite has the same.
    let below = within(bench.sqlite().get(&key("a:1"))).await.unwrap().unwrap();
    assert_eq!(below, entry);
    (bench, cache, entry)
}

#[tokio::test]
async fn each_option_of_a_set_has_its_effect() {
    let (bench, cache, entry) = entry_of(SetOptions::ttl(Duration::from_millis(1_500))).await;
    assert!(entry.has_own_lifetime());
    bench.advance(1_499);
    assert_eq!(fresh(&cache, &key("a:1")).await.as_deref(), Some("v"), "ttl");
    bench.advance(1);
    assert_eq!(any(&cache, &key("a:1")).await, None, "ttl");

    let options = SetOptions::ttl(Duration::from_secs(1)).stale_for(Duration::from_secs(2));
    let (bench, cache, _) = entry_of(options).await;
    bench.advance(2_999);
    assert_eq!(any(&cache, &key("a:1")).await.as_deref(), Some("v"), "stale_for");
    bench.advance(1);
    assert_eq!(any(&cache, &key("a:1")).await, None, "stale_for");

    let mut forever = SetOptions::default();
    forever.ttl = Some(Ttl::Never);
    let (_, _, entry) = entry_of(forever).await;
    assert_eq!(entry.expires_at(), larder::Timestamp::NEVER, "ttl: never");

    let options = SetOptions::default().tag(tag("b")).tag(tag("a")).tag(tag("b"));
    let (_, _, entry) = entry_of(options).await;
    assert_eq!(entry.tags(), [tag("a"), tag("b")], "tags");

    let options = SetOptions::default().content_type("text/csv").version("2022");
    let (_, _, entry) = entry_of(options).await;
    assert_eq!(entry.content_type(), Some("text/csv"), "content_type");
    assert_eq!(entry.version(), Some("2022"), "version");

    let (_, _, entry) = entry_of(SetOptions::default()).await;
    assert_eq!((entry.tags(), entry.content_type(), entry.version()), (&[][..], None, None));
    assert!(!entry.has_own_lifetime());
}

// The builder's.

#[tokio::test]
async fn a_source_has_its_own_policy_and_others_have_the_default() {
    let bench = Bench::new();
    let builder = bench.bare().tier(bench.memory());
    let builder = builder.default_policy(Policy::ttl(Duration::from_secs(2)));
    let cache = builder.policy("a", Policy::ttl(Duration::from_secs(5))).build().unwrap();
    for text in ["a:1", "a_b:1", "b:1"] {
        set(&cache, &key(text), "v").await;
    }
    bench.advance(2_000);
    for (text, is_fresh) in [("a:1", true), ("a_b:1", false), ("b:1", false)] {
        assert_eq!(fresh(&cache, &key(text)).await.is_some(), is_fresh, "{text}");
    }
    bench.advance(3_000);
    assert_eq!(fresh(&cache, &key("a:1")).await, None);
    assert_eq!(cache.policy("a").ttl, Ttl::For(Duration::from_secs(5)));
    assert_eq!(cache.policy("other").ttl, Ttl::For(Duration::from_secs(2)));
}

#[tokio::test]
async fn offline_asks_no_origin_and_serves_what_is_stored() {
    let bench = Bench::new();
    set(&bench.sqlite_only(), &key("a:1"), "v").await;
    let origin = Arc::new(CountingOrigin::default());
    let shared = Arc::clone(&origin) as Arc<dyn larder::Origin>;
    let cache = bench.builder().shared_origin("o", shared).offline(true).build().unwrap();
    assert!(cache.is_offline());
    let hit = within(cache.get_or_load(&key("a:1"), never())).await.unwrap();
    assert_eq!(hit.value(), "v");
    let missing = within(cache.get_or_load(&key("a:2"), never())).await;
    assert!(matches!(missing, Err(Error::Offline { .. })), "{missing:?}");
    let missing = within(cache.request(&larder::Request::new("o"))).await;
    assert!(matches!(missing, Err(Error::Offline { .. })), "{missing:?}");
    assert_eq!(origin.calls(), 0);
}

#[tokio::test]
async fn hits_are_logged_when_asked_for_and_not_otherwise() {
    for logs in [false, true] {
        let bench = Bench::new();
        let builder = bench.bare().tier(bench.memory()).log_hits(logs);
        let cache = builder.build().unwrap();
        set(&cache, &key("a:1"), "v").await;
        let (log, _guard) = Log::capture();
        fresh(&cache, &key("a:1")).await;
        fresh(&cache, &key("a:2")).await;
        let told = log.texts(tracing::Level::INFO);
        assert_eq!(told.len(), usize::from(logs), "{told:#?}");
        assert!(told.iter().all(|text| text.contains("a:1") && text.contains("memory")));
    }
}

// SQLite's.

fn sqlite(bench: &Bench) -> SqliteOptions {
    SqliteOptions::new(bench.path()).clock(Arc::clone(&bench.clock) as Arc<dyn larder::Clock>)
}

fn entry(bench: &Bench, value: impl Into<bytes::Bytes>) -> Entry {
    let now = larder::Clock::now(&*bench.clock);
    Entry::builder(value, Stamp::at(now)).build()
}

#[tokio::test]
async fn a_file_is_made_where_asked_for_and_read_with_the_clock_given() {
    let bench = Bench::new();
    let path = bench.path().with_file_name("deep").join("other.db");
    let clock = Arc::new(ManualClock::at(1_000));
    let options = SqliteOptions::new(&path).clock(Arc::clone(&clock) as Arc<dyn larder::Clock>);
    let tier = SqliteTier::new(options).unwrap();
    let at = larder::Timestamp::from_millis;
    let short = Entry::builder("v", Stamp::at(at(1_000))).expires_at(at(2_000)).build();
    within(tier.put(&key("a:1"), &short)).await.unwrap();
    assert!(path.is_file());
    clock.set(1_999);
    assert!(within(tier.get(&key("a:1"))).await.unwrap().is_some());
    clock.set(2_000);
    assert!(within(tier.get(&key("a:1"))).await.unwrap().is_none());
}

#[tokio::test]
async fn a_write_waits_for_a_lock_no_longer_than_its_busy_timeout() {
    let bench = Bench::new();
    set(&bench.sqlite_only(), &key("a:0"), "v").await;
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let hasty = SqliteTier::new(sqlite(&bench).busy_timeout(Duration::from_millis(1))).unwrap();
    let error = within(hasty.put(&key("a:1"), &entry(&bench, "v"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let patient = SqliteTier::new(sqlite(&bench).busy_timeout(Duration::from_secs(25))).unwrap();
    let (a, value) = (key("a:1"), entry(&bench, "v"));
    let mut putting = Box::pin(patient.put(&a, &value));
    assert!(poll_fn(|context| Poll::Ready(putting.as_mut().poll(context).is_pending())).await);
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(within(putting).await.unwrap(), PutOutcome::Stored);
}

#[tokio::test]
async fn values_above_the_largest_allowed_are_refused_and_neither_read() {
    let bench = Bench::new();
    let small = SqliteTier::new(sqlite(&bench).max_value_bytes(10)).unwrap();
    let usual = bench.sqlite();
    for (len, stored) in [(10, true), (11, false)] {
        let a = key(&format!("a:{len}"));
        let outcome = within(small.put(&a, &entry(&bench, vec![b'x'; len]))).await.unwrap();
        assert_eq!(outcome.is_stored(), stored, "{outcome:?}");
    }
    let a = key("a:large");
    within(usual.put(&a, &entry(&bench, vec![b'x'; 11]))).await.unwrap();
    assert!(within(usual.get(&a)).await.unwrap().is_some());
    assert!(within(small.get(&a)).await.unwrap().is_none());
    assert_eq!(small.corrupt_rows(), 0);
}

#[tokio::test]
async fn values_from_the_threshold_on_are_compressed_and_read_by_who_has_a_compressor() {
    let bench = Bench::new();
    let zstd = || Arc::new(Zstd::new(1).unwrap()) as Arc<dyn Codec>;
    let zlib = || Arc::new(Zlib::new(6).unwrap()) as Arc<dyn Codec>;
    let by = |codec, threshold| Arc::new(Compressor::new().codec(codec, threshold));
    let compressing = SqliteTier::new(sqlite(&bench).compression(by(zstd(), 100))).unwrap();
    let text = |len: usize| vec![b'x'; len];
    for len in [99, 100] {
        within(compressing.put(&key(&format!("a:{len}")), &entry(&bench, text(len))))
            .await
            .unwrap();
    }
    let looker = rusqlite::Connection::open(bench.path()).unwrap();
    let codec = |text: &str| -> u8 {
        let select = "SELECT codec FROM entries WHERE key = ?1";
        looker.query_row(select, [text], |row| row.get(0)).unwrap()
    };
    assert_eq!((codec("a:99"), codec("a:100")), (CodecId::RAW.0, CodecId::ZSTD.0));
    let readers = [
        ("the one that compressed", sqlite(&bench).compression(by(zstd(), 100)), true),
        (
            "one that compresses nothing",
            sqlite(&bench).compression(Arc::new(Compressor::new())),
            true,
        ),
        ("one that compresses otherwise", sqlite(&bench).compression(by(zlib(), 1)), true),
        ("one without", sqlite(&bench), false),
    ];
    for (name, options, reads) in readers {
        let tier = SqliteTier::new(options).unwrap();
        let found = within(tier.get(&key("a:100"))).await.unwrap();
        assert_eq!(found.is_some(), reads, "{name}");
        assert!(found.is_none_or(|found| found.value() == &text(100)), "{name}");
        assert!(within(tier.get(&key("a:99"))).await.unwrap().is_some(), "{name}");
        assert_eq!(tier.corrupt_rows(), 0, "{name}: sound for who can read it");
    }
}

/// Stores values as they are, and takes its time to give one back.
#[derive(Debug)]
struct Stuck {
    arrived: Mutex<mpsc::Sender<()>>,
    gate: Mutex<mpsc::Receiver<()>>,
}

impl Codec for Stuck {
    fn id(&self) -> CodecId {
        CodecId(201)
    }

    fn name(&self) -> &'static str {
        "stuck"
    }

    fn encode(&self, raw: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        Ok(Some(raw.to_vec()))
    }

    fn decode(&self, stored: &[u8], _: u64, _: u64) -> Result<Vec<u8>, CodecError> {
        if stored == b"stuck" {
            self.arrived.lock().unwrap().send(()).unwrap();
            self.gate.lock().unwrap().recv().unwrap();
        }
        Ok(stored.to_vec())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_takes_long_does_not_hold_up_the_other_readers_asked_for() {
    let bench = Bench::new();
    let ((arrived, arrivals), (gate_in, gate)) = (mpsc::channel(), mpsc::channel());
    let codec = Stuck { arrived: Mutex::new(arrived), gate: Mutex::new(gate) };
    let compressor = Compressor::new().codec(Arc::new(codec), 1);
    let options = sqlite(&bench).compression(Arc::new(compressor)).readers(3);
    let tier = Arc::new(SqliteTier::new(options).unwrap());
    for (text, value) in [("a:1", "stuck"), ("a:2", "v")] {
        within(tier.put(&key(text), &entry(&bench, value))).await.unwrap();
    }
    let stuck: Vec<_> = (0..2)
        .map(|_| {
            let tier = Arc::clone(&tier);
            tokio::spawn(async move { tier.get(&key("a:1")).await })
        })
        .collect();
    tokio::task::spawn_blocking(move || {
        // One of the two holds the lock of the gate, the other waits for it.
        arrivals.recv().unwrap();
        arrivals.recv().unwrap();
    })
    .await
    .unwrap();
    let found = within(tier.get(&key("a:2"))).await.unwrap().unwrap();
    assert_eq!(found.value(), "v", "the third reader");
    for reader in stuck {
        gate_in.send(()).unwrap();
        drop(reader);
    }
    // None at all would read nothing.
    let one = SqliteTier::new(SqliteOptions::new(bench.path()).readers(0)).unwrap();
    assert!(within(one.get(&key("none:1"))).await.unwrap().is_none());
}

// Memory's.

#[tokio::test]
async fn memory_holds_no_more_than_its_capacity_and_says_what_it_gave_up() {
    for megabytes in [1_u64, 4] {
        let bench = Bench::new();
        let clock = Arc::clone(&bench.clock) as Arc<dyn larder::Clock>;
        let tier = Arc::new(MemoryTier::with_clock(megabytes << 20, clock));
        let cache = bench.bare().shared_tier(Arc::clone(&tier) as Arc<dyn Tier>).build().unwrap();
        for n in 0..100 {
            let value = vec![b'x'; 100 << 10];
            within(cache.set(&key(&format!("a:{n}")), value, SetOptions::default())).await.unwrap();
        }
        let stats = tier.stats();
        assert!(stats.weight <= megabytes << 20, "{stats:?}");
        assert_eq!(stats.entries + stats.evictions, 100, "{stats:?}");
        assert!(stats.entries >= megabytes * 5, "{stats:?}");
    }
}
