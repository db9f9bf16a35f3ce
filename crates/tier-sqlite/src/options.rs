//! How a SQLite tier is set up.

use std::{path::Path, sync::Arc, time::Duration};

use cache_core::{Clock, Compression, SystemClock};

use crate::place::Place;

/// Options of a [`SqliteTier`](crate::SqliteTier).
#[derive(Clone, Debug)]
#[must_use]
pub struct SqliteOptions {
    pub(crate) path: Place,
    pub(crate) busy_timeout: Duration,
    pub(crate) readers: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) compression: Option<Arc<dyn Compression>>,
    pub(crate) max_value_bytes: u64,
    pub(crate) max_bytes: u64,
    pub(crate) poll_interval: Duration,
    pub(crate) refuse_newer: bool,
}

impl SqliteOptions {
    /// A tier in the file `path`, which is created, with its directory, when it does not exist; in
    /// [`store_beside`](crate::store_beside) it if it is a cache of the Python manager.
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: Place::new(path.as_ref()),
            busy_timeout: Duration::from_secs(5),
            readers: 2,
            clock: Arc::new(SystemClock::new()),
            compression: None,
            max_value_bytes: 64 << 20,
            max_bytes: 1 << 30,
            poll_interval: Duration::from_millis(200),
            refuse_newer: false,
        }
    }

    /// How long to wait for a lock that another process holds. Default: 5 s.
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// Threads that read, at least one. Default: 2.
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// Where the time is read. Default: the machine's clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How values are compressed, and read that were. Default: they are stored as they are, and one
    /// that was compressed is not found.
    pub fn compression(mut self, compression: Arc<dyn Compression>) -> Self {
        self.compression = Some(compression);
        self
    }

    /// Largest value that is stored or read, in bytes. Default: 64 MiB.
    pub fn max_value_bytes(mut self, bytes: u64) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// Largest size of the file, in bytes, beside its log: what has expired goes first, then what was
    /// used least recently. A value that needs more than half of it is not stored. Default: 1 GiB.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// How often to look for what other processes have changed in the file. Default: 200 ms.
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.max(Duration::from_millis(1));
        self
    }

    /// Whether a file that a newer version wrote is not even read. Default: it is read, not written.
    pub fn refuse_newer(mut self, refuse: bool) -> Self {
        self.refuse_newer = refuse;
        self
    }
}
