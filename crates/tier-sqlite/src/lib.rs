//! Larder's SQLite tier: one file, shared by processes, that outlives them.
//!
//! Every row has a checksum over key, metadata and value; a damaged row is a miss and is removed.
//! Writes of a process are committed in groups by one thread; `put` answers after the commit. The
//! file is opened by the first operation, so a tier whose file cannot be used now can be built, and
//! works from the moment it can.
//!
//! Never opens to write a file that another program made, and never replaces one.
//!
//! # In the place of a Python cache
//!
//! If the configured path leads to a cache file of the Python manager (see [`python_cache`], also for
//! what its values become), that is only read, and the tier keeps its own file beside it, under the
//! name that [`store_beside`] gives. From the first open on, a thread of its own copies what is live,
//! a batch at a time; at each later open, and twice a day, what was added or changed since. What was
//! loaded or invalidated here later stays so; what was copied once and has gone since, evicted for
//! example, is not copied again. Until a copy is complete, a miss is looked for in the Python file.
//! Nothing is copied beyond 15/16 of the tier's largest size; the rest is, once there is room.

mod barriers;
mod batch;
mod bound;
mod checkpoint;
mod codec_times;
mod committer;
mod dictionaries;
mod error;
mod found;
mod heal;
mod here;
mod importer;
mod inspect;
mod journal;
mod keeper;
mod lease;
mod marks;
mod migrate;
mod open;
mod options;
mod place;
mod rows;
mod schema;
mod shared;
mod stamps;
mod uses;
mod validate;
mod worker;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use cache_core::{
    Barrier, Capability, Compression, Dictionaries, DictionaryId, Entry, Error, ErrorKind,
    Follower, Inspect, Journal, Key, Lease, Op, PutOutcome, Result, Selector, Stamp, Stamped, Tier,
    Verdict,
};
use rusqlite::Connection;
use tokio::sync::{Mutex, mpsc};

use crate::{batch::Batch, error::tier_error, found::Found, rows::Stored, worker::Workers};

pub use crate::{
    options::SqliteOptions,
    place::{is_python_cache, store_beside},
};

const NAME: &str = "sqlite";

/// Values of up to this many bytes are compressed by who puts them: handing them to another thread and
/// back takes 100 µs, some 1 ms at most is saved.
const COMPRESSED_HERE: usize = 256 << 10;
/// Values of up to this many bytes are committed by who waits for it.
const COMMITTED_HERE: usize = 128 << 10;

/// Entries in a SQLite file.
#[derive(Debug)]
pub struct SqliteTier {
    options: SqliteOptions,
    workers: RwLock<Option<Arc<Workers>>>,
    /// Closed when the last thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
    corrupt: AtomicU64,
}

impl SqliteTier {
    /// A tier with these options; starts its threads, opens nothing yet.
    ///
    /// # Errors
    /// When the system starts no more threads.
    pub fn new(options: SqliteOptions) -> Result<Self> {
        let options = SqliteOptions { path: options.path.renewed(), ..options };
        let (workers, ended) = Workers::start(options.clone()).map_err(|error| {
            Error::new(ErrorKind::Unavailable, Op::Open, NAME).with_source(error)
        })?;
        Ok(Self {
            options,
            workers: RwLock::new(Some(Arc::new(workers))),
            ended: Mutex::new(ended),
            corrupt: AtomicU64::new(0),
        })
    }

    /// The file; the one that was configured until it was first opened.
    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Damaged rows found, and removed, since the tier was made.
    pub fn corrupt_rows(&self) -> u64 {
        self.corrupt.load(Ordering::Relaxed)
    }

    /// Writes down what is noted in memory only. It is worth no error.
    async fn note_down(&self) {
        let Ok(workers) = self.workers(Op::Put) else { return };
        let shared = Arc::clone(workers.shared());
        if shared.is_opened() && (!shared.uses.is_empty() || shared.codec_times_are_due()) {
            let noted = workers.write(move |batch| {
                shared.write_codec_times(batch.connection)?;
                batch.uses.write(batch.connection)
            });
            if let Err(failure) = noted.await {
                tracing::debug!(tier = NAME, %failure, "what was used last is not written down");
            }
        }
    }

