//! When entries were last used, for eviction: noted in memory at each read, written later, so that a
//! read never writes.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use cache_core::Timestamp;
use rusqlite::Connection;

/// So many entries are remembered at most; who has more in use loses some of their order.
const MOST: usize = 1 << 16;
/// So many are worth a write.
const WORTH: usize = 1 << 12;

/// Uses that are not in the file yet: an entry's row, and when it was used last, in Unix seconds.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    noted: Mutex<HashMap<i64, i64>>,
    count: AtomicUsize,
}

impl Uses {
    /// Notes that rows are used now.
    pub(crate) fn note(&self, rows: impl Iterator<Item = i64>, now: Timestamp) {
        let now = seconds(now);
        let mut noted = self.lock();
        for row in rows {
            if noted.len() < MOST || noted.contains_key(&row) {
                noted.insert(row, now);
            }
        }
        self.count.store(noted.len(), Ordering::Relaxed);
    }

    /// Whether there are so many that they should be written now.
    pub(crate) fn are_many(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= WORTH
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// Writes them; if that fails, they are lost.
    pub(crate) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let noted = {
            let mut noted = self.lock();
            self.count.store(0, Ordering::Relaxed);
            std::mem::take(&mut *noted)
        };
        // In the order of the pages they are on.
        let mut noted: Vec<(i64, i64)> = noted.into_iter().collect();
        noted.sort_unstable();
        let mut update = connection
            .prepare_cached("UPDATE uses SET used_at = ?2 WHERE entry = ?1 AND used_at < ?2")?;
        noted.into_iter().try_for_each(|use_| update.execute(use_).map(drop))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, i64>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes the use of a row that has just been made.
pub(crate) fn begin(connection: &Connection, row: i64, now: Timestamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO uses VALUES (?1, ?2)")?
        .execute((row, seconds(now)))
        .map(drop)
}

const fn seconds(now: Timestamp) -> i64 {
    now.as_millis().div_euclid(1_000)
}
