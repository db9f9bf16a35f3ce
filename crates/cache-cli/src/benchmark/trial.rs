//! One codec at one level, tried on values.

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use larder::{
    Codec, CodecError, Compression, Timestamp,
    tiers::{Compressor, Zlib, Zstd, train},
};

/// What is tried: each at levels from its fastest on.
const LEVELS: [(&str, &[u32]); 2] = [("zlib", &[1, 6, 9]), ("zstd", &[1, 3, 6, 9, 15, 19])];
/// Compressing at all is worth it if it leaves at most so much, and a slower setting if it leaves at most
/// so much of what a faster one does.
const SHRINKS: f64 = 0.95;
const WORTH: f64 = 0.9;
/// A setting that compresses fewer bytes a second is not recommended: an answer of 100 KB, which took
/// its API a second, would take more than 5 ms on top.
const SLOWEST: f64 = 20e6;
/// The size of the document whose times are told by themselves.
const DOCUMENT: usize = 100 << 10;

/// Values by source.
#[derive(Debug, Default)]
pub(super) struct Corpus(Vec<(String, Vec<Bytes>)>, Vec<(String, Vec<Bytes>)>);

/// From so many values on, every third is tried, and dictionaries are trained on the others.
const ENOUGH: usize = 75;

impl Corpus {
    pub(super) fn add(&mut self, source: String, values: Vec<Bytes>) {
        if values.len() < ENOUGH {
            if !values.is_empty() {
                self.0.push((source, values));
            }
            return;
        }
        let (mut tried, mut taught) = (Vec::new(), Vec::new());
        for (n, value) in values.into_iter().enumerate() {
            if n % 3 == 2 { &mut tried } else { &mut taught }.push(value);
        }
        self.1.push((source.clone(), taught));
        self.0.push((source, tried));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn sources(&self) -> Vec<&str> {
        self.0.iter().map(|(source, _)| &**source).collect()
    }

    fn values(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.0
            .iter()
            .flat_map(|(source, values)| values.iter().map(move |value| (&**source, value)))
    }

    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.values().count()).unwrap_or(u32::MAX)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.values().map(|(_, value)| value.len() as u64).sum()
    }
}

/// What a setting made of the values.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) algorithm: &'static str,
    pub(super) level: u32,
    /// Whether small values were compressed with a dictionary of their source.
    pub(super) dictionaries: bool,
    pub(super) raw_bytes: u64,
    pub(super) stored_bytes: u64,
    pub(super) compress: Duration,
    pub(super) decompress: Duration,
}

impl Trial {
    pub(super) fn name(&self) -> String {
        let with = if self.dictionaries { " with dictionaries" } else { "" };
        format!("{} {}{with}", self.algorithm, self.level)
    }

    /// What to write into the configuration for it.
    pub(super) fn settings(&self) -> String {
        let dictionaries = if self.dictionaries { "      dictionaries: auto\n" } else { "" };
        format!(
            "  cache:\n    compression:\n      algorithm: {}\n      level: {}\n{dictionaries}",
            self.algorithm, self.level
        )
    }

    /// Bytes compressed in a second.
    fn speed(&self) -> f64 {
        self.raw_bytes as f64 / self.compress.as_secs_f64().max(1e-9)
    }
}

/// Tries every setting as the tiers would use it.
pub(super) fn all(corpus: &Corpus, threshold: u64) -> Result<Vec<Trial>, CodecError> {
    let threshold = usize::try_from(threshold).unwrap_or(usize::MAX);
    let mut trials = Vec::new();
    for (algorithm, levels) in LEVELS {
        for &level in levels {
            let codec = codec(algorithm, level)?;
            let compressor = Compressor::new().codec(codec, threshold).dictionaries(false);
            trials.push(run(corpus, algorithm, level, &compressor)?);
        }
    }
    let mut dictionaries = Vec::new();
    let lengths = Compressor::new().codec(codec("zstd", 1)?, threshold).dictionary_lengths("");
    for (source, values) in &corpus.1 {
        let small: Vec<Bytes> =
            values.iter().filter(|value| lengths.contains(&value.len())).cloned().collect();
        let trained = train(source, &small, 1, Timestamp::from_millis(0));
        dictionaries.extend(trained.ok().flatten());
    }
    if !dictionaries.is_empty() {
        for level in [1, 3, 9] {
            let compressor = Compressor::new().codec(codec("zstd", level)?, threshold);
            dictionaries.iter().try_for_each(|dictionary| compressor.learn(dictionary))?;
            let trial = run(corpus, "zstd", level, &compressor)?;
            trials.push(Trial { dictionaries: true, ..trial });
        }
    }
    Ok(trials)
}

