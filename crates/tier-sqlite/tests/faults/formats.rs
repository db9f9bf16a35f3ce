//! Files of other formats: older ones are brought to the present one, after a backup; newer ones are
//! read.
//!
//! There is a file of every released format in `tests/fixtures`, with the same content. To write that
//! of the present format: `cargo test -p tier-sqlite --test faults -- --ignored writes_the_fixture`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use cache_core::{
    Barrier, Entry, ErrorKind, Filter, Inspect, Key, PutOutcome, Selector, Stamp, StampClock,
    Stamped, Tag, Tier, Timestamp,
};
use rusqlite::Connection;
use tempfile::TempDir;
use tier_sqlite::{SqliteOptions, SqliteTier};
use tier_testkit::ManualClock;

use crate::{
    child::{Place, given_file, set_mode},
    support::{NOW, asides, assert_no_panics, beside, cause, logged, plain, pragma, told},
};

/// The format that is written at present.
pub(crate) const PRESENT: u64 = 3;

pub(crate) fn fixture(format: u64) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/format-{format}.db"))
}

/// A copy of a fixture, and a tier whose clock shows when it was written.
fn copy(format: u64) -> (TempDir, PathBuf) {
    let (dir, path) = crate::support::file();
    fs::copy(fixture(format), &path).unwrap();
    set_mode(&path, 0o600);
    (dir, path)
}

pub(crate) fn at(path: &Path, millis: i64) -> SqliteTier {
    let _watched = crate::support::options(path);
    SqliteTier::new(SqliteOptions::new(path).clock(Arc::new(ManualClock::at(millis)))).unwrap()
}

fn census(n: usize) -> Key {
    Key::new(format!("census:cbsa={n}&year=2022"))
}

fn value(n: usize) -> String {
    format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat(40 * n))
}

/// What a fixture holds of `census(n)`, apart from stamps.
fn is_as_written(n: usize, entry: &Entry) {
    assert_eq!(entry.value(), value(n).as_bytes(), "{n}");
    assert_eq!(entry.content_type(), Some("application/json"), "{n}");
    assert_eq!(entry.is_absent(), n == 5, "{n}");
    assert_eq!(entry.version(), n.is_multiple_of(3).then_some("v1"), "{n}");
    assert_eq!(entry.etag(), n.is_multiple_of(4).then_some("\"e\""), "{n}");
    assert_eq!(entry.is_expired(), n == 7, "{n}");
    let tags: Vec<&str> = entry.tags().iter().map(Tag::as_str).collect();
    let mut expected = vec!["market:boulder-co".to_owned(), format!("n:{n}")];
    expected.sort_unstable();
    let mut tags: Vec<String> = tags.into_iter().map(str::to_owned).collect();
    tags.sort_unstable();
    assert_eq!(tags, expected, "{n}");
}

async fn put_one(tier: &SqliteTier) -> cache_core::Result<PutOutcome> {
    let entry = Entry::builder("v", Stamp::at(Timestamp::from_millis(NOW))).build();
    tier.put(&census(20), &entry).await
}

/// That the tier has all that the fixtures have.
pub(crate) async fn has_all(tier: &SqliteTier, what: &str) {
    for n in 0..12 {
        match tier.get(&census(n)).await.unwrap() {
            Some(entry) => is_as_written(n, &entry),
            None => assert_eq!(n, 8, "{what}"),
        }
    }
    let usage = tier.usage().await.unwrap();
    assert_eq!(usage.sources.len(), 1, "{what}: {usage:?}");
    assert_eq!((&*usage.sources[0].source, usage.sources[0].entries), ("census", 11), "{what}");
    let tagged = Filter::tag(Tag::new("n:4").unwrap());
    let found = tier.scan(&tagged, None, 10).await.unwrap();
    assert_eq!(found.into_iter().map(|summary| summary.key).collect::<Vec<_>>(), [census(4)]);
}

