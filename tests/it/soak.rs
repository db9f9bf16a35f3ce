//! Many at once on a few keys: no read that began after a change returned sees what was before it.
//! And the interleavings of that kind that can be forced.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use larder::{
    Cache, Filter, Key, LoadContext, Loaded, OriginError, ReadOptions, ServedBy, SetOptions, Tag,
};
use tier_testkit::ManualClock;
use tokio::task::{JoinSet, yield_now};

use crate::{
    harness::{Bench, bring, close, joined, key, load_gated, never, tag, within},
    outage::{Chaos, Mode},
};

const KEYS: u64 = 3;
const READERS: u64 = 6;
const CHANGES: u64 = 120;

/// Where the truth about one key is.
#[derive(Debug)]
struct Truth {
    key: Key,
    /// What the source has now.
    version: AtomicU64,
    /// The version that the latest change which has returned made known.
    known: AtomicU64,
}

/// What all who play share.
#[derive(Debug)]
struct Game {
    truths: Vec<Arc<Truth>>,
    reads: AtomicU64,
    over: AtomicBool,
}

/// Numbers that look random and are the same for the same seed (Marsaglia's xorshift64).
struct Dice(u64);

impl Dice {
    fn new(seed: u64, player: u64) -> Self {
        Self((seed ^ (player + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)).max(1))
    }

    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

fn tag_of(key: &Key) -> Tag {
    tag(&format!("of-{key}"))
}

type Answer = Pin<Box<dyn Future<Output = Result<Loaded, OriginError>> + Send>>;

/// A load that reads the source when it begins and takes its time to answer.
fn load(truth: &Arc<Truth>, yields: u64) -> impl FnOnce(LoadContext) -> Answer + Send + 'static {
    let truth = Arc::clone(truth);
    move |_| {
        Box::pin(async move {
            let version = truth.version.load(Ordering::SeqCst);
            for _ in 0..yields {
                yield_now().await;
            }
            let mut loaded = Loaded::new(version.to_string());
            loaded.tags = vec![tag_of(&truth.key)];
            Ok(loaded)
        })
    }
}

async fn read(cache: Cache, game: Arc<Game>, mut dice: Dice) {
    while !game.over.load(Ordering::SeqCst) {
        let truth = &game.truths[usize::try_from(dice.roll(KEYS)).unwrap()];
        let known = truth.known.load(Ordering::SeqCst);
        let how = dice.roll(10);
        let hit = match how {
            0..=1 => cache.get(&truth.key).await.unwrap(),
            2 => cache.get_with(&truth.key, ReadOptions::purge_expired()).await.unwrap(),
            _ => {
                let yields = if dice.roll(3) == 0 { dice.roll(40) } else { 0 };
                Some(cache.get_or_load(&truth.key, load(truth, yields)).await.unwrap())
            }
        };
        if let Some(hit) = hit {
            let seen: u64 = std::str::from_utf8(hit.value()).unwrap().parse().unwrap();
            assert!(
                seen >= known,
                "read {how} of {} got version {seen} from {} when {known} was known",
                truth.key,
                hit.served_by()
            );
        }
        game.reads.fetch_add(1, Ordering::SeqCst);
        if dice.roll(4) == 0 {
            yield_now().await;
        }
    }
}

/// Changes one key; only one task does so for a key, so that versions are known in their order.
async fn change(cache: Cache, game: Arc<Game>, truth: Arc<Truth>, mut dice: Dice, sets: bool) {
    for _ in 0..CHANGES {
        let version = truth.version.fetch_add(1, Ordering::SeqCst) + 1;
        match dice.roll(10) {
            0..=3 if sets => {
                let options = SetOptions::default().tag(tag_of(&truth.key));
                cache.set(&truth.key, version.to_string(), options).await.unwrap();
            }
            4 => drop(cache.purge(&Filter::all()).await.unwrap()),
            5 => drop(cache.purge(&Filter::source(truth.key.source())).await.unwrap()),
            6 => drop(cache.purge(&Filter::tag(tag_of(&truth.key))).await.unwrap()),
            7 => {
                let filter = Filter::source(truth.key.source()).and_tag(tag_of(&truth.key));
                cache.purge(&filter).await.unwrap();
            }
            _ => drop(cache.invalidate(&truth.key).await.unwrap()),
        }
        truth.known.store(version, Ordering::SeqCst);
        // Sometimes at once again, sometimes long enough for hits.
        let rest = game.reads.load(Ordering::SeqCst) + dice.roll(24);
        while game.reads.load(Ordering::SeqCst) < rest {
            yield_now().await;
        }
    }
}

