//! Dictionaries for small values: trained on what a tier has stored, by itself or when asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use cache_core::{
    Clock, Compression as _, Dictionaries, Dictionary, Entry, Error as TierError, KeptDictionary,
    Key, Op,
};
use codec_compress::{Compressor, DICTIONARY_THRESHOLD, TrainError, train};

use crate::{Cache, Error, chain::Chain, guard::Guard, tasks::Tasks};

/// A source's dictionary is trained by itself once it has so many small values.
const ENOUGH: usize = 500;
/// Values that one is trained on, at most.
const SAMPLES: usize = 4_000;
/// Values that it is then tried on, at most.
const TRIED: usize = 500;
/// And so many bytes of them: training looks at far fewer.
const SAMPLE_BYTES: u64 = 32 << 20;
/// Longer values teach nothing about small ones.
const LONGEST_SAMPLE: usize = 64 << 10;
/// After so many more small values of a source it is looked again whether there are enough.
const LOOK_EVERY: u64 = 64;
/// How long others leave a training to a process that was killed.
const LEASE: Duration = Duration::from_mins(1);

/// Why no dictionary was trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DictionaryError {
    /// The chain has been closed.
    #[error("the cache has been closed")]
    Closed,
    /// The cache was built without [`CacheBuilder::compressor`](crate::CacheBuilder::compressor), or
    /// none of its tiers keeps dictionaries.
    #[error("no tier of this cache keeps dictionaries; enable a persistent one and compression")]
    NoTier,
    /// New values of the source would not use one.
    #[error(
        "values of `{source_name}` use no dictionary: that takes compression with zstd, and \
         `dictionaries` that are not off"
    )]
    Unused {
        /// The source.
        source_name: String,
    },
    /// There is not enough to learn from.
    #[error(
        "`{source_name}` has {found} values of {shortest} to {longest} bytes, and no dictionary can be \
         trained on them; store more first, for example with `larder warm`"
    )]
    TooFew {
        /// The source.
        source_name: String,
        /// How many it has, of the lengths that count.
        found: usize,
        /// Shortest value that a dictionary is used for, in bytes.
        shortest: usize,
        /// Longest one that it is trained on, in bytes.
        longest: usize,
    },
    /// It would not make values smaller.
    #[error("a dictionary does not make values of `{source_name}` smaller: they are too unlike")]
    NoGain {
        /// The source.
        source_name: String,
    },
    /// The codec failed.
    #[error("the dictionary of `{source_name}` cannot be trained")]
    Train {
        /// The source.
        source_name: String,
        /// Why.
        #[source]
        source: TrainError,
    },
    /// A tier failed.
    #[error(transparent)]
    Tier(Arc<TierError>),
}

/// A dictionary that has been trained and is used from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrainedDictionary {
    /// The dictionary.
    pub dictionary: Dictionary,
    /// Length of values that it was tried on, a part of those that it was trained on, in bytes.
    pub raw_bytes: u64,
    /// Length of the same compressed with it, in bytes.
    pub stored_bytes: u64,
}

impl Cache {
    /// Trains a dictionary on the small values of `source` that are stored, and uses it for those
    /// that are stored from now on, here and in other processes. What is stored stays as it is.
    ///
    /// # Errors
    /// [`DictionaryError`]; then the source's values are compressed as before.
    pub async fn train_dictionary(
        &self,
        source: &str,
    ) -> Result<TrainedDictionary, DictionaryError> {
        self.inner.open().map_err(|_closed| DictionaryError::Closed)?;
        let training = self.inner.training.as_ref().ok_or(DictionaryError::NoTier)?;
        training.train(source, 0).await
    }

    /// Up to `most` values of a source, and so many bytes of them, that the first tier with dictionaries has stored, those stored
    /// last first: to see how they compress. Changes no counter.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Tier`].
    pub async fn stored_values(
        &self,
        source: &str,
        most: usize,
        most_bytes: u64,
    ) -> Result<Vec<Bytes>, Error> {
        self.inner.open()?;
        let Some((tier, side)) = keepers(&self.inner.chain).next() else { return Ok(Vec::new()) };
        let values = side.samples(source, 1..=u64::MAX, most, most_bytes);
        tier.inspected(Op::Inspect, values).await.map_err(Error::Tier)
    }

    /// The dictionaries that the tiers keep, sorted by source and version.
    ///
    /// # Errors
    /// [`Error::Closed`]; [`Error::Tier`] of the first tier that failed.
    pub async fn dictionaries(&self) -> Result<Vec<KeptDictionary>, Error> {
        self.inner.open()?;
        let mut all = Vec::new();
        for (tier, side) in keepers(&self.inner.chain) {
            let kept = tier.inspected(Op::Inspect, side.dictionaries()).await;
            all.extend(kept.map_err(Error::Tier)?);
        }
        all.sort_by(|a: &KeptDictionary, b| {
            let order = |kept: &KeptDictionary| {
                (kept.dictionary.source.clone(), kept.dictionary.version, kept.dictionary.id)
            };
            order(a).cmp(&order(b))
        });
        all.dedup_by_key(|kept| kept.dictionary.id);
        Ok(all)
    }
}

