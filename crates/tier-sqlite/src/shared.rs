//! What the tier's threads share, and the connection that each of them keeps.

use std::{
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use crossbeam_channel::Sender;
use rusqlite::{Connection, config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, hooks::Wal};

use crate::{
    SqliteOptions,
    bound::Bound,
    error::Failure,
    heal,
    open::{self, Role},
    uses::Uses,
};

pub(crate) type Outcome<T> = Result<T, Arc<Failure>>;

/// What every thread of a tier knows.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: SqliteOptions,
    /// Tells its changes from others'.
    pub(crate) node: i64,
    pub(crate) uses: Uses,
    pub(crate) bound: Bound,
    /// Connections of an earlier generation are on a file that is no longer the tier's.
    generation: AtomicU64,
    /// Pages in the write-ahead log after this process's last commit.
    log_pages: Arc<AtomicUsize>,
    /// Which file is open, if one is. Held while it is opened: two connections that both make the
    /// schema would wait for each other.
    file: Mutex<Option<FileId>>,
    /// Asks for an import; full while one is asked for already.
    import: Sender<()>,
    /// Whether an import is asked for or under way.
    importing: AtomicBool,
}

/// What tells a file from another of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// That of the file which has the name now.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self { device: found.dev(), inode: found.ino() })
    }
}

impl Shared {
    pub(crate) fn new(options: SqliteOptions, import: Sender<()>) -> Self {
        Self {
            node: random(),
            uses: Uses::default(),
            bound: Bound::new(options.max_bytes),
            generation: AtomicU64::new(0),
            log_pages: Arc::default(),
            file: Mutex::new(None),
            import,
            importing: AtomicBool::new(false),
            options,
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The Python cache that the file is beside, while an import of it has not ended.
    pub(crate) fn importing_from(&self) -> Option<&Path> {
        let importing = self.importing.load(Ordering::Acquire);
        importing.then(|| self.options.path.legacy()).flatten()
    }

    pub(crate) fn import_ended(&self) {
        self.importing.store(false, Ordering::Release);
    }

    pub(crate) fn log_pages(&self) -> usize {
        self.log_pages.load(Ordering::Relaxed)
    }

    fn file(&self) -> MutexGuard<'_, Option<FileId>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the file has been opened, and recognised as one of ours.
    pub(crate) fn is_opened(&self) -> bool {
        self.file().is_some()
    }

    fn open(&self, role: Role) -> Result<(u64, Connection), Failure> {
        let mut file = self.file();
        let generation = self.generation();
        self.options.path.look(self.options.busy_timeout)?;
        let mut connection = open::open(&self.options, role)?;
        let now = FileId::of(&self.options.path);
        if file.is_some() && *file != now {
            // The others are on another file.
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        self.options.path.settle();
        if *file != now && self.options.path.legacy().is_some() {
            self.importing.store(true, Ordering::Release);
            _ = self.import.try_send(());
        }
        *file = now;
        drop(file);
        // The connections of a file that was replaced must not touch the log of the one that
        // replaced it, which has the same name.
        connection.set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        if role == Role::Writer {
            self.bound.look_at_disk(&self.options.path);
            let log_pages = Arc::clone(&self.log_pages);
            // In place of SQLite's own, which checkpoints within the commit.
            connection.wal_hook(Some(move |_: &mut Wal, pages: i32| {
                log_pages.store(usize::try_from(pages).unwrap_or(0), Ordering::Relaxed);
                Ok(())
            }))?;
        }
        Ok((generation, connection))
    }

    /// Has every thread open the file anew if the path leads to another one, or to none, or to
    /// nothing; whether it does.
    pub(crate) fn renew_if_replaced(&self) -> bool {
        let path = &self.options.path;
        let file = self.file();
        let replaced = file.is_some() && *file != FileId::of(path);
        let emptied = file.is_some() && fs::metadata(path).is_ok_and(|found| found.len() == 0);
        drop(file);
        match (replaced, emptied) {
            (true, _) => self.renew("it was removed or replaced"),
            (_, true) => self.renew("it was emptied"),
            _ => return false,
        }
        true
    }

    /// Has every thread open the file anew.
    pub(crate) fn renew(&self, why: &str) {
        *self.file() = None;
        self.generation.fetch_add(1, Ordering::AcqRel);
        tracing::warn!(path = %self.options.path.display(), "the file is opened anew: {why}");
    }

    /// Sets a damaged file aside, if it is ours and that has not just been done; whether the path is
    /// free now.
    fn set_aside(&self, failure: &Failure, generation: u64) -> Result<(), Failure> {
        let mut file = self.file();
        if self.generation() != generation {
            // Somebody else has.
            return Ok(());
        }
        heal::set_aside(&self.options.path, *file, failure)?;
        *file = None;
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

/// A random number that is good enough to tell processes apart.
fn random() -> i64 {
    let number = RandomState::new().build_hasher().finish();
    (number >> 1).cast_signed()
}

/// A thread's connection, opened when it is needed and again after it failed.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    role: Role,
    open: Option<(u64, Connection)>,
}

impl Slot {
    pub(crate) fn new(shared: &Arc<Shared>, role: Role) -> Self {
        Self { shared: Arc::clone(shared), role, open: None }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Runs `job` on the connection, and drops that if the result casts doubt on it. A file that is
    /// damaged is set aside, and the job done with a new one.
    pub(crate) fn run<T>(
        &mut self,
        mut job: impl FnMut(&mut Connection, &Shared) -> Result<T, Failure>,
    ) -> Outcome<T> {
        let shared = Arc::clone(&self.shared);
        let mut attempt = || {
            let result = self.connection().and_then(|connection| job(connection, &shared));
            result.map_err(|failure| {
                let failure = failure.at(&shared.options.path);
                if failure.spoils_connection() {
                    self.open = None;
                }
                failure
            })
        };
        let generation = shared.generation();
        let result = match attempt() {
            // The connection may have been left behind by a change of the file.
            Err(failure) if failure.is_damage() => match attempt() {
                Err(failure) if failure.is_damage() => {
                    shared.set_aside(&failure, generation).and_then(|()| attempt())
                }
                result => result,
            },
            result => result,
        };
        result.map_err(Arc::new)
    }

    fn connection(&mut self) -> Result<&mut Connection, Failure> {
        let generation = self.shared.generation();
        self.open.take_if(|(opened, _)| *opened != generation);
        if self.open.is_none() {
            self.open = Some(self.shared.open(self.role)?);
        }
        let open = self.open.as_mut().ok_or(Failure::Closed)?;
        Ok(&mut open.1)
    }

    /// The connection if it is open and of this generation, without opening one.
    pub(crate) fn idle(&mut self) -> Option<&mut Connection> {
        let generation = self.shared.generation();
        self.open.take_if(|(opened, _)| *opened != generation);
        self.open.as_mut().map(|open| &mut open.1)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Opens it, whatever becomes of that.
    pub(crate) fn warm(&mut self) {
        // The next read that needs it says what is wrong.
        drop(self.run(|_, _| Ok(())));
    }

    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// Closes it; if no other process has the file open, its log is moved into it and removed.
    pub(crate) fn close_last(&mut self) {
        let current = FileId::of(&self.shared.options.path);
        let is_current = current.is_some() && current == *self.shared.file();
        if let Some(connection) = self.idle().filter(|_| is_current) {
            // If that fails the log stays, as after a crash.
            drop(connection.set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false));
        }
        self.close();
    }
}
