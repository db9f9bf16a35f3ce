//! The cache file: opened to be read, never written.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use cache_core::Escaped;
use rusqlite::{
    Connection, ErrorCode, OptionalExtension,
    types::{Value, ValueRef},
};

use crate::{
    Error,
    connect::{self, Opened},
    iso,
};

/// How long the program that writes the file is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest key that is read, in bytes.
const MAX_KEY_BYTES: i64 = 64 * 1024;

/// Columns of the table: name, type, whether it is the primary key.
const COLUMNS: [(&str, &str, bool); 4] = [
    ("key", "TEXT", true),
    ("value", "BLOB", false),
    ("created_at", "TEXT", false),
    ("expires_at", "TEXT", false),
];

/// What [`read_row`] reads; `:time` is the longest text that can be a time.
const COLUMNS_READ: &str = "key, typeof(value), octet_length(value),
    CASE WHEN octet_length(created_at) <= :time THEN created_at END, octet_length(created_at),
    CASE WHEN octet_length(expires_at) <= :time THEN expires_at END, octet_length(expires_at)";

/// A cache file of the Python manager.
///
/// Opened read-only, and so that nothing is made beside it. Rows are read in pages and values one by
/// one, each in a read transaction of its own, so that the program that owns the file is never kept
/// waiting.
#[derive(Debug)]
pub struct PythonCache {
    path: PathBuf,
    opened: Opened,
}

/// A row without its value.
///
/// What cannot be read is text that says why; it names no row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The key.
    pub key: String,
    /// When it was stored, in milliseconds since 1970.
    pub created_at: Result<i64, String>,
    /// When it expires, in milliseconds since 1970; `None`: never.
    pub expires_at: Result<Option<i64>, String>,
    /// Bytes of its value. Larger ones than the caller wants should not be asked for.
    pub value_len: Result<u64, String>,
    /// `created_at` as read, to recognise the row again.
    created: Value,
}

/// A row whose key cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableKey {
    /// SQLite's number of the row.
    pub rowid: i64,
    /// What is wrong with its key.
    pub reason: String,
}

