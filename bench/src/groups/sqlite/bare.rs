//! SQLite by itself.

use std::{hint::black_box, path::Path};

use bytes::Bytes;
use larder::Key;
use rusqlite::{Connection, OptionalExtension};

use crate::Result;

/// SQLite as a program would use it by itself: a table with an index on a hash of the key.
pub(crate) struct Bare(Connection);

impl Bare {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             PRAGMA cache_size = -65536; PRAGMA mmap_size = 0;
             CREATE TABLE entries (
                 id INTEGER PRIMARY KEY, hash INTEGER NOT NULL UNIQUE, key TEXT NOT NULL,
                 as_of INTEGER NOT NULL, expires_at INTEGER NOT NULL, value BLOB NOT NULL
             );",
        )?;
        Ok(Self(connection))
    }

    pub(crate) fn fill(&self, keys: &[Key], value: impl Fn(usize) -> Bytes) {
        for (batch, keys) in keys.chunks(1_000).enumerate() {
            self.in_transaction(|| {
                for (n, key) in keys.iter().enumerate() {
                    self.put(key.as_str(), &value(batch * 1_000 + n));
                }
            });
        }
    }

    pub(crate) fn in_transaction(&self, work: impl FnOnce()) {
        let _begun = self.0.execute_batch("BEGIN IMMEDIATE");
        work();
        let _ended = self.0.execute_batch("COMMIT");
    }

    pub(crate) fn put(&self, key: &str, value: &Bytes) {
        let statement = self.0.prepare_cached(
            "INSERT INTO entries (hash, key, as_of, expires_at, value) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (hash) DO UPDATE SET as_of = excluded.as_of, value = excluded.value",
        );
        if let Ok(mut statement) = statement {
            let parameters = (hash(key), key, 1, i64::MAX, &value[..]);
            let _stored = black_box(statement.execute(parameters));
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Vec<u8>> {
        let statement = self.0.prepare_cached(
            "SELECT as_of, expires_at, value FROM entries WHERE hash = ?1 AND key = ?2",
        );
        let row = |row: &rusqlite::Row<'_>| {
            black_box((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
            row.get::<_, Vec<u8>>(2)
        };
        statement.ok()?.query_row((hash(key), key), row).optional().ok()?
    }
}

/// Any good hash will do.
fn hash(key: &str) -> i64 {
    use std::hash::BuildHasher;
    foldhash::quality::FixedState::default().hash_one(key).cast_signed()
}
