//! Moving the write-ahead log into the file, on a thread of its own.
//!
//! A checkpoint inside a commit, as SQLite does it by itself, makes some commits wait for hundreds
//! of milliseconds, and three times fewer writes a second possible than one beside them.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;

use crate::{
    error::Failure,
    shared::{Outcome, Shared, Slot},
};

/// A log of this many pages (32 MiB) is worth a checkpoint: each takes two waits for the disk.
const DUE: usize = 4_096;
/// So few pages that were written beside a checkpoint are moved while writers wait: only then does
/// the log begin anew, on disk space that it has already.
const FEW: i64 = 256;
const ROUNDS: usize = 4;
/// How long readers of a log are waited for that is to begin anew.
const RESTART_WAIT: Duration = Duration::from_millis(20);
/// A log of this many times what is due is cut by the writer itself.
const TOO_LONG: usize = 4;
/// The log of a file that may not have that many pages (32 MiB) is small, too, and only the writer
/// moves it: that takes little time, and nobody is in the way.
const SMALL_FILE: u64 = 4_096;

/// From how many pages on a log is worth a checkpoint, and is too long.
fn limits(shared: &Shared) -> (usize, usize) {
    match shared.bound.limit() {
        few @ 0..SMALL_FILE => (usize::MAX, usize::try_from(few / 4).unwrap_or(0).max(16)),
        many => {
            let due = usize::try_from(many / 8).map_or(DUE, |share| share.min(DUE));
            (due, TOO_LONG * due)
        }
    }
}

/// How long the writer waits for readers of a log that is too long, and how often.
const CUT_WAIT: Duration = Duration::from_millis(200);
const CUT_PAUSE: Duration = Duration::from_secs(2);

/// The writer's side: asks for checkpoints.
#[derive(Debug)]
pub(crate) struct Checkpoints {
    ask: Option<Sender<()>>,
    next_cut: Option<Instant>,
    told: bool,
}

impl Checkpoints {
    pub(crate) fn new() -> (Self, Receiver<()>) {
        // One that waits is enough: it sees all that was committed before it begins.
        let (ask, asked) = crossbeam_channel::bounded(1);
        (Self { ask: Some(ask), next_cut: None, told: false }, asked)
    }

    /// Asks for a checkpoint if the log is worth one.
    pub(crate) fn ask_if_due(&self, shared: &Shared) {
        if let Some(ask) = self.ask.as_ref().filter(|_| is_due(shared)) {
            // Full: one is asked for already.
            _ = ask.try_send(());
        }
    }

    /// Asks for none from now on: who makes them ends.
    pub(crate) fn end(&mut self) {
        self.ask = None;
    }

    /// Cuts a log that is too long.
    pub(crate) fn bound_log(&mut self, slot: &mut Slot) {
        let log_pages = slot.shared().log_pages();
        if log_pages < limits(slot.shared()).1 {
            self.told = false;
            return;
        }
        if self.next_cut.is_some_and(|next| Instant::now() < next) {
            return;
        }
        let cut = cut(slot);
        let busy = matches!(cut, Ok(Progress { busy: true, .. }));
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

/// Whether the log is worth a checkpoint.
pub(crate) fn is_due(shared: &Shared) -> bool {
    shared.log_pages() >= limits(shared).0
}

/// Moves all of the log into the file, so that it begins anew.
pub(crate) fn cut(slot: &mut Slot) -> Outcome<Progress> {
    slot.run(|connection, shared| {
        connection.busy_timeout(CUT_WAIT)?;
        let progress = checkpoint(connection, "RESTART");
        shared.note_checkpoint(progress.as_ref().ok());
        connection.busy_timeout(shared.options.busy_timeout)?;
        progress
    })
}

/// How far a checkpoint came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Whether a reader or writer kept it from its end.
    pub(crate) busy: bool,
    /// Pages of the log that are not in the file yet.
    pub(crate) left: i64,
}

/// Runs a checkpoint; the mode is one of SQLite's names.
pub(crate) fn checkpoint(connection: &Connection, mode: &str) -> Result<Progress, Failure> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let progress = connection.prepare_cached(&sql)?.query_row([], |row| {
        let (log, moved): (i64, i64) = (row.get(1)?, row.get(2)?);
        Ok(Progress { busy: row.get(0)?, left: log - moved })
    })?;
    Ok(progress)
}

/// Checkpoints when it is asked to, until nobody can ask.
pub(crate) fn run_until_closed(mut slot: Slot, asked: &Receiver<()>) {
    let mut failing = false;
    while let Ok(()) = asked.recv() {
        let done = slot.run(|connection, shared| {
            // Waits for nobody, and nobody waits for it; what is written meanwhile is left.
            for _ in 0..ROUNDS {
                let passed = checkpoint(connection, "PASSIVE")?;
                shared.note_checkpoint(Some(&passed));
                if passed.left <= FEW {
                    connection.busy_timeout(RESTART_WAIT)?;
                    let progress = checkpoint(connection, "RESTART")?;
                    shared.note_checkpoint(Some(&progress));
                    break;
                }
            }
            Ok(())
        });
        match done {
            Ok(()) => failing = false,
            Err(error) if !std::mem::replace(&mut failing, true) => {
                tracing::warn!(%error, "the write-ahead log cannot be moved into the file, and grows");
            }
            Err(_told) => {}
        }
    }
    slot.close();
}
