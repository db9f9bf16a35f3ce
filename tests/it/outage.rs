//! Tiers that fail, hang or refuse: answers go on, each failure is told once, and a tier that works
//! again is used again.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cache_core::{Barrier, Error as TierError, ErrorKind, Op, Result as TierResult};
use larder::{
    Cache, Capability, Entry, Error, Filter, Inspect, Key, PutOutcome, PutReport, ServedBy,
    SetOptions, Tier, TierStats, tiers::MemoryTier,
};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    harness::{Bench, bring, close, key, never, tag, until, within},
    log::Log,
};

/// How a [`Chaos`] does one of its operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As it should.
    #[default]
    Works,
    /// With an error of this kind.
    Fails(ErrorKind),
    /// Never.
    Hangs,
    /// A read has its answer, and a write has done nothing, when it stops at the gate.
    Held,
}

/// What a [`Chaos`] is told to do, and counts.
#[derive(Debug)]
pub(crate) struct Switches {
    gets: (Mutex<Mode>, AtomicU64),
    puts: (Mutex<Mode>, AtomicU64),
    bars: (Mutex<Mode>, AtomicU64),
    arrived: Semaphore,
    gate: Semaphore,
}

impl Switches {
    pub(crate) fn gets(&self, mode: Mode) {
        *self.gets.0.lock().unwrap() = mode;
    }

    pub(crate) fn puts(&self, mode: Mode) {
        *self.puts.0.lock().unwrap() = mode;
    }

    pub(crate) fn bars(&self, mode: Mode) {
        *self.bars.0.lock().unwrap() = mode;
    }

    pub(crate) fn all(&self, mode: Mode) {
        self.gets(mode);
        self.puts(mode);
        self.bars(mode);
    }

    /// Reads that reached the tier.
    pub(crate) fn get_calls(&self) -> u64 {
        self.gets.1.load(Ordering::SeqCst)
    }

    /// All operations that reached the tier.
    pub(crate) fn calls(&self) -> u64 {
        let calls = |switch: &(Mutex<Mode>, AtomicU64)| switch.1.load(Ordering::SeqCst);
        calls(&self.gets) + calls(&self.puts) + calls(&self.bars)
    }

    /// Waits until one more operation has reached the gate.
    pub(crate) async fn held(&self) {
        within(self.arrived.acquire()).await.unwrap().forget();
    }

    /// Lets one operation pass the gate.
    pub(crate) fn release(&self) {
        self.gate.add_permits(1);
    }
}

impl Default for Switches {
    fn default() -> Self {
        let switch = || (Mutex::default(), AtomicU64::new(0));
        let (arrived, gate) = (Semaphore::new(0), Semaphore::new(0));
        Self { gets: switch(), puts: switch(), bars: switch(), arrived, gate }
    }
}

/// A tier that has to be waited for, with switches; it keeps entries, but not barriers that it was
/// not able to take.
#[derive(Debug)]
pub(crate) struct Chaos {
    store: MemoryTier,
    switches: Arc<Switches>,
}

impl Chaos {
    pub(crate) fn new(bench: &Bench) -> (Self, Arc<Switches>) {
        let switches = Arc::new(Switches::default());
        (Self { store: bench.memory(), switches: Arc::clone(&switches) }, switches)
    }

