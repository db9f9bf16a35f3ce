//! The file that keeps changes: one JSON document a line.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use larder::Timestamp;

use super::Change;

/// Size past which the file is put aside, unless another is given.
const MAX_BYTES: u64 = 16 << 20;
/// Longest line; a change as [`super::compare`] gives it takes a quarter at most.
const MAX_LINE: u64 = 1 << 20;
/// Longest wait for other processes, each of which needs well under a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether another process is done.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Keeps changes in a file, for several processes at once.
///
/// Beside the file there are one with `.1` at the end of its name, which holds older changes, and
/// one with `.lock`, which is empty. They are made when they are needed, and for the owner only.
///
/// What is appended is handed to the system, but not forced to the disk: after a power failure the
/// last changes may be missing.
#[derive(Clone, Debug)]
pub struct ChangeLog {
    path: PathBuf,
    max_bytes: u64,
    patience: Duration,
}

/// Changes that a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangeList {
    /// The changes, oldest first.
    pub changes: Vec<Change>,
    /// How many lines could not be read: torn ones, and those of something else.
    pub skipped: u64,
}

/// A file of changes cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeLogError {
    /// A file cannot be opened, read or written.
    #[error("the log of changes {} cannot be {doing}: {source}", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process has had the lock for too long.
    #[error(
        "another process has held {} for over {patience:?}; \
         if none is writing changes, end the one that has stopped",
        .path.display()
    )]
    Busy {
        /// The file that is locked.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The change is too large.
    #[error("the change of `{}` takes {bytes} bytes, and a line of the log 1 MiB at most; \
             shorten its texts", larder::Escaped(.source_name))]
    TooLong {
        /// The source.
        source_name: String,
        /// Length of the change as JSON, in bytes.
        bytes: usize,
    },
    /// The change has no form as JSON.
    #[error("the change cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The runtime has stopped before the file was written.
    #[error("the runtime has stopped before the change was written; append it before that")]
    Stopped,
}

