//! What has been called, in a SQLite file that processes share.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params,
};

use crate::{
    Limits, Urgency,
    decide::{Decision, Seen, decide, window},
};

/// "LRDL": marks the file as ours.
const APPLICATION_ID: i64 = 0x4C52_444C;
const FORMAT: i64 = 1;
/// Longest wait for another process, each of which holds the file for microseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Calls of a source are numbered without gaps, so that the one that fills a quota is found by its
/// number, however many there are.
const SCHEMA: &str = "
CREATE TABLE sources(
  name TEXT PRIMARY KEY,
  next INTEGER NOT NULL DEFAULT 0,
  due INTEGER NOT NULL DEFAULT 0,
  paused_until INTEGER NOT NULL DEFAULT 0,
  warned INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE calls(
  source TEXT NOT NULL,
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY(source, seq)
) STRICT, WITHOUT ROWID;
";

#[derive(Debug)]
pub(crate) struct File {
    path: PathBuf,
    connection: Mutex<Option<Opened>>,
    failing: AtomicBool,
}

/// A connection, and which file it is to.
#[derive(Debug)]
struct Opened {
    connection: Connection,
    identity: Option<Identity>,
}

/// What tells a file from another one of its name.
type Identity = (u64, u64);

#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|data| (data.dev(), data.ino()))
}

/// Files that are open cannot be replaced here.
#[cfg(not(unix))]
fn identity(path: &Path) -> Option<Identity> {
    path.exists().then_some((0, 0))
}

/// The file, locked against other processes.
pub(crate) struct Book<'f>(Transaction<'f>);

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("it cannot be made: {0}")]
    Io(#[from] io::Error),
    #[error("it is not a ledger of calls; name another file")]
    Foreign,
    #[error("it was written by a newer version (format {0})")]
    Newer(i64),
}

impl Failure {
    fn is_damage(&self) -> bool {
        let Self::Sqlite(error) = self else { return false };
        matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
        )
    }
}

impl File {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, connection: Mutex::default(), failing: AtomicBool::new(false) }
    }

    /// Does `work` with the file; `None` if that is not possible now, which is told once.
    pub(crate) fn with<T>(&self, work: impl Fn(&mut Book<'_>) -> rusqlite::Result<T>) -> Option<T> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = self.attempt(&mut connection, &work);
        let mut damaged = None;
        if done.as_ref().is_err_and(Failure::is_damage) {
            // Another process may have dealt with it.
            *connection = None;
            damaged = identity(&self.path);
            done = self.attempt(&mut connection, &work);
        }
        if done.as_ref().is_err_and(Failure::is_damage) && damaged == identity(&self.path) {
            *connection = None;
            match set_aside(&self.path) {
                Ok(aside) => {
                    tracing::warn!(
                        path = %self.path.display(),
                        aside = %aside.display(),
                        "the ledger of calls is damaged and begins anew; calls before now no longer \
                         count towards quotas"
                    );
                    done = self.attempt(&mut connection, &work);
                }
                Err(error) => done = Err(error.into()),
            }
        }
        match done {
            Ok(done) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!(path = %self.path.display(), "the ledger of calls works again");
                }
                Some(done)
            }
            Err(failure) => {
                *connection = None;
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        path = %self.path.display(),
                        %failure,
                        "the ledger of calls cannot be used; rates and quotas are kept by this \
                         process alone until it can"
                    );
                }
                None
            }
        }
    }

    fn attempt<T>(
        &self,
        opened: &mut Option<Opened>,
        work: impl Fn(&mut Book<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        // One that was taken away, and may have been made anew by another process, is another file.
        let there = identity(&self.path);
        if opened.as_ref().is_none_or(|opened| there.is_none() || opened.identity != there) {
            let connection = open(&self.path)?;
            *opened = Some(Opened { connection, identity: identity(&self.path) });
        }
        let Some(opened) = opened else { return Err(Failure::Foreign) };
        let transaction =
            opened.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut book = Book(transaction);
        let done = work(&mut book)?;
        book.0.commit()?;
        Ok(done)
    }
}