fn codec(algorithm: &'static str, level: u32) -> Result<Arc<dyn Codec>, CodecError> {
    let invalid = |error: &dyn std::fmt::Display| CodecError::Encode {
        codec: algorithm,
        reason: error.to_string(),
    };
    Ok(match algorithm {
        "zlib" => Arc::new(Zlib::new(level).map_err(|error| invalid(&error))?),
        _ => Arc::new(Zstd::new(level).map_err(|error| invalid(&error))?),
    })
}

fn run(
    corpus: &Corpus,
    algorithm: &'static str,
    level: u32,
    compressor: &Compressor,
) -> Result<Trial, CodecError> {
    let began = Instant::now();
    let packed: Vec<_> = corpus
        .values()
        .map(|(source, value)| (value, source, compressor.pack(source, value)))
        .collect();
    let compress = began.elapsed();
    let began = Instant::now();
    for (value, source, packed) in &packed {
        if let Some(packed) = packed {
            let unpacked =
                compressor.unpack(source, packed.form, &packed.bytes, value.len() as u64)?;
            drop(black_box(unpacked));
        }
    }
    let decompress = began.elapsed();
    let stored = packed.iter().map(|(value, _, packed)| {
        packed.as_ref().map_or(value.len(), |packed| packed.bytes.len()) as u64
    });
    Ok(Trial {
        algorithm,
        level,
        dictionaries: false,
        raw_bytes: corpus.bytes(),
        stored_bytes: stored.sum(),
        compress,
        decompress,
    })
}

/// The setting to use: the fastest of those that no slower one betters by much, as long as that is
/// not too slow; `None` if none makes values 5 % smaller.
pub(super) fn best(trials: &[Trial]) -> Option<&Trial> {
    let shrinks = |trial: &&Trial| {
        trial.stored_bytes as f64 <= trial.raw_bytes as f64 * SHRINKS && trial.speed() >= SLOWEST
    };
    let mut sorted: Vec<&Trial> = trials.iter().filter(shrinks).collect();
    sorted.sort_by_key(|trial| trial.compress);
    sorted.into_iter().reduce(|best, slower| {
        let worth = slower.stored_bytes as f64 <= best.stored_bytes as f64 * WORTH;
        if worth { slower } else { best }
    })
}

/// A document of a certain size, and how long the default setting takes for it.
#[derive(Debug)]
pub(super) struct Timed {
    pub(super) bytes: u64,
    pub(super) compress: Duration,
    pub(super) decompress: Duration,
}

/// Of the value whose size is nearest to 100 KiB, up to so many bytes; `None` if all are much smaller.
pub(super) fn document(corpus: &Corpus) -> Result<Option<Timed>, CodecError> {
    let large = corpus.values().filter(|(_, value)| value.len() >= DOCUMENT / 2);
    let Some((source, value)) = large.min_by_key(|(_, value)| value.len().abs_diff(DOCUMENT))
    else {
        return Ok(None);
    };
    let value = value.slice(..value.len().min(DOCUMENT));
    let compressor = Compressor::new().codec(codec("zstd", 1)?, 0);
    // The quickest of some: the first makes the thread's contexts.
    let mut best: Option<Timed> = None;
    for _ in 0..5 {
        let began = Instant::now();
        let packed = compressor.pack(source, &value);
        let compress = began.elapsed();
        let began = Instant::now();
        if let Some(packed) = &packed {
            drop(black_box(compressor.unpack(
                source,
                packed.form,
                &packed.bytes,
                value.len() as u64,
            )?));
        }
        let decompress = began.elapsed();
        let one = Timed { bytes: value.len() as u64, compress, decompress };
        if best.as_ref().is_none_or(|best| one.compress < best.compress) {
            best = Some(one);
        }
    }
    Ok(best)
}
