//! What the tier's threads share, and the connection that each of them keeps.

use std::{
    fs,
    hash::{BuildHasher, Hasher, RandomState},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
};

use crossbeam_channel::Sender;
use rusqlite::{Connection, config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, hooks::Wal};

use crate::{
    SqliteOptions,
    bound::Bound,
    checkpoint::Progress,
    codec_times::CodecTimes,
    dictionaries,
    error::Failure,
    heal, journal,
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
    pub(crate) codec_times: CodecTimes,
    pub(crate) bound: Bound,
    /// Connections of an earlier generation are on a file that is no longer the tier's.
    generation: AtomicU64,
    /// Raised when the path leads to another file than before.
    epoch: AtomicU64,
    /// How many files were set aside.
    set_aside: AtomicUsize,
    /// Pages in the write-ahead log after this process's last commit.
    log_pages: Arc<AtomicUsize>,
    /// Whether the next write begins the log anew, which waits for the disk.
    log_begins: AtomicBool,
    /// Writes that are queued or being committed.
    pub(crate) writes_waiting: AtomicUsize,
    /// Where the journal ended when the file was opened first: what was read from it since may be made
    /// out of date by what comes after that.
    journal_start: AtomicI64,
    /// Which file is open, if one is. Held while it is opened: two connections that both make the
    /// schema would wait for each other.
    file: Mutex<Option<FileId>>,
    /// Whether a connection was opened past what SQLite needs to write, or found that it cannot.
    only_read: AtomicBool,
    /// The connections of all threads.
    connections: Mutex<Vec<Weak<Place>>>,
    /// Asks for an import; full while one is asked for already.
    import: Sender<()>,
    /// Whether an import is asked for or under way.
    importing: AtomicBool,
}

/// Where a thread keeps its connection, and the generation of that.
type Place = Mutex<Option<(u64, Connection)>>;

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
            codec_times: CodecTimes::default(),
            bound: Bound::new(options.max_bytes),
            generation: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            set_aside: AtomicUsize::new(0),
            log_pages: Arc::default(),
            log_begins: AtomicBool::new(true),
            writes_waiting: AtomicUsize::new(0),
            journal_start: AtomicI64::new(0),
            file: Mutex::new(None),
            only_read: AtomicBool::new(false),
            connections: Mutex::default(),
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

    /// Notes that this process has committed.
    pub(crate) fn note_commit(&self) {
        self.log_begins.store(false, Ordering::Relaxed);
    }

    pub(crate) fn log_begins(&self) -> bool {
        self.log_begins.load(Ordering::Relaxed)
    }

    /// Notes how far a checkpoint came.
    pub(crate) fn note_checkpoint(&self, progress: Option<&Progress>) {
        if progress.is_some_and(|progress| progress.left == 0) {
            self.log_begins.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn files_set_aside(&self) -> usize {
        self.set_aside.load(Ordering::Relaxed)
    }

    pub(crate) fn journal_start(&self) -> i64 {
        self.journal_start.load(Ordering::Relaxed)
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
        let before = FileId::of(&self.options.path);
        let open::Opened { mut connection, only_reads } = open::open(&self.options, role)?;
        if only_reads {
            self.only_read.store(true, Ordering::Release);
        }
        let now = FileId::of(&self.options.path);
        if before.is_some() && before != now {
            // Replaced just then: which of the two is open cannot be told.
            return Err(Failure::Replaced(self.options.path.to_path_buf()));
        }
        if file.is_some() && *file != now {
            // The others are on another file.
            self.begin_epoch();
        }
        if file.is_none() || *file != now {
            // A file of another format may have none.
            let end = journal::end(&connection).unwrap_or_default();
            self.journal_start.store(end, Ordering::Relaxed);
            if let Some(compression) = &self.options.compression
                && let Err(error) = dictionaries::learn_last(&connection, &**compression)
            {
                tracing::debug!(%error, "no dictionaries can be read");
            }
        }
        self.options.path.settle();
        if *file != now && self.options.path.legacy().is_some() {
            self.importing.store(true, Ordering::Release);
            _ = self.import.try_send(());
        }
        *file = now;
        drop(file);
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
        let generation = self.generation();
        let file = self.file();
        let replaced = file.is_some() && *file != FileId::of(path);
        let emptied = file.is_some() && heal::is_emptied(path);
        drop(file);
        if replaced {
            self.renew("it was removed or replaced");
        } else if emptied {
            // Not used again: connections that nobody uses just now keep it locked.
            let failure =
                Failure::Damaged { path: path.to_path_buf(), why: "it was emptied".to_owned() };
            if let Err(failure) = self.set_aside(&failure, generation) {
                tracing::debug!(%failure, "an emptied file cannot be set aside");
                return false;
            }
        }
        replaced || emptied
    }

    /// Has every thread open the file anew.
    pub(crate) fn renew(&self, why: &str) {
        *self.file() = None;
        self.begin_epoch();
        tracing::warn!(path = %self.options.path.display(), "the file is opened anew: {why}");
    }

    /// Sets the file aside though it can be read: a check has found that it is damaged.
    pub(crate) fn give_up(&self) -> Result<(), Failure> {
        let path = self.options.path.to_path_buf();
        let why = "a check has found damage that cannot be mended".to_owned();
        self.set_aside(&Failure::Damaged { path, why }, self.generation())
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
        self.begin_epoch();
        self.set_aside.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The file is another one: all that was read from it may be out of date.
    fn begin_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.begin_generation();
    }

    /// A number that changes when the path leads to another file.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Connections of before are of no use any more. Those that nobody uses just now are closed here:
    /// what SQLite keeps of a file for all connections of a process, its locks and the index of its
    /// log, stays with the last of them. The others are closed by who uses them.
    fn begin_generation(&self) {
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let places = self.connections.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for place in places.iter().filter_map(Weak::upgrade) {
            if let Ok(mut open) = place.try_lock() {
                open.take_if(|(opened, _)| *opened != generation);
            }
        }
    }

    pub(crate) fn codec_times_are_due(&self) -> bool {
        self.options.compression.as_ref().is_some_and(|by| self.codec_times.is_due(&**by))
    }

    pub(crate) fn write_codec_times(&self, connection: &Connection) -> rusqlite::Result<()> {
        match &self.options.compression {
            Some(compression) => self.codec_times.write(connection, &**compression),
            None => Ok(()),
        }
    }

    /// Notes that the file could not be written.
    fn note_only_read(&self) {
        self.only_read.store(true, Ordering::Release);
    }

    /// Has every thread open the file anew if one of them could only read it: it may be possible to
    /// write it now, and it is once somebody did.
    pub(crate) fn renew_if_only_read(&self) {
        if self.only_read.swap(false, Ordering::AcqRel) {
            self.begin_generation();
        }
    }
}

/// A random number that is good enough to tell processes apart.
pub(crate) fn random() -> i64 {
    let number = RandomState::new().build_hasher().finish();
    (number >> 1).cast_signed()
}

/// A thread's connection, opened when it is needed and again after it failed.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<Shared>,
    role: Role,
    place: Arc<Place>,
    /// How often it was opened.
    opened: u64,
}

