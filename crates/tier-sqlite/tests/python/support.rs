//! A directory with a Python cache, and a tier over it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use cache_core::{Clock as _, Key, Stamp, Tier, Timestamp};
use rusqlite::Connection;
use tempfile::TempDir;
use tier_sqlite::{SqliteOptions, SqliteTier};
use tier_testkit::ManualClock;

const SCHEMA: &str = "CREATE TABLE cache (key TEXT PRIMARY KEY, value BLOB, created_at TEXT,
    expires_at TEXT); CREATE INDEX idx_cache_expires ON cache(expires_at);";
/// 2026-01-01, in milliseconds.
pub(crate) const NOW: i64 = 1_767_225_600_000;
pub(crate) const DAY: Duration = Duration::from_hours(24);

/// A directory with a Python cache, and the time.
pub(crate) struct Place {
    pub(crate) dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
}

impl Place {
    /// With the file of the fixtures.
    pub(crate) fn fixture() -> Self {
        let place = Self::bare();
        let fixture = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../python-cache/tests/fixtures/legacy.db");
        fs::copy(fixture, place.path()).unwrap();
        place
    }

    /// With an empty file.
    pub(crate) fn empty() -> Self {
        let place = Self::bare();
        Connection::open(place.path()).unwrap().execute_batch(SCHEMA).unwrap();
        place
    }

    fn bare() -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        Self { dir: tempfile::tempdir().unwrap(), clock }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("aker_platform.db")
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("aker_platform.larder.db")
    }

    pub(crate) fn options(&self) -> SqliteOptions {
        SqliteOptions::new(self.path()).clock(Arc::<ManualClock>::clone(&self.clock))
    }

    /// Opens the tier, a second later than before, and waits until everything is imported.
    pub(crate) async fn open(&self) -> SqliteTier {
        self.open_with(self.options()).await
    }

    pub(crate) async fn open_with(&self, options: SqliteOptions) -> SqliteTier {
        self.clock.advance(Duration::from_secs(1));
        let tier = SqliteTier::new(options).unwrap();
        tier.get(&Key::new("no:such")).await.unwrap();
        let now = Stamp::at(self.clock.now()).packed();
        let deadline = Instant::now() + Duration::from_secs(30);
        while ended(&self.store()) != Some(now) {
            assert!(Instant::now() < deadline, "the import does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        tier
    }

    /// Stores as the Python program does, at the present time.
    pub(crate) fn python_sets(&self, key: &str, value: i32) {
        let file = Connection::open(self.path()).unwrap();
        let pickle = [b"I".as_slice(), value.to_string().as_bytes(), b"\n."].concat();
        let created = iso(&file, self.clock.now());
        file.execute(
            "INSERT OR REPLACE INTO cache VALUES (?1, ?2, ?3, '2099-01-01T00:00:00')",
            (key, pickle, created),
        )
        .unwrap();
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        let files = fs::read_dir(self.dir.path()).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn iso(file: &Connection, time: Timestamp) -> String {
    let sql = "SELECT strftime('%Y-%m-%dT%H:%M:%f', ?1 / 1000.0, 'unixepoch')";
    file.query_row(sql, [time.as_millis()], |row| row.get(0)).unwrap()
}

/// When the last import of the store began that has come to an end, complete or for want of room.
pub(crate) fn ended(store: &Path) -> Option<u64> {
    let store = Connection::open(store).ok()?;
    let ends = "SELECT max(stamp) FROM barriers WHERE kind = 32 AND effect IN (1, 2)";
    store.query_row(ends, [], |row| row.get::<_, Option<u64>>(0)).ok()?
}

/// What the store itself holds.
pub(crate) fn rows(store: &Path) -> Vec<String> {
    let store = Connection::open(store).unwrap();
    let mut keys = store.prepare("SELECT key FROM entries ORDER BY key").unwrap();
    keys.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

pub(crate) async fn value(tier: &SqliteTier, key: &str) -> Option<String> {
    let found = tier.get(&Key::new(key)).await.unwrap();
    found.map(|entry| String::from_utf8_lossy(entry.value()).into_owned())
}
