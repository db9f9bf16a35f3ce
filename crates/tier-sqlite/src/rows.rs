//! Entries as rows.

use std::sync::{Arc, OnceLock};

use cache_core::{
    CodecId, Compression, DictionaryId, Entry, Form, Key, Packed, Stamp, Tag, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, named_params};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::{
    batch::{Batch, Group, Sums},
    found, uses,
};

/// Bits of `flags`.
pub(crate) const ABSENT: i64 = 1;
pub(crate) const OWN_LIFETIME: i64 = 2;
pub(crate) const EXPIRED: i64 = 4;

/// An entry in the form it is stored in.
pub(crate) struct Stored {
    key: Key,
    entry: Entry,
    tags: String,
    compression: Option<Arc<dyn Compression>>,
    /// The compressed value, once it is made; `None` when it is stored as it is.
    packed: OnceLock<Option<Packed>>,
    /// That of the entry before it expired, once it is made.
    checksum: OnceLock<i64>,
}

/// The hash a row is found by.
pub(crate) fn key_hash(key: &str) -> i64 {
    xxh3_64(key.as_bytes()).cast_signed()
}

impl Stored {
    /// An entry with its value compressed, if that makes it smaller; one whose value is likely to be
    /// stored already is not, before that is needed.
    pub(crate) fn new(key: Key, entry: Entry, compression: Option<Arc<dyn Compression>>) -> Self {
        let tags = join_tags(entry.tags());
        let (packed, checksum) = (OnceLock::new(), OnceLock::new());
        let stored = Self { key, entry, tags, compression, packed, checksum };
        if stored.entry.renews().is_none() {
            stored.checksum();
        }
        stored
    }

    /// The same, expired: a value need not be encoded again for that.
    pub(crate) fn expire(&mut self) {
        self.entry = self.entry.to_expired();
    }

    fn packed(&self) -> Option<&Packed> {
        let pack = || self.entry.pack(self.key.source(), self.compression.as_deref()?);
        self.packed.get_or_init(pack).as_ref()
    }

