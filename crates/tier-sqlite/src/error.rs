//! What can go wrong with a file, and what it means for the chain.

use std::{io, path::PathBuf, sync::Arc};

use cache_core::{Error, ErrorKind, Op};
use rusqlite::{ErrorCode, ffi};

use crate::NAME;

/// Why an operation on the file failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Sqlite(rusqlite::Error),
    #[error("{}: {error}", path.display())]
    At { path: PathBuf, error: rusqlite::Error },
    #[error("cannot prepare {}", path.display())]
    Prepare { path: PathBuf, source: io::Error },
    #[error("no backup was made at {}, so the file was not brought to a newer format", path.display())]
    Backup { path: PathBuf, source: Box<Failure> },
    #[error("{} is a directory; set `cache.sqlite.path` to a file", .0.display())]
    Directory(PathBuf),
    #[error(
        "{} is not a SQLite database and is left untouched; move it away or set \
         `cache.sqlite.path` to another file",
        .0.display()
    )]
    NotADatabase(PathBuf),
    #[error(
        "{} belongs to another program (it holds {tables}) and is left untouched; set \
         `cache.sqlite.path` to another file",
        path.display()
    )]
    Foreign { path: PathBuf, tables: String },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error(
        "{} is damaged, and one like it was set aside as {} less than an hour ago; see whether the \
         disk is sound, and move it away",
        path.display(),
        aside.display()
    )]
    DamagedAgain { path: PathBuf, aside: PathBuf },
    #[error(
        "{} was written by a newer Larder (format {found}, this one knows {known}); upgrade, or \
         set `cache.sqlite.path` to another file",
        path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{} was replaced while it was opened", .0.display())]
    Replaced(PathBuf),
    #[error("the tier has been closed")]
    Closed,
    #[error("a thread of the tier panicked")]
    Panicked,
}

impl Failure {
    /// Says which file it is about.
    pub(crate) fn at(self, path: &std::path::Path) -> Self {
        match self {
            Self::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
                Self::NotADatabase(path.to_owned())
            }
            Self::Sqlite(error) => Self::At { path: path.to_owned(), error },
            other => other,
        }
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Prepare { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::Refused
            }
            Self::Prepare { .. } | Self::Replaced(_) => ErrorKind::Unavailable,

            Self::Directory(_)
            | Self::NotADatabase(_)
            | Self::DamagedAgain { .. }
            | Self::Foreign { .. } => ErrorKind::Unusable,
            // It is not written, but can be read.
            Self::Newer { .. } | Self::Backup { .. } => ErrorKind::Refused,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Closed => ErrorKind::Closed,
            Self::Panicked => ErrorKind::Internal,
            Self::Sqlite(error) | Self::At { error, .. } => match error.sqlite_error_code() {
                // A file that may not become larger, or a disk that takes nothing.
                Some(ErrorCode::SystemIoFailure) if is_of_writing(error) => ErrorKind::Refused,
                Some(ErrorCode::DatabaseCorrupt) => ErrorKind::Corrupt,
                _ if is_of_no_known_format(error) => ErrorKind::Corrupt,
                Some(ErrorCode::NotADatabase) => ErrorKind::Unusable,
                // A log, or its index, that cannot be made beside the file: see `is_of_rights`.
                Some(
                    ErrorCode::ReadOnly
                    | ErrorCode::CannotOpen
                    | ErrorCode::DiskFull
                    | ErrorCode::PermissionDenied
                    | ErrorCode::AuthorizationForStatementDenied
                    | ErrorCode::TooBig,
                ) => ErrorKind::Refused,
                Some(
                    ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::FileLockingProtocolFailed,
                ) => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            },
        }
    }

    /// Whether the file is not what SQLite, or the tier, has written.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::NotADatabase(_) | Self::Damaged { .. } => true,
            Self::Sqlite(error) | Self::At { error, .. } => {
                let codes = [ErrorCode::DatabaseCorrupt, ErrorCode::NotADatabase];
                error.sqlite_error_code().is_some_and(|code| codes.contains(&code))
                    || extended_code(error) == Some(ffi::SQLITE_IOERR_SHORT_READ)
                    // A column has what no statement of ours could have put there.
                    || extended_code(error) == Some(ffi::SQLITE_CONSTRAINT_DATATYPE)
                    || is_of_no_known_format(error)
            }
            _ => false,
        }
    }

    /// Whether there is no room: for the file, or on the disk.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Sqlite(error) | Self::At { error, .. }
            if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
    }

    /// Whether the file, or one beside it, may not be written, or made.
    pub(crate) fn is_of_rights(&self) -> bool {
        match self {
            Self::Prepare { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Sqlite(error) | Self::At { error, .. } => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied)
            ),
            _ => false,
        }
    }

    /// Whether the connection may be at fault, and is better opened anew.
    pub(crate) fn spoils_connection(&self) -> bool {
        matches!(self.kind(), ErrorKind::Corrupt | ErrorKind::Unusable | ErrorKind::Internal)
            || matches!(self, Self::Sqlite(error) | Self::At { error, .. }
                if matches!(error.sqlite_error_code(),
                    Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen | ErrorCode::ReadOnly)))
    }
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Whether a number in the header says that only a later SQLite can read it. No error code does.
fn is_of_no_known_format(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(_, Some(text)) if text == "unsupported file format")
}

fn is_of_writing(error: &rusqlite::Error) -> bool {
    let codes = [
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_DIR_FSYNC,
        ffi::SQLITE_IOERR_TRUNCATE,
        ffi::SQLITE_IOERR_SHMSIZE,
    ];
    extended_code(error).is_some_and(|code| codes.contains(&code))
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// The chain's view of a failure that several callers may share.
pub(crate) fn tier_error(op: Op, failure: Arc<Failure>) -> Error {
    Error::new(failure.kind(), op, NAME).with_source(failure)
}
