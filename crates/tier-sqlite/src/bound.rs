//! Staying within the largest size: what has expired goes first, then what was used least recently.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use rusqlite::Connection;

use crate::{batch::Batch, journal, open::PAGE_BYTES, shared::Shared};

/// Most entries that go in one step.
const STEP: u64 = 512;
/// Most steps in one transaction.
const STEPS: usize = 16;
/// More than any file has.
const MOST_ENTRIES: u64 = 1 << 32;
/// Pages that a small write adds at most (512 KiB).
const SMALL: u64 = 64;
/// What the log and other files may need of a small disk.
const ROOM_FOR_LOG: u64 = 256 << 20;
/// Free pages that are worth giving back (2 MiB), and how many are in one step: it takes some 20 ms.
const SHRINK: u64 = 256;

/// How large the file may become, and what was given up to keep it so.
#[derive(Debug)]
pub(crate) struct Bound {
    max_pages: u64,
    /// The same on the disk as it is: less if that is nearly full.
    limit_pages: AtomicU64,
    /// Pages in use after this process's last commit.
    used_pages: AtomicU64,
    evicted: AtomicU64,
    evicted_bytes: AtomicU64,
    reclaimed_bytes: AtomicU64,
}

/// What was evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evicted {
    pub(crate) entries: u64,
    /// Of the file, that can be used for others.
    pub(crate) bytes: u64,
}