/// Which sources' dictionaries are trained without being asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Automatic {
    pub(crate) usually: bool,
    pub(crate) by_source: HashMap<String, bool>,
}

impl Automatic {
    fn includes(&self, source: &str) -> bool {
        self.by_source.get(source).copied().unwrap_or(self.usually)
    }
}

/// Trains dictionaries on what a chain's tiers have stored.
#[derive(Debug)]
pub(crate) struct Training {
    compressor: Arc<Compressor>,
    automatic: Automatic,
    chain: Arc<Chain>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    sources: Mutex<HashMap<Box<str>, Progress>>,
}

/// How many small values of a source were stored here, and at how many it is looked whether they are
/// enough.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    stored: u64,
    look_at: u64,
    is_training: bool,
}

/// The tiers that keep dictionaries.
fn keepers(chain: &Chain) -> impl Iterator<Item = (&Guard, &dyn Dictionaries)> {
    chain.tiers.iter().filter_map(|tier| Some((tier, tier.tier().as_dictionaries()?)))
}

impl Training {
    pub(crate) fn new(
        compressor: Arc<Compressor>,
        automatic: Automatic,
        chain: &Arc<Chain>,
        clock: &Arc<dyn Clock>,
        tasks: &Tasks,
    ) -> Self {
        Self {
            compressor,
            automatic,
            chain: Arc::clone(chain),
            clock: Arc::clone(clock),
            tasks: tasks.clone(),
            sources: Mutex::default(),
        }
    }

    /// Notes what was stored; begins to train a dictionary for a source that may have enough small
    /// values for one.
    pub(crate) fn note_stored(self: &Arc<Self>, entries: &[(Key, Entry)]) {
        for (key, entry) in entries {
            let source = key.source();
            if self.is_due(source, entry.value().len()) {
                let (training, source) = (Arc::clone(self), source.to_owned());
                self.tasks.spawn(async move {
                    training.train_if_enough(&source).await;
                    training.progress(&source, |progress| progress.is_training = false);
                });
            }
        }
    }

    fn is_due(&self, source: &str, len: usize) -> bool {
        if !self.compressor.dictionary_lengths(source).contains(&len)
            || !self.automatic.includes(source)
            || self.compressor.current_dictionary(source).is_some()
        {
            return false;
        }
        self.progress(source, |progress| {
            progress.stored += 1;
            let due = progress.stored > progress.look_at && !progress.is_training;
            if due {
                progress.look_at = progress.stored + LOOK_EVERY;
                progress.is_training = true;
            }
            due
        })
    }

    fn progress<T>(&self, source: &str, change: impl FnOnce(&mut Progress) -> T) -> T {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        match sources.get_mut(source) {
            Some(progress) => change(progress),
            None => change(sources.entry(source.into()).or_default()),
        }
    }

    async fn train_if_enough(&self, source: &str) {
        let leasing = self.chain.leasing().and_then(|at| self.chain.tiers.get(at));
        let key = [Key::new(format!("larder:dictionary:{source}"))];
        let owner = self.chain.owner;
        if let Some(tier) = leasing
            && tier.lease(&key, owner, LEASE).await == Some(false)
        {
            // Another process trains one, and this one will be told.
            return;
        }
        match self.learn_or_train(source).await {
            Ok(Some(trained)) => tracing::info!(
                source,
                dictionary = %trained.dictionary.id,
                samples = trained.dictionary.samples,
                raw_bytes = trained.raw_bytes,
                stored_bytes = trained.stored_bytes,
                "a dictionary was trained; new small values are compressed with it"
            ),
            Err(DictionaryError::NoGain { .. }) => {
                // Not again until there is twice as much to learn from.
                self.progress(source, |progress| {
                    progress.look_at = progress.stored.saturating_mul(2).max(ENOUGH as u64 * 2);
                });
                tracing::debug!(source, "a dictionary would not make values smaller");
            }
            Err(DictionaryError::TooFew { found, .. }) => {
                // There cannot be enough before so many more were stored.
                let missing = ENOUGH.saturating_sub(found) as u64;
                self.progress(source, |progress| {
                    progress.look_at = progress.stored + missing.max(LOOK_EVERY) - 1;
                });
            }
            Ok(None) => {}
            // The guard of the tier has said so.
            Err(DictionaryError::Tier(error)) => {
                tracing::debug!(source, %error, "no dictionary was trained");
            }
            Err(error) => {
                // Told less and less often.
                self.progress(source, |progress| {
                    progress.look_at = progress.stored.saturating_mul(2) + ENOUGH as u64;
                });
                let error = cache_core::Chained(&error).to_string();
                tracing::warn!(source, error, "no dictionary was trained");
            }
        }
        if let Some(tier) = leasing {
            tier.release(&key, owner).await;
        }
    }

