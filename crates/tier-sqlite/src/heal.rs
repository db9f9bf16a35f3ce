//! Setting a damaged file aside, so that a new one can take its place.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::{bound::beside, error::Failure, open::APPLICATION_ID, shared::FileId};

/// A file is set aside at most so often: if the next one is soon damaged, too, the disk may be at
/// fault, and copies of it would only fill it.
const AT_MOST_EVERY: Duration = Duration::from_hours(1);
/// The text in the schema that says whose file it is, and where it must be found.
const MARK: &[u8] = b"This file is a cache that Larder keeps.";
const MARK_WITHIN: u64 = 512 << 10;

/// Renames the file at `path`, and those of its log, to `<name>.corrupt-<time>`.
///
/// `known` is the file as it was opened, and found to be ours; without it the file itself must say
/// so. One that does not is left untouched.
pub(crate) fn set_aside(
    path: &Path,
    known: Option<FileId>,
    failure: &Failure,
) -> Result<(), Failure> {
    let failed = |source| Failure::Prepare { path: path.to_owned(), source };
    let found = FileId::of(path);
    // Processes take turns; what one has done, the next sees.
    let lock_path = beside(path, ".healing");
    let lock = private(&lock_path).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let done = (|| {
        if FileId::of(path) != found || found.is_none() {
            return Ok(());
        }
        if known != found && !is_ours(path).map_err(failed)? {
            return Err(Failure::NotADatabase(path.to_owned()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some(last) = last_aside(path)
            // A copy of nothing fills no disk.
            .filter(|last| !is_emptied(path) && now.saturating_sub(*last) < AT_MOST_EVERY.as_secs())
        {
            let aside = aside(path, last);
            return Err(Failure::DamagedAgain { path: path.to_owned(), aside });
        }
        let aside = aside(path, now);
        // The log first: it would be taken for that of the next file.
        for suffix in ["-wal", "-shm", ""] {
            match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed.map_err(failed)?,
            }
        }
        let cause = match failure {
            Failure::NotADatabase(_) => {
                "SQLite does not know it for a database any more".to_owned()
            }
            failure => cache_core::Chained(failure).to_string(),
        };
        tracing::error!(
            path = %path.display(),
            aside = %aside.display(),
            cause,
            "the file is damaged and was set aside; its entries are lost to the cache, which goes on \
             with a new one"
        );
        Ok(())
    })();
    // Whoever waits for the lock looks again.
    drop(fs::remove_file(&lock_path));
    done
}

/// Whether there is less than the smallest page: SQLite takes that for a new file.
pub(crate) fn is_emptied(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.len() < 512)
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.write(true).create(true).truncate(false).open(path)
}

fn aside(path: &Path, seconds: u64) -> PathBuf {
    beside(path, &format!(".corrupt-{seconds}"))
}

/// When a file of that name was set aside last, in Unix seconds.
fn last_aside(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let files = fs::read_dir(directory.unwrap_or(Path::new("."))).ok()?;
    let times = files.filter_map(|file| {
        let found = file.ok()?.file_name();
        found.to_str()?.strip_prefix(name)?.strip_prefix(".corrupt-")?.parse().ok()
    });
    times.max()
}

/// Whether a file that SQLite cannot read is one of ours.
///
/// It is opened past SQLite, which may only be done while no connection of this process is on it:
/// closing it drops their locks. There is none that has not found it to be ours.
fn is_ours(path: &Path) -> io::Result<bool> {
    let start = start_of(path)?;
    let application = start.get(68..72).and_then(|bytes| bytes.try_into().ok());
    let known = application.map(i32::from_be_bytes).map(i64::from) == Some(APPLICATION_ID);
    // All of a young file may be in its log.
    Ok(known || has_mark(&start) || start_of(&beside(path, "-wal")).is_ok_and(|log| has_mark(&log)))
}

fn start_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    File::open(path)?.take(MARK_WITHIN).read_to_end(&mut start)?;
    Ok(start)
}

fn has_mark(bytes: &[u8]) -> bool {
    bytes.windows(MARK.len()).any(|window| window == MARK)
}
