//! Taking over what a cache file of the Python manager holds.
//!
//! A chain whose SQLite tier is configured to use such a file does so by itself: see `tier_sqlite`.
//! [`Cache::import_python`] copies one into another store. What Python values become is documented
//! in `python_cache`.

use std::{collections::VecDeque, fs, path::Path, sync::Arc};

use cache_core::{Entry, Key, PutOutcome, Stamp, Timestamp};
use python_cache::{Limits, PythonCache, Row, Unfit};

use crate::{Cache, Error, TierError, guard::Guard};

pub use python_cache::{Error as FileError, ImportReport, PICKLE_CONTENT_TYPE};
pub use tier_sqlite::{is_python_cache, store_beside};

/// Rows that are read together, entries in one write, and bytes of these.
const PAGE: usize = 64;
const BATCH_BYTES: usize = 4 << 20;
/// Rows without a usable key that are counted at most.
const UNREADABLE: usize = 10_000;

/// How to import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportOptions {
    /// Whether nothing is stored, and only reported what would be.
    pub dry_run: bool,
}

impl ImportOptions {
    /// Only a report. Whether an invalidation covers a row is known in so far as this chain was told
    /// of it, and whether a value is too large as far as reading it goes.
    pub fn dry_run() -> Self {
        Self { dry_run: true }
    }
}

/// Why an import ended early. What was stored before stays; importing again goes on.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file is not there, is no such cache, or cannot be read.
    #[error(transparent)]
    File(Arc<FileError>),
    /// The chain has no tier to import into.
    #[error("no tier of this chain outlives a program and may be written")]
    NoTier,
    /// A tier failed.
    #[error("the import has stopped")]
    Tier(#[source] Arc<TierError>),
    /// The chain is closed, or its runtime shuts down.
    #[error(transparent)]
    Chain(#[from] Error),
}

impl From<FileError> for ImportError {
    fn from(error: FileError) -> Self {
        Self::File(Arc::new(error))
    }
}

impl Cache {
    /// Copies every live entry of a cache file of the Python manager into each tier that outlives
    /// the program. The file is only read. Nothing that was loaded, set or invalidated since a row
    /// was written is overwritten; importing again changes nothing that has not changed there.
    ///
    /// A tier that is full gives up what was used least recently, as for any other entry.
    ///
    /// # Errors
    /// See [`ImportError`]. If the future is dropped, what was stored stays.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn import_python(
        &self,
        path: impl AsRef<Path>,
        options: ImportOptions,
    ) -> Result<ImportReport, ImportError> {
        self.inner.open()?;
        let takes = |tier: &&Guard| tier.tier().capability().persistent && !tier.is_read_only();
        let tiers: Vec<&Guard> = self.inner.chain.tiers.iter().filter(takes).collect();
        if tiers.is_empty() && !options.dry_run {
            return Err(ImportError::NoTier);
        }
        let (path, now) = (path.as_ref().to_owned(), self.inner.clock.now());
        let mut reader = blocking(move || Reader::open(&path, now)).await??;
        loop {
            self.inner.open()?;
            let (returned, batch) = blocking(move || {
                let batch = reader.batch();
                (reader, batch)
            })
            .await?;
            reader = returned;
            let batch = batch?;
            if batch.is_empty() {
                return Ok(reader.report);
            }
            let outcomes = if options.dry_run {
                self.foresee(&tiers, &batch).await?
            } else {
                store(&tiers, &batch).await?
            };
            for (taken, outcome) in batch.iter().zip(outcomes) {
                reader.note(taken, outcome);
            }
        }
    }

    /// What would become of entries.
    async fn foresee(
        &self,
        tiers: &[&Guard],
        batch: &[Taken],
    ) -> Result<Vec<PutOutcome>, ImportError> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for Taken { key, entry, .. } in batch {
            let mut outcome = PutOutcome::Stored;
            if self.inner.chain.is_barred(key, entry) {
                outcome = PutOutcome::Barred;
            } else if !tiers.is_empty() {
                outcome = PutOutcome::Superseded;
                for tier in tiers {
                    let found = tier.tier().get(key).await;
                    let found = found.map_err(|error| ImportError::Tier(Arc::new(error)))?;
                    if found.is_none_or(|found| found.as_of() < entry.as_of()) {
                        outcome = PutOutcome::Stored;
                    }
                }
            }
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }
}

