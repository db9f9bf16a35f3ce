//! What can go wrong with a file.

use std::{io, path::PathBuf};

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such file.
    #[error("{} does not exist; check the path", path.display())]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// A directory, a device, a socket.
    #[error("{} is not a regular file; give the path of the cache file itself", path.display())]
    NotAFile {
        /// As given.
        path: PathBuf,
    },
    /// The system does not let it be opened.
    #[error("cannot open {}; check that it and its directory may be read", path.display())]
    Access {
        /// As given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of another format.
    #[error("{} is not a SQLite database; give the path of the Python cache file", path.display())]
    NotADatabase {
        /// As given.
        path: PathBuf,
    },
    /// A database of another program.
    #[error(
        "{} was not made by the Python cache manager (it holds {tables}) and is not read; give \
         the path of the file whose one table is `cache`",
        path.display()
    )]
    Foreign {
        /// As given.
        path: PathBuf,
        /// A few tables that were found.
        tables: String,
    },
    /// Its program wrote to it while it was read without being there.
    #[error("{} was changed while it was read; try again", path.display())]
    Changed {
        /// As given.
        path: PathBuf,
    },
    /// SQLite failed.
    #[error(
        "cannot {action} {}; if its program is running, stop it, and if the file is damaged, \
         restore it from a backup",
        path.display()
    )]
    Read {
        /// As given.
        path: PathBuf,
        /// What was tried, such as "read the rows of".
        action: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}