    fn checksum(&self) -> i64 {
        let of_expired = |checksum: i64| if self.entry.is_expired() { !checksum } else { checksum };
        let make = || of_expired(Metadata::of(self).checksum(self.value()));
        of_expired(*self.checksum.get_or_init(make))
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Bytes of the value as it is stored, or more.
    pub(crate) fn most_stored(&self) -> u64 {
        let packed = self.packed.get().and_then(Option::as_ref);
        packed.map_or(self.entry.value(), |packed| &packed.bytes).len() as u64
    }

    /// Bytes of the value as it is stored.
    pub(crate) fn stored_len(&self) -> u64 {
        self.value().len() as u64
    }

    fn value(&self) -> &[u8] {
        self.packed().map_or(self.entry.value(), |packed| &packed.bytes)
    }

    fn form(&self) -> Form {
        self.packed().map_or_else(
            || Form {
                codec: CodecId::RAW,
                dictionary: DictionaryId::NONE,
                raw_len: self.entry.value().len() as u64,
            },
            |packed| packed.form,
        )
    }

    /// The dictionary that reading it takes.
    pub(crate) fn dictionary(&self) -> DictionaryId {
        self.form().dictionary
    }

    /// Renews the row that has its value: only what else is known of it is written. `false` if there
    /// is no such row.
    ///
    /// SQLite writes a row in its place where it is as long as before, and of the pages of a long one
    /// only those that change.
    pub(crate) fn renew(&self, batch: &mut Batch<'_>) -> rusqlite::Result<bool> {
        let Some(renews) = self.entry.renews() else { return Ok(false) };
        let hash = key_hash(self.key.as_str());
        let mut row = Metadata::of_entry(&self.key, &self.entry, &self.tags);
        let renewed = {
            let mut statement = found::find(batch.connection)?;
            let mut rows = statement.query((hash, row.key))?;
            let Some(found) = rows.next()? else { return Ok(false) };
            // What is damaged is written anew.
            let Ok((old, value)) = found::columns(found) else { return Ok(false) };
            if old.as_of != renews.packed().cast_signed() || row.as_of <= old.as_of {
                return Ok(false);
            }
            (row.codec, row.dictionary, row.raw_len) = (old.codec, old.dictionary, old.raw_len);
            (found.get(0)?, old.tags != row.tags, row.checksum(value))
        };
        let (id, is_tagged_otherwise, checksum) = renewed;
        batch
            .connection
            .prepare_cached(
                "UPDATE entries SET
                     as_of = :as_of, expires_at = :expires_at, stale_until = :stale_until,
                     loaded_at = :loaded_at, flags = :flags, version = :version, etag = :etag,
                     source_last_modified = :source_last_modified, content_type = :content_type,
                     tags = :tags, checksum = :checksum
                 WHERE id = :id",
            )?
            .execute(named_params! {
                ":id": id, ":as_of": row.as_of, ":expires_at": row.expires_at,
                ":stale_until": row.stale_until, ":loaded_at": row.loaded_at,
                ":flags": row.flags, ":version": row.version, ":etag": row.etag,
                ":source_last_modified": row.source_last_modified,
                ":content_type": row.content_type, ":tags": row.tags, ":checksum": checksum,
            })?;
        if is_tagged_otherwise {
            self.replace_tags(batch.connection, id)?;
        }
        batch.uses.note([id].into_iter(), batch.now);
        batch.note_stored(&self.key, self.entry.as_of());
        Ok(true)
    }

    /// Inserts it, or replaces a row that was loaded earlier; whether it is stored now.
    ///
    /// A look and then a change of one row, not an upsert: SQLite keeps a statement journal for that,
    /// and does not say what was there. Nobody else writes meanwhile.
    pub(crate) fn put(&self, batch: &mut Batch<'_>) -> rusqlite::Result<bool> {
        let row = Metadata::of(self);
        let hash = key_hash(row.key);
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
                let gone = Sums::of_one(old.raw_len, old.stored_len).negated();
                batch.add(self.key.source(), old.group, gone);
            }
        }
        let stored_len = i64::try_from(self.value().len()).unwrap_or(i64::MAX);
        let added = Sums::of_one(row.raw_len, stored_len);
        batch.add(self.key.source(), self.form().into(), added);
        batch.note_stored(&self.key, self.entry.as_of());
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
                     codec, dictionary, raw_len, checksum, value)
                 VALUES (:key_hash, :key, :source, :as_of, :expires_at, :stale_until, :loaded_at,
                     :flags, :version, :etag, :source_last_modified, :content_type, :tags, :codec,
                     :dictionary, :raw_len, :checksum, :value)",
            )?
            .execute(named_params! {
                ":key_hash": hash, ":key": row.key, ":source": self.key.source(),
                ":as_of": row.as_of, ":expires_at": row.expires_at,
                ":stale_until": row.stale_until, ":loaded_at": row.loaded_at,
                ":flags": row.flags, ":version": row.version, ":etag": row.etag,
                ":source_last_modified": row.source_last_modified,
                ":content_type": row.content_type, ":tags": row.tags, ":codec": row.codec,
                ":dictionary": row.dictionary, ":raw_len": row.raw_len, ":checksum": self.checksum(), ":value": self.value(),
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
                     tags = :tags, codec = :codec, dictionary = :dictionary, raw_len = :raw_len,
                     checksum = :checksum, value = :value
                 WHERE id = :id",
            )?
            .execute(named_params! {
                ":id": id, ":as_of": row.as_of, ":expires_at": row.expires_at,
                ":stale_until": row.stale_until, ":loaded_at": row.loaded_at,
                ":flags": row.flags, ":version": row.version, ":etag": row.etag,
                ":source_last_modified": row.source_last_modified,
                ":content_type": row.content_type, ":tags": row.tags, ":codec": row.codec,
                ":dictionary": row.dictionary, ":raw_len": row.raw_len, ":checksum": self.checksum(), ":value": self.value(),
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
    group: Group,
    raw_len: i64,
    stored_len: i64,
}

impl Replaced {
    fn find(connection: &Connection, hash: i64) -> rusqlite::Result<Option<Self>> {
        connection
            .prepare_cached(
                "SELECT id, key, as_of, stale_until, tags <> '', raw_len, length(value), codec,
                     dictionary
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
            group: Group { codec: CodecId(row.get(7)?), dictionary: DictionaryId(row.get(8)?) },
        })
    }

    fn unknown(id: i64) -> Self {
        let group = Group { codec: CodecId::RAW, dictionary: DictionaryId::NONE };
        Self {
            id,
            key: String::new(),
            as_of: 0,
            stale_until: 0,
            is_tagged: true,
            group,
            raw_len: 0,
            stored_len: 0,
        }
    }

    /// Whether it stays in its place.
    fn stays(&self, row: &Metadata<'_>, now: Timestamp) -> bool {
        let believable = Stamp::latest_believable(now).packed().cast_signed();
        let is_later = row.as_of > self.as_of || self.as_of > believable || self.as_of < 0;
        let is_dead = row.as_of == self.as_of && self.stale_until <= now.as_millis();
        !is_later && !is_dead
    }
}

fn join_tags(tags: &[Tag]) -> String {
    tags.iter().map(Tag::as_str).collect::<Vec<_>>().join("\n")
}

/// The tags in a column; tags hold no control characters, so a line is a tag.
pub(crate) fn split_tags(text: &str) -> impl Iterator<Item = Result<Tag, cache_core::InvalidTag>> {
    text.lines().map(Tag::new)
}

/// The columns of a row that its checksum covers, beside the value.
pub(crate) struct Metadata<'a> {
    pub(crate) key: &'a str,
    pub(crate) as_of: i64,
    pub(crate) expires_at: i64,
    pub(crate) stale_until: i64,
    pub(crate) version: Option<&'a str>,
    pub(crate) etag: Option<&'a str>,
    pub(crate) source_last_modified: Option<&'a str>,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) tags: &'a str,
    pub(crate) codec: u8,
    pub(crate) dictionary: u32,
    pub(crate) raw_len: i64,
    pub(crate) loaded_at: i64,
    pub(crate) flags: i64,
}