#[tokio::test]
async fn every_released_format_is_opened_with_all_that_is_in_it() {
    for format in 1..=PRESENT {
        let (_dir, path) = copy(format);
        let tier = at(&path, NOW + 1_000);
        has_all(&tier, "before a write").await;
        let put = |key, stamp| {
            let entry = Entry::builder("new", stamp).build();
            let tier = &tier;
            async move { tier.put(&key, &entry).await.unwrap() }
        };
        // Barriers hold for what was loaded before them.
        let early = Stamp::at(Timestamp::from_millis(NOW - 60_000));
        assert_eq!(put(Key::new("bls:x"), early).await, PutOutcome::Barred, "{format}");
        assert_eq!(put(census(8), early).await, PutOutcome::Barred, "{format}");
        let later = Stamp::at(Timestamp::from_millis(NOW + 900));
        assert_eq!(put(Key::new("bls:x"), later).await, PutOutcome::Stored, "{format}");
        tier.remove(&Key::new("bls:x")).await.unwrap();
        has_all(&tier, "after a write").await;
        // One that was used is evicted, removed and expired like any other.
        assert!(tier.remove(&census(1)).await.unwrap());
        assert_eq!(tier.remove_dead(Timestamp::from_millis(NOW + 100_000), None).await.unwrap(), 1);
        assert_eq!(tier.get(&census(6)).await.unwrap(), None, "it is dead");
        tier.close().await.unwrap();

        let connection = plain(&path);
        assert_eq!(pragma(&connection, "user_version"), PRESENT);
        let check: String =
            connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
        let uses: i64 =
            connection.query_row("SELECT count(*) FROM uses", [], |row| row.get(0)).unwrap();
        assert_eq!(uses, 9, "each entry has a use, that eviction goes by");
    }
    assert_no_panics();
}

/// Definitions of all that a file has.
fn schema(connection: &Connection) -> Vec<(String, Option<String>)> {
    let mut statement = connection
        .prepare(
            // What SQLite kept for a table that is no more stays for ever.
            "SELECT type || ' ' || name, sql FROM sqlite_schema
             WHERE name <> 'sqlite_sequence' ORDER BY type, name",
        )
        .unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn a_file_brought_to_the_present_format_is_as_one_made_in_it() {
    let (_dir, new) = crate::support::file();
    crate::support::make(&new, 0..1).await;
    for format in 1..PRESENT {
        let (_dir, path) = copy(format);
        let tier = at(&path, NOW);
        tier.remove(&Key::new("none")).await.unwrap();
        tier.close().await.unwrap();
        assert_eq!(schema(&plain(&path)), schema(&plain(&new)), "{format}");
    }
}

#[tokio::test]
async fn a_backup_is_made_before_a_file_is_brought_to_a_newer_format() {
    let (_dir, path) = copy(1);
    let before = fs::read(&path).unwrap();
    let tier = at(&path, NOW);
    has_all(&tier, "").await;
    tier.close().await.unwrap();
    let backup = beside(&path, ".format-1.backup");
    let connection = plain(&backup);
    assert_eq!(pragma(&connection, "user_version"), 1);
    let original = plain(&fixture(1));
    assert_eq!(schema(&connection), schema(&original));
    let rows = |connection: &Connection| -> Vec<(i64, String, Vec<u8>, i64)> {
        let mut statement =
            connection.prepare("SELECT id, key, value, checksum FROM entries ORDER BY id").unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    assert_eq!(rows(&connection), rows(&original));
    drop((connection, original));
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&backup).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "as private as the file");
    let beside_it: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".part"))
        .collect();
    assert_eq!(beside_it, Vec::<String>::new());

    // It can take the place of the file.
    fs::rename(&backup, &path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), before.len() as u64);
    let tier = at(&path, NOW);
    has_all(&tier, "from the backup").await;
    tier.close().await.unwrap();
}

#[tokio::test]
#[ignore = "another test runs it without root's rights"]
async fn child_cannot_make_a_backup() {
    let Some(path) = given_file() else { return };
    let before = fs::read(&path).unwrap();
    let dir = path.parent().unwrap();
    set_mode(dir, 0o555);
    let tier = at(&path, NOW);
    for _ in 0..2 {
        let error = put_one(&tier).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{:?}", told(&error));
        // Read as it is: the formats differ in what is beside the entries.
        assert!(tier.get(&census(4)).await.unwrap().is_some());
        assert!(tier.latest_stamp().await.unwrap() > Stamp::ZERO);
        assert_eq!(tier.usage().await.unwrap().total().entries, 11);
    }
    assert_eq!(fs::read(&path).unwrap(), before, "it is untouched");
    set_mode(dir, 0o700);
    has_all(&tier, "with the right to make a backup").await;
    crate::support::until("it is written", async || tier.remove(&Key::new("none")).await.is_ok())
        .await;
    tier.close().await.unwrap();
    assert_eq!(pragma(&plain(&path), "user_version"), PRESENT);
}

