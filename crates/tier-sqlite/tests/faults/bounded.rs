//! The largest size: kept at every write, by giving up what has expired and then what was used least
//! recently; room that is free is given back, and a read never writes.

use std::{fs, path::Path, sync::Arc, time::Duration};

use cache_core::{Clock, Entry, ErrorKind, Inspect, Key, PutOutcome, Stamp, Tier, Timestamp};
use tier_sqlite::{SqliteOptions, SqliteTier};
use tier_testkit::{Dice, ManualClock};

use crate::support::{
    NOW, assert_no_panics, beside, file, fill, open, options, plain, pragma, right, told, until,
};

const MIB: u64 = 1 << 20;
/// What the file may have beyond the bound while a transaction is under way.
const SLACK: u64 = 2 * MIB + MIB / 8;

fn bounded(path: &Path, clock: &Arc<ManualClock>, max_bytes: u64) -> SqliteTier {
    let options: SqliteOptions =
        options(path).clock(Arc::<ManualClock>::clone(clock)).max_bytes(max_bytes);
    SqliteTier::new(options).unwrap()
}

fn key(n: u64) -> Key {
    Key::new(format!("bls:series={n}"))
}

/// 2 KB of noise, loaded now.
fn noise(n: u64, clock: &ManualClock, len: usize) -> Entry {
    let mut dice = Dice::new(n);
    let words = (0..len / 8).flat_map(|_| dice.throw().to_le_bytes());
    Entry::builder(words.collect::<Vec<u8>>(), Stamp::at(clock.now())).build()
}

async fn put(tier: &SqliteTier, n: u64, clock: &ManualClock) {
    clock.advance(Duration::from_millis(10));
    let outcome = tier.put(&key(n), &noise(n, clock, 2_048)).await;
    assert!(outcome.unwrap_or_else(|error| panic!("{n}: {:?}", told(&error))).is_stored());
}

fn file_bytes(path: &Path) -> u64 {
    let connection = plain(path);
    pragma(&connection, "page_count") * pragma(&connection, "page_size")
}

#[tokio::test]
async fn the_file_stays_within_its_bound_all_along() {
    let (_dir, path) = file();
    let clock = Arc::new(ManualClock::at(NOW));
    let tier = bounded(&path, &clock, 2 * MIB);
    let mut most = 0;
    for n in 0..3_000 {
        put(&tier, n, &clock).await;
        if n.is_multiple_of(100) {
            most = most.max(file_bytes(&path));
        }
    }
    // One put at a time needs next to none of the slack.
    assert!(most <= 2 * MIB + MIB / 8, "{most}");
    // Many at once need more of it, for a while.
    for round in 0..5 {
        clock.advance(Duration::from_secs(1));
        let numbers = 10_000 + round * 500..10_500 + round * 500;
        let entries: Vec<_> = numbers.map(|n| (key(n), noise(n, &clock, 2_048))).collect();
        let outcomes = tier.put_many(&entries).await.unwrap();
        assert!(outcomes.iter().all(PutOutcome::is_stored));
        assert!(file_bytes(&path) <= 2 * MIB + SLACK, "{}", file_bytes(&path));
    }
    let usage = tier.usage().await.unwrap();
    assert_eq!(usage.capacity_bytes, Some(2 * MIB));
    assert!((3_500..5_500).contains(&usage.evictions), "{usage:?}");
    assert_eq!(usage.evictions + usage.total().entries, 5_500, "{usage:?}");
    assert!(usage.total().entries > 500, "no more is given up than needs be: {usage:?}");
    // The log is used anew once it is a quarter of the file, and after the largest transaction.
    assert!(usage.log_bytes > 0 && usage.log_bytes <= 4 * MIB, "{usage:?}");
    assert!(usage.occupied_bytes >= usage.log_bytes + usage.free_bytes, "{usage:?}");
    tier.close().await.unwrap();
    assert!(fs::metadata(&path).unwrap().len() <= 2 * MIB + SLACK);
    assert_no_panics();
}

