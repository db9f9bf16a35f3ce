//! The latest stamp in the file.

use cache_core::{Stamp, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use crate::marks;

const NOTED: &str =
    "SELECT latest_stamp FROM totals WHERE source = '' AND codec = 0 AND dictionary = 0";
/// The same in a file of an earlier format, that cannot be written.
const NOTED_BEFORE_FORMAT_3: &str = "SELECT stamp FROM latest_stamp";

/// Notes that this stamp is in the file; part of the transaction that puts it there.
pub(crate) fn note(connection: &Connection, stamp: Stamp, now: Timestamp) -> rusqlite::Result<()> {
    let noted = noted(connection)?;
    let latest = if noted.is_believable(now) { noted } else { believable(connection, now)? };
    let stamp = stamp.max(latest);
    if stamp == noted {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO totals VALUES ('', 0, 0, 0, 0, 0, ?1)
             ON CONFLICT (source, codec, dictionary)
             DO UPDATE SET latest_stamp = excluded.latest_stamp",
        )?
        .execute([stamp.packed().cast_signed()])
        .map(drop)
}

/// A stamp that none in the file exceeds, of those that are believable.
pub(crate) fn latest(connection: &Connection, now: Timestamp) -> rusqlite::Result<Stamp> {
    let noted = noted(connection)?;
    if noted.is_believable(now) { Ok(noted) } else { believable(connection, now) }
}

/// The same if it need not be looked for.
pub(crate) fn noted_if_sound(
    connection: &Connection,
    now: Timestamp,
) -> rusqlite::Result<Option<Stamp>> {
    Ok(Some(noted(connection)?).filter(|noted| noted.is_believable(now)))
}

fn noted(connection: &Connection) -> rusqlite::Result<Stamp> {
    let mut statement = connection.prepare_cached(NOTED).or_else(|error| {
        connection.prepare_cached(NOTED_BEFORE_FORMAT_3).map_err(|_older| error)
    })?;
    let stamp: Option<i64> = statement.query_row([], |row| row.get(0)).optional()?;
    Ok(Stamp::from_packed(stamp.unwrap_or(0).max(0).cast_unsigned()))
}

/// What is to be noted after a clock that was set wrong was here. A scan, but the next write of a
/// sound process notes what it finds.
pub(crate) fn believable(connection: &Connection, now: Timestamp) -> rusqlite::Result<Stamp> {
    let believable = Stamp::latest_believable(now).packed().cast_signed();
    let stamp: i64 = connection
        .prepare_cached(
            "SELECT max(
                 (SELECT coalesce(max(as_of), 0) FROM entries WHERE as_of <= ?1),
                 (SELECT coalesce(max(stamp), 0) FROM barriers WHERE stamp <= ?1 AND kind <> ?2))",
        )?
        .query_row((believable, marks::KIND), |row| row.get(0))?;
    Ok(Stamp::from_packed(stamp.max(0).cast_unsigned()))
}