impl ChangeLog {
    /// The log in the file at `path`, whose directory is made when it is needed.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_bytes: MAX_BYTES, patience: PATIENCE }
    }

    /// Size in bytes that the file keeps to: before it would be larger it replaces the one with `.1`
    /// at the end of its name. All processes should say the same. Default: 16 MiB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Longest wait for other processes that append. Default: 5 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The file that changes are appended to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a change. It is there as a whole or not at all.
    ///
    /// Blocks, for up to [`ChangeLog::patience`] where others append: in async code use
    /// [`ChangeLog::append_async`].
    pub fn append(&self, change: &Change) -> Result<(), ChangeLogError> {
        self.append_line(&line(change)?)
    }

    /// Like [`ChangeLog::append`], on a thread where that may block.
    ///
    /// The change is appended even if this is dropped after the first poll.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub async fn append_async(&self, change: &Change) -> Result<(), ChangeLogError> {
        let (log, line) = (self.clone(), line(change)?);
        tokio::task::spawn_blocking(move || log.append_line(&line))
            .await
            .unwrap_or(Err(ChangeLogError::Stopped))
    }

    /// The changes that were found at `from` or later. None if there is no file.
    ///
    /// Blocks while it reads up to twice [`ChangeLog::max_bytes`], and waits for those who append.
    pub fn since(&self, from: Timestamp) -> Result<ChangeList, ChangeLogError> {
        let mut list = ChangeList::default();
        // Without it a change could be read twice or not at all while the file is put aside.
        let _lock = self.lock_to_read()?;
        for path in [beside(&self.path, ".1"), self.path.clone()] {
            match File::open(&path) {
                Ok(file) => read(file, from, &mut list).map_err(failed("read", &path))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("opened", &path)(error)),
            }
        }
        // Processes may have written in another order than they found.
        list.changes.sort_by_key(|change| change.at);
        Ok(list)
    }

    fn append_line(&self, line: &[u8]) -> Result<(), ChangeLogError> {
        let _lock = self.lock_to_write()?;
        let mut file = self.open()?;
        let length = file.metadata().map_err(failed("read", &self.path))?.len();
        if length > 0 && length.saturating_add(line.len() as u64) > self.max_bytes {
            // Windows renames no file that is open.
            drop(file);
            fs::rename(&self.path, beside(&self.path, ".1"))
                .map_err(failed("put aside", &self.path))?;
            file = self.open()?;
        }
        add(&mut file, line).map_err(failed("written", &self.path))
    }

    /// The file, to be read and appended to.
    fn open(&self) -> Result<File, ChangeLogError> {
        private().read(true).append(true).open(&self.path).map_err(failed("opened", &self.path))
    }

    fn lock_to_write(&self) -> Result<File, ChangeLogError> {
        let path = beside(&self.path, ".lock");
        let open = || private().write(true).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.make_directory().and_then(|()| open())
            }
            opened => opened,
        };
        let file = file.map_err(failed("opened", &path))?;
        self.wait(&path, || file.try_lock())?;
        Ok(file)
    }

    /// Who may not write need not lock: there may be nobody who writes.
    fn lock_to_read(&self) -> Result<Option<File>, ChangeLogError> {
        let path = beside(&self.path, ".lock");
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(failed("opened", &path)(error)),
        };
        self.wait(&path, || file.try_lock_shared())?;
        Ok(Some(file))
    }

    /// Tries for a lock until there is one. `File::lock` would wait for ever for a process that has
    /// been stopped.
    fn wait(
        &self,
        path: &Path,
        lock: impl Fn() -> Result<(), TryLockError>,
    ) -> Result<(), ChangeLogError> {
        let began = Instant::now();
        loop {
            match lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => return Err(failed("locked", path)(error)),
                Err(TryLockError::WouldBlock) if began.elapsed() < self.patience => {
                    thread::sleep(LOOK_EVERY);
                }
                Err(TryLockError::WouldBlock) => {
                    let path = path.to_owned();
                    return Err(ChangeLogError::Busy { path, patience: self.patience });
                }
            }
        }
    }

    fn make_directory(&self) -> io::Result<()> {
        let mut directory = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut directory, 0o700);
        match self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => directory.recursive(true).create(parent),
            None => Ok(()),
        }
    }
}

/// Opens files that are made for the owner only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.create(true);
    options
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ChangeLogError {
    move |source| ChangeLogError::Io { doing, path: path.to_owned(), source }
}

/// A change as a whole line.
fn line(change: &Change) -> Result<Vec<u8>, ChangeLogError> {
    let mut line = serde_json::to_vec(change)?;
    line.push(b'\n');
    if line.len() as u64 > MAX_LINE {
        let source_name = change.source.clone();
        return Err(ChangeLogError::TooLong { source_name, bytes: line.len() });
    }
    Ok(line)
}

/// Appends a line by one write, and leaves nothing behind if there is no room for all of it.
fn add(file: &mut File, line: &[u8]) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut whole = Vec::with_capacity(line.len() + 1);
    // A line that a crash has torn would take this one with it.
    if length > 0 && last_byte(file)? != b'\n' {
        whole.push(b'\n');
    }
    whole.extend_from_slice(line);
    file.write_all(&whole).inspect_err(|error| {
        if let Err(kept) = file.set_len(length) {
            tracing::warn!(%error, %kept, "part of a change stays in the log, and will be skipped");
        }
    })
}

fn last_byte(file: &mut File) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut byte)?;
    let [byte] = byte;
    Ok(byte)
}

/// Reads line by line: only what is asked for is kept in memory.
fn read(file: File, from: Timestamp, list: &mut ChangeList) -> io::Result<()> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let is_cut = line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n');
        if is_cut {
            reader.skip_until(b'\n')?;
        }
        match serde_json::from_slice::<Change>(&line) {
            Ok(change) if !is_cut => list.changes.extend((change.at >= from).then_some(change)),
            _ => list.skipped += 1,
        }
    }
}
