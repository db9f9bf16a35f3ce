//! Opening the file: created private, recognised before it is touched, brought to the known format.

use std::{
    fs, io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior,
    config::DbConfig::{SQLITE_DBCONFIG_DEFENSIVE, SQLITE_DBCONFIG_TRUSTED_SCHEMA},
};

use crate::{SqliteOptions, error::Failure};

/// "LRDR": marks the file as ours.
const APPLICATION_ID: i64 = 0x4C52_4452;
/// Format this code reads and writes; `PRAGMA user_version` of the file.
const FORMAT: i64 = 1;
const SCHEMA: &str = include_str!("schema.sql");
/// Fewer and larger pages than SQLite's default of 4,096 bytes: files a third smaller and grouped
/// writes a third faster with rows of 2 KB, at equal reads.
const PAGE_BYTES: i64 = 8_192;
const PAGE_CACHE_KIB: i64 = 16_384;

/// How soon to ask again for the write-ahead log.
const RETRY_WAL: Duration = Duration::from_millis(5);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Reader,
    Writer,
}

/// Opens a connection to the tier's file.
pub(crate) fn open(options: &SqliteOptions, role: Role) -> Result<Connection, Failure> {
    let path = &options.path;
    prepare(path)?;
    // Without CREATE: SQLite would make the file readable by everybody the umask lets in.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // Absolute: SQLite takes `:memory:` and `file:` for something else than names.
    let absolute = std::path::absolute(path)
        .map_err(|source| Failure::Prepare { path: path.clone(), source })?;
    let mut connection = Connection::open_with_flags(absolute, flags)?;
    connection.busy_timeout(options.busy_timeout)?;
    recognise(&mut connection, options).map_err(|failure| failure.at(path))?;
    configure(&connection, options, role)?;
    Ok(connection)
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

/// Makes sure that the file is ours, making an empty one so; touches no other.
fn recognise(connection: &mut Connection, options: &SqliteOptions) -> Result<(), Failure> {
    if is_ours(&connection.transaction()?, &options.path)? {
        return Ok(());
    }
    // Both take effect only before the first page is written.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    use_wal(connection, options)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have been faster; what it made is looked at again.
    if !is_ours(&transaction, &options.path)? {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Whether the file has our format; not, if it is empty. Any other is refused. In a transaction,
/// so that all is seen at one instant.
fn is_ours(transaction: &Transaction<'_>, path: &Path) -> Result<bool, Failure> {
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, format) = (pragma("application_id")?, pragma("user_version")?);
    if application == APPLICATION_ID && format == FORMAT {
        return Ok(true);
    }
    if application == APPLICATION_ID && format > FORMAT {
        return Err(Failure::Newer { path: path.to_owned(), found: format, known: FORMAT });
    }
    let tables = tables(transaction)?;
    if application == 0 && format == 0 && tables.is_empty() {
        return Ok(false);
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

fn configure(connection: &Connection, options: &SqliteOptions, role: Role) -> Result<(), Failure> {
    // The file may have been made by anybody who can write to its directory.
    connection.set_db_config(SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    use_wal(connection, options)?;
    // In WAL mode a power cut may undo the latest commits, never damage the file; a killed process
    // loses nothing.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -PAGE_CACHE_KIB)?;
    if role == Role::Reader {
        connection.pragma_update(None, "query_only", true)?;
    }
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}
