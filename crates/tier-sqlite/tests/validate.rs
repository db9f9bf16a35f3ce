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
        ("UPDATE totals SET latest_stamp = 1", ProblemKind::Counters, 1, 0),
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

/// Writes what no statement of the tier could, past the types of the columns.
fn write_past_types(path: &Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    let loosen = |from: &str, to: &str| {
        connection.pragma_update(None, "writable_schema", true).unwrap();
        let change = format!(
            "UPDATE sqlite_schema SET sql = replace(sql, '{from}', '{to}')
             WHERE name IN ('entries', 'barriers', 'journal', 'leases')"
        );
        connection.execute(&change, []).unwrap();
        connection.pragma_update(None, "writable_schema", "RESET").unwrap();
    };
    loosen(") STRICT", ") /*RICT*/");
    assert!(connection.execute(sql, []).unwrap() > 0, "{sql}");
    loosen(") /*RICT*/", ") STRICT");
}

#[tokio::test]
async fn a_value_that_its_column_may_not_have_costs_its_row_only() {
    let columns = [
        ("raw_len = 'x'", 1),
        ("as_of = 'x'", 1),
        ("stale_until = 'x'", 1),
        ("codec = 2.5", 1),
        ("checksum = 'x'", 1),
        ("tags = x'ff'", 1),
        ("value = 'text'", 1),
        ("dictionary = 'x'", 1),
        ("source = x'ff'", 1),
    ];
    for (change, lost) in columns {
        let (_dir, path) = filled().await;
        write_past_types(&path, &format!("UPDATE entries SET {change} WHERE id = 8"));
        let found = validate(&path, false).await;
        assert!(
            found.count(ProblemKind::Entry) == 1 && !found.is_repaired(),
            "{change}: {found:?}"
        );
        let found = validate(&path, true).await;
        assert!(found.is_repaired(), "{change}: {found:?}");
        let found = validate(&path, false).await;
        assert!(found.is_sound(), "{change}, after repair: {found:?}");
        assert_eq!(found.entries, (ENTRIES - 1 - lost) as u64, "{change}");
        assert_eq!(served(&path).await, ENTRIES - 1 - lost, "{change}");
    }
}

#[tokio::test]
async fn malformed_barriers_are_replaced_by_what_covers_no_less() {
    let of_4 = "WHERE kind = 1 AND effect = 0";
    // What is done to the barrier over entry 4, and how many entries go: none that it has not covered,
    // unless nobody knows what it did.
    let cases = [
        (format!("UPDATE barriers SET effect = 7 {of_4}"), 0),
        (format!("UPDATE barriers SET stamp = -5 {of_4}"), 0),
        (format!("UPDATE barriers SET stamp = stamp + (1 << 60) {of_4}"), 0),
        (format!("UPDATE barriers SET kind = 9 {of_4}"), ENTRIES - 1),
        (format!("UPDATE barriers SET tag = 'x' {of_4}"), ENTRIES - 1),
        ("INSERT INTO barriers VALUES (3, '', '', 0, 1)".to_owned(), 0),
        ("INSERT INTO barriers VALUES (5, 's1', 'v2', 3, 1)".to_owned(), 0),
        ("INSERT INTO barriers VALUES (2, 's1', '', 0, -1)".to_owned(), ENTRIES / 3 - 1),
        (format!("UPDATE barriers SET stamp = 'later' {of_4}"), 0),
        (format!("UPDATE barriers SET name = x'ff' {of_4}"), ENTRIES - 1),
    ];
    for (sql, lost) in cases {
        let (_dir, path) = filled().await;
        write_past_types(&path, &sql);
        for repair in [false, false, true] {
            let found = validate(&path, repair).await;
            assert_eq!(found.count(ProblemKind::Barriers), 1, "{sql}: {found:?}");
            assert_eq!(found.problems.len(), 1, "{sql}: {found:?}");
            assert_eq!(found.is_repaired(), repair, "{sql}: {found:?}");
        }
        let found = validate(&path, false).await;
        assert!(found.is_sound(), "{sql}, after repair: {found:?}");
        assert_eq!(served(&path).await, ENTRIES - 1 - lost, "{sql}");

        // What was loaded before it is not stored after the repair either.
        let tier = SqliteTier::new(SqliteOptions::new(&path)).unwrap();
        let before = cache_core::Stamp::from_packed(1);
        let outcome = tier.put(&key(4), &Entry::builder("old", before).build()).await.unwrap();
        assert_eq!(outcome, cache_core::PutOutcome::Barred, "{sql}");
        tier.close().await.unwrap();
    }
}