impl PythonCache {
    /// Whether the tables of a database are those of such a file: one table `cache` with exactly
    /// its columns, and any indexes.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn recognises(connection: &Connection) -> rusqlite::Result<bool> {
        let others: i64 = connection.query_row(
            "SELECT count(*) FROM sqlite_schema
             WHERE type <> 'index' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
                 AND (type <> 'table' OR name <> 'cache')",
            [],
            |row| row.get(0),
        )?;
        // A virtual table runs the code of a module; without row ids it is not the manager's.
        let ordinary: i64 = connection.query_row(
            "SELECT count(*) FROM pragma_table_list
             WHERE schema = 'main' AND name = 'cache' AND type = 'table' AND wr = 0",
            [],
            |row| row.get(0),
        )?;
        if others != 0 || ordinary != 1 {
            return Ok(false);
        }
        let mut statement = connection
            .prepare("SELECT name, type, pk, hidden FROM pragma_table_xinfo('cache') LIMIT 5")?;
        let columns = statement.query_map([], |row| {
            let (name, kind): (String, String) = (row.get(0)?, row.get(1)?);
            Ok((name, kind, row.get::<_, i64>(2)?, row.get::<_, i64>(3)?))
        })?;
        let columns: Vec<_> = columns.collect::<Result<_, _>>()?;
        Ok(columns.len() == COLUMNS.len()
            && columns.iter().zip(COLUMNS).all(|((name, kind, key, hidden), wanted)| {
                name == wanted.0
                    && kind.eq_ignore_ascii_case(wanted.1)
                    && *key == i64::from(wanted.2)
                    && *hidden == 0
            }))
    }

    /// Whether there is such a file at this path. Nothing is written to it or beside it, whatever it
    /// is.
    ///
    /// # Errors
    /// When another connection keeps it from being read for so long.
    pub fn is_at(path: &Path, busy_timeout: Duration) -> rusqlite::Result<bool> {
        if !fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() > 0) {
            return Ok(false);
        }
        let Ok(path) = std::path::absolute(path) else { return Ok(false) };
        let recognised = |opened: Opened| Self::recognises(&opened.connection);
        match connect::connect(&path, busy_timeout).and_then(recognised) {
            Err(error) if connect::is_busy(&error) => Err(error),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => Ok(false),
            // A transaction of its program was cut short, for example, which only that may undo. What
            // the file is can be seen as it stands.
            Err(_) => {
                Ok(connect::connect_as_it_stands(&path).and_then(recognised).unwrap_or(false))
            }
            recognised => recognised,
        }
    }

    /// Opens a file; refuses any that the Python manager did not make.
    ///
    /// # Errors
    /// When there is no such file, it may not be read, or it holds something else.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        let access = |source| Error::Access { path: path.clone(), source };
        match fs::metadata(&path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Err(Error::NotAFile { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { path });
            }
            Err(error) => return Err(access(error)),
        }
        // Absolute: SQLite takes `:memory:` and `file:` for something else than names.
        let absolute = std::path::absolute(&path).map_err(access)?;
        let opened = connect::connect(&absolute, BUSY_TIMEOUT).and_then(|opened| {
            let recognised = Self::recognises(&opened.connection)?;
            let tables = if recognised { String::new() } else { tables(&opened.connection)? };
            Ok((opened, recognised, tables))
        });
        match opened {
            Ok((opened, true, _)) => Ok(Self { path, opened }),
            Ok((_, false, tables)) => Err(Error::Foreign { path, tables }),
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
                Err(Error::NotADatabase { path })
            }
            Err(source) => Err(Error::Read { path, action: "open", source }),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Up to `limit` rows after the key `after`, in the order of their keys.
    ///
    /// Leaves out rows whose key cannot be read; see [`unreadable_keys`](Self::unreadable_keys).
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn rows(&self, after: Option<&str>, limit: usize) -> Result<Vec<Row>, Error> {
        let read = || {
            let mut statement = self.opened.connection.prepare_cached(&format!(
                "SELECT {COLUMNS_READ} FROM cache
                 WHERE typeof(key) = 'text' AND octet_length(key) <= :longest
                     AND key >= :after AND (:first OR key > :after)
                 ORDER BY key"
            ))?;
            let mut found = statement.query(rusqlite::named_params! {
                ":time": iso::MAX_LEN, ":longest": MAX_KEY_BYTES, ":after": after.unwrap_or_default(),
                ":first": after.is_none(),
            })?;
            let mut rows = Vec::new();
            while rows.len() < limit
                && let Some(row) = found.next()?
            {
                rows.extend(read_row(row)?);
            }
            Ok(rows)
        };
        self.checked("read the rows of", read())
    }

    /// Whether the order of keys in [`rows`](Self::rows) is that of their bytes in UTF-8, as it is
    /// unless the table was made in an unusual way.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn is_in_byte_order(&self) -> Result<bool, Error> {
        let read = || {
            let connection = &self.opened.connection;
            let encoding: String = connection.query_row("PRAGMA encoding", [], |row| row.get(0))?;
            // The index that the primary key is.
            let binary: bool = connection.query_row(
                "SELECT count(*) = 1 FROM pragma_index_list('cache') AS list
                 JOIN pragma_index_xinfo(list.name) AS part
                 WHERE list.origin = 'pk' AND part.key AND part.coll = 'BINARY'",
                [],
                |row| row.get(0),
            )?;
            Ok(binary && encoding == "UTF-8")
        };
        self.checked("read the schema of", read())
    }

    /// The row with this key.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn row(&self, key: &str) -> Result<Option<Row>, Error> {
        let read = || {
            let mut statement = self.opened.connection.prepare_cached(&format!(
                "SELECT {COLUMNS_READ} FROM cache
                 WHERE key = :key AND typeof(key) = 'text' AND octet_length(key) <= :longest"
            ))?;
            let mut found = statement.query(rusqlite::named_params! {
                ":time": iso::MAX_LEN, ":longest": MAX_KEY_BYTES, ":key": key,
            })?;
            found.next()?.map_or(Ok(None), read_row)
        };
        self.checked("read a row of", read())
    }

    /// The value of a row; `None` if the row has gone or has another value meanwhile.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn value(&self, row: &Row) -> Result<Option<Vec<u8>>, Error> {
        let Ok(len) = row.value_len else { return Ok(None) };
        let read = || {
            self.opened
                .connection
                .prepare_cached(
                    "SELECT value FROM cache
                     WHERE key = :key AND typeof(value) = 'blob' AND octet_length(value) = :len
                         AND CASE WHEN octet_length(created_at) <= :time THEN created_at END
                             IS :created",
                )?
                .query_row(
                    rusqlite::named_params! {
                        ":key": row.key, ":len": len, ":created": row.created,
                        ":time": iso::MAX_LEN,
                    },
                    |row| row.get(0),
                )
                .optional()
        };
        self.checked("read a value of", read())
    }

    /// How many rows there are, with those whose key cannot be read.
    ///
    /// # Errors
    /// When the file cannot be read.
    #[expect(clippy::len_without_is_empty, reason = "reading it can fail; nobody asks")]
    pub fn len(&self) -> Result<u64, Error> {
        let len =
            self.opened.connection.query_row("SELECT count(*) FROM cache", [], |row| row.get(0));
        self.checked("count the rows of", len)
    }

    /// Up to `limit` rows that [`rows`](Self::rows) leaves out: their key is no text, no UTF-8 or
    /// longer than 64 KiB.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn unreadable_keys(&self, limit: usize) -> Result<Vec<UnreadableKey>, Error> {
        let read = || {
            let mut statement = self.opened.connection.prepare(
                "SELECT rowid, typeof(key), octet_length(key),
                     CASE WHEN typeof(key) = 'text' AND octet_length(key) <= ?1 THEN key END
                 FROM cache ORDER BY rowid",
            )?;
            let mut found = statement.query([MAX_KEY_BYTES])?;
            let mut keys = Vec::new();
            while keys.len() < limit
                && let Some(row) = found.next()?
            {
                let reason = match (row.get_ref(3)?, row.get_ref(1)?.as_str()) {
                    (ValueRef::Text(text), _) if str::from_utf8(text).is_ok() => continue,
                    (ValueRef::Text(_), _) => "its key is not UTF-8".to_owned(),
                    (_, Ok("text")) => {
                        let len: i64 = row.get(2)?;
                        format!("its key has {len} bytes, more than {MAX_KEY_BYTES}")
                    }
                    (_, Ok("null")) => "its key is NULL".to_owned(),
                    (_, kind) => {
                        format!("its key is of type {}, not text", kind.unwrap_or("unknown"))
                    }
                };
                keys.push(UnreadableKey { rowid: row.get(0)?, reason });
            }
            Ok(keys)
        };
        self.checked("read the keys of", read())
    }

    /// What was read, if it was not changed meanwhile.
    fn checked<T>(&self, action: &'static str, read: rusqlite::Result<T>) -> Result<T, Error> {
        let path = || self.path.clone();
        if self.opened.may_be_torn() {
            return Err(Error::Changed { path: path() });
        }
        read.map_err(|source| Error::Read { path: path(), action, source })
    }
}

