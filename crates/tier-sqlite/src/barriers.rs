//! Barriers as rows.

use std::time::Duration;

use cache_core::{Barrier, Entry, Key, Selector, Stamp, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use crate::{rows::key_hash, stamps};

/// Barriers are kept at least this long: longer than any load may take.
const KEEP: Duration = Duration::from_hours(24);

/// A selector in the columns of its row.
#[derive(Clone, Copy)]
struct Columns<'a> {
    kind: u8,
    key: &'a str,
    source: &'a str,
    tag: &'a str,
}

impl<'a> Columns<'a> {
    const ALL: Self = Self { kind: 0, key: "", source: "", tag: "" };

    const fn key(key: &'a str) -> Self {
        Self { kind: 1, key, ..Self::ALL }
    }

    const fn source(source: &'a str) -> Self {
        Self { kind: 2, source, ..Self::ALL }
    }

    const fn tag(tag: &'a str) -> Self {
        Self { kind: 3, tag, ..Self::ALL }
    }

    const fn source_tag(source: &'a str, tag: &'a str) -> Self {
        Self { kind: 4, key: "", source, tag }
    }

    fn of(selector: &'a Selector) -> Self {
        match selector {
            Selector::Key(key) => Self::key(key.as_str()),
            Selector::Source(source) => Self::source(source),
            Selector::Tag(tag) => Self::tag(tag.as_str()),
            Selector::SourceTag(source, tag) => Self::source_tag(source, tag.as_str()),
            // `All`; a selector this code does not know must not be taken for less than it is.
            _ => Self::ALL,
        }
    }
}

/// Whether a stored barrier covers the entry.
pub(crate) fn cover(
    connection: &Connection,
    key: &Key,
    entry: &Entry,
    now: Timestamp,
) -> rusqlite::Result<bool> {
    let mut any = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM barriers)")?;
    if !any.query_row([], |row| row.get::<_, bool>(0))? {
        return Ok(false);
    }
    let mut find = connection.prepare_cached(
        "SELECT stamp FROM barriers WHERE kind = ?1 AND key = ?2 AND source = ?3 AND tag = ?4",
    )?;
    let mut covered = |by: Columns<'_>| -> rusqlite::Result<bool> {
        let found = find.query_row((by.kind, by.key, by.source, by.tag), |row| row.get(0));
        let stamp = found.optional()?.map(i64::cast_unsigned).map(Stamp::from_packed);
        Ok(stamp.is_some_and(|stamp| entry.as_of() <= stamp && stamp.is_believable(now)))
    };
    let source = key.source();
    for by in [Columns::ALL, Columns::key(key.as_str()), Columns::source(source)] {
        if covered(by)? {
            return Ok(true);
        }
    }
    for tag in entry.tags() {
        let tag = tag.as_str();
        if covered(Columns::tag(tag))? || covered(Columns::source_tag(source, tag))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Remembers the barrier and removes what it covers; how many entries went.
pub(crate) fn set(
    connection: &Connection,
    barrier: &Barrier,
    now: Timestamp,
) -> rusqlite::Result<usize> {
    let stamp = barrier.stamp.packed().cast_signed();
    let believable = Stamp::latest_believable(now).packed().cast_signed();
    let by = Columns::of(&barrier.selector);
    stamps::note(connection, barrier.stamp, now)?;
    connection
        .prepare_cached(
            "INSERT INTO barriers (kind, key, source, tag, stamp) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET stamp = excluded.stamp
             WHERE excluded.stamp > stamp OR stamp > ?6",
        )?
        .execute((by.kind, by.key, by.source, by.tag, stamp, believable))?;
    // By the time now, not by the stamp: a barrier from ahead must not sweep the others away.
    let keep = i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX);
    let horizon = Timestamp::from_millis(now.as_millis().saturating_sub(keep));
    connection.prepare_cached("DELETE FROM barriers WHERE stamp < ?1")?.execute([Stamp::at(
        horizon,
    )
    .packed()
    .cast_signed()])?;

    // Rows from beyond belief go too: they are not served, and would be once they are believed.
    let delete = "DELETE FROM entries WHERE (as_of <= ?1 OR as_of > ?2 OR as_of < 0)";
    let tagged = "id IN (SELECT entry FROM entry_tags WHERE tag = ?3)";
    match by.kind {
        1 => connection
            .prepare_cached(&format!("{delete} AND key_hash = ?3 AND key = ?4"))?
            .execute((stamp, believable, key_hash(by.key), by.key)),
        2 => connection
            .prepare_cached(&format!("{delete} AND source = ?3"))?
            .execute((stamp, believable, by.source)),
        3 => connection
            .prepare_cached(&format!("{delete} AND {tagged}"))?
            .execute((stamp, believable, by.tag)),
        4 => connection
            .prepare_cached(&format!("{delete} AND {tagged} AND source = ?4"))?
            .execute((stamp, believable, by.tag, by.source)),
        _ => connection.prepare_cached(delete)?.execute((stamp, believable)),
    }
}
