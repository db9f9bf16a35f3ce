//! Entries read from rows.

use std::sync::LazyLock;

use bytes::Bytes;
use cache_core::{CodecError, CodecId, DictionaryId, Entry, Form, Key, Stamp, Timestamp};
use rusqlite::{CachedStatement, Connection, Row, Statement, types::Value};

use crate::{
    SqliteOptions, dictionaries,
    rows::{ABSENT, EXPIRED, Metadata, OWN_LIFETIME, key_hash, split_tags},
};

/// Values of up to this many bytes are read and decoded within some 100 µs.
const QUICK_BYTES: i64 = 128 << 10;

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

/// What [`read`] reads, in this order.
pub(crate) const COLUMNS: &str = "id, key, as_of, expires_at, stale_until, version, etag,
    source_last_modified, content_type, tags, codec, raw_len, checksum, value, loaded_at, flags,
    dictionary";

/// A look for a key; not put together anew each time.
static FIND: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {COLUMNS} FROM entries WHERE key_hash = ?1 AND key = ?2"));
/// The same in a file of an earlier format, that cannot be written.
static FIND_WITHOUT_DICTIONARY: LazyLock<String> =
    LazyLock::new(|| FIND.replace("dictionary", "0"));

/// Why a row, of [`COLUMNS`], cannot be read.
pub(crate) fn check(
    connection: &Connection,
    row: &Row<'_>,
    options: &SqliteOptions,
    now: Timestamp,
) -> Result<(), String> {
    read(connection, row, options, now, Looks::Uncounted).map(drop)
}

/// Whether the file, whatever its format, has what a look needs.
pub(crate) fn can_be_read(connection: &Connection) -> bool {
    find(connection).is_ok()
}

pub(crate) fn find(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(&FIND).or_else(|error| {
        connection.prepare_cached(&FIND_WITHOUT_DICTIONARY).map_err(|_older| error)
    })
}

