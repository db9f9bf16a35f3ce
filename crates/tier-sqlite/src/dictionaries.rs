//! Dictionaries, kept in the file beside the entries that need them.

use std::{ops::RangeInclusive, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use cache_core::{
    Compression, Dictionaries, Dictionary, DictionaryId, KeptDictionary, Op, Result, Stamp,
    Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row};
use xxhash_rust::xxh3::Xxh3;

use crate::{NAME, SqliteTier, batch::Batch, error::tier_error, found, journal};

/// What [`read`] reads, in this order.
const COLUMNS: &str = "id, source, version, created_at, samples, checksum, content";

/// Makes sure that the file has the dictionary that an entry in it refers to; whether it does.
pub(crate) fn ensure(batch: &mut Batch<'_>, id: DictionaryId) -> rusqlite::Result<bool> {
    let is_there = batch
        .connection
        .prepare_cached("SELECT 1 FROM dictionaries WHERE id = ?1")?
        .exists([id.0])?;
    if is_there {
        return Ok(true);
    }
    let compression = batch.options.compression.as_deref();
    match compression.and_then(|compression| compression.dictionary(id)) {
        Some(dictionary) => keep(batch, &dictionary).map(|()| true),
        None => Ok(false),
    }
}

/// Stores a dictionary, and has other processes learn it.
pub(crate) fn keep(batch: &mut Batch<'_>, dictionary: &Dictionary) -> rusqlite::Result<()> {
    let stored = batch
        .connection
        .prepare_cached(&format!(
            "INSERT OR REPLACE INTO dictionaries ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
        ))?
        .execute((
            dictionary.id.0,
            &*dictionary.source,
            dictionary.version,
            dictionary.created_at.as_millis(),
            i64::try_from(dictionary.samples).unwrap_or(i64::MAX),
            checksum(dictionary),
            &*dictionary.content,
        ))?;
    if stored > 0 {
        batch.note_change((journal::DICTIONARIES, &dictionary.source, "", 0, Stamp::ZERO))?;
    }
    Ok(())
}

/// Removes what no entry refers to, but for the last of each source.
fn remove_unused(connection: &Connection) -> rusqlite::Result<usize> {
    connection.execute(
        "DELETE FROM dictionaries
         WHERE id NOT IN (SELECT dictionary FROM totals WHERE entries > 0)
             AND EXISTS (SELECT 1 FROM dictionaries AS later
                 WHERE later.source = dictionaries.source
                     AND later.version > dictionaries.version)
             -- A damaged sum costs no entry.
             AND NOT EXISTS (SELECT 1 FROM entries
                 WHERE entries.source = dictionaries.source AND dictionary = dictionaries.id)",
        [],
    )
}

/// Has `compression` know the dictionary `id`; whether the file has it, undamaged.
pub(crate) fn learn(
    connection: &Connection,
    compression: &dyn Compression,
    id: DictionaryId,
) -> rusqlite::Result<bool> {
    let found = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM dictionaries WHERE id = ?1"))?
        .query_row([id.0], |row| Ok(read(row)))
        .optional()?;
    Ok(found.flatten().is_some_and(|dictionary| teach(compression, &dictionary)))
}

/// Has `compression` know the last dictionary of each source.
pub(crate) fn learn_last(
    connection: &Connection,
    compression: &dyn Compression,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM dictionaries
         WHERE version = (SELECT max(version) FROM dictionaries AS other
             WHERE other.source = dictionaries.source)"
    ))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(dictionary) = read(row) {
            teach(compression, &dictionary);
        }
    }
    Ok(())
}

fn teach(compression: &dyn Compression, dictionary: &Dictionary) -> bool {
    match compression.learn(dictionary) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(
                tier = NAME, source = &*dictionary.source, dictionary = %dictionary.id, %error,
                "a stored dictionary cannot be used"
            );
            false
        }
    }
}

