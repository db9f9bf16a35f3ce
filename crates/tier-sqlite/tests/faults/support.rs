//! What the tests share: entries that follow from a number, files, logs, panics and dice.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, Once, PoisonError},
    time::{Duration, Instant},
};

use cache_core::{Entry, Error, ErrorKind, Key, Op, Stamp, Tag, Tier, Timestamp};
use codec_compress::{Compressor, Zlib};
use rusqlite::Connection;
use tempfile::TempDir;
use tier_sqlite::{SqliteOptions, SqliteTier};
use tier_testkit::{Dice, ManualClock};

/// When the tests take place.
pub(crate) const NOW: i64 = 1_790_000_000_000;
/// How long anything may take, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache.db");
    (dir, path)
}

/// The same in memory, where that is: nothing is waited for there.
pub(crate) fn file_in_memory() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_none| tempfile::tempdir()).unwrap();
    let path = dir.path().join("cache.db");
    (dir, path)
}

/// A clock of its own, small values raw and large ones compressed, a short poll interval.
pub(crate) fn options(path: &Path) -> SqliteOptions {
    watch();
    SqliteOptions::new(path)
        .clock(Arc::new(ManualClock::at(NOW)))
        .compression(Arc::new(Compressor::new().codec(Arc::new(Zlib::new(1).unwrap()), 1_000)))
        .poll_interval(Duration::from_millis(20))
}

pub(crate) fn open(path: &Path) -> SqliteTier {
    SqliteTier::new(options(path)).unwrap()
}

pub(crate) fn key(n: u64) -> Key {
    Key::new(format!("census:row={n}"))
}

/// The entry under `key(n)`: metadata and value all depend on `n`. Made once: it takes long.
pub(crate) fn entry(n: u64) -> Entry {
    static MADE: LazyLock<Mutex<HashMap<u64, Entry>>> = LazyLock::new(Mutex::default);
    MADE.lock().unwrap_or_else(PoisonError::into_inner).entry(n).or_insert_with(|| fresh(n)).clone()
}

fn fresh(n: u64) -> Entry {
    let mut dice = Dice::new(n);
    let len = match n % 24 {
        0 => 20_000,
        1..=3 => 2_000,
        _ => 10 + dice.throw() % 200,
    };
    // Noise, that no codec makes smaller, and text, that it does.
    let value: Vec<u8> = if n.is_multiple_of(2) {
        (0..len).map(|_| dice.throw().to_le_bytes()[0]).collect()
    } else {
        format!("{{\"n\":{n},\"text\":\"{}\"}}", "abcdefg ".repeat(len as usize / 8)).into_bytes()
    };
    let later =
        |hours: u64| Timestamp::from_millis(NOW).saturating_add(Duration::from_hours(1 + hours));
    let tags = (0..n % 4).map(|tag| Tag::new(format!("tag:{}", n % 7 + tag)).unwrap());
    Entry::builder(value, stamp(n))
        .expires_at(later(n % 9))
        .stale_until(later(10 + n % 5))
        .loaded_at(Timestamp::from_millis(NOW - 5))
        .version(n.is_multiple_of(3).then(|| format!("v{n}")))
        .etag(n.is_multiple_of(5).then(|| format!("\"{n}\"")))
        .content_type(n.is_multiple_of(7).then_some("application/json"))
        .source_last_modified(n.is_multiple_of(11).then(|| format!("day {n}")))
        .tags(tags)
        .build()
}

fn stamp(n: u64) -> Stamp {
    Stamp::from_packed(Stamp::at(Timestamp::from_millis(NOW - 1_000)).packed() + n)
}

/// Stores `entry(n)` for each.
pub(crate) async fn fill(tier: &SqliteTier, numbers: impl IntoIterator<Item = u64>) {
    let entries: Vec<_> = numbers.into_iter().map(|n| (key(n), entry(n))).collect();
    let outcomes = tier.put_many(&entries).await.unwrap();
    assert!(outcomes.iter().all(cache_core::PutOutcome::is_stored), "{outcomes:?}");
}

/// Makes a file with these entries, and closes it: one file, no log.
pub(crate) async fn make(path: &Path, numbers: impl IntoIterator<Item = u64>) {
    let tier = open(path);
    fill(&tier, numbers).await;
    tier.close().await.unwrap();
    assert!(!beside(path, "-wal").exists(), "the log is emptied into the file");
}