impl Bound {
    pub(crate) fn new(max_bytes: u64) -> Self {
        // Fewer than that many pages hold no entry beside the schema.
        let max_pages = (max_bytes / PAGE_BYTES.unsigned_abs()).max(64);
        Self {
            max_pages,
            limit_pages: AtomicU64::new(max_pages),
            used_pages: AtomicU64::new(u64::MAX),
            evicted: AtomicU64::new(0),
            evicted_bytes: AtomicU64::new(0),
            reclaimed_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn max_bytes(&self) -> u64 {
        self.max_pages * PAGE_BYTES.unsigned_abs()
    }

    /// Pages that may be in use.
    pub(crate) fn limit(&self) -> u64 {
        self.limit_pages.load(Ordering::Relaxed)
    }

    /// Whether a small write will not have to evict anything.
    pub(crate) fn has_room(&self) -> bool {
        self.used_pages.load(Ordering::Relaxed).saturating_add(SMALL) <= self.limit()
    }

    /// Pages that the file may have while a transaction is under way, which evicts at its end.
    pub(crate) fn hard_limit(&self) -> u64 {
        self.limit() + self.limit() / 16 + 256
    }

    /// Looks how much room the disk has: a full one cannot even delete, so the bound must be reached
    /// before.
    pub(crate) fn look_at_disk(&self, path: &Path) {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let Ok(disk) = rustix::fs::statvfs(directory.unwrap_or(Path::new("."))) else { return };
        let own = |suffix| fs::metadata(beside(path, suffix)).map_or(0, |found| found.len());
        let room = disk.f_bavail.saturating_mul(disk.f_frsize) + own("") + own("-wal");
        let pages = (room - ROOM_FOR_LOG.min(room / 2)) / PAGE_BYTES.unsigned_abs();
        self.limit_pages.store(self.max_pages.min(pages.max(1)), Ordering::Relaxed);
    }

    pub(crate) fn note(&self, evicted: Evicted) {
        self.evicted.fetch_add(evicted.entries, Ordering::Relaxed);
        self.evicted_bytes.fetch_add(evicted.bytes, Ordering::Relaxed);
    }

    /// What was evicted, and how many bytes of the file were given back, since the tier was made.
    pub(crate) fn counts(&self) -> (Evicted, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let evicted = Evicted { entries: load(&self.evicted), bytes: load(&self.evicted_bytes) };
        (evicted, load(&self.reclaimed_bytes))
    }
}

/// The name of a file beside the tier's.
pub(crate) fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Evicts what the transaction has put too much. What that costs depends on how much that is, not on
/// how many entries there are.
pub(crate) fn keep(batch: &mut Batch<'_>, shared: &Shared) -> rusqlite::Result<()> {
    let limit = shared.bound.limit();
    let mut used = used_pages(batch.connection)?;
    if used > limit {
        // A little more than needed: not every write should have to.
        used = make_room(batch, limit - limit / 128)?;
    }
    shared.bound.used_pages.store(used, Ordering::Relaxed);
    Ok(())
}

/// Evicts until so many pages are in use at most; how many are then.
pub(crate) fn make_room(batch: &mut Batch<'_>, target: u64) -> rusqlite::Result<u64> {
    let connection = batch.connection;
    // What was read lately is to stay.
    batch.uses.write(connection)?;
    let before = used_pages(connection)?;
    let mut used = before;
    if used > target {
        journal::shorten(connection)?;
        used = used_pages(connection)?;
    }
    // Not all at once, where the bound was lowered: other writers would wait too long.
    for _ in 0..STEPS {
        if used <= target {
            break;
        }
        // As many as are on that many pages; at most a few, so no damaged sum makes them too many.
        let entries = entries(connection)?.clamp(1, MOST_ENTRIES);
        let step = ((used - target) * entries / used + 1).min(STEP);
        let gone = evict(connection, batch.now.as_millis(), step)?;
        if gone == 0 {
            break;
        }
        batch.evicted.entries += gone;
        used = used_pages(connection)?;
    }
    batch.evicted.bytes += before.saturating_sub(used) * PAGE_BYTES.unsigned_abs();
    Ok(used)
}

/// Removes up to `most` entries; how many.
fn evict(connection: &Connection, now: i64, most: u64) -> rusqlite::Result<u64> {
    let expired = connection
        .prepare_cached(
            "DELETE FROM entries WHERE id IN (
                 SELECT id FROM entries WHERE stale_until <= ?1 ORDER BY stale_until LIMIT ?2)",
        )?
        .execute((now, most.cast_signed()))?;
    if expired > 0 {
        return Ok(expired as u64);
    }
    let mut oldest: Vec<i64> = connection
        .prepare_cached("SELECT entry FROM uses ORDER BY used_at, entry LIMIT ?1")?
        .query_map([most.cast_signed()], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if oldest.is_empty() {
        // Of these no use was noted.
        oldest = connection
            .prepare_cached("SELECT id FROM entries ORDER BY id LIMIT ?1")?
            .query_map([most.cast_signed()], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
    }
    let mut delete = connection.prepare_cached("DELETE FROM entries WHERE id = ?1")?;
    let mut forget = connection.prepare_cached("DELETE FROM uses WHERE entry = ?1")?;
    for id in &oldest {
        delete.execute([id])?;
        // A trigger has done so, unless there was no such entry.
        forget.execute([id])?;
    }
    Ok(oldest.len() as u64)
}

fn entries(connection: &Connection) -> rusqlite::Result<u64> {
    let entries: i64 = connection
        .prepare_cached("SELECT coalesce(sum(max(0, min(entries, ?1))), 0) FROM totals")?
        .query_row([MOST_ENTRIES.cast_signed()], |row| row.get(0))?;
    Ok(entries.max(0).cast_unsigned())
}

/// Pages of the file that hold something.
pub(crate) fn used_pages(connection: &Connection) -> rusqlite::Result<u64> {
    Ok(pages(connection)?.saturating_sub(free_pages(connection)?))
}

pub(crate) fn pages(connection: &Connection) -> rusqlite::Result<u64> {
    connection.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))
}

pub(crate) fn free_pages(connection: &Connection) -> rusqlite::Result<u64> {
    let mut statement = connection.prepare_cached("PRAGMA freelist_count")?;
    let free: i64 = statement.query_row([], |row| row.get(0))?;
    // Less than none in a damaged header.
    Ok(free.max(0).cast_unsigned())
}

/// Gives a piece of what is free back to the disk; whether there was one that is worth it.
pub(crate) fn shrink(connection: &Connection, shared: &Shared) -> rusqlite::Result<bool> {
    let (free, all) = (free_pages(connection)?, pages(connection)?);
    // What is soon used again stays.
    let spare = if shared.bound.limit() < all + all / 8 { all / 16 } else { 0 };
    if free < spare + SHRINK {
        return Ok(false);
    }
    let mut statement =
        connection.prepare_cached(&format!("PRAGMA incremental_vacuum({SHRINK})"))?;
    let mut steps = statement.query([])?;
    while steps.next()?.is_some() {}
    let given = all.saturating_sub(pages(connection)?) * PAGE_BYTES.unsigned_abs();
    shared.bound.reclaimed_bytes.fetch_add(given, Ordering::Relaxed);
    Ok(given > 0)
}