#[tokio::test]
async fn what_has_expired_goes_first_then_what_was_used_least_recently() {
    let (_dir, path) = file();
    let clock = Arc::new(ManualClock::at(NOW));
    let tier = bounded(&path, &clock, 4 * MIB);
    // The oldest, but soon read; then what is soon dead; then what nobody reads.
    for n in 0..100 {
        put(&tier, n, &clock).await;
    }
    clock.advance(Duration::from_secs(2));
    for n in 100..200 {
        clock.advance(Duration::from_millis(10));
        let dead = noise(n, &clock, 2_048)
            .to_builder()
            .expires_at(Timestamp::from_millis(NOW + 10_000))
            .stale_until(Timestamp::from_millis(NOW + 10_000))
            .build();
        assert!(tier.put(&key(n), &dead).await.unwrap().is_stored());
    }
    clock.advance(Duration::from_secs(2));
    for n in 200..1_000 {
        put(&tier, n, &clock).await;
    }
    assert_eq!(tier.usage().await.unwrap().evictions, 0, "all have room");
    clock.set(NOW + 60_000);
    for n in 0..100 {
        assert!(tier.get(&key(n)).await.unwrap().is_some());
    }
    clock.advance(Duration::from_secs(2));

    // Until some fifty had to go.
    let mut n = 1_000;
    while tier.usage().await.unwrap().evictions < 50 {
        put(&tier, n, &clock).await;
        n += 1;
    }
    let keys: Vec<Key> = (200..n).map(key).collect();
    let found = tier.get_many(&keys).await.unwrap();
    let missing = found.iter().filter(|found| found.is_none()).count();
    assert_eq!(missing, 0, "only what was dead went");

    // That has used them.
    clock.advance(Duration::from_secs(2));
    for n in 0..100 {
        assert!(tier.get(&key(n)).await.unwrap().is_some());
    }
    clock.advance(Duration::from_secs(2));
    while tier.usage().await.unwrap().evictions < 400 {
        put(&tier, n, &clock).await;
        n += 1;
    }
    let there = async |numbers: std::ops::Range<u64>| {
        let keys: Vec<Key> = numbers.map(key).collect();
        tier.get_many(&keys).await.unwrap().iter().filter(|found| found.is_some()).count()
    };
    assert_eq!(there(0..100).await, 100, "what was read lately stays, old as it is");
    let count = |connection: &rusqlite::Connection| -> i64 {
        let sql = "SELECT count(*) FROM entries WHERE stale_until < 1800000000000";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&plain(&path)), 0, "what is dead is gone");
    assert_eq!(there(n - 100..n).await, 100, "what came last stays");
    // (`there` has used them all by now; what went was the first of the unread.)
    assert!(there(200..300).await < 10);
    tier.close().await.unwrap();
    assert_no_panics();
}

#[tokio::test]
async fn a_bound_that_was_lowered_is_reached_in_steps_that_let_others_write_between_them() {
    let (_dir, path) = file();
    let clock = Arc::new(ManualClock::at(NOW));
    let tier = bounded(&path, &clock, 64 * MIB);
    for round in 0..20 {
        let numbers = round * 1_000..(round + 1) * 1_000;
        let entries: Vec<_> = numbers.map(|n| (key(n), noise(n, &clock, 200))).collect();
        tier.put_many(&entries).await.unwrap();
        clock.advance(Duration::from_secs(1));
    }
    tier.close().await.unwrap();
    let before = file_bytes(&path);
    assert!(before > 5 * MIB, "{before}");

    let tier = bounded(&path, &clock, MIB);
    let mut steps = Vec::new();
    for n in 30_000..30_010 {
        put(&tier, n, &clock).await;
        let usage = tier.usage().await.unwrap();
        steps.push(usage.evictions);
        assert_eq!(usage.evictions + usage.total().entries, 20_001 + n - 30_000, "{usage:?}");
        assert!(tier.get(&key(n)).await.unwrap().is_some(), "what came last stays");
    }
    // No transaction evicts more than some 8,000.
    assert!(steps[0] > 5_000, "{steps:?}");
    assert!(steps.windows(2).all(|two| two[1] - two[0] <= 8_192) && steps[0] <= 8_192, "{steps:?}");
    assert!(steps[9] > 15_000 && steps[9] - steps[8] < 100, "it has come to an end: {steps:?}");
    // Some room that is free is kept for what comes.
    until("the file is small", async || file_bytes(&path) <= 2 * MIB).await;
    tier.close().await.unwrap();
    assert_no_panics();
}

