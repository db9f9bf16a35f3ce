//! How far the import of a Python cache has come.
//!
//! Rows among the barriers, of a kind that selects nothing: the instant at which the first import
//! began, that at which the last complete one did, and, if one has since come to an end because the
//! file was full, that at which it began and the key it did not get past. Barriers since the last
//! complete one are kept for as long as there is something to import that they may cover.

use std::time::Duration;

use cache_core::{Stamp, Timestamp};
use rusqlite::Connection;

use crate::batch::Batch;

/// The kind of the rows.
pub(crate) const KIND: u8 = 32;
const BEGUN: u8 = 0;
const DONE: u8 = 1;
const STOPPED: u8 = 2;

/// A row may be this much older, by what it says itself, than the instant at which it was written:
/// it may have waited for a commit, or be in local time without an offset.
const LATE: Duration = Duration::from_hours(24);

/// Barriers that are kept, beyond their time, for the rest of an import that a full file has stopped.
const MOST_KEPT: i64 = 10_000;

/// What is known of earlier imports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// When the first began.
    begun: Option<Stamp>,
    /// When the last complete one began.
    done: Option<Stamp>,
    /// Where one has stopped since.
    stopped: Option<Stop>,
}

/// Where an import has stopped because the file was full.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stop {
    /// The first key for which there was no room, of keys in the order of their bytes.
    key: String,
    /// When that import began.
    began: Stamp,
}

impl Marks {
    pub(crate) fn read(connection: &Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let mut statement = connection
            .prepare_cached("SELECT effect, stamp, name FROM barriers WHERE kind = ?1")?;
        let mut rows = statement.query([KIND])?;
        let mut marks = Self::default();
        while let Some(row) = rows.next()? {
            let stamp = Stamp::from_packed(row.get::<_, i64>(1)?.max(0).cast_unsigned());
            // Later than now is what a clock noted that was set wrong.
            let stamp = stamp.min(Stamp::at(now));
            match row.get::<_, u8>(0)? {
                BEGUN => marks.begun = Some(stamp),
                STOPPED => marks.stopped = Some(Stop { key: row.get(2)?, began: stamp }),
                _ => marks.done = Some(stamp),
            }
        }
        Ok(marks)
    }

    /// What counts as the load of a row that does not say when it was: no later than anything that
    /// may have been loaded or invalidated here since the row was last looked at.
    pub(crate) fn undated(&self, now: Timestamp) -> Stamp {
        match (self.done, self.begun) {
            (Some(done), _) => Stamp::from_packed(done.packed().saturating_add(1)),
            (None, Some(begun)) => begun,
            (None, None) => Stamp::at(now),
        }
    }

    /// Whether no import has come to an end.
    pub(crate) fn is_first(&self) -> bool {
        self.done.is_none() && self.stopped.is_none()
    }

    /// Whether an earlier import has seen a row of this key and stamp.
    pub(crate) fn has_seen(&self, key: &str, as_of: Stamp) -> bool {
        self.done.is_some_and(|done| as_of <= before(done))
            || self
                .stopped
                .as_ref()
                .is_some_and(|stop| key < stop.key.as_str() && as_of <= before(stop.began))
    }
}

/// Notes that an import begins now, if it is the first; what is known of earlier ones.
pub(crate) fn begin(batch: &Batch<'_>, now: Timestamp) -> rusqlite::Result<Marks> {
    let begun = Stamp::at(now).packed().cast_signed();
    batch
        .connection
        .prepare_cached(
            "INSERT INTO barriers (kind, name, tag, effect, stamp) VALUES (?1, '', '', ?2, ?3)
             ON CONFLICT DO NOTHING",
        )?
        .execute((KIND, BEGUN, begun))?;
    Marks::read(batch.connection, batch.now)
}

/// Notes that the import which began then is complete.
pub(crate) fn complete(batch: &Batch<'_>, began: Timestamp) -> rusqlite::Result<()> {
    let began = Stamp::at(began).packed().cast_signed();
    batch
        .connection
        .prepare_cached(
            "INSERT INTO barriers (kind, name, tag, effect, stamp) VALUES (?1, '', '', ?2, ?3)
             ON CONFLICT DO UPDATE SET stamp = excluded.stamp
             WHERE excluded.stamp > stamp OR stamp > ?4",
        )?
        .execute((KIND, DONE, began, Stamp::at(batch.now).packed().cast_signed()))?;
    forget_stop(batch.connection)
}

