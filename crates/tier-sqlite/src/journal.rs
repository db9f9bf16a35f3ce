//! The journal: what other processes have changed in the file.

use cache_core::{Barrier, Change, Changes, Key, Stamp};
use rusqlite::{Connection, Row};

use crate::barriers;

/// The kind of a row that names stored keys; smaller ones are barriers'.
pub(crate) const STORED: u8 = 16;
/// That of a row for more keys than are named.
pub(crate) const MANY: u8 = 17;
/// That of a row which says that dictionaries were stored.
pub(crate) const DICTIONARIES: u8 = 18;
/// Most bytes of keys that a transaction names: a follower that reads of more starts anew.
pub(crate) const NAMES: usize = 32 << 10;
/// So many rows are kept, at most twice that many: of the last second under constant writes, of the
/// last days otherwise. Together with [`NAMES`] that bounds the table.
const KEEP: i64 = 512;
/// Most rows that are told one by one.
const TELL: i64 = 512;

/// Appends a row: kind, name, tag, effect and stamp.
pub(crate) fn append(
    connection: &Connection,
    node: i64,
    (kind, name, tag, effect, stamp): (u8, &str, &str, u8, Stamp),
) -> rusqlite::Result<()> {
    let stamp = stamp.packed().cast_signed();
    connection
        .prepare_cached(
            "INSERT INTO journal (node, kind, name, tag, effect, stamp)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute((node, kind, name, tag, effect, stamp))?;
    let seq = connection.last_insert_rowid();
    if seq % KEEP == 0 {
        connection.execute("DELETE FROM journal WHERE seq <= ?1", [seq - KEEP])?;
    }
    Ok(())
}

/// The place of the last row.
pub(crate) fn end(connection: &Connection) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(seq), 0) FROM journal")?
        .query_row([], |row| row.get(0))
}

/// What others than `node` have changed after the row at `after`, and the place of the last row.
pub(crate) fn since(
    connection: &Connection,
    node: i64,
    after: i64,
) -> rusqlite::Result<(Changes, i64)> {
    let snapshot = connection.unchecked_transaction()?;
    let end = end(&snapshot)?;
    if end == after {
        return Ok((Changes::Known(Vec::new()), end));
    }
    let first: Option<i64> =
        snapshot.prepare_cached("SELECT min(seq) FROM journal")?.query_row([], |row| row.get(0))?;
    // Rows are missing, or the numbers began anew.
    if end < after || first.is_none_or(|first| first > after + 1) {
        return Ok((Changes::Unknown, end));
    }
    let mut statement = snapshot.prepare_cached(
        "SELECT kind, name, tag, effect, stamp FROM journal WHERE seq > ?1 AND node IS NOT ?2
         ORDER BY seq LIMIT ?3",
    )?;
    let mut rows = statement.query((after, node, TELL + 1))?;
    let mut changes = Vec::new();
    let mut told = 0;
    while let Some(row) = rows.next()? {
        told += 1;
        // One that cannot be read is damaged, or written by a version that knows more.
        if told > TELL || read(row, &mut changes).ok().flatten().is_none() {
            return Ok((Changes::Unknown, end));
        }
    }
    Ok((Changes::Known(changes), end))
}

/// Whether a row after the one at `after` says that dictionaries were stored.
pub(crate) fn tells_of_dictionaries(connection: &Connection, after: i64) -> rusqlite::Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM journal WHERE seq > ?1 AND kind = ?2")?
        .exists((after, DICTIONARIES))
}

/// Adds what a row says; `None` if that is not to be known.
fn read(row: &Row<'_>, changes: &mut Vec<Change>) -> rusqlite::Result<Option<()>> {
    let (kind, name, tag) = (row.get(0)?, row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
    let stamp = Stamp::from_packed(row.get::<_, i64>(4)?.max(0).cast_unsigned());
    if kind == STORED {
        let stored = |key| Change::Stored { key: Key::new(key), as_of: stamp };
        changes.extend(name.lines().map(stored));
        return Ok(Some(()));
    }
    if kind == DICTIONARIES {
        return Ok(Some(()));
    }
    let Some(selector) = barriers::selector(kind, name, tag) else { return Ok(None) };
    changes.push(Change::Barrier(match row.get::<_, u8>(3)? {
        1 => Barrier::expire(selector, stamp),
        _ => Barrier::forget(selector, stamp),
    }));
    Ok(Some(()))
}

/// Forgets all but the last few rows, to make room.
pub(crate) fn shorten(connection: &Connection) -> rusqlite::Result<()> {
    let last = end(connection)? - KEEP / 8;
    connection.prepare_cached("DELETE FROM journal WHERE seq <= ?1")?.execute([last]).map(drop)
}
