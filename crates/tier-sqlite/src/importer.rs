//! Copying what is live in a Python cache into the tier's file beside it.
//!
//! Values are read and decoded only where the row is later than what the file has. Batches take
//! their place in the queue of writes; nobody waits for the whole.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use cache_core::{Chained, Entry, Escaped, Key, PutOutcome, Stamp, Timestamp, Verdict};
use crossbeam_channel::{Receiver, TryRecvError, select};
use python_cache::{ImportReport, Limits, Outline, PythonCache, Row, Unfit};
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::{mpsc::WeakSender, oneshot};

use crate::{
    Plan, SqliteOptions, barriers,
    batch::Batch,
    bound,
    error::Failure,
    marks::{self, Marks},
    open::{PAGE_BYTES, Role},
    rows::{self, Stored},
    shared::{Shared, Slot},
    uses::Uses,
    worker::Workers,
    writer::{Write, WriteJob},
};

/// Rows that are looked at together, entries in one write, and bytes of these.
const PAGE: usize = 64;
const BATCH_BYTES: usize = 4 << 20;
/// How soon it is looked for what the Python program has added; it opens no file in between.
const AGAIN: Duration = Duration::from_hours(12);
const RETRY: Duration = Duration::from_mins(1);
/// Rows without a usable key that are counted at most.
const UNREADABLE: usize = 10_000;
/// Examples in the log.
const TOLD: usize = 5;

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Python(#[from] python_cache::Error),
    #[error("{0}")]
    Store(#[from] Arc<Failure>),
    #[error("the tier is being closed")]
    Closed,
}

/// The thread that imports.
pub(crate) struct Importer {
    shared: Arc<Shared>,
    slot: Slot,
    writes: WeakSender<Box<dyn WriteJob>>,
    stopped: Receiver<()>,
}

/// An import under way.
struct Pass {
    marks: Marks,
    now: Timestamp,
    report: ImportReport,
    /// Rows that an earlier import has seen, and that have gone since.
    gone: u64,
    pending: Vec<Pending>,
    pending_bytes: usize,
    /// The first key for which the file, which holds as much as it may, had no room.
    no_room: Option<String>,
}

struct Pending {
    key: String,
    stored: Stored,
    opaque: Option<String>,
}

impl Pass {
    fn new(marks: Marks, now: Timestamp) -> Self {
        Self {
            marks,
            now,
            report: ImportReport::default(),
            gone: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            no_room: None,
        }
    }
}

impl Importer {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        writes: WeakSender<Box<dyn WriteJob>>,
        stopped: Receiver<()>,
    ) -> Self {
        let slot = Slot::new(shared, Role::Reader);
        Self { shared: Arc::clone(shared), slot, writes, stopped }
    }

    /// Imports when it is asked to, and from time to time afterwards, until the tier is closed.
    pub(crate) fn run(mut self, asked: &Receiver<()>) {
        let mut next = crossbeam_channel::never();
        let mut failing = false;
        loop {
            select! {
                recv(self.stopped) -> _ => break,
                recv(asked) -> _ => {}
                recv(next) -> _ => {}
            }
            let Some(path) = self.shared.options.path.legacy().map(Path::to_owned) else {
                continue;
            };
            let began = Instant::now();
            let wait = match self.import(&path) {
                Ok(pass) => {
                    failing = false;
                    self.tell(&path, &pass, began.elapsed());
                    self.shared.import_ended();
                    AGAIN
                }
                Err(Problem::Closed) => break,
                Err(problem) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(
                            path = %path.display(),
                            "the Python cache is not imported now, but will be: {}",
                            Chained(&problem)
                        );
                    }
                    // Otherwise misses are still looked for in it.
                    if matches!(problem, Problem::Python(_)) {
                        self.shared.import_ended();
                    }
                    RETRY
                }
            };
            self.slot.close();
            next = crossbeam_channel::after(wait);
        }
        self.slot.close();
    }

    fn import(&mut self, path: &Path) -> Result<Pass, Problem> {
        let cache = PythonCache::open(path)?;
        let now = self.shared.options.clock.now();
        let marks = self.write(move |batch| marks::begin(batch, now))?;
        let mut pass = Pass::new(marks, now);
        for key in cache.unreadable_keys(UNREADABLE)? {
            pass.report.rows += 1;
            pass.report.note_unreadable(&format!("row {}", key.rowid), &key.reason);
        }
        let mut after = None;
        while pass.no_room.is_none() {
            let rows = cache.rows(after.as_deref(), PAGE)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.key.clone());
            for (row, outline) in self.wanted(&rows, &mut pass)? {
                self.go_on()?;
                self.take(&cache, &row, &outline, &mut pass)?;
                if pass.pending.len() >= PAGE || pass.pending_bytes >= BATCH_BYTES {
                    self.store(&mut pass)?;
                }
                if pass.no_room.is_some() {
                    break;
                }
            }
        }
        self.store(&mut pass)?;
        // Otherwise it cannot be told which rows come after one.
        let stop = pass.no_room.clone().filter(|_| cache.is_in_byte_order().unwrap_or(false));
        self.write(move |batch| match &stop {
            Some(key) => marks::stop(batch, key, now),
            None => marks::complete(batch, now),
        })?;
        Ok(pass)
    }

    fn go_on(&self) -> Result<(), Problem> {
        match self.stopped.try_recv() {
            Err(TryRecvError::Empty) => Ok(()),
            _ => Err(Problem::Closed),
        }
    }

    /// The rows of a page that are later than what the file has, found out with one read of it.
    fn wanted(&mut self, rows: &[Row], pass: &mut Pass) -> Result<Vec<(Row, Outline)>, Problem> {
        self.go_on()?;
        let undated = pass.marks.undated(pass.now);
        let mut outlines = Vec::with_capacity(rows.len());
        for row in rows {
            pass.report.rows += 1;
            match row.outline(pass.now, undated) {
                Ok(outline) => outlines.push((row.clone(), outline)),
                Err(Unfit::Expired) => pass.report.expired += 1,
                Err(Unfit::Unreadable(reason)) => pass.report.note_unreadable(&row.key, &reason),
            }
        }
        let (marks, now) = (&pass.marks, pass.now);
        let states = self.slot.run(|connection, shared| {
            let snapshot = connection.unchecked_transaction()?;
            let uses = Uses::default();
            let mut look = Batch::new(&snapshot, now, &shared.options, &uses, 0);
            let state = |(_, outline): &(Row, Outline)| State::of(&mut look, outline, marks);
            Ok(outlines.iter().map(state).collect::<rusqlite::Result<Vec<_>>>()?)
        })?;
        let mut wanted = Vec::new();
        for (outlined, state) in outlines.into_iter().zip(states) {
            match state {
                State::Wanted(_) => wanted.push(outlined),
                State::Superseded => pass.report.superseded += 1,
                State::Barred => pass.report.barred += 1,
                State::Gone => pass.gone += 1,
            }
        }
        Ok(wanted)
    }

    /// Reads and decodes a value, to be stored with the next batch.
    fn take(
        &self,
        cache: &PythonCache,
        row: &Row,
        outline: &Outline,
        pass: &mut Pass,
    ) -> Result<(), Problem> {
        let options = &self.shared.options;
        if let Some(reason) = too_large(row, options) {
            pass.report.note_too_large(&row.key, &reason);
            return Ok(());
        }
        // Changed or removed since: the next import sees it.
        let Some(pickle) = cache.value(row)? else { return Ok(()) };
        let imported = outline.with_value(pickle, &limits(options));
        let (key, entry) = (outline.key().clone(), imported.entry);
        let stored = Stored::new(key, entry, options.compression.clone());
        pass.pending_bytes += stored.entry().value().len();
        pass.pending.push(Pending { key: row.key.clone(), stored, opaque: imported.opaque });
        Ok(())
    }

    /// Stores what was taken, as far as there is room for it.
    fn store(&self, pass: &mut Pass) -> Result<(), Problem> {
        let pending = std::mem::take(&mut pass.pending);
        pass.pending_bytes = 0;
        if pending.is_empty() {
            return Ok(());
        }
        let limit = self.shared.bound.limit();
        let room = limit - limit / 16;
        let told = |one: &Pending| {
            (one.key.clone(), one.opaque.clone(), one.stored.entry().value().len() as u64)
        };
        let told: Vec<_> = pending.iter().map(told).collect();
        let mut plans: Vec<_> = pending.into_iter().map(|one| Plan::Store(one.stored)).collect();
        let outcomes = self.write(move |batch| {
            let mut outcomes = Vec::with_capacity(plans.len());
            for plan in &mut plans {
                let Plan::Store(stored) = &*plan else { continue };
                let pages = stored.entry().value().len() as u64 / PAGE_BYTES.unsigned_abs() + 1;
                if bound::used_pages(batch.connection)? + pages > room {
                    break;
                }
                outcomes.push(plan.carry_out(batch)?);
            }
            Ok(outcomes)
        })?;
        pass.no_room = told.get(outcomes.len()).map(|(key, ..)| key.clone());
        for ((key, opaque, bytes), outcome) in told.into_iter().zip(outcomes) {
            match outcome {
                PutOutcome::Stored => {
                    pass.report.imported += 1;
                    pass.report.bytes += bytes;
                    if let Some(reason) = opaque {
                        pass.report.note_pickle(&key, &reason);
                    }
                }
                PutOutcome::Barred => pass.report.barred += 1,
                // Loaded meanwhile.
                _ => pass.report.superseded += 1,
            }
        }
        Ok(())
    }

    /// Queues a write and waits until it is committed.
    fn write<T: Send + 'static>(
        &self,
        job: impl FnMut(&mut Batch<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let writes = self.writes.upgrade().ok_or(Problem::Closed)?;
        writes.blocking_send(Write::boxed(job, reply, None)).map_err(|_closed| Problem::Closed)?;
        drop(writes);
        Ok(answer.blocking_recv().map_err(|_dropped| Problem::Closed)??)
    }

    fn tell(&self, path: &Path, pass: &Pass, took: Duration) {
        let report = &pass.report;
        let kept_or_left = report.kept_as_pickle + report.unreadable + report.too_large;
        let first = pass.marks.is_first();
        if first || report.imported > 0 {
            tracing::info!(
                path = %path.display(),
                store = %self.shared.options.path.display(),
                imported = report.imported,
                unchanged = report.superseded,
                invalidated = report.barred,
                expired = report.expired,
                gone = pass.gone,
                kept_as_pickle = report.kept_as_pickle,
                unreadable = report.unreadable,
                too_large = report.too_large,
                bytes = report.bytes,
                ?took,
                "imported from the Python cache"
            );
        }
        if pass.no_room.is_some() {
            tracing::warn!(
                path = %path.display(),
                max_bytes = self.shared.bound.max_bytes(),
                "the rest of the Python cache is not imported now: it does not fit into \
                 `cache.sqlite.max_size`; it will be once there is room"
            );
        }
        // What cannot be read stays so: once is enough.
        if report.kept_as_pickle > 0 || first && kept_or_left > 0 {
            let examples = report.examples.iter().take(TOLD);
            let examples: Vec<_> =
                examples.map(|(key, why)| format!("`{}` {}", Escaped(key), Escaped(why))).collect();
            tracing::warn!(
                path = %path.display(),
                "{kept_or_left} entries of the Python cache are kept as pickles or were left out: {}",
                examples.join("; ")
            );
        }
    }
}

