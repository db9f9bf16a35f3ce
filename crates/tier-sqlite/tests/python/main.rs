//! A cache of the Python manager at the configured path: only read, imported, and followed.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

mod full;
mod support;

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use cache_core::{Barrier, Clock as _, Entry, Key, PutOutcome, Selector, Stamp, Tier};
use rusqlite::Connection;
use tier_sqlite::{SqliteOptions, SqliteTier, is_python_cache, store_beside};

use crate::support::{DAY, NOW, Place, rows, value};

#[tokio::test]
async fn what_is_live_is_served_from_a_store_beside_and_the_file_is_not_touched() {
    let place = Place::fixture();
    let before = fs::read(place.path()).unwrap();
    let changed = fs::metadata(place.path()).unwrap().modified().unwrap();
    let tier = place.open().await;
    assert_eq!(tier.path(), place.store());

    let entry = tier.get(&Key::new("bls:series:LAUMT08145")).await.unwrap().unwrap();
    assert_eq!(entry.content_type(), Some("application/json"));
    assert_eq!(entry.value().first(), Some(&b'{'));
    assert_eq!(entry.loaded_at().as_millis(), 1_641_092_645_123);
    assert_eq!(entry.expires_at().as_millis(), 4_071_006_245_123);
    assert_eq!(value(&tier, "expired").await, None);
    assert!(value(&tier, "never").await.is_some());
    assert!(value(&tier, "unicode:Zürich 😀").await.is_some());

    let hostile = tier.get(&Key::new("hostile:os.system")).await.unwrap().unwrap();
    assert_eq!(hostile.content_type(), Some("application/python-pickle"));
    assert_eq!(hostile.value().len(), 42);

    let stored = rows(&place.store());
    assert_eq!(stored.len(), 16, "{stored:?}");
    for left_out in ["", "expired", "null-value", "text-value", "odd-expires"] {
        assert!(!stored.iter().any(|key| key == left_out), "{left_out}");
    }
    assert_eq!(
        place.names().into_iter().collect::<Vec<_>>(),
        [
            "aker_platform.db",
            "aker_platform.larder.db",
            "aker_platform.larder.db-shm",
            "aker_platform.larder.db-wal"
        ]
    );
    tier.close().await.unwrap();
    assert_eq!(fs::read(place.path()).unwrap(), before);
    assert_eq!(fs::metadata(place.path()).unwrap().modified().unwrap(), changed);
}

#[tokio::test]
async fn before_it_is_imported_it_is_found_in_the_file() {
    let place = Place::empty();
    {
        let mut file = Connection::open(place.path()).unwrap();
        let all = file.transaction().unwrap();
        for n in 0..20_000 {
            all.execute(
                "INSERT INTO cache VALUES (?1, ?2, '2025-01-01T00:00:00', NULL)",
                (format!("s:{n:05}"), b"I7\n."),
            )
            .unwrap();
        }
        all.commit().unwrap();
    }
    let tier = SqliteTier::new(place.options()).unwrap();
    let began = Instant::now();
    assert_eq!(value(&tier, "s:19999").await.as_deref(), Some("7"));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let keys = ["s:19998", "s:none", "s:19997"].map(Key::new);
    let found = tier.get_many(&keys).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    // Closing waits for a batch, not for the import.
    let began = Instant::now();
    tier.close().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // What is missing comes later.
    place.open().await.close().await.unwrap();
    assert_eq!(rows(&place.store()).len(), 20_000);
}

#[tokio::test]
async fn what_the_old_program_adds_or_changes_is_picked_up_at_the_next_open() {
    let place = Place::empty();
    place.python_sets("a:1", 1);
    place.python_sets("a:2", 2);
    let tier = place.open().await;
    // It goes on working.
    place.clock.advance(Duration::from_secs(1));
    place.python_sets("a:2", 22);
    place.python_sets("a:3", 3);
    assert_eq!(value(&tier, "a:2").await.as_deref(), Some("2"));
    tier.close().await.unwrap();

    let file = Connection::open(place.path()).unwrap();
    file.execute("DELETE FROM cache WHERE key = 'a:1'", []).unwrap();
    let tier = place.open().await;
    assert_eq!(value(&tier, "a:1").await.as_deref(), Some("1"), "it was live when it was copied");
    assert_eq!(value(&tier, "a:2").await.as_deref(), Some("22"));
    assert_eq!(value(&tier, "a:3").await.as_deref(), Some("3"));
}

