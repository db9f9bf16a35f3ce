//! How far the import of a Python cache has come.
//!
//! Two rows among the barriers, of a kind that selects nothing: the instant at which the first
//! import began, and that at which the last complete one did. Barriers since then are kept for as
//! long as there is something to import that they may cover.

use std::time::Duration;

use cache_core::{Stamp, Timestamp};
use rusqlite::Connection;

use crate::batch::Batch;

/// The kind of the rows.
pub(crate) const KIND: u8 = 32;
const BEGUN: u8 = 0;
const DONE: u8 = 1;

/// A row may be this much older, by what it says itself, than the instant at which it was written:
/// it may have waited for a commit, or be in local time without an offset.
const LATE: Duration = Duration::from_hours(24);

/// What is known of earlier imports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// When the first began.
    begun: Option<Stamp>,
    /// When the last complete one began.
    done: Option<Stamp>,
}

impl Marks {
    pub(crate) fn read(connection: &Connection, now: Timestamp) -> rusqlite::Result<Self> {
        let mut statement =
            connection.prepare_cached("SELECT effect, stamp FROM barriers WHERE kind = ?1")?;
        let mut rows = statement.query([KIND])?;
        let mut marks = Self::default();
        while let Some(row) = rows.next()? {
            let stamp = Stamp::from_packed(row.get::<_, i64>(1)?.max(0).cast_unsigned());
            // Later than now is what a clock noted that was set wrong.
            let stamp = stamp.min(Stamp::at(now));
            match row.get::<_, u8>(0)? {
                BEGUN => marks.begun = Some(stamp),
                _ => marks.done = Some(stamp),
            }
        }
        Ok(marks)
    }

    /// What counts as the load of a row that does not say when it was: no later than anything that
    /// may have been loaded or invalidated here since the row was last looked at.
    pub(crate) fn undated(self, now: Timestamp) -> Stamp {
        match (self.done, self.begun) {
            (Some(done), _) => Stamp::from_packed(done.packed().saturating_add(1)),
            (None, Some(begun)) => begun,
            (None, None) => Stamp::at(now),
        }
    }

    /// Whether no import has been complete.
    pub(crate) fn is_first(self) -> bool {
        self.done.is_none()
    }

    /// Whether an earlier import has seen a row of this stamp.
    pub(crate) fn has_seen(self, as_of: Stamp) -> bool {
        self.done.is_some_and(|done| as_of <= before(done))
    }
}

/// Notes that an import begins, if it is the first; what is known of earlier ones.
pub(crate) fn begin(batch: &Batch<'_>) -> rusqlite::Result<Marks> {
    let begun = Stamp::at(batch.now).packed().cast_signed();
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
        .execute((KIND, DONE, began, Stamp::at(batch.now).packed().cast_signed()))
        .map(drop)
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
    malformed: u64,
}

impl Rows {
    pub(crate) fn add(&mut self, effect: u8, name: &str, stamp: Stamp) {
        match (effect, name) {
            (BEGUN, "") => self.begun = Some(stamp),
            (DONE, "") => self.done = Some(stamp),
            _ => self.add_malformed(),
        }
    }

    pub(crate) fn add_malformed(&mut self) {
        self.malformed += 1;
    }

    /// Why they cannot be right, if so.
    pub(crate) fn complaint(&self) -> Option<String> {
        // Both are noted by who imports, the end after the beginning.
        let in_order = self.done.is_none_or(|done| self.begun.is_some_and(|begun| begun <= done));
        (self.malformed > 0 || !in_order).then(|| {
            "what is noted of imports of a Python cache cannot be right; repairing counts what it has \
             held so far as imported"
                .to_owned()
        })
    }

    /// Writes those that are sound.
    pub(crate) fn write(&self, connection: &Connection) -> rusqlite::Result<()> {
        [(BEGUN, self.begun), (DONE, self.done)].into_iter().try_for_each(|(effect, stamp)| {
            stamp.map_or(Ok(()), |at| write(connection, effect, at))
        })
    }

    /// Notes that an import was complete just now: otherwise what was invalidated long ago, by barriers
    /// that have gone since, would be imported once more.
    pub(crate) fn renew(connection: &Connection, now: Timestamp) -> rusqlite::Result<()> {
        connection.execute("DELETE FROM barriers WHERE kind = ?1", [KIND])?;
        [BEGUN, DONE].into_iter().try_for_each(|effect| write(connection, effect, Stamp::at(now)))
    }
}

fn write(connection: &Connection, effect: u8, stamp: Stamp) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO barriers (kind, name, tag, effect, stamp) VALUES (?1, '', '', ?2, ?3)",
        )?
        .execute((KIND, effect, stamp.packed().cast_signed()))
        .map(drop)
}