    fn workers(&self, op: Op) -> Result<Arc<Workers>> {
        let workers = self.workers.read().unwrap_or_else(PoisonError::into_inner);
        workers.as_ref().map(Arc::clone).ok_or_else(|| Error::new(ErrorKind::Closed, op, NAME))
    }

    /// What is given back for a row, removing it if it is damaged.
    fn accept(&self, workers: &Workers, key: &Key, found: Found) -> Option<Entry> {
        match found {
            Found::Nothing => None,
            Found::Entry(_, entry) => Some(entry),
            Found::Damaged { id, checksum, reason } => {
                self.corrupt.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(tier = NAME, %key, reason, "damaged entry removed");
                // By checksum too: the row may have been rewritten meanwhile. If the queue is full
                // the next read will find the damage again.
                workers.try_write(move |batch| {
                    batch
                        .connection
                        .execute(
                            "DELETE FROM entries WHERE id = ?1 AND checksum IS ?2",
                            (id, &checksum),
                        )
                        .map(drop)
                });
                None
            }
        }
    }

    /// What is to be done with an entry; large values are compressed off the async workers.
    async fn plan(&self, workers: &Workers, key: &Key, entry: &Entry) -> Result<Plan> {
        let is_packed = entry.is_packed_for_all() || entry.renews().is_some();
        if entry.value().len() <= COMPRESSED_HERE || is_packed {
            return Ok(self.plan_here(workers, key, entry));
        }
        if let Some(plan) = self.plan_unstored(key, entry) {
            return Ok(plan);
        }
        let (key, entry) = (key.clone(), entry.clone());
        let compression = self.options.compression.clone();
        let stored = workers.compute(move || Stored::new(key, entry, compression)).await;
        let max_bytes = workers.shared().bound.max_bytes();
        stored
            .map(|stored| Plan::of(stored, max_bytes))
            .map_err(|failure| tier_error(Op::Put, failure))
    }

    /// The same of an entry that is small enough to be compressed on this thread.
    fn plan_here(&self, workers: &Workers, key: &Key, entry: &Entry) -> Plan {
        self.plan_unstored(key, entry).unwrap_or_else(|| {
            let compression = self.options.compression.clone();
            let stored = Stored::new(key.clone(), entry.clone(), compression);
            Plan::of(stored, workers.shared().bound.max_bytes())
        })
    }

    /// What is to be done with an entry that cannot be stored; `None` if it can.
    fn plan_unstored(&self, key: &Key, entry: &Entry) -> Option<Plan> {
        let (len, max) = (entry.value().len() as u64, self.options.max_value_bytes);
        if !key.is_storable() {
            return Some(Plan::Unstorable);
        }
        if len > max {
            let reason = format!("its {len} bytes are more than the {max} a value may have");
            return Some(Plan::Refuse { key: key.clone(), as_of: entry.as_of(), reason });
        }
        None
    }
}

/// What is to be done with an entry that was put.
enum Plan {
    Store(Stored),
    /// Not to be stored; what is there is older than what the caller has seen, and goes.
    Refuse {
        key: Key,
        as_of: Stamp,
        reason: String,
    },
    Unstorable,
}

impl Plan {
    /// Stores it, unless most of what a file of `max_bytes` holds had to go for it.
    fn of(stored: Stored, max_bytes: u64) -> Self {
        if stored.most_stored() <= max_bytes / 2 || stored.stored_len() <= max_bytes / 2 {
            return Self::Store(stored);
        }
        let len = stored.stored_len();
        let reason = format!("its {len} bytes are more than half of the {max_bytes} for all");
        Self::Refuse { key: stored.key().clone(), as_of: stored.entry().as_of(), reason }
    }