/// How many of these are there; panics if one that is there is not what was put.
pub(crate) async fn right(tier: &SqliteTier, numbers: impl IntoIterator<Item = u64>) -> usize {
    let numbers: Vec<u64> = numbers.into_iter().collect();
    let keys: Vec<Key> = numbers.iter().copied().map(key).collect();
    let found = tier.get_many(&keys).await.unwrap();
    let mut right = 0;
    for (n, found) in numbers.into_iter().zip(found) {
        if let Some(found) = found {
            assert_eq!((n, &found), (n, &entry(n)), "a wrong answer");
            right += 1;
        }
    }
    right
}

/// Stores an entry that was not there yet and reads it back.
pub(crate) async fn works(tier: &SqliteTier, n: u64) -> Result<(), Error> {
    let outcome = tier.put(&key(n), &entry(n)).await?;
    assert!(outcome.is_stored(), "{outcome:?}");
    match tier.get(&key(n)).await? {
        Some(found) => assert_eq!(found, entry(n), "a wrong answer"),
        // What was written to a log that has gone is lost.
        None => return Err(Error::new(ErrorKind::Unavailable, Op::Get, "sqlite")),
    }
    Ok(())
}

/// The same while the file may be replaced: whether the entry was stored, and is there.
pub(crate) async fn keeps(tier: &SqliteTier, n: u64) -> Result<bool, Error> {
    tier.put(&key(n), &entry(n)).await?;
    let found = tier.get(&key(n)).await?;
    assert!(found.is_none() || found == Some(entry(n)), "a wrong answer");
    Ok(found.is_some())
}

/// Waits until it works.
pub(crate) async fn works_again(tier: &SqliteTier, n: u64) {
    let mut last = None;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match keeps(tier, n).await {
            Ok(true) => return,
            Ok(false) => last = Some("what was put is not there".to_owned()),
            Err(error) => last = Some(cause(&error)),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not work again: {last:?}");
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Its kind, and what it says.
pub(crate) fn told(error: &Error) -> (ErrorKind, String) {
    (error.kind(), cause(error))
}

pub(crate) fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Files that were set aside, without those of their logs.
pub(crate) fn asides(path: &Path) -> Vec<PathBuf> {
    let start = format!("{}.corrupt-", path.file_name().unwrap().to_str().unwrap());
    let files = fs::read_dir(path.parent().unwrap()).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|file| {
            let name = file.file_name().unwrap().to_str().unwrap();
            name.strip_prefix(&start).is_some_and(|time| time.parse::<u64>().is_ok())
        })
        .collect()
}

/// Removes the file with its log, and what was set aside.
pub(crate) fn clear(path: &Path) {
    for file in asides(path).iter().map(PathBuf::as_path).chain([path]) {
        for suffix in ["", "-wal", "-shm"] {
            match fs::remove_file(beside(file, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("{error}"),
                _ => {}
            }
        }
    }
}

/// Another program's look at the file.
pub(crate) fn plain(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(PATIENCE).unwrap();
    connection
}

pub(crate) fn pragma(connection: &Connection, name: &str) -> u64 {
    connection.pragma_query_value(None, name, |row| row.get(0)).unwrap()
}

static LOGGED: Mutex<Vec<(tracing::Level, String)>> = Mutex::new(Vec::new());
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What the tier's threads logged of this level with this text, that of a test's own path say.
pub(crate) fn logged(level: tracing::Level, text: &str) -> Vec<String> {
    let logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    let matching = logged.iter().filter(|(at, line)| *at == level && line.contains(text));
    matching.map(|(_, line)| line.clone()).collect()
}

/// A panic on a thread of a tier is caught there; here it fails the test.
pub(crate) fn assert_no_panics() {
    let panics = PANICS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(panics.is_empty(), "{panics:?}");
}

/// Collects logs and panics of all tests of this process: the tier's threads are not a test's.
fn watch() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        tracing::subscriber::set_global_default(Log).unwrap();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            if thread.name().is_some_and(|name| name.starts_with("larder-sqlite")) {
                PANICS.lock().unwrap_or_else(PoisonError::into_inner).push(panic.to_string());
            }
            before(panic);
        }));
    });
}

struct Log;

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl tracing::field::Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                write!(self.0, "{field}={value:?} ").unwrap();
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        let line = (*event.metadata().level(), text.0);
        LOGGED.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}
