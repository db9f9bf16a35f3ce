//! The SQLite tier through its public interface, on real files.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use cache_core::{
    Barrier, Clock, Entry, ErrorKind, Filter, Inspect, Key, PutOutcome, Selector, StampClock,
    Stamped, SystemClock, Tier,
};
use rusqlite::Connection;
use tempfile::TempDir;
use tier_sqlite::{SqliteOptions, SqliteTier};
use tier_testkit::{ManualClock, conformance};

fn stamps() -> StampClock {
    StampClock::new(Arc::new(SystemClock::new()))
}

fn open(path: &Path) -> SqliteTier {
    SqliteTier::new(SqliteOptions::new(path)).unwrap()
}

fn entry(stamps: &StampClock, value: &str) -> Entry {
    Entry::builder(value.to_owned(), stamps.issue()).build()
}

fn file() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache.db");
    (dir, path)
}

fn cause(error: &cache_core::Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

#[tokio::test]
async fn keeps_every_promise_of_a_tier() {
    let dir = tempfile::tempdir().unwrap();
    let made = std::sync::atomic::AtomicU32::new(0);
    conformance(async |clock| {
        let n = made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let options = SqliteOptions::new(dir.path().join(format!("{n}.db"))).clock(clock);
        SqliteTier::new(options).unwrap()
    })
    .await;
}

#[tokio::test]
async fn entries_barriers_and_totals_survive_a_restart() {
    let (_dir, path) = file();
    let (stamps, key) = (stamps(), Key::new("census:a"));
    let (early, kept) = (entry(&stamps, "early"), entry(&stamps, "kept"));
    let tier = open(&path);
    tier.put(&key, &kept).await.unwrap();
    let barrier = Barrier::forget(Selector::source("bls"), stamps.issue());
    tier.bar(&barrier).await.unwrap();
    tier.close().await.unwrap();
    assert_eq!(tier.get(&key).await.unwrap_err().kind(), ErrorKind::Closed);

    let tier = open(&path);
    assert_eq!(tier.get(&key).await.unwrap(), Some(kept));
    assert_eq!(tier.put(&Key::new("bls:a"), &early).await.unwrap(), PutOutcome::Barred);
    let usage = tier.usage().await.unwrap();
    assert_eq!((usage.total().entries, usage.total().raw_bytes), (1, 4));
    assert!(usage.occupied_bytes > 0);
}

#[tokio::test]
async fn a_renewed_entry_is_written_without_its_value() {
    let (dir, path) = file();
    let (stamps, tier, key) = (stamps(), open(&path), Key::new("census:a"));
    // Nothing of it can be left out.
    let value: Vec<u8> =
        (0..1_u32 << 18).flat_map(|n| n.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
    let before = Entry::builder(value.clone(), stamps.issue()).etag(Some("\"1\"")).build();
    tier.put(&key, &before).await.unwrap();
    let log = dir.path().join("cache.db-wal");
    let after = |as_of| {
        Entry::builder(value.clone(), stamps.issue())
            .etag(Some("\"1\""))
            .renews(Some(as_of))
            .build()
    };
    let written = async |entry: &Entry| {
        let empty = Connection::open(&path).unwrap();
        empty.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        assert_eq!(tier.put(&key, entry).await.unwrap(), PutOutcome::Stored);
        fs::metadata(&log).unwrap().len()
    };
    let renewed = after(before.as_of());
    let bytes = written(&renewed).await;
    assert!(bytes < 128 << 10, "{bytes} bytes were written for a value of {}", value.len());
    assert_eq!(tier.get(&key).await.unwrap(), Some(renewed));
    // What is there is of another load, and of another value.
    let other: Vec<u8> = value.iter().rev().copied().collect();
    let whole = Entry::builder(other, stamps.issue()).renews(Some(before.as_of())).build();
    assert!(written(&whole).await > 1 << 20);
    assert_eq!(tier.get(&key).await.unwrap(), Some(whole));
    assert!(tier.validate(false).await.unwrap().is_sound());
}

#[tokio::test]
async fn an_acknowledged_put_is_in_the_file_before_the_tier_is_closed() {
    let (_dir, path) = file();
    let (stamps, tier) = (stamps(), open(&path));
    tier.put(&Key::new("a:1"), &entry(&stamps, "v")).await.unwrap();
    let other = Connection::open(&path).unwrap();
    let value: Vec<u8> = other
        .query_row("SELECT value FROM entries WHERE key = 'a:1'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(value, b"v");
}

#[tokio::test]
async fn the_file_and_its_directory_are_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/cache.db");
    let tier = open(&path);
    tier.put(&Key::new("a:1"), &entry(&stamps(), "v")).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (path, expected) in [
        (dir.path().join("deep"), 0o700),
        (dir.path().join("deep/er"), 0o700),
        (path.clone(), 0o600),
        (dir.path().join("deep/er/cache.db-wal"), 0o600),
        (dir.path().join("deep/er/cache.db-shm"), 0o600),
    ] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
}

#[tokio::test]
async fn two_tiers_on_one_file_keep_the_later_load() {
    let (_dir, path) = file();
    let (stamps, key) = (stamps(), Key::new("a:1"));
    let (one, two) = (open(&path), open(&path));
    for _ in 0..20 {
        let (old, new) = (entry(&stamps, "old"), entry(&stamps, "new"));
        let (first, second) = tokio::join!(one.put(&key, &old), two.put(&key, &new));
        assert_eq!(second.unwrap(), PutOutcome::Stored);
        first.unwrap();
        assert_eq!(one.get(&key).await.unwrap(), Some(new));
    }
}

#[tokio::test]
async fn tiers_that_open_one_new_file_at_once_all_work() {
    let (_dir, path) = file();
    let stamps = stamps();
    let tiers: Vec<_> = (0..8).map(|_| open(&path)).collect();
    let puts = tiers.iter().enumerate().map(async |(n, tier)| {
        tier.put(&Key::new(format!("a:{n}")), &entry(&stamps, "v")).await.unwrap()
    });
    for put in futures(puts).await {
        assert_eq!(put, PutOutcome::Stored);
    }
    assert_eq!(tiers[0].usage().await.unwrap().total().entries, 8);
}

/// Awaits all of them at once.
async fn futures<T>(all: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = all.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        waiting.retain_mut(|future| match future.as_mut().poll(context) {
            std::task::Poll::Ready(value) => {
                done.push(value);
                false
            }
            std::task::Poll::Pending => true,
        });
        if waiting.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done
}

#[tokio::test]
async fn a_thousand_waiting_puts_are_all_committed() {
    let (_dir, path) = file();
    let (stamps, tier) = (stamps(), open(&path));
    let puts = (0..1_000).map(|n| {
        let (tier, stamps) = (&tier, &stamps);
        async move { tier.put(&Key::new(format!("a:{n}")), &entry(stamps, "v")).await.unwrap() }
    });
    assert!(futures(puts).await.iter().all(PutOutcome::is_stored));
    let keys = tier.scan(&Filter::all(), None, 2_000).await.unwrap();
    assert_eq!(keys.len(), 1_000);
}

#[tokio::test]
async fn damage_to_any_column_is_a_miss_counted_and_removed() {
    let (_dir, path) = file();
    let (stamps, tier) = (stamps(), open(&path));
    let other = Connection::open(&path).unwrap();
    let damages = [
        "value = CAST('w' AS BLOB)",
        "value = x''",
        "as_of = as_of + 1",
        "expires_at = expires_at - 1",
        "stale_until = stale_until - 1",
        "version = 'x'",
        "etag = NULL",
        "content_type = ''",
        "source_last_modified = 'x'",
        "tags = 'a'",
        "codec = 2",
        "codec = 77",
        "raw_len = -1",
        "checksum = 0",
        "key = CAST(x'ff' AS TEXT), key_hash = key_hash",
    ];
    let key = Key::new("a:1");
    for (n, damage) in damages.iter().enumerate() {
        let entry = Entry::builder("v", stamps.issue())
            .expires_at(SystemClock::new().now().saturating_add(Duration::from_mins(1)))
            .etag(Some("e"))
            .build();
        tier.put(&key, &entry).await.unwrap();
        assert_eq!(tier.get(&key).await.unwrap(), Some(entry));
        other.execute(&format!("UPDATE entries SET {damage}"), []).unwrap();
        assert_eq!(tier.get(&key).await.unwrap(), None, "{damage}");
        if damage.starts_with("key") {
            // Not found by its key at all.
            other.execute("DELETE FROM entries", []).unwrap();
            continue;
        }
        assert_eq!(tier.corrupt_rows(), n as u64 + 1, "{damage}");
        tier.remove(&Key::new("behind the removal in the queue")).await.unwrap();
        let rows: i64 =
            other.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "{damage} is removed");
    }
}

#[tokio::test]
async fn a_row_with_the_value_of_another_is_a_miss() {
    let (_dir, path) = file();
    let (stamps, tier) = (stamps(), open(&path));
    for name in ["a:1", "a:2"] {
        tier.put(&Key::new(name), &entry(&stamps, name)).await.unwrap();
    }
    let other = Connection::open(&path).unwrap();
    let copy = "UPDATE entries SET (value, checksum) =
        (SELECT value, checksum FROM entries WHERE key = 'a:1') WHERE key = 'a:2'";
    other.execute(copy, []).unwrap();
    assert_eq!(tier.get(&Key::new("a:2")).await.unwrap(), None);
    assert!(tier.get(&Key::new("a:1")).await.unwrap().is_some());
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("foreign.db");
    let legacy = Connection::open(&foreign).unwrap();
    legacy.execute_batch("CREATE TABLE cache (key TEXT); INSERT INTO cache VALUES ('k')").unwrap();
    drop(legacy);
    let garbage = dir.path().join("garbage.db");
    fs::write(&garbage, "this is no database at all, whatever its name says".repeat(40)).unwrap();

    for (path, expected) in [
        (&foreign, "belongs to another program (it holds `cache`)"),
        (&garbage, "is not a SQLite database and is left untouched"),
        (&dir.path().to_owned(), "is a directory; set `cache.sqlite.path` to a file"),
    ] {
        let before = fs::read(path).ok();
        let tier = open(path);
        let (key, entry) = (Key::new("a:1"), entry(&stamps(), "v"));
        for error in [tier.get(&key).await.unwrap_err(), tier.put(&key, &entry).await.unwrap_err()]
        {
            assert_eq!(error.kind(), ErrorKind::Unusable, "{error}");
            assert_eq!(error.key(), Some(&key));
            assert!(cause(&error).contains(expected), "{}", cause(&error));
        }
        tier.close().await.unwrap();
        assert_eq!(fs::read(path).ok(), before, "{} is untouched", path.display());
    }
}

#[tokio::test]
async fn a_file_of_a_newer_format_is_read_and_never_written() {
    let (_dir, path) = file();
    let (tier, key) = (open(&path), Key::new("a:1"));
    let (stamps, missing) = (stamps(), Key::new("a:2"));
    let stored = entry(&stamps, "v");
    tier.put(&key, &stored).await.unwrap();
    tier.close().await.unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 999).unwrap();
    drop(connection);
    let before = fs::read(&path).unwrap();

    let tier = open(&path);
    assert_eq!(tier.get(&key).await.unwrap(), Some(stored), "it is read");
    assert_eq!(tier.get(&missing).await.unwrap(), None);
    let error = tier.put(&missing, &entry(&stamps, "w")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "reads go on");
    let expected = "written by a newer Larder (format 999, this one knows 3)";
    assert!(cause(&error).contains(expected), "{}", cause(&error));
    tier.close().await.unwrap();

    let strict = SqliteTier::new(SqliteOptions::new(&path).refuse_newer(true)).unwrap();
    let error = strict.get(&key).await.unwrap_err();
    assert!(cause(&error).contains(expected), "{}", cause(&error));
    strict.close().await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), before, "it is untouched");
}