/// What the file says about a row.
enum State {
    /// To be imported; whether it is stale.
    Wanted(bool),
    Superseded,
    Barred,
    /// Seen by an earlier import, and not there any more.
    Gone,
}

impl State {
    fn of(batch: &mut Batch<'_>, outline: &Outline, marks: &Marks) -> rusqlite::Result<Self> {
        let (key, as_of) = (outline.key(), outline.as_of());
        let found = batch
            .connection
            .prepare_cached("SELECT as_of FROM entries WHERE key_hash = ?1 AND key = ?2")?
            .query_row((rows::key_hash(key.as_str()), key.as_str()), |row| {
                // What is damaged is as good as nothing.
                Ok(row.get::<_, i64>(0).ok())
            })
            .optional()?;
        if let Some(found) = found.flatten() {
            let found = Stamp::from_packed(found.cast_unsigned());
            if found.is_believable(batch.now) && found >= as_of {
                return Ok(Self::Superseded);
            }
        } else if marks.has_seen(key.as_str(), as_of) {
            return Ok(Self::Gone);
        }
        Ok(match barriers::judge(batch, key, outline.entry())? {
            Verdict::Passes => Self::Wanted(false),
            Verdict::Expired => Self::Wanted(true),
            Verdict::Barred => Self::Barred,
        })
    }
}