/// Notes that there was no room for this key and those after it in the import which began then. One
/// that came farther is remembered instead: what it has seen is not to come back.
pub(crate) fn stop(batch: &Batch<'_>, key: &str, began: Timestamp) -> rusqlite::Result<()> {
    let earlier = Marks::read(batch.connection, batch.now)?.stopped;
    if earlier.is_some_and(|stop| stop.key.as_str() > key) {
        return Ok(());
    }
    forget_stop(batch.connection)?;
    write(batch.connection, STOPPED, key, Stamp::at(began))
}

fn forget_stop(connection: &Connection) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM barriers WHERE kind = ?1 AND effect = ?2")?
        .execute((KIND, STOPPED))
        .map(drop)
}

/// Takes what an import that has stopped did not get to for imported, if too many barriers of before
/// `horizon` would have to be kept for it.
pub(crate) fn give_up_if_many(batch: &Batch<'_>, horizon: Stamp) -> rusqlite::Result<()> {
    if Marks::read(batch.connection, batch.now)?.stopped.is_none() {
        return Ok(());
    }
    let kept: i64 = batch
        .connection
        .prepare_cached(
            "SELECT count(*) FROM (
                 SELECT 1 FROM barriers WHERE stamp < ?1 AND kind <> ?2 LIMIT ?3)",
        )?
        .query_row((horizon.packed().cast_signed(), KIND, MOST_KEPT + 1), |row| row.get(0))?;
    if kept <= MOST_KEPT {
        return Ok(());
    }
    tracing::warn!(
        path = %batch.options.path.display(),
        "more than {MOST_KEPT} invalidations were kept for what did not fit when the Python cache was \
         imported; of that only what is written from now on will be: for the rest set \
         `cache.sqlite.path` to another file"
    );
    complete(batch, batch.now)
}

/// Barriers from here on may cover what is imported next.
pub(crate) fn judges_from(connection: &Connection, now: Timestamp) -> rusqlite::Result<Stamp> {
    Ok(match Marks::read(connection, now)? {
        Marks { done: Some(done), .. } => before(done),
        Marks { begun: Some(_), .. } => Stamp::ZERO,
        Marks { .. } => Stamp::from_packed(u64::MAX),
    })
}

fn before(done: Stamp) -> Stamp {
    let late = i64::try_from(LATE.as_millis()).unwrap_or(i64::MAX);
    Stamp::at(Timestamp::from_millis(done.instant().as_millis().saturating_sub(late)))
}

/// The marks of a file as its check finds them.
#[derive(Default)]
pub(crate) struct Rows {
    begun: Option<Stamp>,
    done: Option<Stamp>,
    stopped: Option<Stop>,
    malformed: u64,
}

impl Rows {
    pub(crate) fn add(&mut self, effect: u8, name: &str, stamp: Stamp) {
        match (effect, name) {
            (BEGUN, "") => self.begun = Some(stamp),
            (DONE, "") => self.done = Some(stamp),
            (STOPPED, key) if !key.is_empty() && self.stopped.is_none() => {
                self.stopped = Some(Stop { key: key.to_owned(), began: stamp });
            }
            _ => self.add_malformed(),
        }
    }

    pub(crate) fn add_malformed(&mut self) {
        self.malformed += 1;
    }

    /// Why they cannot be right, if so.
    pub(crate) fn complaint(&self) -> Option<String> {
        // All are noted by who imports, the end after the beginning.
        let stopped = self.stopped.as_ref().map(|stop| stop.began);
        let in_order = [self.done, stopped]
            .into_iter()
            .flatten()
            .all(|end| self.begun.is_some_and(|begun| begun <= end));
        (self.malformed > 0 || !in_order).then(|| {
            "what is noted of imports of a Python cache cannot be right; repairing counts what it has \
             held so far as imported"
                .to_owned()
        })
    }

    /// Writes those that are sound.
    pub(crate) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        [(BEGUN, self.begun), (DONE, self.done)].into_iter().try_for_each(|(effect, stamp)| {
            stamp.map_or(Ok(()), |at| write(connection, effect, "", at))
        })?;
        self.stopped
            .as_ref()
            .map_or(Ok(()), |stop| write(connection, STOPPED, &stop.key, stop.began))
    }

    /// Notes that an import was complete just now: otherwise what was invalidated long ago, by barriers
    /// that have gone since, would be imported once more.
    pub(crate) fn renew(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
        connection.execute("DELETE FROM barriers WHERE kind = ?1", [KIND])?;
        [BEGUN, DONE]
            .into_iter()
            .try_for_each(|effect| write(connection, effect, "", Stamp::at(now)))
    }
}

fn write(connection: &Connection, effect: u8, name: &str, stamp: Stamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO barriers (kind, name, tag, effect, stamp) VALUES (?1, ?2, '', ?3, ?4)",
        )?
        .execute((KIND, name, effect, stamp.packed().cast_signed()))
        .map(drop)
}