/// A connection that is open.
pub(crate) struct Idle<'a>(MutexGuard<'a, Option<(u64, Connection)>>);

impl Idle<'_> {
    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.0.as_ref().map(|(_, connection)| connection)
    }

    pub(crate) fn close(mut self) {
        *self.0 = None;
    }
}

fn lock(place: &Place) -> MutexGuard<'_, Option<(u64, Connection)>> {
    // A job that panicked left nothing half done: SQLite undoes what was not committed.
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    pub(crate) fn new(shared: &Arc<Shared>, role: Role) -> Self {
        let place = Arc::new(Mutex::new(None));
        let mut connections = shared.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.push(Arc::downgrade(&place));
        Self { shared: Arc::clone(shared), role, place, opened: 0 }
    }

    /// How often it was opened: what one connection says of itself is not true of the next.
    pub(crate) const fn times_opened(&self) -> u64 {
        self.opened
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
        let shared = &self.shared;
        let mut open = lock(&self.place);
        let mut attempt = || {
            let result = connection(&mut open, shared, self.role, &mut self.opened)
                .and_then(|connection| job(connection, shared));
            result.map_err(|failure| {
                let failure = failure.at(&shared.options.path);
                if failure.spoils_connection() {
                    *open = None;
                }
                if failure.is_of_rights() {
                    shared.note_only_read();
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
        // Who began another generation could not close this one.
        let generation = shared.generation();
        open.take_if(|(opened, _)| *opened != generation);
        result.map_err(Arc::new)
    }

    /// The connection if it is open and of this generation, without opening one.
    pub(crate) fn idle(&self) -> Option<Idle<'_>> {
        let generation = self.shared.generation();
        let mut open = lock(&self.place);
        open.take_if(|(opened, _)| *opened != generation);
        open.is_some().then_some(Idle(open))
    }

    pub(crate) fn is_open(&self) -> bool {
        lock(&self.place).is_some()
    }

    /// Opens it, whatever becomes of that.
    pub(crate) fn warm(&mut self) {
        // The next read that needs it says what is wrong.
        drop(self.run(|_, _| Ok(())));
    }

    pub(crate) fn close(&mut self) {
        *lock(&self.place) = None;
    }

    /// Closes it; if no other process has the file open, its log is moved into it and removed.
    pub(crate) fn close_last(&mut self) {
        let current = FileId::of(&self.shared.options.path);
        let is_current = current.is_some() && current == *self.shared.file();
        if let Some(connection) =
            self.idle().filter(|_| is_current).as_ref().and_then(Idle::connection)
        {
            // If that fails the log stays, as after a crash.
            drop(connection.set_db_config(SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false));
        }
        self.close();
    }
}

fn connection<'a>(
    open: &'a mut Option<(u64, Connection)>,
    shared: &Shared,
    role: Role,
    times: &mut u64,
) -> Result<&'a mut Connection, Failure> {
    let generation = shared.generation();
    open.take_if(|(opened, _)| *opened != generation);
    if open.is_none() {
        *open = Some(shared.open(role)?);
        *times += 1;
    }
    let open = open.as_mut().ok_or(Failure::Closed)?;
    Ok(&mut open.1)
}
