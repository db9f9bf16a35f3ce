//! What a tier tells of the changes of others.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use cache_core::{
    Barrier, Change, Changes, Entry, Journal, Key, Lease, Selector, StampClock, SystemClock, Tier,
};
use rusqlite::Connection;
use tempfile::TempDir;
use tier_sqlite::{SqliteOptions, SqliteTier};

const LIMIT: Duration = Duration::from_secs(30);

fn file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cache.db");
    (dir, path)
}

fn stamps() -> StampClock {
    StampClock::new(Arc::new(SystemClock::new()))
}

fn open(path: &Path) -> SqliteTier {
    SqliteTier::new(SqliteOptions::new(path).poll_interval(Duration::from_millis(20))).unwrap()
}

/// A tier that has read from the file, and what it is told from then on.
async fn follower(path: &Path) -> (SqliteTier, Receiver<Changes>) {
    let (tell, told) = channel();
    let tier = open(path);
    tier.follow(Box::new(move |changes| tell.send(changes).unwrap()));
    tier.get(&Key::new("any")).await.unwrap();
    (tier, told)
}

#[tokio::test]
async fn changes_of_others_are_told_in_their_order_and_own_ones_are_not() {
    let (_dir, path) = file();
    let (stamps, key) = (stamps(), Key::new("s:a"));
    let (tier, told) = follower(&path).await;
    let other = open(&path);
    tier.put(&Key::new("s:own"), &Entry::builder("v", stamps.issue()).build()).await.unwrap();
    let as_of = stamps.issue();
    other.put(&key, &Entry::builder("v", as_of).build()).await.unwrap();
    let barriers = [
        Barrier::forget(Selector::source("s"), stamps.issue()),
        Barrier::expire(Selector::Key(key.clone()), stamps.issue()),
        Barrier::expire(Selector::OtherVersion("s".into(), "v2".into()), stamps.issue()),
    ];
    for barrier in &barriers {
        other.bar(barrier).await.unwrap();
    }
    let mut expected = vec![Change::Stored { key, as_of }];
    expected.extend(barriers.into_iter().map(Change::Barrier));
    let mut changes = Vec::new();
    while changes.len() < expected.len() {
        match told.recv_timeout(LIMIT).unwrap() {
            Changes::Known(known) => changes.extend(known),
            Changes::Unknown => panic!("nothing was missed"),
        }
    }
    assert_eq!(changes, expected);
    other.close().await.unwrap();
    tier.close().await.unwrap();
}

#[tokio::test]
async fn a_row_that_cannot_be_read_makes_all_changes_unknown_once() {
    for damage in ["kind = 99", "kind = -1", "name = CAST(x'FF' AS TEXT)", "effect = 999"] {
        let (_dir, path) = file();
        let (tier, told) = follower(&path).await;
        let stamp = stamps().issue();
        let connection = Connection::open(&path).unwrap();
        let insert = "INSERT INTO journal (node, kind, name, tag, effect, stamp)
                      VALUES (1, 1, 's:a', '', 0, ?1)";
        let transaction = connection.unchecked_transaction().unwrap();
        transaction.execute(insert, [stamp.packed().cast_signed()]).unwrap();
        transaction.execute(&format!("UPDATE journal SET {damage}"), []).unwrap();
        transaction.commit().unwrap();
        assert_eq!(told.recv_timeout(LIMIT).unwrap(), Changes::Unknown, "{damage}");
        connection.execute(insert, [stamp.packed().cast_signed()]).unwrap();
        let known = told.recv_timeout(LIMIT).unwrap();
        assert!(matches!(known, Changes::Known(changes) if changes.len() == 1), "{damage}");
        tier.close().await.unwrap();
    }
}

#[tokio::test]
async fn many_keys_at_once_are_not_named_and_the_journal_stays_small() {
    let (_dir, path) = file();
    let (tier, told) = follower(&path).await;
    let (other, stamps) = (open(&path), stamps());
    let entry = |n: usize| {
        let key = Key::new(format!("s:{n:0>100}"));
        (key, Entry::builder("v", stamps.issue()).build())
    };
    let entries: Vec<_> = (0..1_000).map(entry).collect();
    other.put_many(&entries).await.unwrap();
    assert_eq!(told.recv_timeout(LIMIT).unwrap(), Changes::Unknown);
    for n in 0..1_100 {
        let (key, entry) = entry(n);
        other.put(&key, &entry).await.unwrap();
    }
    let connection = Connection::open(&path).unwrap();
    let rows: u64 =
        connection.query_row("SELECT count(*) FROM journal", [], |row| row.get(0)).unwrap();
    assert!(rows <= 1_024, "{rows}");
    other.close().await.unwrap();
    tier.close().await.unwrap();
}

#[tokio::test]
async fn a_lease_beyond_belief_keeps_nobody_from_loading() {
    let (_dir, path) = file();
    let (tier, keys) = (open(&path), [Key::new("s:a")]);
    assert!(tier.lease(&keys, 1, Duration::from_secs(5)).await.unwrap());
    assert!(!tier.lease(&keys, 2, Duration::from_secs(5)).await.unwrap());
    assert!(!tier.is_free(&keys, 2).await.unwrap());
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE leases SET until = until + 1000000000000", []).unwrap();
    assert!(tier.is_free(&keys, 2).await.unwrap());
    assert!(tier.lease(&keys, 2, Duration::from_secs(5)).await.unwrap());
    tier.release(&keys, 1).await.unwrap();
    assert!(!tier.is_free(&keys, 1).await.unwrap(), "only its owner gives it back");
    tier.release(&keys, 2).await.unwrap();
    assert!(tier.is_free(&keys, 1).await.unwrap());
    tier.close().await.unwrap();
}

#[tokio::test]
async fn leftovers_of_rows_that_are_gone_do_not_keep_new_ones_from_being_stored() {
    let (_dir, path) = file();
    let (tier, stamps) = (open(&path), stamps());
    let tagged = || {
        let tag = cache_core::Tag::new("t").unwrap();
        Entry::builder("v", stamps.issue()).tags(vec![tag]).build()
    };
    tier.put(&Key::new("s:a"), &tagged()).await.unwrap();
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch("INSERT INTO uses VALUES (2, 0); INSERT INTO entry_tags VALUES ('t', 2)")
        .unwrap();
    assert!(tier.put(&Key::new("s:b"), &tagged()).await.unwrap().is_stored());
    tier.close().await.unwrap();
}