#[tokio::test]
async fn what_was_loaded_later_stays_unless_the_old_program_is_later_still() {
    let place = Place::empty();
    place.python_sets("a:1", 1);
    let tier = place.open().await;
    let loaded = Entry::builder("loaded", Stamp::at(place.clock.now())).build();
    assert_eq!(tier.put(&Key::new("a:1"), &loaded).await.unwrap(), PutOutcome::Stored);
    tier.close().await.unwrap();
    let tier = place.open().await;
    assert_eq!(value(&tier, "a:1").await.as_deref(), Some("loaded"));
    tier.close().await.unwrap();
    place.python_sets("a:1", 2);
    assert_eq!(value(&place.open().await, "a:1").await.as_deref(), Some("2"));
}

#[tokio::test]
async fn what_was_invalidated_does_not_come_back_however_long_ago_that_was() {
    let place = Place::empty();
    for key in ["a:1", "a:2", "b:1"] {
        place.python_sets(key, 1);
    }
    let tier = place.open().await;
    place.clock.advance(Duration::from_secs(1));
    for selector in [Selector::Key(Key::new("a:1")), Selector::source("b")] {
        let barrier = Barrier::forget(selector, Stamp::at(place.clock.now()));
        assert_eq!(tier.bar(&barrier).await.unwrap(), 1);
    }
    // Written by the old program later, but before the next open.
    place.clock.advance(Duration::from_secs(1));
    place.python_sets("b:2", 2);
    tier.close().await.unwrap();
    for days in [0, 3, 300] {
        place.clock.advance(days * DAY);
        let tier = place.open().await;
        // Makes old barriers go.
        let other = Barrier::forget(Selector::source("c"), Stamp::at(place.clock.now()));
        tier.bar(&other).await.unwrap();
        tier.close().await.unwrap();
        assert_eq!(rows(&place.store()), ["a:2", "b:2"], "after {days} days");
    }
}

#[tokio::test]
async fn an_invalidation_of_long_ago_covers_what_was_not_imported_before_it() {
    let place = Place::empty();
    let tier = place.open().await;
    place.clock.advance(Duration::from_secs(1));
    place.python_sets("a:1", 1);
    place.clock.advance(Duration::from_secs(1));
    let barrier = |selector| Barrier::forget(selector, Stamp::at(place.clock.now()));
    tier.bar(&barrier(Selector::source("a"))).await.unwrap();
    // Longer than barriers are kept otherwise.
    place.clock.advance(2 * DAY);
    place.python_sets("a:2", 2);
    place.clock.advance(2 * DAY);
    tier.bar(&barrier(Selector::source("c"))).await.unwrap();
    tier.close().await.unwrap();
    place.open().await.close().await.unwrap();
    assert_eq!(rows(&place.store()), ["a:2"]);
}

#[tokio::test]
async fn a_row_from_the_future_is_imported_and_yields_to_what_happens_here() {
    let place = Place::empty();
    // Local time, eight hours ahead.
    let ahead = Duration::from_hours(8);
    place.clock.advance(ahead);
    for key in ["a:1", "a:2", "a:3"] {
        place.python_sets(key, 1);
    }
    place.clock.set(NOW);
    let tier = place.open().await;
    assert_eq!(rows(&place.store()), ["a:1", "a:2", "a:3"]);
    place.clock.advance(Duration::from_secs(1));
    let now = Stamp::at(place.clock.now());
    tier.bar(&Barrier::forget(Selector::Key(Key::new("a:1")), now)).await.unwrap();
    tier.put(&Key::new("a:2"), &Entry::builder("loaded", now).build()).await.unwrap();
    tier.close().await.unwrap();
    place.clock.advance(ahead);
    place.python_sets("a:3", 3);
    place.clock.set(NOW + 10_000);
    let tier = place.open().await;
    assert_eq!(value(&tier, "a:1").await, None);
    assert_eq!(value(&tier, "a:2").await.as_deref(), Some("loaded"));
    assert_eq!(value(&tier, "a:3").await.as_deref(), Some("3"));
}

#[tokio::test]
async fn a_value_that_is_too_large_is_left_out() {
    let place = Place::fixture();
    let tier = place.open_with(place.options().max_value_bytes(900)).await;
    assert_eq!(value(&tier, "bls:series:LAUMT08145").await, None);
    assert!(value(&tier, "never").await.is_some());
}