    async fn enter(&self, switch: &(Mutex<Mode>, AtomicU64), op: Op) -> TierResult<()> {
        switch.1.fetch_add(1, Ordering::SeqCst);
        let mode = *switch.0.lock().unwrap();
        match mode {
            Mode::Works => Ok(()),
            Mode::Fails(kind) => Err(TierError::new(kind, op, "chaos")),
            Mode::Hangs => std::future::pending().await,
            Mode::Held => {
                self.switches.arrived.add_permits(1);
                self.switches.gate.acquire().await.unwrap().forget();
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Tier for Chaos {
    fn name(&self) -> &'static str {
        "chaos"
    }

    fn capability(&self) -> Capability {
        Capability::LOCAL
    }

    async fn get(&self, key: &Key) -> TierResult<Option<Entry>> {
        let found = self.store.get(key).await;
        self.enter(&self.switches.gets, Op::Get).await?;
        found
    }

    async fn put(&self, key: &Key, entry: &Entry) -> TierResult<PutOutcome> {
        self.enter(&self.switches.puts, Op::Put).await?;
        self.store.put(key, entry).await
    }

    async fn remove(&self, key: &Key) -> TierResult<bool> {
        self.enter(&self.switches.puts, Op::Remove).await?;
        self.store.remove(key).await
    }

    async fn bar(&self, barrier: &Barrier) -> TierResult<u64> {
        self.enter(&self.switches.bars, Op::Bar).await?;
        self.store.bar(barrier).await
    }

    async fn get_many(&self, keys: &[Key]) -> TierResult<Vec<Option<Entry>>> {
        let mut found = Vec::new();
        for key in keys {
            found.push(self.get(key).await?);
        }
        Ok(found)
    }

    async fn put_many(&self, entries: &[(Key, Entry)]) -> TierResult<Vec<PutOutcome>> {
        let mut outcomes = Vec::new();
        for (key, entry) in entries {
            outcomes.push(self.put(key, entry).await?);
        }
        Ok(outcomes)
    }

    async fn remove_many(&self, keys: &[Key]) -> TierResult<u64> {
        let mut removed = 0;
        for key in keys {
            removed += u64::from(self.remove(key).await?);
        }
        Ok(removed)
    }

    async fn close(&self) -> TierResult<()> {
        Ok(())
    }

    fn as_inspect(&self) -> Option<&dyn Inspect> {
        self.store.as_inspect()
    }
}

fn stats_of(cache: &Cache, tier: &str) -> TierStats {
    cache.stats().tier(tier).unwrap().clone()
}

/// Moves the clock, and with it the breaker, by whole seconds.
fn forward(bench: &Bench, seconds: u64) {
    bench.advance(seconds * 1_000);
}

const DOWN: Mode = Mode::Fails(ErrorKind::Unavailable);

/// Memory over a chaos tier.
fn over_chaos(bench: &Bench) -> (Cache, Arc<Switches>) {
    let (chaos, switches) = Chaos::new(bench);
    (bench.bare().tier(bench.memory()).tier(chaos).build().unwrap(), switches)
}

/// A chaos tier alone.
fn chaos_alone(bench: &Bench) -> (Cache, Arc<Switches>) {
    let (chaos, switches) = Chaos::new(bench);
    (bench.bare().tier(chaos).build().unwrap(), switches)
}

// What stands in the way of a SQLite file.

/// Something where the file should be, that the tier must leave as it is.
struct Obstacle {
    name: &'static str,
    make: fn(&Path),
}

const OBSTACLES: [Obstacle; 4] = [
    Obstacle {
        name: "garbage",
        make: |path| fs::write(path, "Dear diary, ".repeat(1_000)).unwrap(),
    },
    Obstacle { name: "a short text", make: |path| fs::write(path, "no").unwrap() },
    Obstacle {
        name: "a directory",
        make: |path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("keep"), "me").unwrap();
        },
    },
    Obstacle {
        name: "another program's database",
        make: |path| {
            let connection = rusqlite::Connection::open(path).unwrap();
            connection
                .execute_batch(
                    "CREATE TABLE entries (id INTEGER PRIMARY KEY, key TEXT);
                     INSERT INTO entries (key) VALUES ('precious');",
                )
                .unwrap();
        },
    },
];

/// Every file below `dir`, with its bytes.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for found in fs::read_dir(dir).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            all.push((path, bytes));
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn a_file_that_is_not_ours_costs_the_tier_only_and_is_left_as_it_is() {
    for Obstacle { name, make } in OBSTACLES {
        let bench = Bench::new();
        make(&bench.path());
        let dir = bench.path().parent().unwrap().to_owned();
        let before = files(&dir);
        let cache = bench.cache();

        let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
        assert_eq!(
            (hit.value().as_ref(), hit.served_by()),
            (&b"v"[..], ServedBy::Origin),
            "{name}"
        );
        let hit = within(cache.get_or_load(&key("a:1"), never())).await.unwrap();
        assert_eq!(hit.served_by(), ServedBy::Tier("memory"), "{name}");
        assert!(within(cache.get(&key("a:2"))).await.unwrap().is_none(), "{name}");

        let outcome = within(cache.set(&key("a:3"), "w", SetOptions::default())).await.unwrap();
        assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory"], "{name}");
        let [("memory", PutReport::Done(PutOutcome::Stored)), ("sqlite", PutReport::Failed(why))] =
            &outcome.tiers[..]
        else {
            panic!("{name}: {:?}", outcome.tiers)
        };
        assert_eq!(why.kind(), ErrorKind::Unusable, "{name}");

        let removed = within(cache.invalidate(&key("a:3"))).await.unwrap();
        assert_eq!(removed.tiers, [("memory", Some(1)), ("sqlite", None)], "{name}");
        assert!(stats_of(&cache, "sqlite").errors > 0, "{name}");
        assert_eq!(stats_of(&cache, "memory").errors, 0, "{name}");
        close(cache).await;
        assert!(files(&dir) == before, "{name}: the directory is no longer what it was");
    }
}

#[tokio::test]
async fn in_strict_mode_a_tiers_error_is_the_callers() {
    for Obstacle { name, make } in OBSTACLES {
        let bench = Bench::new();
        make(&bench.path());
        let dir = bench.path().parent().unwrap().to_owned();
        let before = files(&dir);
        let cache = bench.builder().strict(true).build().unwrap();
        let a = key("a:1");
        let told = [
            within(cache.get(&a)).await.map(drop),
            within(cache.get_or_load(&a, never())).await.map(drop),
            within(cache.set(&a, "v", SetOptions::default())).await.map(drop),
            within(cache.invalidate(&a)).await.map(drop),
            within(cache.purge(&Filter::all())).await.map(drop),
            within(cache.list_keys(10)).await.map(drop),
            within(cache.clear_expired()).await.map(drop),
        ];
        for (n, told) in told.into_iter().enumerate() {
            let Err(Error::Tier(error)) = told else { panic!("{name}, call {n}: {told:?}") };
            assert_eq!(error.tier(), "sqlite", "{name}, call {n}");
        }
        assert!(files(&dir) == before, "{name}: the directory is no longer what it was");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_without_permission_costs_the_tier_only() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    fs::write(bench.path(), "").unwrap();
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(bench.path()).is_ok() {
        // Root may read everything.
        return;
    }
    let cache = bench.cache();
    let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    assert_eq!(hit.value(), "v");
    let outcome = within(cache.set(&key("a:3"), "w", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["memory"]);
    assert!(stats_of(&cache, "sqlite").errors > 0);
}

#[tokio::test]
async fn a_tier_whose_obstacle_is_gone_is_used_again_after_the_cool_down() {
    for Obstacle { name, make } in OBSTACLES {
        let bench = Bench::new();
        let path = bench.path();
        make(&path);
        let cache = bench.cache();
        for n in 0..10 {
            within(cache.get_or_load(&key(&format!("a:{n}")), bring("v"))).await.unwrap();
        }
        until(|| stats_of(&cache, "sqlite").skipped > 0).await;
        if path.is_dir() {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }

        let before = stats_of(&cache, "sqlite");
        within(cache.get(&key("b:0"))).await.unwrap();
        let after = stats_of(&cache, "sqlite");
        // What the loads before store behind their callers is skipped, too.
        assert_eq!(after.errors, before.errors, "{name}");
        assert!(after.skipped > before.skipped, "{name}");

        forward(&bench, 5);
        within(cache.set(&key("b:1"), "w", SetOptions::default())).await.unwrap();
        close(cache).await;
        let restarted = bench.cache();
        let hit = within(restarted.get(&key("b:1"))).await.unwrap().unwrap();
        assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"w"[..], ServedBy::Tier("sqlite")));
        assert_eq!(stats_of(&restarted, "sqlite").errors, 0, "{name}");
    }
}

#[tokio::test]
async fn a_directory_that_is_missing_at_start_and_cannot_be_made_is_used_once_it_can() {
    let bench = Bench::new();
    let blocked = bench.path();
    // A file where a directory should be made.
    fs::write(&blocked, "in the way").unwrap();
    let clock = Arc::<tier_testkit::ManualClock>::clone(&bench.clock);
    let options = larder::tiers::SqliteOptions::new(blocked.join("deep/cache.db")).clock(clock);
    let tier = larder::tiers::SqliteTier::new(options).unwrap();
    let cache = bench.bare().tier(tier).build().unwrap();
    let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Origin);
    assert_eq!(fs::read(&blocked).unwrap(), b"in the way");

