//! Reads on the caller's own thread.
//!
//! A warm read takes some 10 µs; handing it to another thread and back takes several times that. So
//! a read that will be quick is done where it is asked for, on a connection that is idle and open.
//! Whatever may take long (opening, a lock, a large value, a failure) is a reader thread's work.

use std::sync::{
    Arc, Mutex, PoisonError, TryLockError,
    atomic::{AtomicBool, Ordering},
};

use rusqlite::{Connection, ErrorCode};

use crate::{
    open::Role,
    shared::{Shared, Slot},
};

/// Connections for that: more are never in use at once than threads that run.
#[derive(Debug)]
pub(crate) struct Here {
    slots: Box<[Mutex<Slot>]>,
    closed: AtomicBool,
}

impl Here {
    pub(crate) fn new(shared: &Arc<Shared>, connections: usize) -> Self {
        let slot = || Mutex::new(Slot::new(shared, Role::Here));
        Self { slots: (0..connections).map(|_| slot()).collect(), closed: AtomicBool::new(false) }
    }

    /// Runs `job` on an idle connection; `None` if there is none, or it failed, or it found that it
    /// would take too long.
    pub(crate) fn run<T>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<Option<T>>,
    ) -> Option<T> {
        for slot in &self.slots {
            let slot = match slot.try_lock() {
                Ok(slot) => slot,
                // A job that panicked left nothing half done: it only reads.
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            let Some(idle) = slot.idle() else { continue };
            let Some(connection) = idle.connection() else { continue };
            return match job(connection) {
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
            if let Ok(mut slot) = slot.try_lock()
                && !slot.is_open()
            {
                slot.warm();
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
            slot.lock().unwrap_or_else(PoisonError::into_inner).close();
        }
    }
}