#[tokio::test]
async fn the_python_program_works_on_its_file_while_the_tier_is_open() {
    let place = Place::fixture();
    let tier = place.open().await;
    let program = "import datetime, pickle, sqlite3, sys
c = sqlite3.connect(sys.argv[1], timeout=1)
t = datetime.datetime(2026, 1, 1, 0, 0, 1, 500000).isoformat()
v = pickle.dumps({'rain': [0.5, None]})
c.execute('INSERT OR REPLACE INTO cache VALUES (?, ?, ?, NULL)', ('noaa:1', v, t))
c.commit()
assert c.execute('PRAGMA integrity_check').fetchall() == [('ok',)]";
    let python = Command::new("python3").args(["-c", program]).arg(place.path()).output();
    let Ok(python) = python else {
        eprintln!("skipped: there is no python3");
        return;
    };
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    tier.close().await.unwrap();
    let tier = place.open().await;
    assert_eq!(value(&tier, "noaa:1").await.as_deref(), Some(r#"{"rain":[0.5,null]}"#));
}

#[tokio::test]
async fn a_transaction_of_the_old_program_that_was_cut_short_is_left_to_it() {
    let place = Place::fixture();
    {
        // What a crash leaves: a journal that says what to undo.
        let copy = place.dir.path().join("copy.db");
        fs::copy(place.path(), &copy).unwrap();
        let file = Connection::open(&copy).unwrap();
        file.execute_batch(
            "PRAGMA cache_size = 1; BEGIN IMMEDIATE;
             UPDATE cache SET value = zeroblob(20000); PRAGMA cache_spill = 1;",
        )
        .unwrap();
        fs::copy(&copy, place.path()).unwrap();
        fs::copy(place.dir.path().join("copy.db-journal"), journal(&place)).unwrap();
    }
    assert!(fs::metadata(journal(&place)).unwrap().len() > 0);
    let (file, undo) = (fs::read(place.path()).unwrap(), fs::read(journal(&place)).unwrap());
    assert!(is_python_cache(&place.path()).unwrap());
    let tier = SqliteTier::new(place.options()).unwrap();
    assert_eq!(value(&tier, "no:such").await, None);
    assert_eq!(tier.path(), place.store());
    tier.close().await.unwrap();
    assert_eq!(fs::read(place.path()).unwrap(), file);
    assert_eq!(fs::read(journal(&place)).unwrap(), undo);
}

fn journal(place: &Place) -> PathBuf {
    place.dir.path().join("aker_platform.db-journal")
}

#[tokio::test]
async fn other_files_are_no_python_caches() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.db");
    assert!(!is_python_cache(&path).unwrap());
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE cache (key, value)").unwrap();
    assert!(!is_python_cache(&path).unwrap());
    let tier = SqliteTier::new(SqliteOptions::new(&path)).unwrap();
    tier.get(&Key::new("a:1")).await.unwrap_err();
    assert!(!store_beside(&path).exists());
}

#[tokio::test]
async fn a_python_cache_in_wal_mode_stays_alone_too() {
    let place = Place::fixture();
    let file = Connection::open(place.path()).unwrap();
    file.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    file.close().unwrap();
    let before = fs::read(place.path()).unwrap();
    let tier = place.open().await;
    assert!(value(&tier, "never").await.is_some());
    let beside = |name: &String| name.starts_with("aker_platform.db");
    assert_eq!(place.names().into_iter().filter(beside).count(), 1);
    assert_eq!(fs::read(place.path()).unwrap(), before);
    place.python_sets("a:1", 1);
    tier.close().await.unwrap();
    assert_eq!(value(&place.open().await, "a:1").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn while_it_is_not_known_what_the_file_is_nothing_is_opened() {
    let place = Place::fixture();
    let program = Connection::open(place.path()).unwrap();
    program.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let before = place.names();
    let tier = SqliteTier::new(place.options().busy_timeout(Duration::from_millis(20))).unwrap();
    let error = tier.get(&Key::new("never")).await.unwrap_err();
    assert_eq!(error.kind(), cache_core::ErrorKind::Unavailable);
    assert_eq!(place.names(), before);
    program.execute_batch("ROLLBACK").unwrap();
    assert!(value(&tier, "never").await.is_some());
    assert_eq!(tier.path(), place.store());
}
