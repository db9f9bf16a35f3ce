//! Moving the write-ahead log into the file, on a thread of its own.
//!
//! A checkpoint inside a commit, as SQLite does it by itself, makes some commits wait for hundreds
//! of milliseconds, and three times fewer writes a second possible than one beside them.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;

use crate::{
    error::Failure,
    shared::{Outcome, Slot},
};

/// A log of this many pages (8 MiB) is worth a checkpoint.
const DUE: usize = 1_024;
/// One of this many (128 MiB) is cut by the writer itself: under constant writes a checkpoint beside
/// them may never see its end.
const TOO_LONG: usize = 16 * DUE;

/// The same beside a file that may have so many pages. The log of a small one is small, too, and only
/// the writer moves it: that takes no time, and nobody is in the way.
fn limits(file_pages: u64) -> (usize, usize) {
    match usize::try_from(file_pages / 4).unwrap_or(DUE) {
        DUE.. => (DUE, TOO_LONG),
        few => (usize::MAX, few.max(16)),
    }
}

/// How long the writer waits for readers of a log that is too long, and how often.
const CUT_WAIT: Duration = Duration::from_millis(200);
const CUT_PAUSE: Duration = Duration::from_secs(2);

/// The writer's side: asks for checkpoints.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    ask: Sender<()>,
    next_cut: Option<Instant>,
    told: bool,
}

impl Checkpoints {
    pub(crate) fn new() -> (Self, Receiver<()>) {
        // One that waits is enough: it sees all that was committed before it begins.
        let (ask, asked) = crossbeam_channel::bounded(1);
        (Self { ask, next_cut: None, told: false }, asked)
    }

    /// Asks for a checkpoint if the log, of so many pages, is worth one.
    pub(crate) fn ask_if_due(&self, log_pages: usize, limit: u64) {
        if log_pages >= limits(limit).0 {
            // Full: one is asked for already.
            _ = self.ask.try_send(());
        }
    }

    /// Cuts a log that is too long.
    pub(crate) fn bound_log(&mut self, slot: &mut Slot, log_pages: usize) {
        if log_pages < limits(slot.shared().bound.limit()).1 {
            self.told = false;
            return;
        }
        if self.next_cut.is_some_and(|next| Instant::now() < next) {
            return;
        }
        let cut = cut(slot);
        let busy = matches!(cut, Ok(Progress { busy: true }));
        // Who fails, or waits for readers in vain, does not try at every write.
        self.next_cut = (busy || cut.is_err()).then(|| Instant::now() + CUT_PAUSE);
        if busy && !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                log_bytes = log_pages as u64 * crate::open::PAGE_BYTES.unsigned_abs(),
                "the write-ahead log grows: a reader, here or in another process, has kept an old \
                 snapshot of the file open"
            );
        }
    }
}

/// Moves all of the log into the file, so that it begins anew.
pub(crate) fn cut(slot: &mut Slot) -> Outcome<Progress> {
    slot.run(|connection, shared| {
        connection.busy_timeout(CUT_WAIT)?;
        let progress = checkpoint(connection, "RESTART");
        connection.busy_timeout(shared.options.busy_timeout)?;
        progress
    })
}

/// How far a checkpoint came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Whether a reader or writer kept it from its end.
    pub(crate) busy: bool,
}

/// Runs a checkpoint; the mode is one of SQLite's names.
pub(crate) fn checkpoint(connection: &Connection, mode: &str) -> Result<Progress, Failure> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let busy = connection.prepare_cached(&sql)?.query_row([], |row| row.get::<_, bool>(0))?;
    Ok(Progress { busy })
}

/// Checkpoints when it is asked to, until nobody can ask.
pub(crate) fn run_until_closed(mut slot: Slot, asked: &Receiver<()>) {
    let mut failing = false;
    while let Ok(()) = asked.recv() {
        // Passive: waits for nobody, and nobody waits for it.
        let done = slot.run(|connection, _| checkpoint(connection, "PASSIVE"));
        match done {
            Ok(_) => failing = false,
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%error, "the write-ahead log cannot be moved into the file, and grows");
            }
            Err(_told) => {}
        }
    }
    slot.close();
}
