//! Hits in memory: what they cost, and that they are counted and end in time.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use larder::{Cache, Hit, Key, Loaded, ServedBy, SetOptions, tiers::MemoryTier};
use tier_testkit::ManualClock;

/// The output of a future that is ready when it is first asked, without a runtime.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

fn memory() -> Cache {
    Cache::builder().tier(MemoryTier::new(16 << 20)).build().unwrap()
}

async fn filled() -> (Cache, Key) {
    let (cache, key) = (memory(), Key::new("census:acs5:cbsa=14500"));
    cache.set(&key, "[1, 2, 3]", SetOptions::default()).await.unwrap();
    (cache, key)
}

#[tokio::test]
async fn a_hit_allocates_nothing_and_waits_for_nothing() {
    // Not the machine's clock: the thread that notes its time is started by a hit, now and then.
    let clock = Arc::new(ManualClock::default());
    let tier = MemoryTier::with_clock(16 << 20, Arc::<ManualClock>::clone(&clock));
    let cache = Cache::builder().clock(clock).tier(tier).build().unwrap();
    let key = Key::new("census:acs5:cbsa=14500");
    cache.set(&key, "[1, 2, 3]", SetOptions::default()).await.unwrap();
    let text = key.as_str().to_owned();
    let all = || {
        // By key or by text; one of them in 64 is timed.
        for _ in 0..100 {
            assert!(cache.peek(&key).is_some() && cache.peek("census:acs5:cbsa=14500").is_some());
            assert!(at_once(cache.get(&text)).unwrap().is_some());
            let load = |_| async { Ok(Loaded::new("never")) };
            assert_eq!(at_once(cache.get_or_load(&key, load)).unwrap().value(), "[1, 2, 3]");
            let decoded = at_once(cache.get_as::<Vec<u8>>(text.as_str())).unwrap();
            assert_eq!(*decoded.unwrap(), [1, 2, 3]);
        }
    };
    // What a thread needs of its own is made by its first hit, as are decoded objects.
    all();
    assert_eq!(allocation_counter::measure(all).count_total, 0);
}

#[tokio::test]
async fn what_is_not_in_memory_is_asked_for_by_text_too() {
    let (cache, _) = filled().await;
    assert!(cache.get("census:none").await.unwrap().is_none());
    assert!(cache.peek("census:none").is_none());
    let hit = cache.get_or_load("census:new", |_| async { Ok(Loaded::new("v")) }).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Origin));
    assert_eq!(cache.get(&String::from("census:new")).await.unwrap().unwrap().value(), "v");
}

#[tokio::test]
async fn hits_of_many_threads_are_counted_exactly_and_one_in_64_is_timed() {
    const THREADS: u64 = 8;
    const EACH: u64 = 6_400;
    let (cache, key) = filled().await;
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..EACH).for_each(|_| drop(cache.peek(&key).unwrap())));
        }
    });
    let stats = cache.stats();
    let memory = stats.tier("memory").unwrap();
    assert_eq!((stats.hits, stats.misses), (THREADS * EACH, 0));
    assert_eq!(
        (memory.served, memory.found, memory.not_found),
        (THREADS * EACH, THREADS * EACH, 0)
    );
    let latency = cache.latencies()[0];
    assert_eq!((latency.name, latency.reads.count), ("memory", THREADS * EACH / 64));
    assert_eq!(latency.writes.count, 0);
    let reads = latency.reads;
    assert!(Duration::ZERO < reads.p50 && reads.p50 <= reads.p90 && reads.p90 <= reads.p95);
    assert!(reads.p95 <= reads.p99 && reads.p99 <= reads.max);
}

#[tokio::test]
async fn misses_are_timed_as_seldom_as_hits() {
    let (cache, _) = filled().await;
    for n in 0..640 {
        assert!(cache.peek(&format!("census:{n}")).is_none());
    }
    assert_eq!(cache.latencies()[0].reads.count, 10);
}

