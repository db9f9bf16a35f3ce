//! Dictionaries are trained: what a source's small documents have in common is found out.

use bytes::Bytes;
use cache_core::{Codec, CodecError, Dictionary, DictionaryId, Timestamp};
use xxhash_rust::xxh64::Xxh64;
use zstd::zstd_safe::{get_error_name, is_error_kind, train_from_buffer, zstd_sys::ZSTD_ErrorCode};

use crate::{DICTIONARY_THRESHOLD, Zstd, frame::worthwhile};

/// Size of a dictionary, in bytes. Of Census tables of 1 KB, a quarter of it leaves 5 % more and four
/// times as much saves 2 %, while each node has to keep it and each processor's cache to hold it.
const SIZE: usize = 16 << 10;

/// Documents looked at, in bytes: a hundred times the dictionary, as the library recommends. That
/// many take some 0.1 s.
const MAX_SAMPLED: usize = 100 * SIZE;

/// Documents longer than this teach nothing about small ones.
const MAX_SAMPLE: usize = 64 << 10;

/// Fewer documents than this are not worth learning from.
const MIN_SAMPLES: usize = 50;

/// Every so many-th document is not trained on, but tells what the dictionary is worth.
const HELD_BACK: usize = 5;

/// Where a dictionary has its number (RFC 8878, 5).
const NUMBER: std::ops::Range<usize> = 4..8;

/// Numbers below are reserved, and so are those from 2^31 on (RFC 8878, 5).
const FIRST_NUMBER: u32 = 1 << 15;

/// Why no dictionary could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// There are too few documents of a fitting size.
    #[error(
        "only {fitting} documents have {DICTIONARY_THRESHOLD} bytes to {} KiB, and a dictionary \
         takes {MIN_SAMPLES}",
        MAX_SAMPLE >> 10
    )]
    TooFew {
        /// How many have a fitting size.
        fitting: usize,
    },
    /// The library failed.
    #[error("cannot train a dictionary: {0}")]
    Failed(String),
}

/// A dictionary for documents like `samples`, or `None` if none would pay: it must make what is
/// stored of documents that it was not trained on at least 5 % smaller than Zstandard at its default
/// level does alone.
///
/// Of the documents with 256 bytes to 64 KiB, up to 1.6 MB are looked at, spread evenly over all;
/// every fifth of these is held back to judge by. That takes some 0.1 s, on the caller's thread.
/// The same samples give the same dictionary.
///
/// # Errors
/// If there are fewer than 50 documents of a fitting size, or the library failed.
pub fn train(
    source: &str,
    samples: &[Bytes],
    version: u32,
    created_at: Timestamp,
) -> Result<Option<Dictionary>, TrainError> {
    let fitting = |sample: &&Bytes| (DICTIONARY_THRESHOLD..=MAX_SAMPLE).contains(&sample.len());
    let fitting: Vec<&Bytes> = samples.iter().filter(fitting).collect();
    if fitting.len() < MIN_SAMPLES {
        return Err(TrainError::TooFew { fitting: fitting.len() });
    }
    let (mut taught, mut held_back) = (Vec::new(), Vec::new());
    for (n, sample) in spread(&fitting).into_iter().enumerate() {
        let part = if n % HELD_BACK == HELD_BACK - 1 { &mut held_back } else { &mut taught };
        part.push(sample);
    }
    let Some(mut content) = content(&taught)? else { return Ok(None) };
    let id = number(source, version, &content);
    content[NUMBER].copy_from_slice(&id.0.to_le_bytes());
    if !pays(&content, &held_back).map_err(|err| TrainError::Failed(err.to_string()))? {
        return Ok(None);
    }
    Ok(Some(Dictionary {
        id,
        source: source.into(),
        version,
        created_at,
        samples: taught.len() as u64,
        content: content.into(),
    }))
}

/// As many documents as may be looked at, evenly from all: neighbours are often alike.
fn spread<'a>(fitting: &[&'a Bytes]) -> Vec<&'a [u8]> {
    let total: usize = fitting.iter().map(|sample| sample.len()).sum();
    let every = total.div_ceil(MAX_SAMPLED).max(1);
    let (mut spread, mut taken) = (Vec::new(), 0);
    for sample in fitting.iter().step_by(every) {
        taken += sample.len();
        // One that happens to be much longer than the others must not lift the bound.
        if taken <= MAX_SAMPLED || spread.len() < MIN_SAMPLES {
            spread.push(&sample[..]);
        }
    }
    spread
}

/// What the documents have in common; `None` if it is nothing.
fn content(taught: &[&[u8]]) -> Result<Option<Vec<u8>>, TrainError> {
    let sizes: Vec<usize> = taught.iter().map(|sample| sample.len()).collect();
    let mut content = Vec::with_capacity(SIZE);
    match train_from_buffer(&mut content, &taught.concat(), &sizes) {
        Ok(_) if content.len() > NUMBER.end => Ok(Some(content)),
        Ok(_) => Ok(None),
        // The library says so when it finds nothing that repeats.
        Err(code)
            if is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_dictionaryCreation_failed)
                || is_error_kind(code, ZSTD_ErrorCode::ZSTD_error_srcSize_wrong) =>
        {
            Ok(None)
        }
        Err(code) => Err(TrainError::Failed(get_error_name(code).to_owned())),
    }
}

/// A number of its own for each dictionary, also if two sources have the same documents.
fn number(source: &str, version: u32, content: &[u8]) -> DictionaryId {
    let mut hash = Xxh64::new(0);
    hash.update(source.as_bytes());
    hash.update(&[0]);
    hash.update(&version.to_le_bytes());
    hash.update(content);
    let numbers = u64::from((1 << 31) - FIRST_NUMBER);
    DictionaryId(FIRST_NUMBER + (hash.digest() % numbers) as u32)
}

/// Whether documents that the dictionary was not trained on are stored in less with it.
fn pays(content: &[u8], held_back: &[&[u8]]) -> Result<bool, CodecError> {
    let codec = Zstd::READER;
    let dictionary = codec
        .digest(content)
        .map_err(|err| CodecError::Encode { codec: codec.name(), reason: err.to_string() })?;
    let (mut with, mut without) = (0, 0);
    for raw in held_back {
        let len = |stored: Option<Vec<u8>>| stored.map_or(raw.len(), |stored| stored.len());
        with += len(codec.encode_with(raw, dictionary.as_cdict())?);
        without += len(codec.encode(raw)?);
    }
    Ok(with <= worthwhile(without))
}
