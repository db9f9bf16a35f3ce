//! The writes of one transaction, and what is noted of all of them together.

use std::collections::HashMap;

use cache_core::{CodecId, DictionaryId, Form, Key, Stamp, Timestamp};
use rusqlite::{Connection, OptionalExtension};

use crate::{SqliteOptions, bound::Evicted, journal, marks, stamps, uses::Uses};

/// A transaction under way.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) now: Timestamp,
    pub(crate) options: &'a SqliteOptions,
    pub(crate) uses: &'a Uses,
    node: i64,
    added: HashMap<String, Vec<(Group, Sums)>>,
    /// The latest stamp that was written.
    latest: Stamp,
    /// The latest of all barriers, once it was asked for.
    barriers_until: Option<Stamp>,
    /// Keys, one a line.
    stored: String,
    pub(crate) evicted: Evicted,
}

/// Entries of a source that are stored alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) codec: CodecId,
    pub(crate) dictionary: DictionaryId,
}

impl From<Form> for Group {
    fn from(form: Form) -> Self {
        Self { codec: form.codec, dictionary: form.dictionary }
    }
}

/// What was added of them; less than nothing if more went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    pub(crate) entries: i64,
    pub(crate) raw_bytes: i64,
    pub(crate) stored_bytes: i64,
}

impl Sums {
    /// An entry's share of them.
    pub(crate) const fn of_one(raw_bytes: i64, stored_bytes: i64) -> Self {
        Self { entries: 1, raw_bytes, stored_bytes }
    }

    pub(crate) const fn negated(self) -> Self {
        Self {
            entries: self.entries.saturating_neg(),
            raw_bytes: self.raw_bytes.saturating_neg(),
            stored_bytes: self.stored_bytes.saturating_neg(),
        }
    }

    const fn add(&mut self, other: Self) {
        self.entries = self.entries.saturating_add(other.entries);
        self.raw_bytes = self.raw_bytes.saturating_add(other.raw_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(other.stored_bytes);
    }
}

impl<'a> Batch<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        now: Timestamp,
        options: &'a SqliteOptions,
        uses: &'a Uses,
        node: i64,
    ) -> Self {
        Self {
            connection,
            now,
            options,
            uses,
            node,
            added: HashMap::new(),
            latest: Stamp::default(),
            barriers_until: None,
            stored: String::new(),
            evicted: Evicted::default(),
        }
    }

    /// Whether any barrier is at or after this stamp: none before it covers what was loaded then.
    pub(crate) fn may_be_barred(&mut self, as_of: Stamp) -> rusqlite::Result<bool> {
        if let Some(until) = self.barriers_until {
            return Ok(as_of <= until);
        }
        let until: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT stamp FROM barriers WHERE kind <> ?1 ORDER BY stamp DESC LIMIT 1",
            )?
            .query_row([marks::KIND], |row| row.get(0))
            .optional()?;
        let until = Stamp::from_packed(until.unwrap_or(0).max(0).cast_unsigned());
        self.barriers_until = Some(until);
        Ok(as_of <= until)
    }

    /// Notes a stamp that is in the file from now on.
    pub(crate) fn note_stamp(&mut self, stamp: Stamp) {
        self.latest = self.latest.max(stamp);
    }

    /// Notes that a barrier was set, which others are to know of.
    pub(crate) fn note_barrier(
        &mut self,
        row: (u8, &str, &str, u8, Stamp),
    ) -> rusqlite::Result<()> {
        self.note_stamp(row.4);
        if let Some(until) = &mut self.barriers_until {
            *until = (*until).max(row.4);
        }
        self.note_change(row)
    }

    /// Has others know of a change: kind, name, tag, effect and stamp.
    pub(crate) fn note_change(&mut self, row: (u8, &str, &str, u8, Stamp)) -> rusqlite::Result<()> {
        journal::append(self.connection, self.node, row)
    }

    /// Adds to the sums of a source's entries of one codec and dictionary.
    pub(crate) fn add(&mut self, source: &str, group: Group, added: Sums) {
        let groups = match self.added.get_mut(source) {
            Some(groups) => groups,
            None => self.added.entry(source.to_owned()).or_default(),
        };
        // They are few.
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, sums)) => sums.add(added),
            None => groups.push((group, added)),
        }
    }

    /// Notes that an entry was stored.
    pub(crate) fn note_stored(&mut self, key: &Key, as_of: Stamp) {
        self.note_stamp(as_of);
        if !self.stored.is_empty() {
            self.stored.push('\n');
        }
        self.stored.push_str(key.as_str());
    }

    /// Adds what was noted to the sums.
    pub(crate) fn write_sums(&mut self) -> rusqlite::Result<()> {
        for (source, groups) in self.added.drain() {
            groups
                .into_iter()
                .try_for_each(|(group, sums)| add(self.connection, &source, group, sums))?;
        }
        Ok(())
    }

    /// Writes what was noted; the last thing before the commit.
    pub(crate) fn finish(&mut self) -> rusqlite::Result<()> {
        self.write_sums()?;
        if self.latest != Stamp::default() {
            stamps::note(self.connection, self.latest, self.now)?;
        }
        if !self.stored.is_empty() {
            let named = self.stored.len() <= journal::NAMES;
            let keys = if named {
                (journal::STORED, &*self.stored, "", 0, self.latest)
            } else {
                (journal::MANY, "", "", 0, self.latest)
            };
            journal::append(self.connection, self.node, keys)?;
            self.stored.clear();
        }
        Ok(())
    }
}

/// Adds to what is known of a source.
pub(crate) fn add(
    connection: &Connection,
    source: &str,
    group: Group,
    sums: Sums,
) -> rusqlite::Result<()> {
    let Sums { entries, raw_bytes, stored_bytes } = sums;
    connection
        .prepare_cached(
            "INSERT INTO totals VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0)
             ON CONFLICT (source, codec, dictionary) DO UPDATE SET
                 entries = entries + excluded.entries,
                 raw_bytes = raw_bytes + excluded.raw_bytes,
                 stored_bytes = stored_bytes + excluded.stored_bytes",
        )?
        .execute((source, group.codec.0, group.dictionary.0, entries, raw_bytes, stored_bytes))
        .map(drop)
}