    fn carry_out(&mut self, batch: &mut Batch<'_>) -> rusqlite::Result<PutOutcome> {
        Ok(match self {
            Self::Store(stored) => {
                match barriers::judge(batch, stored.key(), stored.entry())? {
                    Verdict::Barred => return Ok(PutOutcome::Barred),
                    Verdict::Expired => stored.expire(),
                    Verdict::Passes => {}
                }
                if stored.renew(batch)? {
                    return Ok(PutOutcome::Stored);
                }
                let dictionary = stored.dictionary();
                if dictionary != DictionaryId::NONE && !dictionaries::ensure(batch, dictionary)? {
                    let reason = format!("its dictionary {dictionary} is not known any more");
                    return Ok(PutOutcome::Refused { reason });
                }
                if stored.put(batch)? { PutOutcome::Stored } else { PutOutcome::Superseded }
            }
            Self::Refuse { key, as_of, reason } => {
                // Nor may a copy of the older value that is under way come after it.
                let stamp = Stamp::from_packed(as_of.packed().saturating_sub(1));
                let barrier = Barrier::forget(Selector::Key(key.clone()), stamp);
                barriers::set(batch, &barrier)?;
                PutOutcome::Refused { reason: reason.clone() }
            }
            Self::Unstorable => unstorable(),
        })
    }
}

fn unstorable() -> PutOutcome {
    PutOutcome::Refused { reason: "the key cannot be stored".to_owned() }
}

