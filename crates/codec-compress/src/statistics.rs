//! What compression takes and saves, by source, codec and dictionary.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use cache_core::{CodecId, CodecStats, CodecUse, DictionaryId};

/// So many sources are told apart; the others are counted together, under the empty name. A program
/// that makes names of sources up must not fill the memory with counts.
const SOURCES: usize = 4_096;

/// Counts of one source, codec and dictionary.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    packed: AtomicU64,
    raw_bytes: AtomicU64,
    stored_bytes: AtomicU64,
    pack_nanos: AtomicU64,
    kept_raw: AtomicU64,
    failed: AtomicU64,
    unpacked: AtomicU64,
    unpack_nanos: AtomicU64,
}

impl Counts {
    pub(crate) fn packed(&self, raw_bytes: usize, stored_bytes: usize, took: Duration) {
        self.packed.fetch_add(1, Relaxed);
        self.raw_bytes.fetch_add(raw_bytes as u64, Relaxed);
        self.stored_bytes.fetch_add(stored_bytes as u64, Relaxed);
        self.pack_nanos.fetch_add(nanos(took), Relaxed);
    }

    pub(crate) fn kept_raw(&self, took: Duration) {
        self.kept_raw.fetch_add(1, Relaxed);
        self.pack_nanos.fetch_add(nanos(took), Relaxed);
    }

    /// Whether it is the first failure.
    pub(crate) fn failed(&self) -> bool {
        self.failed.fetch_add(1, Relaxed) == 0
    }

    pub(crate) fn unpacked(&self, took: Duration) {
        self.unpacked.fetch_add(1, Relaxed);
        self.unpack_nanos.fetch_add(nanos(took), Relaxed);
    }

    fn read(&self) -> CodecStats {
        let mut stats = CodecStats::default();
        stats.packed = self.packed.load(Relaxed);
        stats.raw_bytes = self.raw_bytes.load(Relaxed);
        stats.stored_bytes = self.stored_bytes.load(Relaxed);
        stats.pack_time = Duration::from_nanos(self.pack_nanos.load(Relaxed));
        stats.kept_raw = self.kept_raw.load(Relaxed);
        stats.failed = self.failed.load(Relaxed);
        stats.unpacked = self.unpacked.load(Relaxed);
        stats.unpack_time = Duration::from_nanos(self.unpack_nanos.load(Relaxed));
        stats
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

/// A source's counts. It has one codec, and a dictionary now and then, so a short list.
type OfSource = Vec<((CodecId, DictionaryId), Arc<Counts>)>;

/// All counts.
#[derive(Debug, Default)]
pub(crate) struct Statistics(RwLock<HashMap<Box<str>, OfSource>>);

impl Statistics {
    /// Where the work of a codec and dictionary for a source is counted.
    pub(crate) fn of(&self, source: &str, codec: CodecId, dictionary: DictionaryId) -> Arc<Counts> {
        let with = (codec, dictionary);
        let found = |counts: &OfSource| {
            let (_, counts) = counts.iter().find(|(known, _)| *known == with)?;
            Some(Arc::clone(counts))
        };
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = all.get(source).and_then(found) {
            return counts;
        }
        drop(all);
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let source = if all.len() < SOURCES || all.contains_key(source) { source } else { "" };
        let of_source = all.entry(source.into()).or_default();
        found(of_source).unwrap_or_else(|| {
            let counts = Arc::<Counts>::default();
            of_source.push((with, Arc::clone(&counts)));
            counts
        })
    }

    /// A copy, sorted.
    pub(crate) fn read(&self) -> Vec<(CodecUse, CodecStats)> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let each = all.iter().flat_map(|(source, counts)| {
            counts.iter().map(|(with, counts)| {
                let (codec, dictionary) = *with;
                (CodecUse { source: source.clone(), codec, dictionary }, counts.read())
            })
        });
        let mut each: Vec<_> = each.collect();
        each.sort_by(|(one, _), (other, _)| one.cmp(other));
        each
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_made_up_do_not_fill_the_memory() {
        let statistics = Statistics::default();
        let count = |source: &str| {
            statistics.of(source, CodecId::ZLIB, DictionaryId::NONE).kept_raw(Duration::ZERO);
        };
        for n in 0..SOURCES + 10 {
            count(&n.to_string());
        }
        count("0");
        let all = statistics.read();
        assert_eq!(all.len(), SOURCES + 1);
        let (together, first) = (&all[0], &all[1]);
        assert_eq!((&*together.0.source, together.1.kept_raw), ("", 10));
        assert_eq!((&*first.0.source, first.1.kept_raw), ("0", 2), "what is known stays so");
    }
}
