//! Formats of the file, and the steps from each to the next.
//!
//! Every released format has a file in `tests/fixtures`, that a test opens.

use std::{fs, io, path::Path};

use rusqlite::{Connection, TransactionBehavior, backup::Backup};

use crate::{SqliteOptions, bound::beside, error::Failure, shared};

/// Format this code writes; `PRAGMA user_version` of the file.
pub(crate) const FORMAT: i64 = 3;

/// The step from each format to the next, from 1 on.
const STEPS: [&str; 2] = [include_str!("migrate/2.sql"), include_str!("migrate/3.sql")];
/// Pages that are copied at a time.
const COPY: i32 = 1_024;

/// Brings a file of format `from` to the one that is written now: all steps in one transaction,
/// after a copy of it was made beside it.
pub(crate) fn migrate(
    connection: &mut Connection,
    options: &SqliteOptions,
    from: i64,
) -> Result<(), Failure> {
    let path = &options.path;
    let copy = beside(path, &format!(".format-{from}.backup"));
    back_up(connection, &copy)
        .map_err(|source| Failure::Backup { path: copy.clone(), source: Box::new(source) })?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let format: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    // Another process may have been faster.
    let done = usize::try_from(format - 1).unwrap_or(STEPS.len());
    for step in STEPS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", FORMAT.max(format))?;
    transaction.commit()?;
    tracing::info!(
        path = %path.display(), backup = %copy.display(), from = format, to = FORMAT,
        "the file was brought to a newer format; its backup can be deleted"
    );
    Ok(())
}

/// Copies what is committed, by SQLite's own means: the file alone lacks what its log holds. It has
/// its name only once it is whole.
fn back_up(connection: &Connection, copy: &Path) -> Result<(), Failure> {
    let failed = |source: io::Error| Failure::Prepare { path: copy.to_owned(), source };
    if copy.exists() {
        return Ok(());
    }
    let part = beside(copy, &format!(".{:x}.part", shared::random()));
    let mut file = fs::OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    file.write(true).create(true).truncate(true).open(&part).map_err(failed)?;
    let mut target = Connection::open(&part)?;
    Backup::new(connection, &mut target)?.run_to_completion(
        COPY,
        std::time::Duration::ZERO,
        None,
    )?;
    // One file, without a log.
    target.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    target.close().map_err(|(_, error)| error)?;
    fs::rename(&part, copy).map_err(failed)
}
