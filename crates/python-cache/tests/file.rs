//! A file as the Python manager makes it is read, never written; others are refused.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, path::PathBuf, time::Duration};

use python_cache::{Decoded, Error, Limits, PythonCache, Row, UnreadableKey, decode};
use rusqlite::Connection;
use tempfile::TempDir;

const MADE: i64 = 1_641_092_645_123;
const SCHEMA: &str = "CREATE TABLE cache (key TEXT PRIMARY KEY, value BLOB, created_at TEXT,
    expires_at TEXT); CREATE INDEX idx_cache_expires ON cache(expires_at);";

fn legacy() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/legacy.db")
}

fn file(sql: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.db");
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    (directory, path)
}

fn row(cache: &PythonCache, key: &str) -> Row {
    let rows = cache.rows(None, 100).unwrap();
    rows.into_iter().find(|row| row.key == key).unwrap()
}

fn json(cache: &PythonCache, key: &str) -> Result<String, String> {
    let value = cache.value(&row(cache, key)).unwrap().unwrap();
    match decode(&value, &Limits::default()) {
        Decoded::Json(json) => Ok(String::from_utf8(json).unwrap()),
        Decoded::Opaque { reason } => Err(reason),
    }
}

#[test]
fn keys_of_a_table_made_in_an_unusual_way_may_be_in_another_order_than_their_bytes() {
    assert!(PythonCache::open(&legacy()).unwrap().is_in_byte_order().unwrap());
    let nocase = SCHEMA.replace("TEXT PRIMARY KEY", "TEXT COLLATE NOCASE PRIMARY KEY");
    let wide = format!("PRAGMA encoding = 'UTF-16'; {SCHEMA}");
    for (sql, in_order) in [(SCHEMA, true), (&nocase, false), (&wide, false)] {
        let (_directory, path) = file(sql);
        let cache = PythonCache::open(&path).unwrap();
        assert_eq!(cache.is_in_byte_order().unwrap(), in_order, "{sql}");
    }
}

#[test]
fn rows_come_in_pages_in_the_order_of_their_keys() {
    let cache = PythonCache::open(&legacy()).unwrap();
    assert_eq!(cache.len().unwrap(), 23);
    let all: Vec<_> = cache.rows(None, 100).unwrap();
    let keys: Vec<_> = all.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "",
            "blank",
            "bls:series:LAUMT08145",
            "bls:series:p5",
            "census:acs:2020",
            "date-only",
            "expired",
            "hostile:os.system",
            "naive",
            "never",
            "never-empty",
            "no-created",
            "null-value",
            "odd-created",
            "odd-expires",
            "offset",
            "protocol-0",
            "text-value",
            "truncated",
            "unicode:Zürich 😀",
            "zulu",
        ]
    );
    let mut paged = Vec::new();
    loop {
        let after = paged.last().map(|row: &Row| row.key.clone());
        let page = cache.rows(after.as_deref(), 4).unwrap();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 4);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(cache.rows(Some("zulu"), 4).unwrap(), []);
    assert_eq!(cache.rows(None, 0).unwrap(), []);
}

#[test]
fn times_are_unix_milliseconds() {
    let cache = PythonCache::open(&legacy()).unwrap();
    let times = |key| {
        let row = row(&cache, key);
        (row.created_at, row.expires_at)
    };
    let later = Ok(Some(4_071_006_245_123));
    assert_eq!(times("census:acs:2020"), (Ok(MADE), later.clone()));
    assert_eq!(times("expired"), (Ok(MADE), Ok(Some(1_641_179_045_123))));
    assert_eq!(times("never"), (Ok(MADE), Ok(None)));
    assert_eq!(times("never-empty"), (Ok(MADE), Ok(None)));
    assert_eq!(times("naive"), (Ok(1_641_092_645_000), Ok(Some(4_071_006_245_500))));
    assert_eq!(times("blank"), (Ok(1_641_092_645_000), Ok(Some(4_071_006_245_000))));
    assert_eq!(times("offset"), (Ok(1_641_072_845_000), Ok(Some(4_071_031_445_000))));
    assert_eq!(times("zulu"), (Ok(1_641_092_645_000), Ok(Some(4_071_006_245_000))));
    assert_eq!(times("date-only"), (Ok(1_641_081_600_000), Ok(Some(4_070_995_200_000))));
    let unreadable = Err("`yesterday` is not an ISO 8601 time".to_owned());
    assert_eq!(times("odd-created"), (unreadable, later.clone()));
    assert_eq!(times("no-created"), (Err("it is empty".to_owned()), later));
    let unreadable = Err("`soon` is not an ISO 8601 time".to_owned());
    assert_eq!(times("odd-expires"), (Ok(MADE), unreadable));
}

