//! Checking and mending a file through the tier's public interface.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::{fs, path::Path, sync::Arc};

use cache_core::{
    Barrier, Entry, Inspect, Key, ProblemKind, Selector, StampClock, SystemClock, Tag, Tier,
    Validation,
};
use rusqlite::Connection;
use tempfile::TempDir;
use tier_sqlite::{SqliteOptions, SqliteTier};

const ENTRIES: usize = 1_200;

fn key(n: usize) -> Key {
    Key::new(format!("s{}:{n}", n % 3))
}

fn value(n: usize) -> String {
    format!("value {n} ").repeat(1 + n % 40)
}

/// A closed file with entries, tags and barriers.
async fn filled() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache.db");
    let stamps = StampClock::new(Arc::new(SystemClock::new()));
    let tier = SqliteTier::new(SqliteOptions::new(&path)).unwrap();
    let entry = |n| {
        let tags = vec![Tag::new(format!("tag:{}", n % 7)).unwrap(), Tag::new("all").unwrap()];
        (key(n), Entry::builder(value(n), stamps.issue()).tags(tags).build())
    };
    tier.put_many(&(0..ENTRIES).map(entry).collect::<Vec<_>>()).await.unwrap();
    tier.bar(&Barrier::expire(Selector::Key(key(3)), stamps.issue())).await.unwrap();
    tier.bar(&Barrier::forget(Selector::Key(key(4)), stamps.issue())).await.unwrap();
    tier.close().await.unwrap();
    (dir, path)
}

fn damage(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    // Otherwise deleting would keep up what is to be damaged.
    connection.pragma_update(None, "recursive_triggers", false).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
}

async fn validate(path: &Path, repair: bool) -> Validation {
    let tier = SqliteTier::new(SqliteOptions::new(path)).unwrap();
    let found = tier.validate(repair).await.unwrap();
    tier.close().await.unwrap();
    found
}

/// How many entries are served as they were stored; none may be served otherwise.
async fn served(path: &Path) -> usize {
    let tier = SqliteTier::new(SqliteOptions::new(path)).unwrap();
    let keys: Vec<Key> = (0..ENTRIES).map(key).collect();
    let found = tier.get_many(&keys).await.unwrap();
    tier.close().await.unwrap();
    let mut count = 0;
    for (n, entry) in found.iter().enumerate() {
        if let Some(entry) = entry {
            assert_eq!(entry.value(), value(n).as_bytes(), "{n}");
            count += 1;
        }
    }
    count
}

