//! What has been called, wherever it is kept.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

#[cfg(feature = "sqlite")]
use std::path::PathBuf;

use crate::{
    Limits, Urgency,
    decide::{self, Decision, LONGEST_PAUSE, Seen, micros},
    memory::Memory,
};

#[cfg(feature = "sqlite")]
use crate::sqlite::File;

/// Remembers the calls of all sources: in memory, or in a SQLite file that processes share.
///
/// A file that cannot be used is told once and does not stop anybody: this process then keeps the
/// limits by what it remembers itself, and goes back to the file when it works again.
#[derive(Debug)]
pub struct Ledger {
    memory: Mutex<Memory>,
    now: Now,
    #[cfg(feature = "sqlite")]
    file: Option<File>,
}

/// Reads microseconds since the Unix epoch.
struct Now(Box<dyn Fn() -> i64 + Send + Sync>);

impl std::fmt::Debug for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Now")
    }
}

/// The machine's wall clock: processes agree on it, and a clock that is set is allowed for.
fn wall() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros)
}

impl Ledger {
    /// A ledger of this process alone, which ends with it.
    pub fn in_memory() -> Self {
        Self {
            memory: Mutex::default(),
            now: Now(Box::new(wall)),
            #[cfg(feature = "sqlite")]
            file: None,
        }
    }

    /// A ledger in a file, made when it is first needed, readable by its owner only.
    #[cfg(feature = "sqlite")]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(File::new(path.into())), ..Self::in_memory() }
    }

    /// Reads time elsewhere, in microseconds since the Unix epoch.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.now = Now(Box::new(now));
        self
    }

    /// Does `work`, which may wait for a disk, where that keeps nobody waiting.
    pub(crate) async fn on<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        if self.is_in_memory() {
            return work(self);
        }
        let ledger = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&ledger)).await {
            Ok(done) => done,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // Cancelled: the runtime is being shut down, and this with it.
                Err(_cancelled) => std::future::pending().await,
            },
        }
    }

    #[cfg(feature = "sqlite")]
    fn is_in_memory(&self) -> bool {
        self.file.is_none()
    }

    #[cfg(not(feature = "sqlite"))]
    #[expect(clippy::unused_self, reason = "its counterpart with the feature looks")]
    fn is_in_memory(&self) -> bool {
        true
    }

    pub(crate) fn take(&self, source: &str, limits: &Limits, urgency: Urgency) -> Decision {
        let mut memory = self.memory();
        // Time is read when nobody else can count a call any more: an earlier one would be in the past of
        // calls that are counted already.
        let now = || (self.now.0)();
        #[cfg(feature = "sqlite")]
        if self.file.is_some() {
            // The file does not know of calls that were made while it could not be used.
            if let Some(full) = memory.is_full(source, limits, urgency, now()) {
                return full;
            }
            if let Some(decision) = self.filed(|file| file.take(source, limits, urgency, now())) {
                // For when the file fails.
                if matches!(decision, Decision::Go { .. }) {
                    memory.note(source, limits, now());
                }
                return decision;
            }
        }
        memory.take(source, limits, urgency, now())
    }

    pub(crate) fn pause(&self, source: &str, pause: Duration) {
        let until = (self.now.0)().saturating_add(micros(pause.min(LONGEST_PAUSE)));
        #[cfg(feature = "sqlite")]
        self.filed(|file| file.pause(source, until));
        self.memory().pause(source, until);
    }

    /// Calls in the quota's window, and until when it is used up.
    pub(crate) fn used(&self, source: &str, limits: &Limits) -> (u32, Option<Duration>) {
        let now = || (self.now.0)();
        let urgency = Urgency::Foreground;
        let mut memory = self.memory();
        let seen = memory.look(source, limits, urgency, now());
        #[cfg(feature = "sqlite")]
        let seen = match self.filed(|file| file.look(source, limits, urgency, now())) {
            Some(filed) if filed.used >= seen.used => filed,
            _ => seen,
        };
        drop(memory);
        let unpaused = Seen { paused_until: 0, ..seen };
        let resets = match decide::decide(limits, now(), &unpaused) {
            Decision::Full(resets) => Some(resets),
            _ => None,
        };
        (seen.used, resets)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file says; `None` without one, or if it cannot be used.
    #[cfg(feature = "sqlite")]
    fn filed<T>(
        &self,
        work: impl Fn(&mut crate::sqlite::Book<'_>) -> rusqlite::Result<T>,
    ) -> Option<T> {
        self.file.as_ref()?.with(work)
    }
}
