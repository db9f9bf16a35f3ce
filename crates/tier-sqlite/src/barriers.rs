//! Barriers as rows.

use cache_core::{Barrier, Entry, Key, Selector};
use rusqlite::{Connection, OptionalExtension};

use crate::{rows::key_hash, stamps};

/// Barriers are kept this long, in milliseconds: longer than any load may take.
const KEEP_MILLIS: u64 = 24 * 60 * 60 * 1_000;

/// Whether a stored barrier covers the entry.
pub(crate) fn cover(connection: &Connection, key: &Key, entry: &Entry) -> rusqlite::Result<bool> {
    let mut any = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM barriers)")?;
    if !any.query_row([], |row| row.get::<_, bool>(0))? {
        return Ok(false);
    }
    let mut find = connection
        .prepare_cached("SELECT stamp FROM barriers WHERE key = ?1 AND source = ?2 AND tag = ?3")?;
    let mut covered = |key: &str, source: &str, tag: &str| -> rusqlite::Result<bool> {
        let stamp: Option<i64> = find.query_row((key, source, tag), |row| row.get(0)).optional()?;
        Ok(stamp.is_some_and(|stamp| entry.as_of().packed().cast_signed() <= stamp))
    };
    let source = key.source();
    if covered("", "", "")? || covered(key.as_str(), "", "")? || covered("", source, "")? {
        return Ok(true);
    }
    for tag in entry.tags() {
        if covered("", "", tag.as_str())? || covered("", source, tag.as_str())? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Remembers the barrier and removes what it covers; how many entries went.
pub(crate) fn set(connection: &Connection, barrier: &Barrier) -> rusqlite::Result<usize> {
    let stamp = barrier.stamp.packed().cast_signed();
    let (key, source, tag) = match &barrier.selector {
        Selector::Key(key) => (key.as_str(), "", ""),
        Selector::Source(source) => ("", &**source, ""),
        Selector::Tag(tag) => ("", "", tag.as_str()),
        Selector::SourceTag(source, tag) => ("", &**source, tag.as_str()),
        // A selector this code does not know must not be taken for less than it is.
        _ => ("", "", ""),
    };
    stamps::note(connection, barrier.stamp)?;
    connection
        .prepare_cached(
            "INSERT INTO barriers (key, source, tag, stamp) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET stamp = excluded.stamp WHERE excluded.stamp > stamp",
        )?
        .execute((key, source, tag, stamp))?;
    let horizon = barrier.stamp.packed().saturating_sub(KEEP_MILLIS << 16).cast_signed();
    connection.prepare_cached("DELETE FROM barriers WHERE stamp < ?1")?.execute([horizon])?;

    let tagged = "id IN (SELECT entry FROM entry_tags WHERE tag = ?2)";
    match (key, source, tag) {
        ("", "", "") => {
            connection.prepare_cached("DELETE FROM entries WHERE as_of <= ?1")?.execute([stamp])
        }
        (_, "", "") => connection
            .prepare_cached("DELETE FROM entries WHERE as_of <= ?1 AND key_hash = ?2 AND key = ?3")?
            .execute((stamp, key_hash(key), key)),
        (_, _, "") => connection
            .prepare_cached("DELETE FROM entries WHERE as_of <= ?1 AND source = ?2")?
            .execute((stamp, source)),
        (_, "", _) => connection
            .prepare_cached(&format!("DELETE FROM entries WHERE as_of <= ?1 AND {tagged}"))?
            .execute((stamp, tag)),
        (..) => connection
            .prepare_cached(&format!(
                "DELETE FROM entries WHERE as_of <= ?1 AND {tagged} AND source = ?3"
            ))?
            .execute((stamp, tag, source)),
    }
}
