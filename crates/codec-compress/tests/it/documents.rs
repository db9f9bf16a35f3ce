//! Values like those of the Census API.

use std::{fmt::Write, sync::Arc};

use bytes::Bytes;
use cache_core::{Dictionary, Timestamp};
use codec_compress::{Compressor, Zlib, Zstd, train};
use tier_testkit::Dice;

/// A table as JSON, of about `size` bytes; each seed gives another one.
pub(crate) fn table(size: usize, seed: u64) -> Bytes {
    let mut dice = Dice::new(seed);
    let mut text = String::from(r#"[["NAME","B01001_001E","B19013_001E","B25077_001E","cbsa"]"#);
    while text.len() < size {
        let (people, income) = (2_000 + dice.below(20_000_000), 20_000 + dice.below(180_000));
        let (price, cbsa) = (50_000 + dice.below(1_950_000), 10_000 + dice.below(40_000));
        write!(text, r#",["Metro Area {cbsa}, CO","{people}","{income}","{price}","{cbsa}"]"#)
            .unwrap();
    }
    text.push(']');
    Bytes::from(text)
}

/// Bytes in which no codec finds a pattern.
pub(crate) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    std::iter::repeat_with(|| dice.throw() as u8).take(size).collect()
}

/// Tables of about 1 KB.
pub(crate) fn small(count: u64) -> Vec<Bytes> {
    (0..count).map(|seed| table(1_000, seed)).collect()
}

/// A dictionary of small tables.
pub(crate) fn dictionary(source: &str, version: u32) -> Dictionary {
    train(source, &small(300), version, Timestamp::from_millis(7)).unwrap().unwrap()
}

/// Zstandard at the default level for values from 10 KiB on.
pub(crate) fn compressor() -> Compressor {
    Compressor::new().codec(zstd(1), 10 << 10)
}

pub(crate) fn zstd(level: u32) -> Arc<Zstd> {
    Arc::new(Zstd::new(level).unwrap())
}

pub(crate) fn zlib(level: u32) -> Arc<Zlib> {
    Arc::new(Zlib::new(level).unwrap())
}