impl Book<'_> {
    /// Decides about one call, and takes note of it if it may be made.
    pub(crate) fn take(
        &mut self,
        source: &str,
        limits: &Limits,
        urgency: Urgency,
        now: i64,
    ) -> rusqlite::Result<Decision> {
        let seen = self.look(source, limits, urgency, now)?;
        let decision = decide(limits, now, &seen);
        if let Decision::Go { due, warns } = decision {
            let warned = if warns { now } else { seen.warned };
            let counts = i64::from(limits.quota.is_some());
            let mut note = self.0.prepare_cached(
                "INSERT INTO sources(name, next, due, warned) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT(name) DO UPDATE SET next = next + ?2, due = ?3, warned = ?4
                 RETURNING next - 1",
            )?;
            let seq: i64 =
                note.query_row(params![source, counts, due, warned], |row| row.get(0))?;
            if counts == 1 {
                let mut call = self
                    .0
                    .prepare_cached("INSERT INTO calls(source, seq, at) VALUES (?1, ?2, ?3)")?;
                call.execute(params![source, seq, now])?;
            }
        }
        Ok(decision)
    }

    pub(crate) fn look(
        &mut self,
        source: &str,
        limits: &Limits,
        urgency: Urgency,
        now: i64,
    ) -> rusqlite::Result<Seen> {
        let mut found = self.0.prepare_cached(
            "SELECT next, due, paused_until, warned FROM sources WHERE name = ?1",
        )?;
        let found = found.query_row([source], |row| {
            let seen = Seen {
                due: row.get(1)?,
                paused_until: row.get(2)?,
                warned: row.get(3)?,
                ..Seen::default()
            };
            Ok((row.get::<_, i64>(0)?, seen))
        });
        let Some((next, mut seen)) = found.optional()? else { return Ok(Seen::default()) };
        if seen.settle(limits, now) {
            self.0.execute(
                "UPDATE sources SET due = ?2, paused_until = ?3 WHERE name = ?1",
                params![source, seen.due, seen.paused_until],
            )?;
        }
        let Some((since, allowance)) = window(limits, urgency, now) else { return Ok(seen) };
        self.tidy(source, since, now)?;
        let mut oldest = self
            .0
            .prepare_cached("SELECT seq FROM calls WHERE source = ?1 AND at > ?2 ORDER BY seq")?;
        let oldest: Option<i64> =
            oldest.query_row(params![source, since], |row| row.get(0)).optional()?;
        let used = oldest.map_or(0, |oldest| next - oldest);
        let mut blocking = self
            .0
            .prepare_cached("SELECT at FROM calls WHERE source = ?1 AND seq = ?2 AND at > ?3")?;
        let blocking = blocking
            .query_row(params![source, next - i64::from(allowance), since], |row| row.get(0))
            .optional()?;
        Ok(Seen { used: u32::try_from(used).unwrap_or(u32::MAX), blocking, ..seen })
    }

    /// Forgets a few calls that have left the window, more than a call adds; those that a clock has
    /// left in the future when it was set back count as of now.
    fn tidy(&self, source: &str, since: i64, now: i64) -> rusqlite::Result<()> {
        let mut forget = self.0.prepare_cached(
            "DELETE FROM calls WHERE source = ?1 AND seq IN
             (SELECT seq FROM calls WHERE source = ?1 ORDER BY seq LIMIT 8) AND at <= ?2",
        )?;
        forget.execute(params![source, since])?;
        let mut last = self
            .0
            .prepare_cached("SELECT at FROM calls WHERE source = ?1 ORDER BY seq DESC LIMIT 1")?;
        let last: Option<i64> = last.query_row([source], |row| row.get(0)).optional()?;
        if last.is_some_and(|last| last > now) {
            self.0.execute(
                "UPDATE calls SET at = ?2 WHERE source = ?1 AND at > ?2",
                params![source, now],
            )?;
        }
        Ok(())
    }

    pub(crate) fn pause(&mut self, source: &str, until: i64) -> rusqlite::Result<()> {
        let mut pause = self.0.prepare_cached(
            "INSERT INTO sources(name, paused_until) VALUES (?1, ?2)
             ON CONFLICT(name) DO UPDATE SET paused_until = max(paused_until, ?2)",
        )?;
        pause.execute(params![source, until]).map(|_changed| ())
    }
}

fn open(path: &Path) -> Result<Connection, Failure> {
    // SQLite would make the file readable by everybody the umask lets in.
    let mut file = fs::OpenOptions::new();
    let mut directory = fs::DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        directory.mode(0o700);
        file.mode(0o600);
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        directory.recursive(true).create(parent)?;
    }
    match file.write(true).create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // The whole path: SQLite takes `:memory:` and `file:` for something else than names.
    let mut connection = Connection::open_with_flags(std::path::absolute(path)?, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name| transaction.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (pragma("application_id")?, pragma("user_version")?) {
        (APPLICATION_ID, FORMAT) => {}
        (APPLICATION_ID, newer) => return Err(Failure::Newer(newer)),
        (0, 0) if tables == 0 => {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", FORMAT)?;
        }
        _ => return Err(Failure::Foreign),
    }
    transaction.commit()?;
    // Where there can be no write-ahead log, the usual journal does as well.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_mode| Ok(()))?;
    // A power cut may forget the latest calls; a killed process forgets none.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// Moves a damaged file, and what SQLite has put beside it, out of the way.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = named(".damaged");
    fs::rename(path, &aside)?;
    for beside in ["-wal", "-shm"] {
        match fs::remove_file(named(beside)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}
