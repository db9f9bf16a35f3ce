//! Entries as rows, and back.

use std::sync::LazyLock;

use bytes::Bytes;
use cache_core::{CodecId, Entry, Key, Stamp, Tag, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, Statement, named_params, types::Value};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{
    SqliteOptions,
    batch::{Batch, Sums},
    uses,
};

/// Bits of `flags`.
const ABSENT: i64 = 1;
const OWN_LIFETIME: i64 = 2;
pub(crate) const EXPIRED: i64 = 4;

/// Values of up to this many bytes are read and decoded within some 100 µs.
const QUICK_BYTES: i64 = 128 << 10;

/// An entry in the form it is stored in.
pub(crate) struct Stored {
    key: Key,
    entry: Entry,
    codec: CodecId,
    /// Encoded value; `None` when the raw value is stored.
    encoded: Option<Vec<u8>>,
    tags: String,
    checksum: i64,
}

/// What a look for a key found.
pub(crate) enum Found {
    Nothing,
    /// A row's number, and the entry in it.
    Entry(i64, Entry),
    /// A row whose checksum, frame or metadata is wrong.
    Damaged {
        id: i64,
        /// As read; a row that was rewritten meanwhile has another.
        checksum: Value,
        reason: String,
    },
}

impl Found {
    /// The row that an entry was found in.
    pub(crate) fn row(&self) -> Option<i64> {
        match self {
            Self::Entry(row, _) => Some(*row),
            Self::Nothing | Self::Damaged { .. } => None,
        }
    }
}

/// The hash a row is found by.
pub(crate) fn key_hash(key: &str) -> i64 {
    xxh3_64(key.as_bytes()).cast_signed()
}

impl Stored {
    /// Encodes an entry; `encoded` is the value as `codec` made it.
    pub(crate) fn new(key: Key, entry: Entry, codec: CodecId, encoded: Option<Vec<u8>>) -> Self {
        let tags = join_tags(entry.tags());
        let mut stored = Self { key, entry, codec, encoded, tags, checksum: 0 };
        stored.checksum = Metadata::of(&stored).checksum(stored.value());
        stored
    }

    /// The same, expired: a value need not be encoded again for that.
    pub(crate) fn expire(&mut self) {
        if !self.entry.is_expired() {
            self.entry = self.entry.to_expired();
            self.checksum = !self.checksum;
        }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Bytes of the value as it is stored.
    pub(crate) fn stored_len(&self) -> u64 {
        self.value().len() as u64
    }

    fn value(&self) -> &[u8] {
        self.encoded.as_deref().unwrap_or(self.entry.value())
    }

    /// Inserts it, or replaces a row that was loaded earlier; whether it is stored now.
    ///
    /// A look and then a change of one row, not an upsert: SQLite keeps a statement journal for that,
    /// and does not say what was there. Nobody else writes meanwhile.
    pub(crate) fn put(&self, batch: &mut Batch<'_>) -> rusqlite::Result<bool> {
        let row = Metadata::of(self);
        let hash = key_hash(row.key);
        let mut added = Sums {
            entries: 1,
            raw_bytes: row.raw_len,
            stored_bytes: i64::try_from(self.value().len()).unwrap_or(i64::MAX),
        };
        match Replaced::find(batch.connection, hash)? {
            None => {
                let id = self.insert(batch.connection, hash, &row)?;
                uses::begin(batch.connection, id, batch.now)?;
            }
            // Two keys of one hash: the one that came last has the place.
            Some(old) if old.key != row.key => {
                batch
                    .connection
                    .prepare_cached("DELETE FROM entries WHERE id = ?1")?
                    .execute([old.id])?;
                let id = self.insert(batch.connection, hash, &row)?;
                uses::begin(batch.connection, id, batch.now)?;
            }
            Some(old) if old.stays(&row, batch.now) => return Ok(false),
            Some(old) => {
                self.update(batch.connection, old.id, &row)?;
                if old.is_tagged || !self.tags.is_empty() {
                    self.replace_tags(batch.connection, old.id)?;
                }
                batch.uses.note([old.id].into_iter(), batch.now);
                added.entries = 0;
                added.raw_bytes = added.raw_bytes.saturating_sub(old.raw_len);
                added.stored_bytes = added.stored_bytes.saturating_sub(old.stored_len);
            }
        }
        batch.note_stored(&self.key, self.entry.as_of(), added);
        Ok(true)
    }

    fn insert(
        &self,
        connection: &Connection,
        hash: i64,
        row: &Metadata<'_>,
    ) -> rusqlite::Result<i64> {
        connection
            .prepare_cached(
                "INSERT INTO entries (key_hash, key, source, as_of, expires_at, stale_until,
                     loaded_at, flags, version, etag, source_last_modified, content_type, tags,
                     codec, raw_len, checksum, value)
                 VALUES (:key_hash, :key, :source, :as_of, :expires_at, :stale_until, :loaded_at,
                     :flags, :version, :etag, :source_last_modified, :content_type, :tags, :codec,
                     :raw_len, :checksum, :value)",
            )?
            .execute(named_params! {
                ":key_hash": hash, ":key": row.key, ":source": self.key.source(),
                ":as_of": row.as_of, ":expires_at": row.expires_at,
                ":stale_until": row.stale_until, ":loaded_at": row.loaded_at,
                ":flags": row.flags, ":version": row.version, ":etag": row.etag,
                ":source_last_modified": row.source_last_modified,
                ":content_type": row.content_type, ":tags": row.tags, ":codec": row.codec,
                ":raw_len": row.raw_len, ":checksum": self.checksum, ":value": self.value(),
            })?;
        let id = connection.last_insert_rowid();
        if !self.tags.is_empty() {
            self.insert_tags(connection, id)?;
        }
        Ok(id)
    }