#[tokio::test]
async fn a_sound_file_has_no_problems_and_is_not_written() {
    let (_dir, path) = filled().await;
    let before = fs::read(&path).unwrap();
    for repair in [false, true] {
        let found = validate(&path, repair).await;
        assert_eq!(found.entries, ENTRIES as u64 - 1);
        assert!(found.is_sound(), "{found:?}");
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn each_problem_is_found_then_mended_and_not_found_again() {
    // What is done to the file, what that is, how often, and how many entries it costs.
    let cases = [
        ("UPDATE entries SET value = x'00' WHERE id IN (6, 9)", ProblemKind::Entry, 2, 2),
        ("UPDATE entries SET key_hash = 77 WHERE id = 8", ProblemKind::Entry, 1, 1),
        ("UPDATE entries SET source = 'x' WHERE id = 8", ProblemKind::Entry, 1, 1),
        ("UPDATE entries SET checksum = 1 WHERE id = 8", ProblemKind::Entry, 1, 1),
        ("DELETE FROM entry_tags WHERE entry = 7", ProblemKind::Tags, 1, 0),
        ("INSERT INTO entry_tags VALUES ('x', 99999), ('y', 99999)", ProblemKind::Tags, 1, 0),
        ("INSERT INTO entry_tags VALUES ('x', 7)", ProblemKind::Tags, 1, 0),
        ("UPDATE totals SET entries = entries + 1", ProblemKind::Counters, 1, 0),
        ("UPDATE totals SET stored_bytes = 0 WHERE source = 's1'", ProblemKind::Counters, 1, 0),
        ("DELETE FROM totals WHERE source = 's1'", ProblemKind::Counters, 1, 0),
        ("DELETE FROM uses WHERE entry = 6", ProblemKind::Counters, 1, 0),
        ("INSERT INTO uses VALUES (99999, 1)", ProblemKind::Counters, 1, 0),
        ("UPDATE latest_stamp SET stamp = 1", ProblemKind::Counters, 1, 0),
    ];
    for (sql, kind, count, lost) in cases {
        let (_dir, path) = filled().await;
        damage(&path, sql);
        for repair in [false, false, true] {
            let found = validate(&path, repair).await;
            assert_eq!(found.count(kind), count, "{sql}, repair: {repair}: {found:?}");
            assert_eq!(found.is_repaired(), repair, "{sql}: {found:?}");
        }
        let found = validate(&path, false).await;
        assert!(found.is_sound(), "{sql}, after repair: {found:?}");
        assert_eq!(served(&path).await, ENTRIES - 1 - lost, "{sql}");
    }
}

#[tokio::test]
async fn times_that_make_no_sense_are_found_though_the_checksum_fits() {
    let (_dir, path) = filled().await;
    let stamps = StampClock::new(Arc::new(SystemClock::new()));
    let tier = SqliteTier::new(SqliteOptions::new(&path)).unwrap();
    let at = cache_core::Timestamp::from_millis;
    let entry = Entry::builder("v", stamps.issue()).loaded_at(at(i64::MAX - 1)).build();
    tier.put(&Key::new("s:far"), &entry).await.unwrap();
    tier.close().await.unwrap();
    assert_eq!(validate(&path, true).await.count(ProblemKind::Times), 1);
    assert!(validate(&path, false).await.is_sound());
    assert_eq!(served(&path).await, ENTRIES - 1);
}

#[tokio::test]
async fn an_index_that_does_not_fit_its_table_is_made_anew() {
    let (_dir, path) = filled().await;
    // The index of sources is filled with something else.
    let indexes = |column: &str| {
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "writable_schema", true).unwrap();
        let sql = format!("CREATE INDEX entries_by_source ON entries ({column})");
        let change = "UPDATE sqlite_schema SET sql = ?1 WHERE name = 'entries_by_source'";
        assert_eq!(connection.execute(change, [sql]).unwrap(), 1);
    };
    indexes("content_type");
    Connection::open(&path).unwrap().execute_batch("REINDEX entries_by_source").unwrap();
    indexes("source");
    let found = validate(&path, false).await;
    assert!(found.count(ProblemKind::File) > 0, "{found:?}");
    let found = validate(&path, true).await;
    assert!(found.count(ProblemKind::File) > 0 && found.is_repaired(), "{found:?}");
    assert!(validate(&path, false).await.is_sound());
    assert_eq!(served(&path).await, ENTRIES - 1, "no entry is lost");
}

#[tokio::test]
async fn a_file_that_cannot_be_mended_is_set_aside() {
    let (dir, path) = filled().await;
    let mut bytes = fs::read(&path).unwrap();
    // A page in the middle of the table.
    let page = bytes.len() / 8_192 / 2;
    bytes[page * 8_192..(page + 1) * 8_192].fill(0xA5);
    fs::write(&path, bytes).unwrap();
    let found = validate(&path, true).await;
    assert!(!found.is_sound() && found.is_repaired(), "{found:?}");
    assert!(validate(&path, false).await.is_sound());
    let aside = fs::read_dir(dir.path()).unwrap().filter_map(|file| {
        file.unwrap().file_name().into_string().ok().filter(|name| {
            name.contains(".corrupt-") && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
    });
    assert_eq!(aside.count(), 1);
}
