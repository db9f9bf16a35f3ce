//! Opening a file so that nothing in it can run, and nothing is written to it or beside it.
//!
//! SQLite reads a database in WAL mode with two files beside it, which it makes if they are missing.
//! Where they are, their program is at work or was killed, and they are used. Where they are not, the
//! file is all there is, and is read as it stands, for as long as it stays the same.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags,
    config::DbConfig::{SQLITE_DBCONFIG_DEFENSIVE, SQLITE_DBCONFIG_TRUSTED_SCHEMA},
    ffi,
};

/// Where the header says whether the file is in WAL mode, and how long it is read up to there.
const MODE: usize = 18;
const START: usize = 20;
const WAL: u8 = 2;

/// A connection that only reads.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    frozen: Option<Frozen>,
}

/// A file that is read without locks.
#[derive(Debug)]
struct Frozen {
    path: PathBuf,
    state: Option<State>,
}

/// What changes if somebody writes to a file.
#[derive(Debug, PartialEq, Eq)]
struct State {
    len: u64,
    modified: Option<SystemTime>,
    has_log: bool,
}

impl State {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        let has_log = fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
        Some(Self { len: found.len(), modified: found.modified().ok(), has_log })
    }
}

impl Opened {
    /// Whether what was read may be a mixture of before and after somebody wrote.
    pub(crate) fn may_be_torn(&self) -> bool {
        self.frozen.as_ref().is_some_and(|frozen| State::of(&frozen.path) != frozen.state)
    }
}

/// Opens the file at a whole path.
pub(crate) fn connect(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Opened> {
    let exists = |suffix| beside(path, suffix).exists();
    let state = State::of(path);
    if !(exists("-wal") && exists("-shm")) {
        if state.as_ref().is_some_and(|state| state.has_log) {
            return Err(cannot_open(&"its log has no index, which only its program may make"));
        }
        if is_in_wal_mode(path).map_err(|error| cannot_open(&error))? {
            return frozen(path, state);
        }
    }
    let connection = open(path, "")?;
    connection.busy_timeout(busy_timeout)?;
    Ok(Opened { connection, frozen: None })
}

/// Opens the file as it stands, whatever is beside it.
pub(crate) fn connect_as_it_stands(path: &Path) -> rusqlite::Result<Opened> {
    frozen(path, State::of(path))
}

fn frozen(path: &Path, state: Option<State>) -> rusqlite::Result<Opened> {
    let connection = open(path, "?immutable=1")?;
    Ok(Opened { connection, frozen: Some(Frozen { path: path.to_owned(), state }) })
}

fn open(path: &Path, parameter: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let mut uri = "file:".to_owned();
    let name = path.to_str().ok_or_else(|| rusqlite::Error::InvalidPath(path.to_owned()))?;
    for byte in name.bytes() {
        // Percent-encoded: `?`, `#` and `%` mean something in a URI.
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => uri.push(char::from(byte)),
            _ => _ = write!(uri, "%{byte:02X}"),
        }
    }
    let connection = Connection::open_with_flags(uri + parameter, flags)?;
    // The file may have been made by anybody who can write to its directory.
    connection.set_db_config(SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    Ok(connection)
}

/// Whether the header says so.
///
/// To close a file drops every lock that connections of this process have on it. So one that may be
/// locked, since it is not in WAL mode, is opened once and never closed.
fn is_in_wal_mode(path: &Path) -> io::Result<bool> {
    static KEPT: Mutex<Option<HashMap<(u64, u64), File>>> = Mutex::new(None);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = kept.get_or_insert_default();
    let found = fs::metadata(path)?;
    let id = (found.dev(), found.ino());
    let read = |file: &File| -> io::Result<bool> {
        let mut start = [0; START];
        match file.read_exact_at(&mut start, 0) {
            Ok(()) => Ok(start.get(MODE..).is_some_and(|modes| modes.contains(&WAL))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    };
    if let Some(file) = kept.get(&id) {
        return read(file);
    }
    let file = File::open(path)?;
    let is_wal = read(&file)?;
    if !is_wal {
        let found = file.metadata()?;
        kept.insert((found.dev(), found.ino()), file);
    }
    Ok(is_wal)
}

fn cannot_open(error: &impl ToString) -> rusqlite::Error {
    let code = ffi::Error::new(ffi::SQLITE_CANTOPEN);
    rusqlite::Error::SqliteFailure(code, Some(error.to_string()))
}

/// Whether another connection keeps the file from being read just now.
pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    let codes = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked];
    error.sqlite_error_code().is_some_and(|code| codes.contains(&code))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
