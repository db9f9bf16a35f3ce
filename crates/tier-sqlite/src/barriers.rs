//! Barriers as rows.

use std::time::Duration;

use cache_core::{Barrier, Effect, Entry, Key, Selector, Stamp, Tag, Timestamp, Verdict};
use rusqlite::{Connection, ToSql};

use crate::{
    batch::Batch,
    marks,
    rows::{EXPIRED, key_hash},
};

/// Barriers are kept at least this long: longer than any load may take.
const KEEP: Duration = Duration::from_hours(24);

/// A selector in the columns of its row.
#[derive(Clone, Copy)]
struct Columns<'a> {
    kind: u8,
    name: &'a str,
    tag: &'a str,
}

impl<'a> Columns<'a> {
    const ALL: Self = Self { kind: 0, name: "", tag: "" };

    const fn key(key: &'a str) -> Self {
        Self { kind: 1, name: key, tag: "" }
    }

    const fn prefix(prefix: &'a str) -> Self {
        Self { kind: 2, name: prefix, tag: "" }
    }

    const fn tag(tag: &'a str) -> Self {
        Self { kind: 3, name: "", tag }
    }

    const fn prefix_tag(prefix: &'a str, tag: &'a str) -> Self {
        Self { kind: 4, name: prefix, tag }
    }

    const fn other_version(source: &'a str, version: &'a str) -> Self {
        Self { kind: 5, name: source, tag: version }
    }

    fn of(selector: &'a Selector) -> Self {
        match selector {
            Selector::Key(key) => Self::key(key.as_str()),
            Selector::Prefix(prefix) => Self::prefix(prefix),
            Selector::Tag(tag) => Self::tag(tag.as_str()),
            Selector::PrefixTag(prefix, tag) => Self::prefix_tag(prefix, tag.as_str()),
            Selector::OtherVersion(source, version) => Self::other_version(source, version),
            // `All`; a selector this code does not know must not be taken for less than it is.
            _ => Self::ALL,
        }
    }
}

/// What the columns of a row select; `None` if this code does not know its kind.
pub(crate) fn selector(kind: u8, name: &str, tag: &str) -> Option<Selector> {
    Some(match kind {
        0 => Selector::All,
        1 => Selector::Key(Key::new(name)),
        2 => Selector::Prefix(name.into()),
        3 => Selector::Tag(Tag::new(tag).ok()?),
        4 => Selector::PrefixTag(name.into(), Tag::new(tag).ok()?),
        5 => Selector::OtherVersion(name.into(), tag.into()),
        _ => return None,
    })
}

/// The columns of a selector's row: kind, name and tag.
pub(crate) fn columns(selector: &Selector) -> (u8, &str, &str) {
    let Columns { kind, name, tag } = Columns::of(selector);
    (kind, name, tag)
}

const fn code(effect: Effect) -> u8 {
    match effect {
        Effect::Forget => 0,
        Effect::Expire => 1,
    }
}

/// What the stored barriers say about the entry.
pub(crate) fn judge(batch: &mut Batch<'_>, key: &Key, entry: &Entry) -> rusqlite::Result<Verdict> {
    let mut verdict = Verdict::Passes;
    // Most entries were loaded after the last barrier of all.
    if !batch.may_be_barred(entry.as_of())? {
        return Ok(verdict);
    }
    let (connection, now) = (batch.connection, batch.now);
    let as_of = entry.as_of().packed().cast_signed();
    let believable = Stamp::latest_believable(now).packed().cast_signed();
    let mut exact = connection.prepare_cached(
        "SELECT min(effect) FROM barriers
         WHERE kind = ?1 AND name = ?2 AND tag = ?3 AND stamp BETWEEN ?4 AND ?5",
    )?;
    let mut note = |effect: Option<u8>| {
        verdict = match effect {
            Some(0) => Verdict::Barred,
            Some(_) if verdict == Verdict::Passes => Verdict::Expired,
            _ => verdict,
        };
    };
    let mut look = |by: Columns<'_>| -> rusqlite::Result<()> {
        let covers = (by.kind, by.name, by.tag, as_of, believable);
        note(exact.query_row(covers, |row| row.get(0))?);
        Ok(())
    };
    look(Columns::ALL)?;
    look(Columns::key(key.as_str()))?;
    for prefix in key.prefixes() {
        look(Columns::prefix(prefix))?;
    }
    for tag in entry.tags() {
        let tag = tag.as_str();
        look(Columns::tag(tag))?;
        for prefix in key.prefixes() {
            look(Columns::prefix_tag(prefix, tag))?;
        }
    }
    let mut others = connection.prepare_cached(
        "SELECT min(effect) FROM barriers
         WHERE kind = 5 AND name = ?1 AND tag IS NOT ?2 AND stamp BETWEEN ?3 AND ?4",
    )?;
    let covers = (key.source(), entry.version(), as_of, believable);
    note(others.query_row(covers, |row| row.get(0))?);
    Ok(verdict)
}