#[async_trait]
impl Tier for SqliteTier {
    fn name(&self) -> &'static str {
        NAME
    }

    fn capability(&self) -> Capability {
        Capability::DURABLE
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let workers = self.workers(Op::Get)?;
        let now = self.options.clock.now();
        let quick =
            |connection: &Connection| found::find_quickly(connection, &self.options, key, now);
        if let Some(found) = workers.read_here(quick) {
            workers.shared().uses.note(found.row().into_iter(), now);
            let entry = self.accept(&workers, key, found);
            if entry.is_some() || workers.shared().importing_from().is_none() {
                return Ok(entry);
            }
        }
        let found = self.get_many(std::slice::from_ref(key)).await;
        match found {
            Ok(mut found) => Ok(found.pop().flatten()),
            Err(error) => Err(error.with_key(key)),
        }
    }

    async fn put(&self, key: &Key, entry: &Entry) -> Result<PutOutcome> {
        let outcomes = self.put_many(&[(key.clone(), entry.clone())]).await;
        match outcomes {
            Ok(mut outcomes) => outcomes
                .pop()
                .ok_or_else(|| Error::new(ErrorKind::Internal, Op::Put, NAME).with_key(key)),
            Err(error) => Err(error.with_key(key)),
        }
    }

    fn try_put(&self, key: &Key, entry: &Entry) -> Option<Result<PutOutcome>> {
        if entry.value().len() > COMMITTED_HERE {
            return None;
        }
        let workers = self.workers(Op::Put).ok()?;
        let mut plan = workers.may_write_here().then(|| self.plan_here(&workers, key, entry))?;
        if matches!(plan, Plan::Unstorable) {
            return Some(Ok(unstorable()));
        }
        let outcome = workers.write_here(&mut |batch| {
            batch.note_stamp(entry.as_of());
            plan.carry_out(batch)
        });
        outcome.map(Ok)
    }

    async fn remove(&self, key: &Key) -> Result<bool> {
        let removed = self.remove_many(std::slice::from_ref(key)).await;
        removed.map(|n| n > 0).map_err(|error| error.with_key(key))
    }

    async fn bar(&self, barrier: &Barrier) -> Result<u64> {
        let barrier = barrier.clone();
        let workers = self.workers(Op::Bar)?;
        let removed = workers.write(move |batch| barriers::set(batch, &barrier)).await;
        removed.map(|n| n as u64).map_err(|failure| tier_error(Op::Bar, failure))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let workers = self.workers(Op::Get)?;
        let now = self.options.clock.now();
        let asked = keys.to_vec();
        let found = workers.read(move |connection, options| {
            // One snapshot, and one taking of the read lock, for all.
            let snapshot = (asked.len() > 1).then(|| connection.unchecked_transaction());
            let snapshot = snapshot.transpose()?;
            let found = found::find_many(connection, options, &asked, now);
            drop(snapshot);
            Ok(found?)
        });
        let found = found.await.map_err(|failure| tier_error(Op::Get, failure))?;
        workers.shared().uses.note(found.iter().filter_map(Found::row), now);
        let accept = |(key, found)| self.accept(&workers, key, found);
        let mut entries: Vec<_> = keys.iter().zip(found).map(accept).collect();
        importer::look_beside(&workers, keys, &mut entries, now).await;
        Ok(entries)
    }

    async fn put_many(&self, entries: &[(Key, Entry)]) -> Result<Vec<PutOutcome>> {
        let workers = self.workers(Op::Put)?;
        let mut planned = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            planned.push(self.plan(&workers, key, entry).await?);
        }
        if planned.iter().all(|plan| matches!(plan, Plan::Unstorable)) {
            return Ok(planned.iter().map(|_| unstorable()).collect());
        }
        let latest = entries.iter().map(|(_, entry)| entry.as_of()).max().unwrap_or_default();
        let written = workers.write(move |batch| {
            batch.note_stamp(latest);
            planned.iter_mut().map(|plan| plan.carry_out(batch)).collect()
        });
        written.await.map_err(|failure| tier_error(Op::Put, failure))
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let keys = keys.to_vec();
        let now = self.options.clock.now().as_millis();
        let workers = self.workers(Op::Remove)?;
        let removed = workers.write(move |batch| {
            let mut delete = batch.connection.prepare_cached(
                "DELETE FROM entries WHERE key_hash = ?1 AND key = ?2 RETURNING stale_until > ?3",
            )?;
            keys.iter()
                .map(|key| {
                    let key = key.as_str();
                    let mut rows = delete.query((rows::key_hash(key), key, now))?;
                    rows.next()?.map_or(Ok(0), |row| row.get::<_, u64>(0))
                })
                .sum::<rusqlite::Result<u64>>()
        });
        removed.await.map_err(|failure| tier_error(Op::Remove, failure))
    }

    async fn close(&self) -> Result<()> {
        self.note_down().await;
        // Operations under way hold the threads; the last of them lets these end.
        drop(self.workers.write().unwrap_or_else(PoisonError::into_inner).take());
        let mut ended = self.ended.lock().await;
        while ended.recv().await.is_some() {}
        Ok(())
    }

    fn corrupt(&self) -> u64 {
        self.corrupt_rows()
    }

    fn as_stamped(&self) -> Option<&dyn Stamped> {
        Some(self)
    }

    fn as_journal(&self) -> Option<&dyn Journal> {
        Some(self)
    }

    fn as_lease(&self) -> Option<&dyn Lease> {
        Some(self)
    }

    fn compression(&self) -> Option<&Arc<dyn Compression>> {
        self.options.compression.as_ref()
    }

    fn as_dictionaries(&self) -> Option<&dyn Dictionaries> {
        Some(self)
    }

    fn as_inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
}

impl Journal for SqliteTier {
    fn follow(&self, follower: Follower) {
        if let Ok(workers) = self.workers(Op::Open) {
            workers.follow(follower);
        }
    }
}

#[async_trait]
impl Stamped for SqliteTier {
    async fn latest_stamp(&self) -> Result<Stamp> {
        let workers = self.workers(Op::Get)?;
        let now = self.options.clock.now();
        if let Some(latest) =
            workers.read_here(|connection| stamps::noted_if_sound(connection, now))
        {
            return Ok(latest);
        }
        let latest = workers.read(move |connection, _| Ok(stamps::latest(connection, now)?)).await;
        latest.map_err(|failure| tier_error(Op::Get, failure))
    }
}
