//! Reads on the caller's own thread.
//!
//! A warm read takes some 10 µs; handing it to another thread and back takes several times that. So
//! a read that will be quick is done where it is asked for, on a connection that is idle and open.
//! Whatever may take long (opening, a lock, a large value, a failure) is a reader thread's work.
//!
//! Half of such a read is the taking of a snapshot. So reads in quick succession share one, for as long
//! as [`SNAPSHOT`] at most: what this process commits ends it, and what another one commits is seen that
//! much later.

use std::{
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode};

use crate::{
    open::Role,
    shared::{Shared, Slot, commits},
};

/// How long reads share a snapshot, and how soon one has to follow another for that.
const SNAPSHOT: Duration = Duration::from_millis(1);

/// Connections for that: more are never in use at once than threads that run.
#[derive(Debug)]
pub(crate) struct Here {
    slots: Box<[Mutex<Reading>]>,
    closed: AtomicBool,
}

/// A connection, and the snapshot that it reads.
#[derive(Debug)]
struct Reading {
    slot: Slot,
    last: Option<Instant>,
    /// When the snapshot that is open was begun, and after how many commits.
    begun: Option<(Instant, u64)>,
}

impl Here {
    pub(crate) fn new(shared: &Arc<Shared>, connections: usize) -> Self {
        let slot =
            || Mutex::new(Reading { slot: Slot::new(shared, Role::Here), last: None, begun: None });
        Self { slots: (0..connections).map(|_| slot()).collect(), closed: AtomicBool::new(false) }
    }

    /// Runs `job` on an idle connection; `None` if there is none, or it failed, or it found that it
    /// would take too long.
    pub(crate) fn run<T>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<Option<T>>,
    ) -> Option<T> {
        for slot in &self.slots {
            let mut reading = match slot.try_lock() {
                Ok(reading) => reading,
                // A job that panicked left nothing half done: it only reads.
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            let Reading { slot, last, begun } = &mut *reading;
            let Some(idle) = slot.idle() else { continue };
            let Some(connection) = idle.connection() else { continue };
            let done = begin(connection, last, begun).and_then(|()| job(connection));
            return match done {
                Ok(done) => done,
                Err(error) => {
                    // Not one that found a lock: it is as good as before.
                    let busy = [ErrorCode::DatabaseBusy, ErrorCode::DatabaseLocked];
                    if !error.sqlite_error_code().is_some_and(|code| busy.contains(&code)) {
                        idle.close();
                    }
                    None
                }
            };
        }
        None
    }

    /// Opens a connection that is missing; for a thread that may wait.
    pub(crate) fn warm(&self) {
        for slot in &self.slots {
            if let Ok(mut reading) = slot.try_lock()
                && !reading.slot.is_open()
            {
                reading.slot.warm();
                break;
            }
        }
        // Whoever closes has looked at a slot before or after this opened it.
        if self.closed.load(Ordering::SeqCst) {
            self.close();
        }
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for slot in &self.slots {
            slot.lock().unwrap_or_else(PoisonError::into_inner).slot.close();
        }
    }
}

/// Sees to it that what is read next is of a snapshot that is new enough.
fn begin(
    connection: &Connection,
    last: &mut Option<Instant>,
    begun: &mut Option<(Instant, u64)>,
) -> rusqlite::Result<()> {
    let (now, commits) = (Instant::now(), commits());
    let is_near = |then: Instant| now.duration_since(then) < SNAPSHOT;
    let follows = last.replace(now).is_some_and(is_near);
    if !connection.is_autocommit() {
        if begun.is_some_and(|(since, seen)| seen == commits && is_near(since)) {
            return Ok(());
        }
        end_snapshot(connection)?;
    }
    if follows {
        connection.prepare_cached("BEGIN")?.execute([])?;
        *begun = Some((now, commits));
    }
    Ok(())
}

/// Ends the snapshot that a connection reads, if it does.
pub(crate) fn end_snapshot(connection: &Connection) -> rusqlite::Result<()> {
    if !connection.is_autocommit() {
        connection.prepare_cached("COMMIT")?.execute([])?;
    }
    Ok(())
}