impl<'a> Metadata<'a> {
    fn of(stored: &'a Stored) -> Self {
        let form = stored.form();
        Self {
            codec: form.codec.0,
            dictionary: form.dictionary.0,
            raw_len: i64::try_from(form.raw_len).unwrap_or(i64::MAX),
            ..Self::of_entry(&stored.key, &stored.entry, &stored.tags)
        }
    }

    /// All but how its value is stored.
    fn of_entry(key: &'a Key, entry: &'a Entry, tags: &'a str) -> Self {
        Self {
            key: key.as_str(),
            as_of: entry.as_of().packed().cast_signed(),
            expires_at: entry.expires_at().as_millis(),
            stale_until: entry.stale_until().as_millis(),
            version: entry.version(),
            etag: entry.etag(),
            source_last_modified: entry.source_last_modified(),
            content_type: entry.content_type(),
            tags,
            codec: 0,
            dictionary: 0,
            raw_len: 0,
            loaded_at: entry.loaded_at().as_millis(),
            flags: if entry.is_absent() { ABSENT } else { 0 }
                | if entry.has_own_lifetime() { OWN_LIFETIME } else { 0 }
                | if entry.is_expired() { EXPIRED } else { 0 },
        }
    }

    /// xxh3-64 over every column, each text behind its length, so that no two rows feed it alike;
    /// that of an expired row is the complement of what it was before.
    pub(crate) fn checksum(&self, value: &[u8]) -> i64 {
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
            dictionary,
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
        // Rows of before there were any are as those without one.
        if dictionary != 0 {
            hash.update(&dictionary.to_le_bytes());
        }
        hash.update(value);
        let checksum = hash.digest().cast_signed();
        if flags & EXPIRED == 0 { checksum } else { !checksum }
    }
}