/// Looks keys up.
pub(crate) fn find_many(
    connection: &Connection,
    options: &SqliteOptions,
    keys: &[Key],
    now: Timestamp,
) -> rusqlite::Result<Vec<Found>> {
    let mut statement = find(connection)?;
    let mut find = |key| {
        // Nothing is larger than that.
        let found = find_up_to(connection, &mut statement, options, key, now, i64::MAX)?;
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
    find_up_to(connection, &mut *find(connection)?, options, key, now, QUICK_BYTES)
}

fn find_up_to(
    connection: &Connection,
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
    Ok(Some(match read(connection, row, options, now, Looks::Counted) {
        Ok(Some(entry)) => Found::Entry(id, entry),
        Ok(None) => Found::Nothing,
        Err(reason) => Found::Damaged { id, checksum: row.get(12)?, reason },
    }))
}

/// Values of a source, of which nothing but their being whole is of interest.
pub(crate) fn samples(
    connection: &Connection,
    options: &SqliteOptions,
    (source, (least, longest)): (&str, (i64, i64)),
    (most, most_bytes): (i64, u64),
    now: Timestamp,
) -> rusqlite::Result<Vec<Bytes>> {
    let mut statement = connection.prepare(&format!(
        "SELECT {COLUMNS} FROM entries
         WHERE source = ?1 AND raw_len BETWEEN ?2 AND ?3 AND stale_until > ?4
         ORDER BY id DESC LIMIT ?5"
    ))?;
    let mut rows = statement.query((source, least, longest, now.as_millis(), most))?;
    let (mut values, mut room) = (Vec::new(), most_bytes);
    while let Some(row) = rows.next()? {
        let raw_len = row.get::<_, i64>(11).map_or(u64::MAX, |len| len.max(0).cast_unsigned());
        if raw_len <= room
            && let Ok(Some(entry)) = read(connection, row, options, now, Looks::Uncounted)
        {
            room -= raw_len;
            values.push(entry.value().clone());
        }
    }
    Ok(values)
}

/// The entry in a row, `None` if it is dead; fails if the row is damaged in any way.
fn read(
    connection: &Connection,
    row: &Row<'_>,
    options: &SqliteOptions,
    now: Timestamp,
    looks: Looks,
) -> Result<Option<Entry>, String> {
    let (metadata, value) = columns(row)?;
    let as_of = Stamp::from_packed(metadata.as_of.cast_unsigned());
    let raw_len = u64::try_from(metadata.raw_len).map_err(|error| error.to_string())?;
    // Not damaged, whoever's clock is wrong: it may be this process's.
    let usable = as_of.is_believable(now) && raw_len <= options.max_value_bytes;
    if !usable || now.as_millis() >= metadata.stale_until {
        return Ok(None);
    }
    let form = Form {
        codec: CodecId(metadata.codec),
        dictionary: DictionaryId(metadata.dictionary),
        raw_len,
    };
    let value = match unpack(connection, options, metadata.key, (form, value), looks) {
        Ok(value) => value,
        // Sound, but written by a build with more codecs than this one: others can read it.
        Err(Unread::Codec(CodecError::UnknownCodec(codec))) => {
            tracing::debug!(%codec, "a codec is not compiled in");
            return Ok(None);
        }
        Err(Unread::Codec(error)) => return Err(error.to_string()),
        // Nor is it damaged: the next read may find its dictionary.
        Err(Unread::Dictionary(error)) => {
            tracing::debug!(dictionary = %form.dictionary, %error, "a dictionary cannot be read now");
            return Ok(None);
        }
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

/// The columns of a row, of [`COLUMNS`], and its value as it is stored; fails unless they are as they
/// were written.
pub(crate) fn columns<'a>(row: &'a Row<'_>) -> Result<(Metadata<'a>, &'a [u8]), String> {
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
        dictionary: row.get(16).map_err(damaged)?,
        raw_len: row.get(11).map_err(damaged)?,
        loaded_at: row.get(14).map_err(damaged)?,
        flags: row.get(15).map_err(damaged)?,
    };
    let value = row.get_ref(13).map_err(damaged)?.as_blob().map_err(|error| error.to_string())?;
    if metadata.checksum(value) != row.get::<_, i64>(12).map_err(damaged)? {
        return Err("its checksum differs".to_owned());
    }
    Ok((metadata, value))
}

/// Whether what is read counts in statistics: what is looked at by who checks or measures does not.
#[derive(Clone, Copy)]
enum Looks {
    Counted,
    Uncounted,
}

/// Why a value cannot be made of what is stored.
enum Unread {
    Codec(CodecError),
    /// SQLite failed to look its dictionary up.
    Dictionary(rusqlite::Error),
}

/// The value that is stored in a form. A dictionary that is not known yet is in the file.
fn unpack(
    connection: &Connection,
    options: &SqliteOptions,
    key: &str,
    (form, stored): (Form, &[u8]),
    looks: Looks,
) -> Result<Bytes, Unread> {
    if form.codec == CodecId::RAW {
        if stored.len() as u64 != form.raw_len {
            let reason = "it is not as long as declared".to_owned();
            return Err(Unread::Codec(CodecError::Corrupt { codec: "raw", reason }));
        }
        return Ok(Bytes::copy_from_slice(stored));
    }
    let Some(compression) = options.compression.as_deref() else {
        return Err(Unread::Codec(CodecError::UnknownCodec(form.codec)));
    };
    let source = key.split(':').next().unwrap_or_default();
    let limit = options.max_value_bytes;
    let unpack = || match looks {
        Looks::Counted => compression.unpack(source, form, stored, limit),
        Looks::Uncounted => compression.inspect(form, stored, limit),
    };
    let value = match unpack() {
        Err(CodecError::MissingDictionary(id)) => {
            match dictionaries::learn(connection, compression, id) {
                Ok(true) => unpack(),
                Ok(false) => Err(CodecError::MissingDictionary(id)),
                Err(error) => return Err(Unread::Dictionary(error)),
            }
        }
        value => value,
    };
    value.map_err(Unread::Codec)
}
