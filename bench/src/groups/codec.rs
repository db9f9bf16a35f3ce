//! Compression: the default codec beside zlib at level 6, which users had.

use std::{hint::black_box, io::Read};

use flate2::{Compression, bufread::ZlibDecoder, bufread::ZlibEncoder};
use larder::{Codec, tiers::Zstd};

use crate::{
    Result, data,
    measure::{Case, Effort, measure},
    report::Report,
};

pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    let ours = Zstd::new(1)?;
    for (label, size) in [("12kb", 12_000), ("100kb", 100_000)] {
        let document = data::table(size, 1);
        let stored = ours.encode(&document)?.ok_or("a table is not kept raw")?;
        let zlib = deflated(&document)?;
        let mut bare = zstd::bulk::Compressor::new(1)?;
        let names: [String; 5] =
            ["compress", "zlib 6", "bare zstd 1", "decompress", "zlib decompress"]
                .map(|name| format!("{name}, {label}"));
        let [compress, zlib_compress, bare_compress, decompress, zlib_decompress] = &names;
        let cases = vec![
            Case::new(compress, |times| {
                (0..times).for_each(|_| drop(black_box(ours.encode(&document))));
            }),
            Case::new(zlib_compress, |times| {
                (0..times).for_each(|_| drop(black_box(deflated(&document))));
            }),
            Case::new(bare_compress, |times| {
                (0..times).for_each(|_| drop(black_box(bare.compress(&document))));
            }),
            Case::new(decompress, |times| {
                (0..times).for_each(|_| {
                    drop(black_box(ours.decode(&stored, document.len() as u64, 1 << 26)));
                });
            }),
            Case::new(zlib_decompress, |times| {
                (0..times).for_each(|_| drop(black_box(inflated(&zlib))));
            }),
        ];
        let measured = measure(effort, cases);
        let name = |what: &str| format!("codec.{what}_{label}");
        let goal = Some((0.15, 0.3));
        report.compare(
            &name("compress"),
            &measured,
            (compress.as_str(), zlib_compress.as_str()),
            goal,
        );
        let goal = (label == "12kb").then_some((0.8, 1.0));
        report.compare(
            &name("decompress"),
            &measured,
            (decompress.as_str(), zlib_decompress.as_str()),
            goal,
        );
        let goal = (label == "12kb").then_some((1.1, 1.3));
        report.compare(
            &name("overhead"),
            &measured,
            (compress.as_str(), bare_compress.as_str()),
            goal,
        );
        let bytes = (zlib.len() as f64, "bytes of zlib 6");
        report.ratio(&name("stored"), stored.len() as f64, bytes, Some((1.05, 1.1)));
        report.figures("codec", &measured);
    }
    Ok(())
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