/// Puts entries into every tier; of each the best that became of it.
async fn store(tiers: &[&Guard], batch: &[Taken]) -> Result<Vec<PutOutcome>, ImportError> {
    let entries: Vec<_> =
        batch.iter().map(|taken| (taken.key.clone(), taken.entry.clone())).collect();
    let mut best: Vec<Option<PutOutcome>> = batch.iter().map(|_| None).collect();
    for tier in tiers {
        let outcomes = tier.put_many(&entries).await.map_err(ImportError::Tier)?;
        for (best, outcome) in best.iter_mut().zip(outcomes) {
            if best.as_ref().is_none_or(|best| rank(&outcome) > rank(best)) {
                *best = Some(outcome);
            }
        }
    }
    let none = || PutOutcome::Refused { reason: "the tier did not say".to_owned() };
    Ok(best.into_iter().map(|best| best.unwrap_or_else(none)).collect())
}

const fn rank(outcome: &PutOutcome) -> u8 {
    match outcome {
        PutOutcome::Stored => 3,
        PutOutcome::Superseded => 2,
        PutOutcome::Barred => 1,
        _ => 0,
    }
}

/// Runs what waits for the disk, or computes for long, off the async workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ImportError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_aborted) => Err(Error::Closed.into()),
        },
    }
}

/// A row as it is to be stored.
struct Taken {
    key: Key,
    entry: Entry,
    opaque: Option<String>,
}

/// Reads a file from its first row to its last.
struct Reader {
    cache: PythonCache,
    after: Option<String>,
    page: VecDeque<Row>,
    now: Timestamp,
    undated: Stamp,
    report: ImportReport,
}

impl Reader {
    fn open(path: &Path, now: Timestamp) -> Result<Self, FileError> {
        let cache = PythonCache::open(path)?;
        let mut report = ImportReport::default();
        for key in cache.unreadable_keys(UNREADABLE)? {
            report.rows += 1;
            report.note_unreadable(&format!("row {}", key.rowid), &key.reason);
        }
        // No row was written later than the file, whatever it says itself.
        let written = fs::metadata(path).and_then(|found| found.modified()).ok();
        let written = written.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        let written = written.and_then(|time| i64::try_from(time.as_millis()).ok());
        let undated = Stamp::at(written.map_or(now, Timestamp::from_millis).min(now));
        Ok(Self { cache, after: None, page: VecDeque::new(), now, undated, report })
    }

    /// The next entries; none at the end.
    fn batch(&mut self) -> Result<Vec<Taken>, FileError> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < PAGE && bytes < BATCH_BYTES {
            if self.page.is_empty() {
                self.page = self.cache.rows(self.after.as_deref(), PAGE)?.into();
            }
            let Some(row) = self.page.pop_front() else { break };
            self.report.rows += 1;
            if let Some(taken) = self.take(&row)? {
                bytes += taken.entry.value().len();
                batch.push(taken);
            }
            self.after = Some(row.key);
        }
        Ok(batch)
    }

    fn take(&mut self, row: &Row) -> Result<Option<Taken>, FileError> {
        let outline = match row.outline(self.now, self.undated) {
            Ok(outline) => outline,
            Err(Unfit::Expired) => {
                self.report.expired += 1;
                return Ok(None);
            }
            Err(Unfit::Unreadable(reason)) => {
                self.report.note_unreadable(&row.key, &reason);
                return Ok(None);
            }
        };
        let limits = Limits::default();
        let (len, max) = (row.value_len.clone().unwrap_or(0), limits.max_json_bytes as u64);
        if len > max {
            let reason = format!("its {len} bytes are more than the {max} a value may have");
            self.report.note_too_large(&row.key, &reason);
            return Ok(None);
        }
        // Changed meanwhile: it is another program's turn, or the next import's.
        let Some(pickle) = self.cache.value(row)? else { return Ok(None) };
        let imported = outline.with_value(pickle, &limits);
        let key = outline.key().clone();
        Ok(Some(Taken { key, entry: imported.entry, opaque: imported.opaque }))
    }

    fn note(&mut self, taken: &Taken, outcome: PutOutcome) {
        let report = &mut self.report;
        match outcome {
            PutOutcome::Stored => {
                report.imported += 1;
                report.bytes += taken.entry.value().len() as u64;
                if let Some(reason) = &taken.opaque {
                    report.note_pickle(taken.key.as_str(), reason);
                }
            }
            PutOutcome::Superseded => report.superseded += 1,
            PutOutcome::Barred => report.barred += 1,
            PutOutcome::Refused { reason } => report.note_too_large(taken.key.as_str(), &reason),
            other => report.note_too_large(taken.key.as_str(), &format!("{other:?}")),
        }
    }
}
