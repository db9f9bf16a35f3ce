//! The latest stamp in the file.

use cache_core::Stamp;
use rusqlite::Connection;

/// Notes that this stamp is in the file; part of the transaction that puts it there.
pub(crate) fn note(connection: &Connection, stamp: Stamp) -> rusqlite::Result<()> {
    let stamp = stamp.packed().cast_signed();
    connection
        .prepare_cached("UPDATE latest_stamp SET stamp = ?1 WHERE stamp < ?1")?
        .execute([stamp])
        .map(drop)
}

/// A stamp that none in the file exceeds.
pub(crate) fn latest(connection: &Connection) -> rusqlite::Result<Stamp> {
    let stamp: i64 = connection
        .prepare_cached("SELECT stamp FROM latest_stamp")?
        .query_row([], |row| row.get(0))?;
    Ok(Stamp::from_packed(stamp.max(0).cast_unsigned()))
}
