//! Opening the file: created private, recognised before it is touched, brought to the known format.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use cache_core::ErrorKind;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior,
    config::DbConfig::{
        SQLITE_DBCONFIG_DEFENSIVE, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, SQLITE_DBCONFIG_TRUSTED_SCHEMA,
    },
};

use crate::{
    SqliteOptions,
    bound::beside,
    error::Failure,
    found,
    migrate::{self, FORMAT},
    schema,
};

/// "LRDR": marks the file as ours.
pub(crate) const APPLICATION_ID: i64 = 0x4C52_4452;
/// Fewer and larger pages than SQLite's default of 4,096 bytes: files a third smaller and grouped
/// writes a third faster with rows of 2 KB, at equal reads.
pub(crate) const PAGE_BYTES: i64 = 8_192;

/// What is kept of a write-ahead log that is used anew, and of that of a small file.
const LOG_BYTES_KEPT: u64 = 64 << 20;
const LEAST_LOG_BYTES_KEPT: u64 = 1 << 20;

/// How soon to ask again for the write-ahead log.
const RETRY_WAL: Duration = Duration::from_millis(5);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Reader,
    /// Reads on threads of others, which it must not keep waiting.
    Here,
    Writer,
    Checkpoint,
}

impl Role {
    /// KiB of pages that it keeps in memory, if it has use for them. What is not there is read from the
    /// system's cache, which costs a read a third more.
    const fn page_cache_kib(self) -> i64 {
        match self {
            Self::Here | Self::Reader => 24 << 10,
            Self::Writer => 16 << 10,
            Self::Checkpoint => 1 << 10,
        }
    }

    const fn only_reads(self) -> bool {
        matches!(self, Self::Reader | Self::Here)
    }
}

/// A connection that has just been opened.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    /// Whether it may not see what another writes, or keep that from writing.
    pub(crate) only_reads: bool,
}

/// Opens a connection to the tier's file.
pub(crate) fn open(options: &SqliteOptions, role: Role) -> Result<Opened, Failure> {
    match open_to_write(options, role) {
        Ok(connection) => Ok(Opened { connection, only_reads: false }),
        // What cannot be written may still be read.
        Err(failure)
            if role.only_reads()
                && (failure.kind() == ErrorKind::Refused || failure.is_of_rights()) =>
        {
            // Why it cannot be written says more than why it cannot be read either.
            let read = open_to_read(options, &failure).ok().flatten();
            let connection = read.ok_or(failure)?;
            Ok(Opened { connection, only_reads: true })
        }
        Err(failure) => Err(failure),
    }
}

fn open_to_write(options: &SqliteOptions, role: Role) -> Result<Connection, Failure> {
    let path = &options.path;
    prepare(path)?;
    // Without CREATE: SQLite would make the file readable by everybody the umask lets in.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(absolute(path)?, flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    harden(&connection)?;
    recognise(&mut connection, options).map_err(|failure| failure.at(path))?;
    configure(&connection, options, role)?;
    Ok(connection)
}

/// Opens a file that cannot be written, or must not be; `None` if it cannot be read either.
fn open_to_read(options: &SqliteOptions, why: &Failure) -> Result<Option<Connection>, Failure> {
    let path = &options.path;
    if options.refuse_newer && matches!(why, Failure::Newer { .. }) {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let absolute = absolute(path)?;
    let is_readable = |connection: &Connection| -> Result<bool, Failure> {
        harden(connection)?;
        connection.busy_timeout(Duration::ZERO)?;
        let application: i64 =
            connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        // All that is read must be there, whatever its format.
        Ok(application == APPLICATION_ID && found::can_be_read(connection))
    };
    let connection = Connection::open_with_flags(&absolute, flags)?;
    match is_readable(&connection) {
        Ok(true) => return Ok(Some(connection)),
        Ok(false) => return Ok(None),
        Err(failure) => tracing::debug!(%failure, "the file cannot be read together with others"),
    }
    // In a directory that cannot be written the log's index cannot be made. Without a log the file
    // is all there is; nobody can change it.
    if fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0) {
        return Ok(None);
    }
    let Some(name) = absolute.to_str() else { return Ok(None) };
    let mut uri = "file:".to_owned();
    for byte in name.bytes() {
        // Percent-encoded: `?`, `#` and `%` mean something in a URI.
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => _ = write!(uri, "%{byte:02X}"),
        }
    }
    uri.push_str("?immutable=1");
    let connection = Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)?;
    Ok(is_readable(&connection)?.then_some(connection))
}

/// The whole path: SQLite takes `:memory:` and `file:` for something else than names.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|source| Failure::Prepare { path: path.to_owned(), source })
}