    fn update(&self, connection: &Connection, id: i64, row: &Metadata<'_>) -> rusqlite::Result<()> {
        // Not the key and what depends on it: their indexes would be written, too.
        connection
            .prepare_cached(
                "UPDATE entries SET
                     as_of = :as_of, expires_at = :expires_at, stale_until = :stale_until,
                     loaded_at = :loaded_at, flags = :flags, version = :version, etag = :etag,
                     source_last_modified = :source_last_modified, content_type = :content_type,
                     tags = :tags, codec = :codec, raw_len = :raw_len, checksum = :checksum,
                     value = :value
                 WHERE id = :id",
            )?
            .execute(named_params! {
                ":id": id, ":as_of": row.as_of, ":expires_at": row.expires_at,
                ":stale_until": row.stale_until, ":loaded_at": row.loaded_at,
                ":flags": row.flags, ":version": row.version, ":etag": row.etag,
                ":source_last_modified": row.source_last_modified,
                ":content_type": row.content_type, ":tags": row.tags, ":codec": row.codec,
                ":raw_len": row.raw_len, ":checksum": self.checksum, ":value": self.value(),
            })
            .map(drop)
    }

    fn replace_tags(&self, connection: &Connection, id: i64) -> rusqlite::Result<()> {
        connection.prepare_cached("DELETE FROM entry_tags WHERE entry = ?1")?.execute([id])?;
        self.insert_tags(connection, id)
    }

    fn insert_tags(&self, connection: &Connection, id: i64) -> rusqlite::Result<()> {
        let mut insert =
            connection.prepare_cached("INSERT OR IGNORE INTO entry_tags VALUES (?1, ?2)")?;
        self.entry.tags().iter().try_for_each(|tag| insert.execute((tag.as_str(), id)).map(drop))
    }
}

/// What is to be known of a row before another takes its place.
struct Replaced {
    id: i64,
    key: String,
    as_of: i64,
    stale_until: i64,
    is_tagged: bool,
    raw_len: i64,
    stored_len: i64,
}

impl Replaced {
    fn find(connection: &Connection, hash: i64) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(
                "SELECT id, key, as_of, stale_until, tags <> '', raw_len, length(value)
                 FROM entries WHERE key_hash = ?1",
            )?
            .query_row([hash], |row| {
                let id = row.get(0)?;
                // One whose columns are damaged is as good as another key's: it goes.
                Ok(Self::read(id, row).unwrap_or_else(|_damaged| Self::unknown(id)))
            })
            .optional()
    }

    fn read(id: i64, row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id,
            key: row.get(1)?,
            as_of: row.get(2)?,
            stale_until: row.get(3)?,
            is_tagged: row.get(4)?,
            raw_len: row.get(5)?,
            stored_len: row.get(6)?,
        })
    }

    const fn unknown(id: i64) -> Self {
        let key = String::new();
        Self { id, key, as_of: 0, stale_until: 0, is_tagged: true, raw_len: 0, stored_len: 0 }
    }

    /// Whether it stays in its place.
    fn stays(&self, row: &Metadata<'_>, now: Timestamp) -> bool {
        let believable = Stamp::latest_believable(now).packed().cast_signed();
        let is_later = row.as_of > self.as_of || self.as_of > believable || self.as_of < 0;
        let is_dead = row.as_of == self.as_of && self.stale_until <= now.as_millis();
        !is_later && !is_dead
    }
}