/// What is left in `cache` is no older than what is known.
async fn check_what_is_left(cache: &Cache, truths: &[Arc<Truth>]) {
    for truth in truths {
        if let Some(hit) = within(cache.get(&truth.key)).await.unwrap() {
            let seen: u64 = std::str::from_utf8(hit.value()).unwrap().parse().unwrap();
            let known = truth.known.load(Ordering::SeqCst);
            assert!(seen >= known, "{} has {seen}, {known} is known", truth.key);
        }
    }
}

/// Plays one game; `restart` opens what is persistent again.
async fn soak(cache: Cache, restart: impl FnOnce() -> Cache, sets: bool) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let given = std::env::var("LARDER_SOAK_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(now.as_nanos() as u64);
    // Shown if the test fails.
    #[expect(clippy::print_stdout, reason = "cargo shows it when the test fails")]
    {
        println!("LARDER_SOAK_SEED={seed}");
    }
    let truths: Vec<_> = (0..KEYS)
        .map(|n| {
            let key = key(&format!("soak:{n}"));
            Arc::new(Truth { key, version: AtomicU64::new(1), known: AtomicU64::new(1) })
        })
        .collect();
    let (reads, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let game = Arc::new(Game { truths: truths.clone(), reads, over });
    let mut readers = JoinSet::new();
    for n in 0..READERS {
        readers.spawn(read(cache.clone(), Arc::clone(&game), Dice::new(seed, n)));
    }
    let mut writers = JoinSet::new();
    for (n, truth) in (0..).zip(&truths) {
        let (game, truth) = (Arc::clone(&game), Arc::clone(truth));
        writers.spawn(change(cache.clone(), game, truth, Dice::new(seed, READERS + n), sets));
    }
    // A reader ends early only by failing.
    within(async {
        loop {
            tokio::select! {
                Some(reader) = readers.join_next() => reader.unwrap(),
                writer = writers.join_next() => match writer {
                    Some(writer) => writer.unwrap(),
                    None => break,
                },
            }
        }
    })
    .await;
    game.over.store(true, Ordering::SeqCst);
    while let Some(reader) = within(readers.join_next()).await {
        reader.unwrap();
    }
    let stats = cache.stats();
    assert_eq!(stats.reads(), game.reads.load(Ordering::SeqCst));
    assert!(stats.hits > 0 && stats.loads > 0 && stats.joined > 0, "proves nothing: {stats:?}");
    check_what_is_left(&cache, &truths).await;
    close(cache).await;
    let restarted = restart();
    check_what_is_left(&restarted, &truths).await;
    close(restarted).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_sees_what_a_change_before_it_replaced_in_memory_and_sqlite() {
    let bench = Bench::new();
    soak(bench.cache(), || bench.cache(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_sees_what_an_invalidation_before_it_removed_from_sqlite_alone() {
    let bench = Bench::new();
    soak(bench.sqlite_only(), || bench.sqlite_only(), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_sees_what_a_change_before_it_replaced_in_sqlite_alone() {
    let bench = Bench::new();
    soak(bench.sqlite_only(), || bench.sqlite_only(), true).await;
}

// The same, one interleaving at a time.

#[tokio::test]
async fn who_asks_after_a_set_does_not_join_a_look_up_that_found_the_value_before_it() {
    let bench = Bench::new();
    let (chaos, switches) = Chaos::new(&bench);
    let cache = bench.bare().tier(chaos).build().unwrap();
    let a = key("a:1");
    within(cache.set(&a, "old", SetOptions::default())).await.unwrap();

    switches.puts(Mode::Held);
    switches.gets(Mode::Held);
    let set = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.set(&a, "new", SetOptions::default()).await }
    });
    switches.held().await;
    let ask = || {
        let (cache, a) = (cache.clone(), a.clone());
        tokio::spawn(async move { cache.get_or_load(&a, never()).await })
    };
    // Begins while the set is under way, and has found the old value.
    let before = ask();
    switches.held().await;
    // The first in the queue at the gate is the set.
    switches.release();
    within(set).await.unwrap().unwrap();

    switches.gets(Mode::Works);
    let after = ask();
    for _ in 0..10 {
        yield_now().await;
    }
    switches.release();
    let (before, after) = (joined(before).await.unwrap(), joined(after).await.unwrap());
    assert!(before.value() == "old" || before.value() == "new");
    assert_eq!(after.value(), "new", "it asked after the set had returned");
}

#[tokio::test]
async fn who_asks_after_an_invalidation_does_not_join_a_look_up_that_found_the_value_before_it() {
    let bench = Bench::new();
    let (chaos, switches) = Chaos::new(&bench);
    let cache = bench.bare().tier(chaos).build().unwrap();
    let a = key("a:1");
    within(cache.set(&a, "old", SetOptions::default())).await.unwrap();
    switches.gets(Mode::Held);
    let before = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get_or_load(&a, bring("the first one's")).await }
    });
    switches.held().await;
    within(cache.invalidate(&a)).await.unwrap();
    switches.gets(Mode::Works);
    let after = within(cache.get_or_load(&a, bring("its own"))).await.unwrap();
    assert_eq!((after.value().as_ref(), cache.stats().joined), (&b"its own"[..], 0));
    switches.release();
    let before = joined(before).await.unwrap();
    // It is as good as any later answer, but what it had found was invalidated meanwhile.
    assert_eq!(before.value(), "the first one's");
}

#[tokio::test]
async fn what_a_look_up_found_before_an_invalidation_is_neither_answered_nor_promoted() {
    let bench = Bench::new();
    let (chaos, switches) = Chaos::new(&bench);
    let below: Arc<dyn larder::Tier> = Arc::new(chaos);
    let a = key("a:1");
    let first = bench.bare().shared_tier(Arc::clone(&below)).build().unwrap();
    within(first.set(&a, "old", SetOptions::default().tag(tag("t")))).await.unwrap();
    bench.advance(1);

    let cache = bench.bare().tier(bench.memory()).shared_tier(below).build().unwrap();
    switches.gets(Mode::Held);
    let asking = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get(&a).await }
    });
    switches.held().await;
    within(cache.purge(&Filter::tag(tag("t")))).await.unwrap();
    switches.release();
    assert!(joined(asking).await.unwrap().is_none());
    assert!(cache.peek(&a).is_none());
    assert_eq!(cache.stats().promotions, 0);
}