#[test]
fn values_become_json_or_stay_pickles() {
    let cache = PythonCache::open(&legacy()).unwrap();
    let frame = r#"{"columns":["metro","rate","year"],"index":[0,1],"data":[["Boulder",3.5,2022],["Denver",null,2022]]}"#;
    assert_eq!(json(&cache, "bls:series:LAUMT08145"), Ok(frame.into()));
    assert_eq!(json(&cache, "bls:series:p5"), Ok(frame.into()));
    let answer = format!(r#"{{"df":{frame},"vars":["B01001_001E"]}}"#);
    assert_eq!(json(&cache, "census:acs:2020"), Ok(answer));
    assert_eq!(json(&cache, "protocol-0"), Ok(r#"{"a":1}"#.into()));
    assert_eq!(json(&cache, ""), Ok("\"empty key\"".into()));
    let hostile = Err("class `posix.system` is not one that is read".into());
    assert_eq!(json(&cache, "hostile:os.system"), hostile);
    assert_eq!(json(&cache, "truncated"), Err("the pickle is cut short".into()));
}

#[test]
fn what_a_row_lacks_is_said() {
    let cache = PythonCache::open(&legacy()).unwrap();
    for (key, reason) in [
        ("null-value", "its value is NULL"),
        ("text-value", "its value is of type text, not a blob"),
    ] {
        let row = row(&cache, key);
        assert_eq!(row.value_len, Err(reason.into()));
        assert_eq!(cache.value(&row).unwrap(), None);
    }
    assert_eq!(row(&cache, "naive").value_len, Ok(5));
    let reasons: Vec<_> = cache.unreadable_keys(10).unwrap();
    let reasons: Vec<_> = reasons.iter().map(|key| (key.rowid, key.reason.as_str())).collect();
    assert_eq!(reasons, [(21, "its key is of type blob, not text"), (22, "its key is NULL")]);
    assert_eq!(cache.unreadable_keys(1).unwrap().len(), 1);
}

#[test]
fn odd_rows_are_left_out_one_by_one() {
    let (_directory, path) = file(&format!(
        "{SCHEMA} INSERT INTO cache VALUES
             ('a', x'4e2e', '2022-01-02', NULL),
             (CAST(x'62ff' AS TEXT), x'4e2e', '2022-01-02', NULL),
             (printf('%.*c', 70000, 'k'), x'4e2e', '2022-01-02', NULL),
             ('n', x'4e2e', x'00', printf('%.*c', 70000, 't')),
             ('z', 5, 5, CAST(x'ff' AS TEXT))"
    ));
    let cache = PythonCache::open(&path).unwrap();
    let rows = cache.rows(None, 2).unwrap();
    assert_eq!(rows.iter().map(|row| &*row.key).collect::<Vec<_>>(), ["a", "n"]);
    assert_eq!(rows[1].created_at, Err("it is of type Blob, not text".into()));
    let long = "a text of 70000 bytes is not an ISO 8601 time";
    assert_eq!(rows[1].expires_at, Err(long.into()));
    assert_eq!(cache.value(&rows[1]).unwrap(), Some(b"N.".to_vec()));
    let [z] = &cache.rows(Some("n"), 2).unwrap()[..] else { panic!() };
    // Affinity has made the time a text.
    assert_eq!(z.created_at, Err("`5` is not an ISO 8601 time".into()));
    assert_eq!(z.expires_at, Err("`\u{fffd}` is not an ISO 8601 time".into()));
    assert_eq!(z.value_len, Err("its value is of type integer, not a blob".into()));
    let unreadable = |rowid, reason: &str| UnreadableKey { rowid, reason: reason.into() };
    assert_eq!(
        cache.unreadable_keys(9).unwrap(),
        [
            unreadable(2, "its key is not UTF-8"),
            unreadable(3, "its key has 70000 bytes, more than 65536"),
        ]
    );
}

#[test]
fn a_row_that_changes_or_goes_has_no_value() {
    let (_directory, path) = file(&format!(
        "{SCHEMA} INSERT INTO cache VALUES ('a', x'4e2e', '2022-01-02', NULL),
             ('b', x'4e2e', '2022-01-02', NULL), ('c', x'4e2e', NULL, NULL)"
    ));
    let cache = PythonCache::open(&path).unwrap();
    let rows = cache.rows(None, 9).unwrap();
    for row in &rows {
        assert_eq!(cache.value(row).unwrap(), Some(b"N.".to_vec()));
    }
    let writer = Connection::open(&path).unwrap();
    writer
        .execute_batch(
            "UPDATE cache SET created_at = '2022-01-03' WHERE key = 'a';
             DELETE FROM cache WHERE key = 'b';
             UPDATE cache SET value = x'4e4e' || x'2e' WHERE key = 'c'",
        )
        .unwrap();
    for row in &rows {
        assert_eq!(cache.value(row).unwrap(), None, "{}", row.key);
    }
}

#[test]
fn nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cache.db");
    fs::copy(legacy(), &path).unwrap();
    let before = fs::read(&path).unwrap();
    let cache = PythonCache::open(&path).unwrap();
    for row in cache.rows(None, 100).unwrap() {
        cache.value(&row).unwrap();
    }
    cache.unreadable_keys(100).unwrap();
    drop(cache);
    assert!(fs::read(&path).unwrap() == before);
    let beside = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(beside, 1);
}

#[test]
fn other_files_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none.db");
    let error = PythonCache::open(&missing).unwrap_err();
    assert!(matches!(&error, Error::Missing { path } if *path == missing));
    assert_eq!(error.to_string(), format!("{} does not exist; check the path", missing.display()));
    assert!(!missing.exists());
    assert!(matches!(PythonCache::open(directory.path()).unwrap_err(), Error::NotAFile { .. }));
    let text = directory.path().join("text");
    fs::write(&text, "text ".repeat(1_000)).unwrap();
    assert!(matches!(PythonCache::open(&text).unwrap_err(), Error::NotADatabase { .. }));
    assert!(matches!(
        PythonCache::open(&directory.path().join(":memory:")).unwrap_err(),
        Error::Missing { .. }
    ));
    fs::write(&text, "").unwrap();
    let Error::Foreign { tables, .. } = PythonCache::open(&text).unwrap_err() else { panic!() };
    assert_eq!(tables, "no table");
}

#[test]
fn only_the_managers_tables_are_recognised() {
    let recognised = |sql: &str| {
        let (_directory, path) = file(sql);
        let found = PythonCache::recognises(&Connection::open(&path).unwrap()).unwrap();
        assert_eq!(PythonCache::open(&path).is_ok(), found, "{sql}");
        found
    };
    assert!(recognised(SCHEMA));
    assert!(recognised(
        &SCHEMA.replace("CREATE INDEX", "CREATE INDEX other ON cache(key); CREATE INDEX")
    ));
    assert!(recognised(&format!("{SCHEMA} ANALYZE;")));
    for wrong in [
        SCHEMA.replace("BLOB", "TEXT"),
        SCHEMA.replace("PRIMARY KEY", ""),
        SCHEMA.replace("value BLOB,", "value BLOB, hits INT,"),
        SCHEMA.replace("value BLOB,", "extra AS (key), value BLOB,"),
        SCHEMA.replace("expires_at TEXT)", "expires_at TEXT) WITHOUT ROWID"),
        SCHEMA.replace("created_at", "made_at"),
        SCHEMA.replace("cache", "other"),
        format!("{SCHEMA} CREATE TABLE other (x);"),
        format!("{SCHEMA} CREATE VIEW other AS SELECT 1;"),
        format!("{SCHEMA} CREATE TRIGGER t AFTER DELETE ON cache BEGIN SELECT 1; END;"),
        "CREATE VIEW cache AS SELECT '' AS key, x'' AS value, '' AS created_at, '' AS expires_at"
            .into(),
        "CREATE TABLE entries (x)".into(),
        String::new(),
    ] {
        assert!(!recognised(&wrong), "{wrong}");
    }
    let (_directory, path) = file("CREATE TABLE \"en\u{1b}tries\" (x)");
    let error = PythonCache::open(&path).unwrap_err();
    assert!(error.to_string().contains("it holds table `en\\u{1b}tries`"), "{error}");
}

#[test]
fn a_row_is_found_by_its_key_as_it_is_in_the_pages() {
    let cache = PythonCache::open(&legacy()).unwrap();
    for row in cache.rows(None, 100).unwrap() {
        assert_eq!(cache.row(&row.key).unwrap(), Some(row));
    }
    assert_eq!(cache.row("no such key").unwrap(), None);
}

fn names(directory: &TempDir) -> Vec<String> {
    let files = fs::read_dir(directory.path()).unwrap();
    let mut names: Vec<_> =
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const ROW: &str = "INSERT INTO cache VALUES ('a', x'4e2e', '2022-01-02T03:04:05', NULL)";

#[test]
fn nothing_is_made_beside_a_file_in_wal_mode_and_a_change_meanwhile_is_noticed() {
    let (directory, path) = file(&format!("PRAGMA journal_mode = WAL; {SCHEMA} {ROW}"));
    assert_eq!(names(&directory), ["cache.db"]);
    let before = fs::read(&path).unwrap();
    assert!(PythonCache::is_at(&path, Duration::ZERO).unwrap());
    let cache = PythonCache::open(&path).unwrap();
    assert_eq!(json(&cache, "a").unwrap(), "null");
    assert_eq!(names(&directory), ["cache.db"]);
    assert_eq!(fs::read(&path).unwrap(), before);

    let program = Connection::open(&path).unwrap();
    program.execute("UPDATE cache SET value = x'49372e'", []).unwrap();
    assert!(matches!(cache.rows(None, 1), Err(Error::Changed { .. })));
    assert!(matches!(cache.len(), Err(Error::Changed { .. })));
}

#[test]
fn a_file_in_wal_mode_is_read_beside_the_program_that_writes_it() {
    let (directory, path) = file(&format!("PRAGMA journal_mode = WAL; {SCHEMA}"));
    let program = Connection::open(&path).unwrap();
    program.execute(ROW, []).unwrap();
    assert_eq!(names(&directory), ["cache.db", "cache.db-shm", "cache.db-wal"]);
    assert!(PythonCache::is_at(&path, Duration::ZERO).unwrap());
    let cache = PythonCache::open(&path).unwrap();
    assert_eq!(json(&cache, "a").unwrap(), "null", "from its log");
    program.execute("UPDATE cache SET value = x'49370a2e', created_at = '2022-01-03'", []).unwrap();
    assert_eq!(json(&cache, "a").unwrap(), "7");
    drop(cache);
    program.execute("DELETE FROM cache", []).unwrap();
    program.close().unwrap();
    assert_eq!(names(&directory), ["cache.db"]);
}

#[test]
fn what_a_killed_program_left_is_not_touched() {
    let (directory, path) = file(&format!("PRAGMA journal_mode = WAL; {SCHEMA}"));
    let program = Connection::open(&path).unwrap();
    program.execute(ROW, []).unwrap();
    let killed = tempfile::tempdir().unwrap();
    for name in names(&directory) {
        fs::copy(directory.path().join(&name), killed.path().join(&name)).unwrap();
    }
    let read = |name: &str| fs::read(killed.path().join(name)).unwrap();
    let before = ["cache.db", "cache.db-wal"].map(read);
    let path = killed.path().join("cache.db");
    assert!(PythonCache::is_at(&path, Duration::ZERO).unwrap());
    let cache = PythonCache::open(&path).unwrap();
    assert_eq!(json(&cache, "a").unwrap(), "null");
    drop(cache);
    assert_eq!(["cache.db", "cache.db-wal"].map(read), before);
    // Without the index of the log it is known, but not read.
    fs::remove_file(killed.path().join("cache.db-shm")).unwrap();
    assert!(PythonCache::is_at(&path, Duration::ZERO).unwrap());
    assert!(matches!(PythonCache::open(&path), Err(Error::Read { .. })));
    assert_eq!(names(&killed), ["cache.db", "cache.db-wal"]);
}