#[tokio::test]
async fn what_decoded_objects_occupy_is_estimated_within_a_factor_of_four() {
    async fn check<T: serde::de::DeserializeOwned + Send + Sync + 'static>(name: &str, json: &str) {
        let tier = Arc::new(MemoryTier::new(64 << 20));
        let cache = Cache::builder().shared_tier(Arc::clone(&tier) as _).build().unwrap();
        let key = Key::new("a:1");
        cache.set(&key, json.to_owned(), SetOptions::default()).await.unwrap();
        let before = tier.stats().weight;
        let mut object = None;
        let decode = || object = Some(serde_json::from_str::<T>(json).unwrap());
        let occupied = allocation_counter::measure(decode).bytes_current;
        at_once(cache.get_as::<T>(&key)).unwrap().unwrap();
        let estimate = tier.stats().weight - before;
        let ratio = estimate as f64 / occupied as f64;
        println!("{name}: {estimate} for {occupied}, {ratio:.2}");
        assert!((0.25..4.0).contains(&ratio), "{name}: {estimate} for {occupied}");
    }
    let row = |n: usize| format!(r#"["Metro Area {n}","{}","{}","{n}"]"#, n * 7_919, n * 31);
    let table = format!("[{}]", (1..500).map(row).collect::<Vec<_>>().join(","));
    let numbers = format!("[{}]", (1..5_000).map(|n| n.to_string()).collect::<Vec<_>>().join(","));
    let record = |n: usize| format!(r#"{{"year":{n},"period":"M01","value":"{}.1"}}"#, n * 3);
    let series = format!("[{}]", (1..500).map(record).collect::<Vec<_>>().join(","));
    check::<Vec<Vec<String>>>("table", &table).await;
    for (name, json) in [("table", &table), ("numbers", &numbers), ("series", &series)] {
        check::<serde_json::Value>(name, json).await;
    }
}

#[tokio::test]
async fn a_key_may_be_given_in_any_form() {
    let (cache, key) = filled().await;
    let text = key.as_str().to_owned();
    let borrowed = std::borrow::Cow::Borrowed(text.as_str());
    let (shared, boxed): (Arc<Key>, Box<str>) = (Arc::new(key.clone()), text.clone().into());
    let found = [
        cache.peek(&key),
        cache.peek(&&key),
        cache.peek(text.as_str()),
        cache.peek(&text),
        cache.peek(&borrowed),
        cache.peek(&shared),
        cache.peek(&boxed),
    ];
    assert!(found.iter().all(Option::is_some));
}

#[tokio::test]
async fn without_hit_statistics_hits_in_memory_are_not_counted_and_misses_are() {
    let tier = MemoryTier::new(16 << 20);
    let cache = Cache::builder().tier(tier).hit_statistics(false).build().unwrap();
    cache.set(&Key::new("a:1"), "v", SetOptions::default()).await.unwrap();
    for _ in 0..200 {
        assert!(cache.get("a:1").await.unwrap().is_some());
    }
    assert!(cache.get("a:2").await.unwrap().is_none());
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses), (0, 1));
    assert_eq!(cache.latencies()[0].reads.count, 0);
}

#[tokio::test]
async fn a_value_that_is_read_without_pause_ends_when_its_time_is_over() {
    // Longer ones for machines that are too busy to read the shorter ones in time.
    for millis in [60, 600, 6_000] {
        let (cache, lifetime) = (memory(), Duration::from_millis(millis));
        let began = Instant::now();
        cache.set(&Key::new("a:1"), "v", SetOptions::ttl(lifetime)).await.unwrap();
        let mut hits = 0_u64;
        while cache.peek("a:1").is_some() {
            hits += 1;
            assert!(began.elapsed() < Duration::from_mins(1), "still served after {hits} hits");
        }
        // The clock is late by some milliseconds.
        let late = Duration::from_millis(20);
        assert!(began.elapsed() + late >= lifetime, "{:?} of {lifetime:?}", began.elapsed());
        if hits > 0 {
            return;
        }
    }
    panic!("nothing could be read");
}

#[test]
fn a_hit_is_small_and_may_go_to_another_thread() {
    fn shared<T: Send + Sync + 'static>() -> usize {
        size_of::<T>()
    }
    assert_eq!(shared::<Hit>(), 2 * size_of::<usize>());
    assert_eq!(shared::<Option<Hit>>(), 2 * size_of::<usize>());
    let cache = Arc::new(memory());
    assert!(thread::spawn(move || cache.peek("a:1").is_none()).join().unwrap());
}