/// What [`read`] reads, in this order.
pub(crate) const COLUMNS: &str = "id, key, as_of, expires_at, stale_until, version, etag,
    source_last_modified, content_type, tags, codec, raw_len, checksum, value, loaded_at, flags";

/// A look for a key; not put together anew each time.
static FIND: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {COLUMNS} FROM entries WHERE key_hash = ?1 AND key = ?2"));

/// Why a row, of [`COLUMNS`], cannot be read.
pub(crate) fn check(row: &Row<'_>, options: &SqliteOptions, now: Timestamp) -> Result<(), String> {
    read(row, options, now).map(drop)
}

/// Whether the file, whatever its format, has what a look needs.
pub(crate) fn can_be_read(connection: &Connection) -> bool {
    connection.prepare_cached(&FIND).is_ok()
}

/// Looks keys up.
pub(crate) fn find_many(
    connection: &Connection,
    options: &SqliteOptions,
    keys: &[Key],
    now: Timestamp,
) -> rusqlite::Result<Vec<Found>> {
    let mut statement = connection.prepare_cached(&FIND)?;
    let mut find = |key| {
        // Nothing is larger than that.
        let found = find_up_to(&mut statement, options, key, now, i64::MAX)?;
        Ok(found.unwrap_or(Found::Nothing))
    };
    keys.iter().map(&mut find).collect()
}

/// Looks one up, but finds nothing of a value that takes long to read and decode.
pub(crate) fn find_quickly(
    connection: &Connection,
    options: &SqliteOptions,
    key: &Key,
    now: Timestamp,
) -> rusqlite::Result<Option<Found>> {
    find_up_to(&mut *connection.prepare_cached(&FIND)?, options, key, now, QUICK_BYTES)
}

fn find_up_to(
    statement: &mut Statement<'_>,
    options: &SqliteOptions,
    key: &Key,
    now: Timestamp,
    largest: i64,
) -> rusqlite::Result<Option<Found>> {
    let mut rows = statement.query((key_hash(key.as_str()), key.as_str()))?;
    let Some(row) = rows.next()? else { return Ok(Some(Found::Nothing)) };
    if row.get::<_, i64>(11).is_ok_and(|raw_len| raw_len > largest) {
        return Ok(None);
    }
    let id = row.get(0)?;
    Ok(Some(match read(row, options, now) {
        Ok(Some(entry)) => Found::Entry(id, entry),
        Ok(None) => Found::Nothing,
        Err(reason) => Found::Damaged { id, checksum: row.get(12)?, reason },
    }))
}

/// The entry in a row, `None` if it is dead; fails if the row is damaged in any way.
fn read(row: &Row<'_>, options: &SqliteOptions, now: Timestamp) -> Result<Option<Entry>, String> {
    // Anything but what was written, a NULL or text that is no UTF-8 for example, is damage.
    let damaged = |error: rusqlite::Error| error.to_string();
    let text = |column| -> Result<Option<&str>, String> {
        row.get_ref(column).map_err(damaged)?.as_str_or_null().map_err(|error| error.to_string())
    };
    let metadata = Metadata {
        key: text(1)?.unwrap_or_default(),
        as_of: row.get(2).map_err(damaged)?,
        expires_at: row.get(3).map_err(damaged)?,
        stale_until: row.get(4).map_err(damaged)?,
        version: text(5)?,
        etag: text(6)?,
        source_last_modified: text(7)?,
        content_type: text(8)?,
        tags: text(9)?.unwrap_or_default(),
        codec: row.get(10).map_err(damaged)?,
        raw_len: row.get(11).map_err(damaged)?,
        loaded_at: row.get(14).map_err(damaged)?,
        flags: row.get(15).map_err(damaged)?,
    };
    let value = row.get_ref(13).map_err(damaged)?.as_blob().map_err(|error| error.to_string())?;
    if metadata.checksum(value) != row.get::<_, i64>(12).map_err(damaged)? {
        return Err("its checksum differs".to_owned());
    }
    let as_of = Stamp::from_packed(metadata.as_of.cast_unsigned());
    let raw_len = u64::try_from(metadata.raw_len).map_err(|error| error.to_string())?;
    // Not damaged, whoever's clock is wrong: it may be this process's.
    let usable = as_of.is_believable(now) && raw_len <= options.max_value_bytes;
    if !usable || now.as_millis() >= metadata.stale_until {
        return Ok(None);
    }
    let value = if metadata.codec == CodecId::RAW.0 {
        Bytes::copy_from_slice(value)
    } else if let Some(codec) = options.decoder_of(CodecId(metadata.codec)) {
        codec
            .decode(value, raw_len, options.max_value_bytes)
            .map_err(|error| error.to_string())?
            .into()
    } else {
        // Sound, but written by a build with more codecs than this one: others can read it.
        tracing::debug!(codec = metadata.codec, "a codec is not compiled in");
        return Ok(None);
    };
    let tags = split_tags(metadata.tags).collect::<Result<Vec<_>, _>>();
    let entry = Entry::builder(value, as_of)
        .expires_at(Timestamp::from_millis(metadata.expires_at))
        .stale_until(Timestamp::from_millis(metadata.stale_until))
        .loaded_at(Timestamp::from_millis(metadata.loaded_at))
        .absent(metadata.flags & ABSENT != 0)
        .own_lifetime(metadata.flags & OWN_LIFETIME != 0)
        .expired(metadata.flags & EXPIRED != 0)
        .version(metadata.version)
        .etag(metadata.etag)
        .source_last_modified(metadata.source_last_modified)
        .content_type(metadata.content_type)
        .tags(tags.map_err(|error| error.to_string())?)
        .build();
    Ok(Some(entry))
}

