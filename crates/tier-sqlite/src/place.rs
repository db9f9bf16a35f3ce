//! Where the tier's file is: where it was configured to be, or beside the cache of a Python program
//! that is there.

use std::{
    ffi::OsStr,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use python_cache::PythonCache;

use crate::error::Failure;

/// How long a program that writes the file is waited for where no other limit is set.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The path of the tier's file, which is not known for sure before it was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    configured: PathBuf,
    /// Where it is once that is known.
    decided: Arc<OnceLock<PathBuf>>,
}

impl Place {
    pub(crate) fn new(configured: &Path) -> Self {
        Self { configured: configured.to_owned(), decided: Arc::default() }
    }

    /// The same path, to be looked at anew.
    pub(crate) fn renewed(&self) -> Self {
        Self::new(&self.configured)
    }

    /// Looks what is at the path before anything there is opened to be written.
    pub(crate) fn look(&self, busy_timeout: Duration) -> Result<(), Failure> {
        if self.decided.get().is_none() && recognise(&self.configured, busy_timeout)? {
            let store = store_beside(&self.configured);
            tracing::info!(
                path = %self.configured.display(),
                store = %store.display(),
                "a cache of the Python manager, which is only read: the tier's file is beside it"
            );
            _ = self.decided.set(store);
        }
        Ok(())
    }

    /// From now on it stays as it is: a file has been opened.
    pub(crate) fn settle(&self) {
        self.decided.get_or_init(|| self.configured.clone());
    }

    /// The Python cache at the configured path, if there is one.
    pub(crate) fn legacy(&self) -> Option<&Path> {
        let decided = self.decided.get()?;
        (*decided != self.configured).then_some(&self.configured)
    }
}

impl Deref for Place {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.decided.get().unwrap_or(&self.configured)
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        self
    }
}

/// The file in which a tier that is configured to use a Python cache keeps its entries:
/// `x.larder.db` for `x.db`, `x.sqlite` and `x.sqlite3`, else the name with `.larder.db` added.
pub fn store_beside(python: &Path) -> PathBuf {
    let is_plain = |extension: &OsStr| {
        ["db", "sqlite", "sqlite3"].iter().any(|plain| extension.eq_ignore_ascii_case(plain))
    };
    let name = match python.extension() {
        Some(extension) if is_plain(extension) => python.file_stem(),
        _ => python.file_name(),
    };
    let mut name = name.unwrap_or_default().to_owned();
    name.push(".larder.db");
    python.with_file_name(name)
}

/// Whether there is a cache file of the Python manager at this path. Reads only.
///
/// # Errors
/// When its program keeps it from being read just now.
pub fn is_python_cache(path: &Path) -> cache_core::Result<bool> {
    recognise(path, BUSY_TIMEOUT)
        .map_err(|failure| crate::error::tier_error(cache_core::Op::Open, Arc::new(failure)))
}

fn recognise(path: &Path, busy_timeout: Duration) -> Result<bool, Failure> {
    PythonCache::is_at(path, busy_timeout).map_err(|error| Failure::from(error).at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_named_after_the_file_it_is_beside() {
        for (python, store) in [
            ("a/aker_platform.db", "a/aker_platform.larder.db"),
            ("cache.SQLite3", "cache.larder.db"),
            ("cache", "cache.larder.db"),
            ("cache.v1", "cache.v1.larder.db"),
            ("/x/.db", "/x/.db.larder.db"),
        ] {
            assert_eq!(store_beside(Path::new(python)), Path::new(store), "{python}");
        }
    }
}
