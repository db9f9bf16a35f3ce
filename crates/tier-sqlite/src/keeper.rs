//! The tier's housekeeping: tells followers what other processes change, notices that the file was
//! replaced, writes down what was used and what compressing took, and logs what was evicted.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cache_core::{Changes, Follower};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use rusqlite::Connection;
use tokio::sync::mpsc::WeakSender;

use crate::{
    bound::{Evicted, beside},
    dictionaries, journal,
    open::Role,
    shared::{FileId, Shared, Slot},
    worker::queue,
    writer::WriteJob,
};

/// How often uses are written if they are few, the disk is looked at, and evictions are logged.
const USES_EVERY: Duration = Duration::from_secs(30);
const DISK_EVERY: Duration = Duration::from_secs(5);
const EVICTIONS_EVERY: Duration = Duration::from_mins(1);
/// Evicting more than this share of the bound within a minute is worth a warning.
const MUCH: u64 = 10;

/// No `data_version`.
const NEVER: i64 = -1;

/// Who is told of changes.
#[derive(Clone, Default)]
pub(crate) struct Followed(Arc<Mutex<Option<Follower>>>);

impl Followed {
    pub(crate) fn set(&self, follower: Follower) {
        *self.lock() = Some(follower);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Follower>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Followed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Followed").field("is_set", &self.lock().is_some()).finish()
    }
}

pub(crate) struct Keeper {
    shared: Arc<Shared>,
    slot: Slot,
    writes: WeakSender<Box<dyn WriteJob>>,
    followed: Followed,
    /// Where the journal was read up to, and the connection's `data_version` then.
    read_to: Option<(u64, i64, i64)>,
    /// The log, and its index.
    log_files: [Option<FileId>; 2],
    uses_due: Instant,
    disk_due: Instant,
    evictions_due: Instant,
    told: Evicted,
}

impl Keeper {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        writes: WeakSender<Box<dyn WriteJob>>,
        followed: Followed,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared: Arc::clone(shared),
            slot: Slot::new(shared, Role::Reader),
            writes,
            followed,
            read_to: None,
            log_files: [None; 2],
            uses_due: now + USES_EVERY,
            disk_due: now,
            evictions_due: now + EVICTIONS_EVERY,
            told: Evicted::default(),
        }
    }

    /// Works until the tier is closed.
    pub(crate) fn run(mut self, stop: &Receiver<()>) {
        let every = self.shared.options.poll_interval;
        while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(every) {
            if self.shared.is_opened() {
                self.look_after_file();
                self.tell();
                self.write_uses();
            }
            self.log_evictions();
        }
        self.slot.close();
    }

    /// Has everything opened anew if the path leads to another file, or the log has gone.
    fn look_after_file(&mut self) {
        let now = Instant::now();
        if now >= self.disk_due {
            self.disk_due = now + DISK_EVERY;
            self.shared.bound.look_at_disk(&self.shared.options.path);
            // Rights may have been given back, and room.
            self.shared.renew_if_only_read();
        }
        if self.shared.renew_if_replaced() {
            self.log_files = [None; 2];
            return;
        }
        // The index, too: with another one, others would write over what is in the log.
        let log =
            ["-wal", "-shm"].map(|suffix| FileId::of(&beside(&self.shared.options.path, suffix)));
        let before = std::mem::replace(&mut self.log_files, log);
        if before.iter().zip(&log).any(|(before, now)| before.is_some() && before != now) {
            self.shared.renew("its write-ahead log was removed or replaced");
            self.log_files = [None; 2];
        }
    }

    /// Tells the follower what others have changed.
    fn tell(&mut self) {
        let guard = self.followed.lock();
        let Some(follower) = &*guard else { return };
        let (epoch, read_to) = (self.shared.epoch(), self.read_to);
        let opened = self.slot.times_opened();
        let found = self.slot.run(|connection, shared| {
            let version = data_version(connection)?;
            Ok(match read_to {
                Some((known, _, _)) if known != epoch => {
                    Some((Changes::Unknown, (epoch, version, journal::end(connection)?)))
                }
                Some((_, seen, _)) if seen == version => None,
                Some((.., after)) => {
                    let (changes, end) = journal::since(connection, shared.node, after)?;
                    learn_dictionaries(connection, shared, after, &changes)?;
                    Some((changes, (epoch, version, end)))
                }
                // Another file already, before the first look.
                None if epoch != 0 => {
                    Some((Changes::Unknown, (epoch, version, journal::end(connection)?)))
                }
                None => {
                    let start = shared.journal_start();
                    let (changes, end) = journal::since(connection, shared.node, start)?;
                    learn_dictionaries(connection, shared, start, &changes)?;
                    Some((changes, (epoch, version, end)))
                }
            })
        });
        match found {
            Ok(Some((changes, read_to))) => {
                self.read_to = Some(read_to);
                if !matches!(&changes, Changes::Known(known) if known.is_empty()) {
                    follower(changes);
                }
            }
            // A connection that has just been opened counts commits anew: the next look is not to rely on
            // what this one has compared.
            Ok(None) if self.slot.times_opened() != opened => {
                self.read_to = read_to.map(|(epoch, _, after)| (epoch, NEVER, after));
            }
            Ok(None) => {}
            // Reads of the chain say what is wrong.
            Err(error) => tracing::debug!(%error, "the journal cannot be read"),
        }
    }

    fn write_uses(&mut self) {
        let (now, uses) = (Instant::now(), &self.shared.uses);
        let is_due = now >= self.uses_due;
        let uses = !uses.is_empty() && (is_due || uses.are_many());
        let times = is_due && self.shared.codec_times_are_due();
        if !uses && !times {
            return;
        }
        self.uses_due = now + USES_EVERY;
        let Some(writes) = self.writes.upgrade() else { return };
        // If there is no room, later.
        let shared = Arc::clone(&self.shared);
        queue(&writes, None, move |batch| {
            shared.write_codec_times(batch.connection)?;
            batch.uses.write(batch.connection)
        });
    }

    fn log_evictions(&mut self) {
        let now = Instant::now();
        if now < self.evictions_due {
            return;
        }
        self.evictions_due = now + EVICTIONS_EVERY;
        let (all, reclaimed_bytes) = self.shared.bound.counts();
        let entries = all.entries - self.told.entries;
        let bytes = all.bytes - self.told.bytes;
        self.told = all;
        if entries == 0 {
            return;
        }
        let max_bytes = self.shared.bound.max_bytes();
        if bytes > max_bytes / MUCH {
            tracing::warn!(
                tier = crate::NAME,
                entries,
                bytes,
                reclaimed_bytes,
                max_bytes,
                "much was evicted within a minute; `cache.sqlite.max_size` is small for what is in use"
            );
        } else {
            tracing::info!(tier = crate::NAME, entries, bytes, reclaimed_bytes, "evicted");
        }
    }
}

/// Learns what others have, if that is said after this row of the journal.
fn learn_dictionaries(
    connection: &Connection,
    shared: &Shared,
    after: i64,
    changes: &Changes,
) -> rusqlite::Result<()> {
    let Some(compression) = &shared.options.compression else { return Ok(()) };
    // Of what is not known, they may have been a part.
    let are_told =
        matches!(changes, Changes::Unknown) || journal::tells_of_dictionaries(connection, after)?;
    if are_told { dictionaries::learn_last(connection, &**compression) } else { Ok(()) }
}

/// A number that changes when another connection has committed.
fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}