#[tokio::test]
async fn without_a_backup_a_file_stays_of_its_format() {
    for format in 1..PRESENT {
        let place = Place::new();
        fs::copy(fixture(format), place.file()).unwrap();
        set_mode(&place.file(), 0o600);
        place.run_without_rights("formats::child_cannot_make_a_backup");
    }
}

#[tokio::test]
async fn a_step_that_fails_changes_nothing() {
    let (_dir, path) = copy(1);
    // The step makes triggers and a table before it comes to this one.
    plain(&path).execute_batch("CREATE TABLE about (theirs TEXT)").unwrap();
    let (before, objects) = (fs::read(&path).unwrap(), schema(&plain(&path)));
    let tier = at(&path, NOW);
    let error = put_one(&tier).await.unwrap_err();
    assert!(cause(&error).contains("table about already exists"), "{:?}", told(&error));
    tier.close().await.unwrap();
    let connection = plain(&path);
    assert_eq!(pragma(&connection, "user_version"), 1);
    assert_eq!(schema(&connection), objects, "nothing of the step is left");
    connection.execute_batch("DROP TABLE about").unwrap();
    drop(connection);
    assert!(!before.is_empty());
    assert_eq!(asides(&path), Vec::<PathBuf>::new());

    let tier = at(&path, NOW);
    has_all(&tier, "once nothing is in the way").await;
    tier.close().await.unwrap();
}

#[tokio::test]
async fn tiers_that_meet_an_old_file_at_once_bring_it_to_the_present_format_once() {
    for _ in 0..5 {
        let (_dir, path) = copy(1);
        let tiers: Vec<_> = (0..4).map(|_| at(&path, NOW)).collect();
        std::thread::scope(|scope| {
            for tier in &tiers {
                scope.spawn(move || {
                    let mut runtime = tokio::runtime::Builder::new_current_thread();
                    runtime.enable_all().build().unwrap().block_on(has_all(tier, "one of four"));
                });
            }
        });
        for tier in tiers {
            tier.remove(&Key::new("none")).await.unwrap();
            tier.close().await.unwrap();
        }
        assert_eq!(pragma(&plain(&path), "user_version"), PRESENT);
        assert_eq!(pragma(&plain(&beside(&path, ".format-1.backup")), "user_version"), 1);
        assert_eq!(logged(tracing::Level::ERROR, path.to_str().unwrap()), Vec::<String>::new());
    }
    assert_no_panics();
}

/// Writes the fixture of the present format; see above. Not once it was released.
#[tokio::test]
#[ignore = "it writes into the sources"]
async fn writes_the_fixture() {
    let (_dir, path) = crate::support::file();
    let clock = Arc::new(ManualClock::at(NOW));
    let stamps = StampClock::new(Arc::<ManualClock>::clone(&clock));
    let tier = SqliteTier::new(SqliteOptions::new(&path).clock(clock)).unwrap();
    for n in 0..12 {
        let after = |seconds: i64| match n {
            6 => Timestamp::from_millis(NOW + 1_000 * seconds),
            _ => Timestamp::NEVER,
        };
        let entry = Entry::builder(value(n), stamps.issue())
            .expires_at(after(1))
            .stale_until(after(2))
            .content_type(Some("application/json"))
            .absent(n == 5)
            .version(n.is_multiple_of(3).then_some("v1"))
            .etag(n.is_multiple_of(4).then_some("\"e\""))
            .tags(
                ["market:boulder-co".to_owned(), format!("n:{n}")]
                    .map(|tag| Tag::new(tag).unwrap()),
            )
            .build();
        assert!(tier.put(&census(n), &entry).await.unwrap().is_stored());
    }
    for barrier in [
        Barrier::expire(Selector::Key(census(7)), stamps.issue()),
        Barrier::forget(Selector::Key(census(8)), stamps.issue()),
        Barrier::forget(Selector::source("bls"), stamps.issue()),
    ] {
        tier.bar(&barrier).await.unwrap();
    }
    tier.close().await.unwrap();
    fs::copy(&path, fixture(PRESENT)).unwrap();
    set_mode(&fixture(PRESENT), 0o644);
}