    fs::remove_file(&blocked).unwrap();
    // Two failures only: the breaker is closed, and nothing need be waited for.
    let outcome = within(cache.set(&key("a:2"), "w", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["sqlite"]);
    let hit = within(cache.get_or_load(&key("a:2"), never())).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Tier("sqlite"));
}

// Tiers that hang. Time is tokio's, and stands still while anything can run.

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

// The breaker. Its time is the manual clock's.

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

// What a tier missed while it was down.

#[tokio::test]
async fn what_was_invalidated_while_a_tier_was_down_is_not_served_when_it_is_back() {
    let bench = Bench::new();
    let options = || SetOptions::default().tag(tag("boulder"));
    for how in ["key", "tag", "source", "source and tag", "all"] {
        let (cache, switches) = chaos_alone(&bench);
        within(cache.set(&key("a:1"), "old", options())).await.unwrap();
        within(cache.set(&key("b:1"), "kept", SetOptions::default())).await.unwrap();
        switches.all(DOWN);
        let filter = match how {
            "tag" => Filter::tag(tag("boulder")),
            "source" => Filter::source("a"),
            "source and tag" => Filter::source("a").and_tag(tag("boulder")),
            _ => Filter::all(),
        };
        let removed = if how == "key" {
            within(cache.invalidate(&key("a:1"))).await.unwrap()
        } else {
            within(cache.purge(&filter)).await.unwrap()
        };
        assert_eq!(removed.tiers, [("chaos", None)], "{how}");
        switches.all(Mode::Works);
        assert!(within(cache.get(&key("a:1"))).await.unwrap().is_none(), "{how}");
        let kept = within(cache.get(&key("b:1"))).await.unwrap();
        assert_eq!(kept.is_some(), how != "all", "{how}");
        let hit = within(cache.get_or_load(&key("a:1"), bring("new"))).await.unwrap();
        assert_eq!(hit.value(), "new", "{how}");
        assert_eq!(within(cache.get(&key("a:1"))).await.unwrap().unwrap().value(), "new", "{how}");
    }
}