/// The names of a few tables, for a message.
fn tables(connection: &Connection) -> rusqlite::Result<String> {
    let mut statement = connection.prepare(
        "SELECT type || ' `' || substr(name, 1, 60) || '`' FROM sqlite_schema
         WHERE type IN ('table', 'view', 'trigger') LIMIT 4",
    )?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let names: Vec<_> = names.collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Ok("no table".to_owned());
    }
    Ok(Escaped(&names.join(", ")).to_string())
}

/// A row of [`COLUMNS_READ`]; `None` if its key is not UTF-8.
fn read_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Row>> {
    let Ok(key) = row.get_ref(0)?.as_str() else { return Ok(None) };
    let value_len = match (row.get_ref(1)?.as_str(), row.get::<_, Option<u64>>(2)?) {
        (Ok("blob"), Some(len)) => Ok(len),
        (Ok("null"), _) => Err("its value is NULL".to_owned()),
        (kind, _) => Err(format!("its value is of type {}, not a blob", kind.unwrap_or("unknown"))),
    };
    let created_at = match time(row, 3)? {
        Ok(Some(time)) => Ok(time),
        Ok(None) => Err("it is empty".to_owned()),
        Err(reason) => Err(reason),
    };
    Ok(Some(Row {
        key: key.to_owned(),
        created_at,
        expires_at: time(row, 5)?,
        value_len,
        created: row.get(3)?,
    }))
}

/// The time in a column, which is followed by its length; `None` if it is NULL or empty.
fn time(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Result<Option<i64>, String>> {
    let len: Option<i64> = row.get(column + 1)?;
    Ok(match row.get_ref(column)? {
        ValueRef::Null => match len {
            None => Ok(None),
            Some(len) => Err(format!("a text of {len} bytes is not an ISO 8601 time")),
        },
        ValueRef::Text(b"") => Ok(None),
        ValueRef::Text(text) => iso::unix_millis(&String::from_utf8_lossy(text)).map(Some),
        other => Err(format!("it is of type {}, not text", other.data_type())),
    })
}
