//! What goes in comes out: every codec, every level, with a dictionary and without, all sizes.

use std::sync::{Arc, LazyLock};

use cache_core::{Codec, Compression, Dictionary, DictionaryId};
use codec_compress::Compressor;
use proptest::{collection::vec, prelude::*};

use crate::documents::{dictionary, noise, table, zlib, zstd};

const LEVELS: u32 = 10 + 19;
const MAX: usize = 32 << 20;

static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(|| dictionary("census", 1));

/// zlib 0 to 9, then zstd 1 to 19.
fn codec(n: u32) -> Arc<dyn Codec> {
    if n < 10 { zlib(n) } else { zstd(n - 9) }
}

/// With the dictionary, or with no threshold, so that the codec alone is used.
fn compressor(n: u32, with_dictionary: bool) -> Compressor {
    let compressor =
        Compressor::new().codec(codec(n), if with_dictionary { usize::MAX } else { 0 });
    if with_dictionary {
        compressor.learn(&DICTIONARY).unwrap();
    }
    compressor
}

/// Whether it was compressed at all.
fn round_trip(compressor: &Compressor, raw: &[u8]) -> bool {
    let Some(packed) = compressor.pack("census", raw) else { return false };
    assert!(packed.bytes.len() * 100 <= raw.len() * 95, "it shrinks by 5 %");
    let limit = raw.len() as u64;
    let read = compressor.unpack("census", packed.form, &packed.bytes, limit).unwrap();
    assert!(read == raw, "{:?} of {} bytes", packed.form, raw.len());
    let refused = compressor.unpack("census", packed.form, &packed.bytes, limit - 1);
    assert!(refused.is_err(), "the limit holds");
    true
}

#[test]
fn every_level_and_size() {
    for n in 0..LEVELS {
        for with_dictionary in [false, true] {
            let compressor = compressor(n, with_dictionary);
            let mut compressed = 0;
            for size in [0, 1, 19, 255, 256, 257, 1_000, 4_097, 70_000, (128 << 10) + 1] {
                round_trip(&compressor, &noise(size, 1));
                round_trip(&compressor, &vec![0; size]);
                compressed += u32::from(round_trip(&compressor, &table(size, 1)));
            }
            // Level 0 is off, zlib has no dictionaries, and small tables hardly repeat anything.
            let least = if n == 0 || (n < 10 && with_dictionary) { 0 } else { 7 };
            let fits = if least == 0 { compressed == 0 } else { compressed >= least };
            assert!(fits, "{compressed}: {:?}, dictionary: {with_dictionary}", codec(n));
        }
    }
}

/// Of this size every level has time for in a debug build: it repeats within zlib's window.
fn large() -> Vec<u8> {
    let mut raw = table(20_000, 1).repeat(MAX / 20_000 + 1);
    raw.truncate(MAX);
    raw
}

fn round_trip_large(numbers: std::ops::Range<u32>) {
    let raw = large();
    for n in numbers {
        let compressed = round_trip(&compressor(n, false), &raw);
        assert_eq!(compressed, n != 0, "{:?}", codec(n));
    }
}

#[test]
fn thirty_two_megabytes_zlib() {
    round_trip_large(0..10);
}

#[test]
fn thirty_two_megabytes_zstd() {
    round_trip_large(10..LEVELS);
}

#[test]
fn thirty_two_megabytes_that_do_not_repeat() {
    let (tables, noise) = (table(MAX, 1), noise(MAX, 1));
    for codec in [zlib(1) as Arc<dyn Codec>, zstd(1), zstd(3)] {
        let compressor = Compressor::new().codec(codec, 0);
        assert!(round_trip(&compressor, &tables));
        assert!(!round_trip(&compressor, &noise));
    }
}

#[test]
fn a_dictionary_serves_values_of_any_size() {
    let compressor = compressor(10, true);
    assert!(round_trip(&compressor, &large()));
}

proptest! {
    #[test]
    fn any_level_dictionary_and_size(
        chunk in vec(any::<u8>(), 0..300),
        times in 0_usize..200,
        (text, size) in (any::<u64>(), 0_usize..20_000),
        n in 0..LEVELS,
        with_dictionary: bool,
    ) {
        let compressor = compressor(n, with_dictionary);
        round_trip(&compressor, &chunk.repeat(times));
        round_trip(&compressor, &table(size, text));
        let used = if with_dictionary && n >= 10 { DICTIONARY.id } else { DictionaryId::NONE };
        for (with, _) in compressor.stats() {
            prop_assert_eq!(with.dictionary, used);
        }
    }
}