#[tokio::test]
async fn a_load_from_before_a_set_with_no_lifetime_is_not_served_after_it() {
    let bench = Bench::new();
    for cache in [bench.memory_only(), bench.cache()] {
        let a = key("a:1");
        let (gate, before) = load_gated(&cache, &a);
        let load = gate.begun().await;
        within(cache.set(&a, "gone", SetOptions::ttl(Duration::ZERO))).await.unwrap();
        load.bring("from before");
        joined(before).await.unwrap();
        // The end of the flight comes before the end of its task; closing waits for it.
        let found = within(cache.get(&a)).await.unwrap();
        assert!(found.is_none(), "{found:?}");
    }
}

/// Two processes on one file whose clocks differ: the first one's is 10 s ahead.
fn two_processes(bench: &Bench) -> (Cache, Cache) {
    let ahead = Arc::new(ManualClock::default());
    ahead.advance(Duration::from_secs(10));
    let first = Cache::builder().clock(ahead).tier(bench.sqlite()).build().unwrap();
    (first, bench.sqlite_only())
}

#[tokio::test]
async fn who_has_read_a_value_of_a_process_whose_clock_is_ahead_can_invalidate_it() {
    for loading in [true, false] {
        let bench = Bench::new();
        let (ahead, behind) = two_processes(&bench);
        let a = key("a:1");
        within(ahead.set(&a, "v", SetOptions::default())).await.unwrap();
        let hit = if loading {
            within(behind.get_or_load(&a, never())).await.unwrap()
        } else {
            within(behind.get(&a)).await.unwrap().unwrap()
        };
        assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Tier("sqlite")));
        within(behind.invalidate(&a)).await.unwrap();
        let found = within(behind.get(&a)).await.unwrap();
        assert!(found.is_none(), "read by get_or_load: {loading}; {found:?}");
    }
}

#[tokio::test]
async fn who_has_read_a_value_of_a_process_whose_clock_is_ahead_can_replace_it() {
    for loading in [true, false] {
        let bench = Bench::new();
        let (ahead, behind) = two_processes(&bench);
        let a = key("a:1");
        within(ahead.set(&a, "v", SetOptions::default())).await.unwrap();
        if loading {
            within(behind.get_or_load(&a, never())).await.unwrap();
        } else {
            within(behind.get(&a)).await.unwrap().unwrap();
        }
        within(behind.set(&a, "w", SetOptions::default())).await.unwrap();
        let hit = within(behind.get(&a)).await.unwrap().unwrap();
        assert_eq!(hit.value(), "w", "read by get_or_load: {loading}");
    }
}