#[tokio::test]
async fn works_from_the_moment_its_file_can_be_used() {
    let (_dir, path) = file();
    fs::create_dir(&path).unwrap();
    let (tier, key) = (open(&path), Key::new("a:1"));
    let entry = entry(&stamps(), "v");
    assert!(tier.put(&key, &entry).await.is_err());
    assert!(tier.get(&key).await.is_err());
    fs::remove_dir(&path).unwrap();
    assert_eq!(tier.put(&key, &entry).await.unwrap(), PutOutcome::Stored);
    assert_eq!(tier.get(&key).await.unwrap(), Some(entry));
}

#[tokio::test]
async fn a_lock_held_by_another_program_is_waited_for_then_reported() {
    let (_dir, path) = file();
    let options = SqliteOptions::new(&path).busy_timeout(Duration::from_millis(20));
    let tier = SqliteTier::new(options).unwrap();
    let (key, stamps) = (Key::new("a:1"), stamps());
    let first = entry(&stamps, "first");
    tier.put(&key, &first).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = tier.put(&key, &entry(&stamps, "second")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", cause(&error));
    assert_eq!(tier.get(&key).await.unwrap(), Some(first), "readers do not wait for writers");
    other.execute_batch("COMMIT").unwrap();
    assert!(tier.put(&key, &entry(&stamps, "third")).await.unwrap().is_stored());
}

#[tokio::test]
async fn refuses_values_above_the_limit_and_keys_that_cannot_be_stored() {
    let (_dir, path) = file();
    let tier = SqliteTier::new(SqliteOptions::new(&path).max_value_bytes(10)).unwrap();
    let stamps = stamps();
    let puts = [
        (Key::new("a:1"), entry(&stamps, "12345678901")),
        (Key::new("a:2"), entry(&stamps, "1234567890")),
        (Key::new("a:\n"), entry(&stamps, "1")),
    ];
    let outcomes = tier.put_many(&puts).await.unwrap();
    assert!(matches!(outcomes[0], PutOutcome::Refused { .. }), "{outcomes:?}");
    assert!(outcomes[1].is_stored(), "{outcomes:?}");
    assert!(matches!(outcomes[2], PutOutcome::Refused { .. }), "{outcomes:?}");

    let key = &puts[1].0;
    let under_way = entry(&stamps, "older");
    let large = entry(&stamps, "too large now");
    assert!(matches!(tier.put(key, &large).await.unwrap(), PutOutcome::Refused { .. }));
    assert_eq!(tier.get(key).await.unwrap(), None, "the older value is not served any more");
    assert_eq!(tier.put(key, &under_way).await.unwrap(), PutOutcome::Barred, "nor a late copy");
}

#[tokio::test]
async fn a_clock_that_was_set_far_ahead_harms_the_file_no_longer_than_it_is_there() {
    let (_dir, path) = file();
    let at = |clock: &Arc<ManualClock>| {
        let options = SqliteOptions::new(&path).clock(Arc::<ManualClock>::clone(clock));
        let stamps = StampClock::new(Arc::<ManualClock>::clone(clock));
        (SqliteTier::new(options).unwrap(), stamps)
    };
    let (now, ahead) = (Arc::new(ManualClock::default()), Arc::new(ManualClock::default()));
    ahead.advance(Duration::from_hours(24 * 365 * 73));
    let (key, other) = (Key::new("a:1"), Key::new("a:2"));

    let (tier, stamps) = at(&now);
    tier.put(&other, &entry(&stamps, "before")).await.unwrap();
    let (future, future_stamps) = at(&ahead);
    let barrier = Barrier::forget(Selector::All, future_stamps.issue());
    future.bar(&barrier).await.unwrap();
    future.put(&key, &entry(&future_stamps, "from the future")).await.unwrap();

    assert_eq!(tier.get(&key).await.unwrap(), None, "not believed");
    for key in [&key, &other] {
        let entry = entry(&stamps, "now");
        assert_eq!(tier.put(key, &entry).await.unwrap(), PutOutcome::Stored);
        assert_eq!(tier.get(key).await.unwrap(), Some(entry));
    }
    let latest = tier.latest_stamp().await.unwrap();
    assert!(latest.is_believable(now.now()) && latest < stamps.issue(), "{latest:?}");
}

#[tokio::test]
async fn a_file_may_have_a_name_that_sqlite_takes_for_something_else() {
    let dir = tempfile::tempdir().unwrap();
    for name in [":memory:", "file:x?mode=memory"] {
        let path = dir.path().join(name);
        let (stamps, tier) = (stamps(), open(&path));
        let entry = entry(&stamps, "v");
        tier.put(&Key::new("a:1"), &entry).await.unwrap();
        tier.close().await.unwrap();
        assert_eq!(open(&path).get(&Key::new("a:1")).await.unwrap(), Some(entry), "{name}");
    }
}

#[tokio::test]
async fn sums_are_right_when_the_first_entry_of_a_source_goes_in_the_transaction_it_came_in() {
    let (_dir, path) = file();
    let (tier, stamps) = (Arc::new(open(&path)), stamps());
    tier.put(&Key::new("other:a"), &entry(&stamps, "v")).await.unwrap();
    // They wait for the lock together, and are one transaction then.
    let lock = Connection::open(&path).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let key = Key::new("new:a");
    let first = tokio::spawn({
        let (tier, key) = (Arc::clone(&tier), Key::new("other:b"));
        let entry = entry(&stamps, "v");
        async move { tier.put(&key, &entry).await.unwrap() }
    });
    tokio::task::yield_now().await;
    let put = tokio::spawn({
        let (tier, key, entry) = (Arc::clone(&tier), key.clone(), entry(&stamps, "value"));
        async move { tier.put(&key, &entry).await.unwrap() }
    });
    tokio::task::yield_now().await;
    let remove = tokio::spawn({
        let (tier, key) = (Arc::clone(&tier), key.clone());
        async move { tier.remove(&key).await.unwrap() }
    });
    tokio::task::yield_now().await;
    drop(lock);
    first.await.unwrap();
    put.await.unwrap();
    assert!(remove.await.unwrap());
    let usage = tier.usage().await.unwrap();
    let sources: Vec<_> = usage.sources.iter().map(|one| (&*one.source, one.entries)).collect();
    assert_eq!(sources, [("other", 2)]);
    tier.close().await.unwrap();
}

#[tokio::test]
async fn a_put_on_the_callers_thread_is_guarded_and_counted_as_any() {
    let (_dir, path) = file();
    let options = SqliteOptions::new(&path).busy_timeout(Duration::from_secs(40));
    let (stamps, key) = (stamps(), Key::new("a:1"));
    let tier = SqliteTier::new(options).unwrap();
    let early = entry(&stamps, "early");
    assert!(tier.try_put(&key, &early).is_none(), "no file is open yet: that takes long");
    tier.put(&key, &entry(&stamps, "first")).await.unwrap();
    let late = entry(&stamps, "late");
    // The writer's thread may still be about something that nobody waits for.
    let put = async |key: &Key, entry: &Entry| {
        let since = std::time::Instant::now();
        loop {
            match tier.try_put(key, entry) {
                Some(outcome) => return outcome.unwrap(),
                None => assert!(since.elapsed() < Duration::from_secs(20), "it is never free"),
            }
            tokio::task::yield_now().await;
        }
    };
    assert_eq!(put(&key, &late).await, PutOutcome::Stored);
    assert_eq!(put(&key, &early).await, PutOutcome::Superseded);
    assert_eq!(tier.get(&key).await.unwrap(), Some(late));
    let unstorable = Key::new("k".repeat(10_000));
    let refused = put(&unstorable, &early).await;
    assert!(matches!(refused, PutOutcome::Refused { .. }), "{refused:?}");
    let barrier = Barrier::forget(Selector::source("a"), stamps.issue());
    tier.bar(&barrier).await.unwrap();
    assert_eq!(put(&key, &early).await, PutOutcome::Barred);
    let large = Entry::builder(vec![7; 1 << 20], stamps.issue()).build();
    assert!(tier.try_put(&key, &large).is_none());
    assert_eq!(tier.usage().await.unwrap().total().entries, 0);

    // Nor does anybody wait here for another program's lock.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let next = entry(&stamps, "next");
    let since = std::time::Instant::now();
    assert!(tier.try_put(&key, &next).is_none());
    assert!(since.elapsed() < Duration::from_secs(20), "it waited for the lock");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(tier.put(&key, &next).await.unwrap(), PutOutcome::Stored);
    assert_eq!(tier.get(&key).await.unwrap(), Some(next));
}