/// The dictionary in a row, of [`COLUMNS`]; `None` if it is damaged.
fn read(row: &Row<'_>) -> Option<Dictionary> {
    let dictionary = Dictionary {
        id: DictionaryId(row.get(0).ok()?),
        source: row.get_ref(1).ok()?.as_str().ok()?.into(),
        version: row.get(2).ok()?,
        created_at: Timestamp::from_millis(row.get(3).ok()?),
        samples: row.get::<_, i64>(4).ok()?.max(0).cast_unsigned(),
        content: Bytes::copy_from_slice(row.get_ref(6).ok()?.as_blob().ok()?),
    };
    (row.get(5).ok() == Some(checksum(&dictionary))).then_some(dictionary)
}

/// What is damaged, with the numbers to remove it by.
pub(crate) fn damaged(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare(&format!("SELECT {COLUMNS} FROM dictionaries"))?;
    let mut rows = statement.query([])?;
    let mut damaged = Vec::new();
    while let Some(row) = rows.next()? {
        if read(row).is_none() {
            damaged.push(row.get(0)?);
        }
    }
    Ok(damaged)
}

fn checksum(dictionary: &Dictionary) -> i64 {
    let Dictionary { id, source, version, created_at, samples, content } = dictionary;
    let mut hash = Xxh3::new();
    hash.update(&id.0.to_le_bytes());
    hash.update(&version.to_le_bytes());
    hash.update(&created_at.as_millis().to_le_bytes());
    hash.update(&samples.to_le_bytes());
    hash.update(&(source.len() as u64).to_le_bytes());
    hash.update(source.as_bytes());
    hash.update(content);
    hash.digest().cast_signed()
}

#[async_trait]
impl Dictionaries for SqliteTier {
    async fn dictionaries(&self) -> Result<Vec<KeptDictionary>> {
        let workers = self.workers(Op::Inspect)?;
        let found = workers.read(|connection, _| {
            let sum = |column| {
                format!("(SELECT coalesce(sum({column}), 0) FROM totals WHERE dictionary = id)")
            };
            let [entries, raw, stored] = ["entries", "raw_bytes", "stored_bytes"].map(sum);
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {entries}, {raw}, {stored} FROM dictionaries
                 ORDER BY source, version, id"
            ))?;
            let mut rows = statement.query([])?;
            let mut kept = Vec::new();
            while let Some(row) = rows.next()? {
                // A damaged one is found by a check.
                let Some(dictionary) = read(row) else { continue };
                let sum = |column| {
                    Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.max(0).cast_unsigned())
                };
                kept.push(KeptDictionary {
                    dictionary,
                    entries: sum(7)?,
                    raw_bytes: sum(8)?,
                    stored_bytes: sum(9)?,
                });
            }
            Ok(kept)
        });
        found.await.map_err(|failure| tier_error(Op::Inspect, failure))
    }

    async fn keep(&self, dictionary: &Dictionary) -> Result<()> {
        let workers = self.workers(Op::Put)?;
        let dictionary = dictionary.clone();
        let kept = workers.write(move |batch| {
            keep(batch, &dictionary)?;
            // What was put in the same transaction may need one.
            batch.write_sums()?;
            remove_unused(batch.connection).map(drop)
        });
        kept.await.map_err(|failure| tier_error(Op::Put, failure))
    }

    async fn samples(
        &self,
        source: &str,
        lengths: RangeInclusive<u64>,
        most: usize,
        most_bytes: u64,
    ) -> Result<Vec<Bytes>> {
        let workers = self.workers(Op::Inspect)?;
        let (source, now) = (Arc::<str>::from(source), self.options.clock.now());
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let bound = |len: u64| i64::try_from(len).unwrap_or(i64::MAX);
        let lengths = (bound(*lengths.start()), bound(*lengths.end()));
        let found = workers.read(move |connection, options| {
            Ok(found::samples(connection, options, (&source, lengths), (most, most_bytes), now)?)
        });
        found.await.map_err(|failure| tier_error(Op::Inspect, failure))
    }
}