    /// Trains one if there is none yet, and there are enough values for one.
    async fn learn_or_train(
        &self,
        source: &str,
    ) -> Result<Option<TrainedDictionary>, DictionaryError> {
        // Another process may have trained one since, or an earlier run.
        if let Some(last) = self.kept(source).await?.last() {
            let learnt = self.compressor.learn(&last.dictionary);
            return learnt.map(|()| None).map_err(|error| DictionaryError::Train {
                source_name: source.to_owned(),
                source: TrainError::Failed(error.to_string()),
            });
        }
        self.train(source, ENOUGH).await.map(Some)
    }

    /// What the first tier with dictionaries has of a source, by version.
    async fn kept(&self, source: &str) -> Result<Vec<KeptDictionary>, DictionaryError> {
        let (tier, side) = keepers(&self.chain).next().ok_or(DictionaryError::NoTier)?;
        let kept = tier.inspected(Op::Inspect, side.dictionaries()).await;
        let mut kept = kept.map_err(DictionaryError::Tier)?;
        kept.retain(|kept| &*kept.dictionary.source == source);
        Ok(kept)
    }

    /// Trains one on at least so many values, stores it, and has it used.
    async fn train(
        &self,
        source: &str,
        least: usize,
    ) -> Result<TrainedDictionary, DictionaryError> {
        let source_name = || source.to_owned();
        if !self.compressor.uses_dictionaries(source) {
            return Err(DictionaryError::Unused { source_name: source_name() });
        }
        let (tier, side) = keepers(&self.chain).next().ok_or(DictionaryError::NoTier)?;
        let longest = *self.compressor.dictionary_lengths(source).end();
        let longest = longest.min(LONGEST_SAMPLE);
        let lengths = DICTIONARY_THRESHOLD as u64..=longest as u64;
        let samples = side.samples(source, lengths, SAMPLES, SAMPLE_BYTES);
        let samples = tier.inspected(Op::Inspect, samples).await;
        let samples = samples.map_err(DictionaryError::Tier)?;
        let too_few = |found| DictionaryError::TooFew {
            source_name: source_name(),
            found,
            shortest: DICTIONARY_THRESHOLD,
            longest,
        };
        if samples.len() < least.max(1) {
            return Err(too_few(samples.len()));
        }
        let kept = self.kept(source).await?;
        let version = kept.iter().map(|kept| kept.dictionary.version).max().unwrap_or(0);
        let version = version.saturating_add(1);
        let (own_source, created_at) = (source_name(), self.clock.now());
        let (samples, trained) = tokio::task::spawn_blocking(move || {
            let trained = train(&own_source, &samples, version, created_at);
            (samples, trained)
        })
        .await
        .map_err(|ended| panicked(source, &ended))?;
        let dictionary = match trained {
            Ok(Some(dictionary)) => dictionary,
            Ok(None) => return Err(DictionaryError::NoGain { source_name: source_name() }),
            Err(TrainError::TooFew { fitting }) => return Err(too_few(fitting)),
            Err(source) => {
                return Err(DictionaryError::Train { source_name: source_name(), source });
            }
        };
        for (tier, side) in keepers(&self.chain).filter(|(tier, _)| !tier.is_read_only()) {
            let kept = tier.inspected(Op::Put, side.keep(&dictionary)).await;
            kept.map_err(DictionaryError::Tier)?;
        }
        self.compressor.learn(&dictionary).map_err(|error| DictionaryError::Train {
            source_name: source_name(),
            source: TrainError::Failed(error.to_string()),
        })?;
        let (raw_bytes, stored_bytes) = self.measure(source, samples).await?;
        Ok(TrainedDictionary { dictionary, raw_bytes, stored_bytes })
    }

    /// Length of values, and of the same compressed.
    async fn measure(
        &self,
        source: &str,
        values: Vec<Bytes>,
    ) -> Result<(u64, u64), DictionaryError> {
        let (compressor, of) = (Arc::clone(&self.compressor), source.to_owned());
        let source = of.clone();
        let measure = move || {
            values.iter().take(TRIED).fold((0, 0), |(raw, stored), value| {
                let len = compressor.packed_len(&source, value);
                (raw + value.len() as u64, stored + len as u64)
            })
        };
        let measured = tokio::task::spawn_blocking(measure).await;
        measured.map_err(|ended| panicked(&of, &ended))
    }
}

/// The error for work on another thread that has not come to its end.
fn panicked(source: &str, ended: &tokio::task::JoinError) -> DictionaryError {
    DictionaryError::Train {
        source_name: source.to_owned(),
        source: TrainError::Failed(ended.to_string()),
    }
}