#[tokio::test]
async fn room_that_is_free_is_given_back() {
    let (_dir, path) = file();
    let clock = Arc::new(ManualClock::at(NOW));
    let tier = bounded(&path, &clock, 64 * MIB);
    let entries: Vec<_> = (0..4_000).map(|n| (key(n), noise(n, &clock, 2_048))).collect();
    tier.put_many(&entries).await.unwrap();
    let before = file_bytes(&path);
    assert!(before > 8 * MIB, "{before}");
    let keys: Vec<Key> = (0..3_900).map(key).collect();
    assert_eq!(tier.remove_many(&keys).await.unwrap(), 3_900);
    until("the file is smaller", async || file_bytes(&path) < 3 * MIB).await;
    let connection = plain(&path);
    until("the disk has it back", async || {
        // The writer's checkpoints do so under load; here there is none.
        _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        fs::metadata(&path).unwrap().len() < 3 * MIB
    })
    .await;
    for n in 3_900..4_000 {
        assert_eq!(tier.get(&key(n)).await.unwrap().as_ref(), Some(&entries[n as usize].1));
    }
    tier.close().await.unwrap();
}

#[tokio::test]
async fn a_read_writes_nothing() {
    let (_dir, path) = file();
    let tier = open(&path);
    fill(&tier, 0..200).await;
    let bytes = || (fs::read(&path).unwrap(), fs::read(beside(&path, "-wal")).unwrap());
    let before = bytes();
    for _ in 0..5 {
        assert_eq!(right(&tier, 0..200).await, 200);
        for n in 0..200 {
            assert!(tier.get(&crate::support::key(n)).await.unwrap().is_some());
            assert!(tier.get(&key(n)).await.unwrap().is_none());
        }
    }
    tier.usage().await.unwrap();
    assert!(bytes() == before, "not a byte");
    tier.close().await.unwrap();
}

#[tokio::test]
async fn what_is_larger_than_the_bound_is_refused_and_evicts_next_to_nothing() {
    let (_dir, path) = file();
    let clock = Arc::new(ManualClock::at(NOW));
    let tier = bounded(&path, &clock, 2 * MIB);
    for n in 0..400 {
        put(&tier, n, &clock).await;
    }
    clock.advance(Duration::from_secs(1));
    for n in 1_000..1_003 {
        match tier.put(&key(n), &noise(n, &clock, 16 << 20)).await {
            Ok(PutOutcome::Refused { .. }) => {}
            Ok(outcome) => panic!("{outcome:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Refused, "{:?}", told(&error)),
        }
    }
    let usage = tier.usage().await.unwrap();
    assert!(usage.total().entries >= 350, "{usage:?}");
    assert!(file_bytes(&path) <= 2 * MIB + SLACK);
    put(&tier, 2_000, &clock).await;
    tier.close().await.unwrap();
}

/// A write's work at the bound, in pages that it put into the log.
async fn pages_a_write(max_bytes: u64) -> (u64, f64) {
    let (_dir, path) = crate::support::file_in_memory();
    let clock = Arc::new(ManualClock::at(NOW));
    let tier = bounded(&path, &clock, max_bytes);
    let mut n = 0;
    while tier.usage().await.unwrap().evictions == 0 {
        let entries: Vec<_> = (n..n + 500).map(|n| (key(n), noise(n, &clock, 64))).collect();
        clock.advance(Duration::from_secs(1));
        tier.put_many(&entries).await.unwrap();
        n += 500;
    }
    let rows = tier.usage().await.unwrap().total().entries;
    let connection = plain(&path);
    until("the log is empty", async || {
        let emptied =
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        emptied == Ok(0)
    })
    .await;
    // While one reads, the log does not begin anew: all of the writes are in it.
    connection.execute_batch("BEGIN; SELECT count(*) FROM totals").unwrap();
    let writes = 1_500;
    for n in n..n + writes {
        clock.advance(Duration::from_millis(100));
        tier.put(&key(n), &noise(n, &clock, 64)).await.unwrap();
    }
    let pages = fs::metadata(beside(&path, "-wal")).unwrap().len() / 8_216;
    drop(connection);
    tier.close().await.unwrap();
    (rows, pages as f64 / writes as f64)
}

#[tokio::test]
async fn what_a_write_costs_at_the_bound_does_not_grow_with_the_number_of_rows() {
    let (few, of_few) = pages_a_write(MIB).await;
    let (many, of_many) = pages_a_write(12 * MIB).await;
    assert!(few < 3_500 && many > 8 * few, "{few} and {many} rows");
    println!("{of_few} pages with {few} rows, {of_many} with {many}");
    assert!(of_many < 2.0 * of_few, "{of_few} pages with {few} rows, {of_many} with {many}");
}