/// Writes the row of a barrier that was there before.
pub(crate) fn keep(connection: &Connection, barrier: &Barrier) -> rusqlite::Result<()> {
    let (kind, name, tag) = columns(&barrier.selector);
    connection
        .prepare_cached(
            "INSERT INTO barriers (kind, name, tag, effect, stamp) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute((kind, name, tag, code(barrier.effect), barrier.stamp.packed().cast_signed()))
        .map(drop)
}

/// Remembers the barrier and removes or expires what it covers; how many entries it changed.
pub(crate) fn set(batch: &mut Batch<'_>, barrier: &Barrier) -> rusqlite::Result<usize> {
    let (connection, now) = (batch.connection, batch.now);
    let stamp = barrier.stamp.packed().cast_signed();
    let believable = Stamp::latest_believable(now).packed().cast_signed();
    let by = Columns::of(&barrier.selector);
    batch.note_barrier((by.kind, by.name, by.tag, code(barrier.effect), barrier.stamp))?;
    connection
        .prepare_cached(
            "INSERT INTO barriers (kind, name, tag, effect, stamp) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET stamp = excluded.stamp
             WHERE excluded.stamp > stamp OR stamp > ?6",
        )?
        .execute((by.kind, by.name, by.tag, code(barrier.effect), stamp, believable))?;
    // By the time now, not by the stamp: a barrier from ahead must not sweep the others away.
    let keep = i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX);
    let horizon = Timestamp::from_millis(now.as_millis().saturating_sub(keep));
    // Nor one that is to judge what is imported next.
    marks::give_up_if_many(batch, Stamp::at(horizon))?;
    let horizon = Stamp::at(horizon).min(marks::judges_from(connection, now)?);
    connection
        .prepare_cached("DELETE FROM barriers WHERE kind <> ?1 AND stamp < ?2")?
        .execute((marks::KIND, horizon.packed().cast_signed()))?;

    // Whoever is loading what it covers brings what is out of date: others need not wait for that.
    match by.kind {
        1 => connection.prepare_cached("DELETE FROM leases WHERE key = ?1")?.execute([by.name])?,
        _ => connection.prepare_cached("DELETE FROM leases")?.execute([])?,
    };

    let change = match barrier.effect {
        // Rows from beyond belief go too: they are not served, and would be once they are believed.
        Effect::Forget => {
            "DELETE FROM entries WHERE (as_of <= ?1 OR as_of > ?2 OR as_of < 0)".to_owned()
        }
        // The complement: values need not be read to keep the checksums true.
        Effect::Expire => format!(
            "UPDATE entries SET flags = flags | {EXPIRED}, checksum = ~checksum
             WHERE as_of <= ?1 AND as_of <= ?2 AND flags & {EXPIRED} = 0"
        ),
    };
    let tagged = "id IN (SELECT entry FROM entry_tags WHERE tag = ?3)";
    // `;` comes after `:`: what is between is below the prefix.
    let below = |n: u8| {
        format!("source = ?{n} AND (key = ?{0} OR key >= ?{0} || ':' AND key < ?{0} || ';')", n + 1)
    };
    let source = by.name.split(':').next().unwrap_or_default();
    let hash = key_hash(by.name);
    let (condition, selected): (String, Vec<&dyn ToSql>) = match by.kind {
        1 => ("key_hash = ?3 AND key = ?4".to_owned(), vec![&hash, &by.name]),
        2 => (below(3), vec![&source, &by.name]),
        3 => (tagged.to_owned(), vec![&by.tag]),
        4 => (format!("{tagged} AND {}", below(4)), vec![&by.tag, &source, &by.name]),
        5 => ("source = ?3 AND version IS NOT ?4".to_owned(), vec![&by.name, &by.tag]),
        _ => ("true".to_owned(), Vec::new()),
    };
    let stamps: [&dyn ToSql; 2] = [&stamp, &believable];
    let parameters: Vec<&dyn ToSql> = stamps.into_iter().chain(selected).collect();
    connection.prepare_cached(&format!("{change} AND {condition}"))?.execute(&*parameters)
}
