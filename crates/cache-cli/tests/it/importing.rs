//! `larder import`: what a Python cache holds is copied, and its file is not touched.

use std::{fs, path::PathBuf};

use rusqlite::Connection;

use crate::harness::{Place, contents};

/// With a Python cache `old.db`.
fn place() -> Place {
    let place = Place::new();
    let fixture =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../python-cache/tests/fixtures/legacy.db");
    fs::copy(fixture, place.path("old.db")).unwrap();
    place.write("larder.yaml", "cache:\n  sqlite: {path: cache.db}\n");
    place
}

#[test]
fn a_summary_says_what_was_imported_and_what_was_not() {
    let place = place();
    let before = contents(&place.path("old.db"));
    let run = place.larder(&["import", "old.db"]).expect(0);
    let said = run.stdout();
    for expected in [
        "imported                             16",
        "  of these kept as pickles            2",
        "expired                               1",
        "unreadable                            6",
        "`row 22`: not imported: its key is NULL",
        "and 3 more like these",
        "Imported 16 of 23 rows of old.db into cache.db (502 B)",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(place.stored(), 16);
    assert_eq!(contents(&place.path("old.db")), before);

    let again = place.larder(&["import", "old.db", "-F", "json"]).expect(0).json();
    assert_eq!((&again["imported"], &again["superseded"]), (&0.into(), &16.into()));
}

#[test]
fn json_has_the_figures_and_the_reasons() {
    let place = place();
    let json = place.larder(&["import", "old.db", "--format", "json"]).expect(0).json();
    assert_eq!(json["schema"], "larder.import/1");
    assert_eq!((&json["file"], &json["store"]), (&"old.db".into(), &"cache.db".into()));
    assert_eq!(json["dry_run"], false);
    for (field, expected) in [
        ("rows", 23),
        ("imported", 16),
        ("kept_as_pickle", 2),
        ("superseded", 0),
        ("barred", 0),
        ("expired", 1),
        ("unreadable", 6),
        ("too_large", 0),
        ("bytes", 502),
    ] {
        assert_eq!(json[field], expected, "{field}");
    }
    let examples = json["examples"].as_array().unwrap();
    let hostile = examples.iter().find(|one| one["key"] == "hostile:os.system").unwrap();
    assert!(hostile["reason"].as_str().unwrap().contains("posix.system"), "{hostile}");
}

#[test]
fn a_dry_run_only_reports() {
    let place = place();
    let run = place.larder(&["import", "old.db", "--dry-run"]).expect(0);
    assert!(run.stdout().contains("to be imported"), "{}", run.stdout());
    assert!(run.stdout().contains("Would import 16 of 23 rows"), "{}", run.stdout());
    assert!(!place.path("cache.db").exists());
    place.larder(&["import", "old.db"]).expect(0);
    let json = place.larder(&["import", "old.db", "--dry-run", "-F", "json"]).expect(0).json();
    assert_eq!((&json["imported"], &json["superseded"]), (&0.into(), &16.into()));
    assert_eq!(json["dry_run"], true);
}

#[test]
fn what_is_no_python_cache_is_refused() {
    let place = place();
    place.write("garbage.db", &"garbage ".repeat(2_000));
    Connection::open(place.path("other.db")).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    place.larder(&["import", "old.db"]).expect(0);
    for (file, expected) in [
        ("missing.db", "missing.db does not exist"),
        ("garbage.db", "garbage.db is not a SQLite database"),
        ("other.db", "other.db was not made by the Python cache manager"),
        (".", "is not a regular file"),
        ("cache.db", "cache.db is the configured cache itself"),
    ] {
        let run = place.larder(&["import", file]).expect(2);
        assert!(run.stderr().contains(expected), "{file}: {}", run.stderr());
        assert_eq!(run.stdout(), "", "{file}");
        let json = place.larder(&["import", file, "-F", "json"]).expect(2);
        assert!(json.stderr().contains("larder.error/1"), "{}", json.stderr());
    }
    assert!(!place.path("missing.db").exists());
    place.write("larder.yaml", "cache: {sqlite: {enable: false}}");
    let run = place.larder(&["import", "old.db"]).expect(1);
    assert!(run.stderr().contains("cache.sqlite.enable"), "{}", run.stderr());
}

#[test]
fn the_configured_file_is_imported_by_itself() {
    let place = place();
    place.write("larder.yaml", "cache: {sqlite: {path: old.db}}");
    let before = contents(&place.path("old.db"));
    let run = place.larder(&["import", "./old.db"]).expect(2);
    assert!(run.stderr().contains("imported automatically, into old.larder.db"), "{}", run.said());
    assert!(!place.path("old.larder.db").exists());
    let run = place.larder(&["stats"]).expect(0);
    assert!(run.stdout().contains("old.larder.db does not exist"), "{}", run.stdout());
    assert_eq!(contents(&place.path("old.db")), before);
}

#[test]
fn text_of_the_file_does_not_reach_the_terminal_as_it_is() {
    let place = place();
    let file = Connection::open(place.path("old.db")).unwrap();
    file.execute(
        "INSERT INTO cache VALUES (?1, x'80', '2025-01-01', '\u{1b}[31mred')",
        ["a:\u{1b}]0;title\u{7}"],
    )
    .unwrap();
    drop(file);
    let run = place.larder(&["import", "old.db"]).expect(0);
    assert!(!run.said().contains(['\u{1b}', '\u{7}']), "{:?}", run.said());
}