fn join_tags(tags: &[Tag]) -> String {
    tags.iter().map(Tag::as_str).collect::<Vec<_>>().join("\n")
}

/// The tags in a column; tags hold no control characters, so a line is a tag.
pub(crate) fn split_tags(text: &str) -> impl Iterator<Item = Result<Tag, cache_core::InvalidTag>> {
    text.lines().map(Tag::new)
}

/// The columns of a row that its checksum covers, beside the value.
struct Metadata<'a> {
    key: &'a str,
    as_of: i64,
    expires_at: i64,
    stale_until: i64,
    version: Option<&'a str>,
    etag: Option<&'a str>,
    source_last_modified: Option<&'a str>,
    content_type: Option<&'a str>,
    tags: &'a str,
    codec: u8,
    raw_len: i64,
    loaded_at: i64,
    flags: i64,
}

impl<'a> Metadata<'a> {
    fn of(stored: &'a Stored) -> Self {
        let entry = &stored.entry;
        Self {
            key: stored.key.as_str(),
            as_of: entry.as_of().packed().cast_signed(),
            expires_at: entry.expires_at().as_millis(),
            stale_until: entry.stale_until().as_millis(),
            version: entry.version(),
            etag: entry.etag(),
            source_last_modified: entry.source_last_modified(),
            content_type: entry.content_type(),
            tags: &stored.tags,
            codec: stored.codec.0,
            raw_len: i64::try_from(entry.value().len()).unwrap_or(i64::MAX),
            loaded_at: entry.loaded_at().as_millis(),
            flags: if entry.is_absent() { ABSENT } else { 0 }
                | if entry.has_own_lifetime() { OWN_LIFETIME } else { 0 }
                | if entry.is_expired() { EXPIRED } else { 0 },
        }
    }

    /// xxh3-64 over every column, each text behind its length, so that no two rows feed it alike;
    /// that of an expired row is the complement of what it was before.
    fn checksum(&self, value: &[u8]) -> i64 {
        let Self {
            key,
            as_of,
            expires_at,
            stale_until,
            version,
            etag,
            source_last_modified,
            content_type,
            tags,
            codec,
            raw_len,
            loaded_at,
            flags,
        } = *self;
        let mut hash = Xxh3::new();
        let given = flags & !EXPIRED;
        let numbers = [as_of, expires_at, stale_until, i64::from(codec), raw_len, loaded_at, given];
        for number in numbers {
            hash.update(&number.to_le_bytes());
        }
        for text in [Some(key), version, etag, source_last_modified, content_type, Some(tags)] {
            let len = text.map_or(-1, |text| i64::try_from(text.len()).unwrap_or(i64::MAX));
            hash.update(&len.to_le_bytes());
            hash.update(text.unwrap_or_default().as_bytes());
        }
        hash.update(value);
        let checksum = hash.digest().cast_signed();
        if flags & EXPIRED == 0 { checksum } else { !checksum }
    }
}
