//! Compression: the default codec beside zlib at level 6, which users had, and small documents with
//! a dictionary beside the same without.

use std::{hint::black_box, io::Read, sync::Arc};

use bytes::Bytes;
use cache_core::{Codec, Compression as _, Packed, Timestamp};
use codec_compress::{Compressor, Zstd, train};
use flate2::{Compression, bufread::ZlibDecoder, bufread::ZlibEncoder};

use crate::{
    Result, data,
    measure::{Case, Effort, measure},
    report::Report,
};

/// Makes a document of this size from a seed.
type Document = fn(usize, u64) -> Bytes;

const SOURCE: &str = "census";
const LIMIT: u64 = 64 << 20;

/// Documents a dictionary is trained on, and others that it is tried on.
const TAUGHT: u64 = 1_000;
const UNSEEN: u64 = 300;

pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    beside_zlib(effort, report)?;
    with_dictionary(effort, report)
}

/// The default codec, for values from `threshold` bytes on.
fn compressor(threshold: usize) -> Result<Compressor> {
    Ok(Compressor::new().codec(Arc::new(Zstd::new(1)?), threshold))
}

fn beside_zlib(effort: &Effort, report: &mut Report) -> Result<()> {
    let ours = compressor(10 << 10)?;
    for (label, size) in [("12kb", 12_000), ("100kb", 100_000)] {
        let document = data::table(size, 1);
        let stored = ours.pack(SOURCE, &document).ok_or("a table is not kept raw")?;
        let zlib = deflated(&document)?;
        let mut bare = zstd::bulk::Compressor::new(1)?;
        let names: [String; 5] =
            ["compress", "zlib 6", "bare zstd 1", "decompress", "zlib decompress"]
                .map(|name| format!("{name}, {label}"));
        let [compress, zlib_compress, bare_compress, decompress, zlib_decompress] = &names;
        let cases = vec![
            Case::new(compress, |times| {
                (0..times).for_each(|_| drop(black_box(ours.pack(SOURCE, &document))));
            }),
            Case::new(zlib_compress, |times| {
                (0..times).for_each(|_| drop(black_box(deflated(&document))));
            }),
            Case::new(bare_compress, |times| {
                (0..times).for_each(|_| drop(black_box(bare.compress(&document))));
            }),
            Case::new(decompress, |times| {
                (0..times).for_each(|_| drop(black_box(unpacked(&ours, &stored))));
            }),
            Case::new(zlib_decompress, |times| {
                (0..times).for_each(|_| drop(black_box(inflated(&zlib))));
            }),
        ];
        let measured = measure(effort, cases);
        let name = |what: &str| format!("codec.{what}_{label}");
        let goal = Some((0.15, 0.3));
        report.compare(&name("compress"), &measured, (compress, zlib_compress), goal);
        let small = label == "12kb";
        let goal = small.then_some((0.8, 1.0));
        report.compare(&name("decompress"), &measured, (decompress, zlib_decompress), goal);
        let (overhead, goal) = if small {
            ("codec.overhead", Some((1.1, 1.3)))
        } else {
            ("codec.overhead_100kb", None)
        };
        report.compare(overhead, &measured, (compress, bare_compress), goal);
        let bytes = (zlib.len() as f64, "bytes of zlib 6");
        report.ratio(&name("stored"), stored.bytes.len() as f64, bytes, Some((1.05, 1.1)));
        report.figures("codec", &measured);
    }
    Ok(())
}

fn with_dictionary(effort: &Effort, report: &mut Report) -> Result<()> {
    // Tables of numbers drawn at random have hardly more in common than their first line.
    let kinds: [(&str, Document, _); 2] = [
        ("codec.stored_1kb_dictionary", data::markets, Some((0.6, 0.7))),
        ("codec.stored_1kb_dictionary_numbers", data::table, None),
    ];
    for (name, document, goal) in kinds {
        let taught: Vec<Bytes> = (0..TAUGHT).map(|seed| document(1_000, seed)).collect();
        let unseen: Vec<Bytes> =
            (TAUGHT..TAUGHT + UNSEEN).map(|seed| document(1_000, seed)).collect();
        let dictionary = train(SOURCE, &taught, 1, Timestamp::from_millis(0))?
            .ok_or("a dictionary pays for tables")?;
        let with = compressor(10 << 10)?;
        with.learn(&dictionary)?;
        let without = Zstd::new(3)?;
        let bytes = stored(&unseen, |raw| Ok(with.pack(SOURCE, raw).map(|kept| kept.bytes.len())))?;
        let base = stored(&unseen, |raw| Ok(without.encode(raw)?.map(|kept| kept.len())))?;
        report.ratio(name, bytes, (base, "bytes of zstd 3 without"), goal);
        if goal.is_some() {
            small_and_quick(effort, report, &with, &unseen)?;
        }
    }
    Ok(())
}

/// Bytes that documents are stored in, of those that shrink.
fn stored(documents: &[Bytes], len: impl Fn(&Bytes) -> Result<Option<usize>>) -> Result<f64> {
    let mut total = 0;
    for raw in documents {
        total += len(raw)?.unwrap_or(raw.len());
    }
    Ok(total as f64)
}

/// What documents of 1 KB take with a dictionary, and without at the same level.
fn small_and_quick(
    effort: &Effort,
    report: &mut Report,
    with: &Compressor,
    documents: &[Bytes],
) -> Result<()> {
    let without = compressor(0)?;
    let packed = |by: &Compressor| -> Result<Vec<Packed>> {
        let shrunk = |raw: &Bytes| by.pack(SOURCE, raw).ok_or_else(|| "a table shrinks".into());
        documents.iter().map(shrunk).collect()
    };
    let (packed_with, packed_without) = (packed(with)?, packed(&without)?);
    let compress = |by: &Compressor, times: u64| {
        let documents = documents.iter().cycle().take(times as usize);
        documents.for_each(|raw| drop(black_box(by.pack(SOURCE, raw))));
    };
    let decompress = |by: &Compressor, packed: &[Packed], times: u64| {
        let packed = packed.iter().cycle().take(times as usize);
        packed.for_each(|packed| drop(black_box(unpacked(by, packed))));
    };
    let cases = vec![
        Case::new("compress 1 KB, dictionary", |times| compress(with, times)),
        Case::new("compress 1 KB", |times| compress(&without, times)),
        Case::new("decompress 1 KB, dictionary", |times| decompress(with, &packed_with, times)),
        Case::new("decompress 1 KB", |times| decompress(&without, &packed_without, times)),
    ];
    let measured = measure(effort, cases);
    let beside = ("compress 1 KB, dictionary", "compress 1 KB");
    report.compare("codec.compress_1kb_dictionary", &measured, beside, None);
    let beside = ("decompress 1 KB, dictionary", "decompress 1 KB");
    report.compare("codec.decompress_1kb_dictionary", &measured, beside, None);
    report.figures("codec", &measured);
    Ok(())
}

fn unpacked(by: &Compressor, packed: &Packed) -> Option<Bytes> {
    by.unpack(SOURCE, packed.form, &packed.bytes, LIMIT).ok()
}

fn deflated(document: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    ZlibEncoder::new(document, Compression::new(6)).read_to_end(&mut out)?;
    Ok(out)
}

fn inflated(frame: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    ZlibDecoder::new(frame).read_to_end(&mut out)?;
    Ok(out)
}