/// Creates what is missing: directories for the owner only, and an empty file for the owner only,
/// whose mode SQLite gives to the files it puts beside it.
fn prepare(path: &Path) -> Result<(), Failure> {
    let failed = |source| Failure::Prepare { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(Failure::Directory(path.to_owned())),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let mut directory = fs::DirBuilder::new();
    let mut file = fs::OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        directory.mode(0o700);
        file.mode(0o600);
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        directory.recursive(true).create(parent).map_err(failed)?;
    }
    match file.write(true).create_new(true).open(path) {
        Ok(_) => Ok(()),
        // Another process was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Makes sure that the file is ours, and of the known format: an empty one is made so, an older one
/// migrated. Touches no other.
fn recognise(connection: &mut Connection, options: &SqliteOptions) -> Result<(), Failure> {
    let found = look(&connection.transaction()?, &options.path)?;
    match found {
        Found::Known => return Ok(()),
        Found::Older(format) => return migrate::migrate(connection, options, format),
        Found::Empty => {}
    }
    // Both take effect only before the first page is written.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    use_wal(connection, options)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster; what it made is looked at again.
    if matches!(look(&transaction, &options.path)?, Found::Empty) {
        transaction.execute_batch(schema::SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
    }
    transaction.commit()?;
    Ok(())
}

/// What a file that may be used is.
enum Found {
    Empty,
    Known,
    /// Of an earlier format.
    Older(i64),
}

/// Looks at the file, and refuses it if it is not to be written. In a transaction, so that all is
/// seen at one instant.
fn look(transaction: &Transaction<'_>, path: &Path) -> Result<Found, Failure> {
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, format) = (pragma("application_id")?, pragma("user_version")?);
    match format {
        _ if application != APPLICATION_ID => {}
        FORMAT => {
            if let Some(part) = schema::damaged_part(transaction)? {
                let why = format!("{part} of its schema is not as it was written");
                return Err(Failure::Damaged { path: path.to_owned(), why });
            }
            return Ok(Found::Known);
        }
        1..FORMAT if schema::damaged_part(transaction)?.is_none() => {
            let why = format!("its header says format {format}, and it is not of that");
            return Err(Failure::Damaged { path: path.to_owned(), why });
        }
        1..FORMAT => return Ok(Found::Older(format)),
        _ if format > FORMAT => {
            return Err(Failure::Newer { path: path.to_owned(), found: format, known: FORMAT });
        }
        _ => {
            let why = format!("its format is {format}");
            return Err(Failure::Damaged { path: path.to_owned(), why });
        }
    }
    let tables = tables(transaction)?;
    if application == 0 && format == 0 && tables.is_empty() {
        return Ok(Found::Empty);
    }
    if schema::damaged_part(transaction)?.is_none() {
        let why = "its header says that it belongs to another program".to_owned();
        return Err(Failure::Damaged { path: path.to_owned(), why });
    }
    let tables = if tables.is_empty() { "no tables".to_owned() } else { tables };
    Err(Failure::Foreign { path: path.to_owned(), tables })
}

fn tables(connection: &Connection) -> rusqlite::Result<String> {
    let mut statement =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' LIMIT 4")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let names: Vec<String> = names.collect::<Result<_, _>>()?;
    let quoted: Vec<String> =
        names.iter().map(|name| format!("`{}`", cache_core::Escaped(name))).collect();
    Ok(quoted.join(", "))
}

/// Turns the write-ahead log on. SQLite does not wait for other connections here, so this does.
fn use_wal(connection: &Connection, options: &SqliteOptions) -> Result<(), Failure> {
    let deadline = Instant::now() + options.busy_timeout;
    loop {
        let mode = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match mode {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(mode) => {
                tracing::warn!(
                    path = %options.path.display(),
                    mode,
                    "no write-ahead log on this file system: readers wait for writers"
                );
                return Ok(());
            }
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && Instant::now() < deadline =>
            {
                thread::sleep(RETRY_WAL);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The file may have been made by anybody who can write to its directory.
fn harden(connection: &Connection) -> Result<(), Failure> {
    // The log of a file that turns out to be another program's, or damaged, stays as it is. Nor may
    // connections of a file that was replaced touch that of its successor, which has the same name.
    connection.set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(())
}

fn configure(connection: &Connection, options: &SqliteOptions, role: Role) -> Result<(), Failure> {
    use_wal(connection, options)?;
    // In WAL mode a power cut may undo the latest commits, never damage the file; a killed process
    // loses nothing.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -role.page_cache_kib())?;
    // The log keeps its place on disk for the next writes, but not all of it after a storm.
    let kept = options.max_bytes.clamp(LEAST_LOG_BYTES_KEPT, LOG_BYTES_KEPT);
    connection.pragma_update(None, "journal_size_limit", kept.cast_signed())?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    match role {
        Role::Reader => connection.pragma_update(None, "query_only", true)?,
        Role::Here => {
            connection.pragma_update(None, "query_only", true)?;
            connection.busy_timeout(Duration::ZERO)?;
        }
        Role::Writer | Role::Checkpoint => {}
    }
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}