#[tokio::test]
async fn malformed_rows_of_the_journal_and_of_leases_are_removed() {
    let journal = "INSERT INTO journal (node, kind, name, tag, effect, stamp) VALUES";
    let cases = [
        (format!("{journal} (1, 99, 'a', '', 0, 1)"), ProblemKind::Journal, 1),
        (format!("{journal} (1, 16, '', '', 0, 1)"), ProblemKind::Journal, 1),
        (
            format!("{journal} (1, 1, 'a', '', 9, 1), (1, 1, 'a', '', 0, -1)"),
            ProblemKind::Journal,
            2,
        ),
        (format!("{journal} (1, 'x', 'a', '', 0, 1)"), ProblemKind::Journal, 1),
        (format!("{journal} ('me', 1, 'a', '', 0, 1)"), ProblemKind::Journal, 1),
        (
            "UPDATE journal SET seq = 9223372036854775807 WHERE seq = (SELECT max(seq) FROM journal)"
                .to_owned(),
            ProblemKind::Journal,
            1,
        ),
        ("INSERT INTO leases VALUES ('a', 1, -1)".to_owned(), ProblemKind::Leases, 1),
        ("INSERT INTO leases VALUES ('a', 1, 1 << 62)".to_owned(), ProblemKind::Leases, 1),
        ("INSERT INTO leases VALUES ('a', 'me', 1)".to_owned(), ProblemKind::Leases, 1),
        ("INSERT INTO leases VALUES (x'ff', 1, 1)".to_owned(), ProblemKind::Leases, 1),
    ];
    for (sql, kind, count) in cases {
        let (_dir, path) = filled().await;
        write_past_types(&path, &sql);
        for repair in [false, false, true] {
            let found = validate(&path, repair).await;
            assert_eq!(found.count(kind), count, "{sql}: {found:?}");
            assert_eq!(found.problems.len(), 1, "{sql}: {found:?}");
            assert_eq!(found.is_repaired(), repair, "{sql}: {found:?}");
        }
        let found = validate(&path, false).await;
        assert!(found.is_sound(), "{sql}, after repair: {found:?}");
        assert_eq!(served(&path).await, ENTRIES - 1, "{sql}");
        // It is written as before.
        let tier = SqliteTier::new(SqliteOptions::new(&path)).unwrap();
        let stamps = StampClock::new(Arc::new(SystemClock::new()));
        let new = Entry::builder("new", stamps.issue()).build();
        assert!(tier.put(&Key::new("s0:new"), &new).await.unwrap().is_stored(), "{sql}");
        tier.close().await.unwrap();
    }
}

#[tokio::test]
async fn who_follows_changes_is_told_to_start_anew_when_one_was_malformed() {
    use cache_core::{Changes, Journal as _};
    let (_dir, path) = filled().await;
    let follower = SqliteTier::new(
        SqliteOptions::new(&path).poll_interval(std::time::Duration::from_millis(5)),
    )
    .unwrap();
    let (told, changes) = std::sync::mpsc::channel();
    follower.follow(Box::new(move |changes| drop(told.send(changes))));
    assert!(follower.get(&key(1)).await.unwrap().is_some());
    damage(&path, "UPDATE journal SET effect = 9 WHERE seq = (SELECT max(seq) FROM journal)");
    assert!(validate(&path, true).await.is_repaired());
    let told = changes.recv_timeout(std::time::Duration::from_secs(30)).unwrap();
    assert!(matches!(told, Changes::Unknown), "{told:?}");
    follower.close().await.unwrap();
}

#[tokio::test]
async fn marks_of_an_import_that_cannot_be_right_count_all_as_imported() {
    let cases = [
        "INSERT INTO barriers VALUES (32, '', '', 1, 5)",
        "INSERT INTO barriers VALUES (32, '', '', 0, 9), (32, '', '', 1, 5)",
        "INSERT INTO barriers VALUES (32, 'x', '', 0, 9)",
        "INSERT INTO barriers VALUES (32, '', '', 0, 9), (32, '', '', 77, 10)",
        "INSERT INTO barriers VALUES (32, '', '', 0, 9), (32, '', '', 1, -10)",
        "INSERT INTO barriers VALUES (32, '', '', 0, 9), (32, '', '', 2, 10)",
        "INSERT INTO barriers VALUES (32, '', '', 0, 9), (32, 's:1', '', 2, 5)",
        "INSERT INTO barriers VALUES (32, '', '', 0, 9), (32, 's:1', '', 2, 10), (32, 's:2', '', 2, 10)",
    ];
    for sql in cases {
        let (_dir, path) = filled().await;
        damage(&path, sql);
        for repair in [false, true] {
            let found = validate(&path, repair).await;
            assert_eq!(found.count(ProblemKind::Barriers), 1, "{sql}: {found:?}");
            assert_eq!(found.is_repaired(), repair, "{sql}: {found:?}");
        }
        assert!(validate(&path, false).await.is_sound(), "{sql}");
        assert_eq!(served(&path).await, ENTRIES - 1, "{sql}");
    }
}