fn too_large(row: &Row, options: &SqliteOptions) -> Option<String> {
    let (len, max) = (row.value_len.clone().unwrap_or(u64::MAX), options.max_value_bytes);
    (len > max).then(|| format!("its {len} bytes are more than the {max} a value may have"))
}

fn limits(options: &SqliteOptions) -> Limits {
    let limits = Limits::default();
    let max = usize::try_from(options.max_value_bytes).unwrap_or(usize::MAX);
    Limits { max_json_bytes: limits.max_json_bytes.min(max), ..limits }
}

/// Looks for what was not found in the Python cache, while not all of that has been imported.
pub(crate) async fn look_beside(
    workers: &Workers,
    keys: &[Key],
    entries: &mut [Option<Entry>],
    now: Timestamp,
) {
    let Some(path) = workers.shared().importing_from().map(Path::to_owned) else { return };
    let missing = keys.iter().zip(&*entries).filter(|(_, entry)| entry.is_none());
    let missing: Vec<Key> = missing.map(|(key, _)| key.clone()).collect();
    if missing.is_empty() {
        return;
    }
    let found = workers.read(move |connection, options| {
        let cache = PythonCache::open(&path);
        let look = |key| {
            let found = look(cache.as_ref().ok()?, connection, options, key, now);
            found.unwrap_or_else(|problem| {
                tracing::debug!(%problem, "not looked for in the Python cache");
                None
            })
        };
        Ok(missing.iter().map(look).collect::<Vec<_>>())
    });
    // A miss is all that it costs.
    let Ok(found) = found.await else { return };
    let places = entries.iter_mut().filter(|entry| entry.is_none());
    places.zip(found).for_each(|(place, entry)| *place = entry);
}

fn look(
    cache: &PythonCache,
    connection: &Connection,
    options: &SqliteOptions,
    key: &Key,
    now: Timestamp,
) -> Result<Option<Entry>, Problem> {
    let Some(row) = cache.row(key.as_str())? else { return Ok(None) };
    let marks = Marks::read(connection, now).map_err(stored)?;
    let Ok(outline) = row.outline(now, marks.undated(now)) else { return Ok(None) };
    let uses = Uses::default();
    let mut batch = Batch::new(connection, now, options, &uses, 0);
    let State::Wanted(stale) = State::of(&mut batch, &outline, &marks).map_err(stored)? else {
        return Ok(None);
    };
    if too_large(&row, options).is_some() {
        return Ok(None);
    }
    let Some(pickle) = cache.value(&row)? else { return Ok(None) };
    let entry = outline.with_value(pickle, &limits(options)).entry;
    Ok(Some(if stale { entry.to_expired() } else { entry }))
}

fn stored(error: rusqlite::Error) -> Problem {
    Problem::Store(Arc::new(error.into()))
}