#[tokio::test]
async fn what_was_invalidated_while_the_breaker_was_open_is_not_served_after_the_probe() {
    let bench = Bench::new();
    let (cache, switches) = chaos_alone(&bench);
    within(cache.set(&key("a:1"), "old", SetOptions::default())).await.unwrap();
    switches.all(DOWN);
    for n in 0..5 {
        within(cache.get(&key(&format!("b:{n}")))).await.unwrap();
    }
    let calls = switches.calls();
    within(cache.invalidate(&key("a:1"))).await.unwrap();
    assert_eq!(switches.calls(), calls, "the tier has not heard of it");
    switches.all(Mode::Works);
    forward(&bench, 5);
    assert!(within(cache.get(&key("a:1"))).await.unwrap().is_none());
    assert!(within(cache.get(&key("a:1"))).await.unwrap().is_none());
}

#[tokio::test]
async fn a_value_that_memory_refuses_is_not_hidden_by_the_older_one_it_still_has() {
    let bench = Bench::new();
    let memory =
        MemoryTier::with_clock(1 << 20, Arc::<tier_testkit::ManualClock>::clone(&bench.clock));
    let cache = bench.bare().tier(memory).tier(bench.sqlite()).build().unwrap();
    let a = key("a:1");
    within(cache.set(&a, "old", SetOptions::default())).await.unwrap();
    let large = vec![b'x'; 2 << 20];
    let outcome = within(cache.set(&a, large.clone(), SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["sqlite"]);
    let hit = within(cache.get(&a)).await.unwrap().unwrap();
    assert!(hit.value() == &large, "{:?} of {}", hit.served_by(), hit.value().len());
}

// What is told.

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
