//! Larger documents, compressed, beside a bare read that copies them as they are.

use std::path::Path;

use codec_compress::{Compressor, Zstd};
use larder::{
    Cache, Codec,
    tiers::{SqliteOptions, SqliteTier},
};

use super::{bare::Bare, store};
use crate::{
    Result, data,
    groups::{each, here},
    measure::{Case, Effort, measure},
    report::Report,
};

const DOCUMENTS: usize = 200;

pub(crate) fn run(effort: &Effort, report: &mut Report, directory: &Path) -> Result<()> {
    for (name, kb, reach) in [("get_12kb", 12, 0.65), ("get_100kb", 100, 0.35)] {
        let here = here()?;
        let keys = data::keys(DOCUMENTS);
        let document = |n| data::table(kb * 1_000, n as u64);
        let codec = std::sync::Arc::new(Zstd::new(1)?);
        let options = SqliteOptions::new(directory.join(format!("{name}.db")));
        let compressor = Compressor::new().codec(std::sync::Arc::<Zstd>::clone(&codec), 1_024);
        let tier = SqliteTier::new(options.compression(std::sync::Arc::new(compressor)))?;
        let cache = Cache::builder().tier(tier).build()?;
        store(&here, &cache, &keys, document)?;
        let bare = Bare::open(&directory.join(format!("{name}-bare.db")))?;
        bare.fill(&keys, document);
        let asked: Vec<&str> =
            data::order(DOCUMENTS, DOCUMENTS).into_iter().map(|at| keys[at].as_str()).collect();
        let plain: Vec<_> = (0..DOCUMENTS).map(document).collect();
        let encoded: Vec<_> =
            plain.iter().filter_map(|raw| codec.encode(raw).ok().flatten()).collect();
        let mut next = 0;
        let cases = vec![
            Case::new("bare", |times| each(times, &asked, |key| drop(bare.get(key)))),
            Case::new("ours", |times| {
                in_task!(here, times, asked, |key| {
                    drop(std::hint::black_box(cache.get(*key).await));
                });
            }),
            Case::new("codec", |times| {
                for _ in 0..times {
                    next = (next + 1) % encoded.len().max(1);
                    let len = plain[next].len() as u64;
                    drop(std::hint::black_box(codec.decode(&encoded[next], len, len)));
                }
            }),
        ];
        let measured = measure(effort, cases);
        let ours = measured.ns("ours") - measured.ns("codec");
        let raw = (measured.ns("bare"), "bare read of the raw value");
        report.ratio(&format!("sqlite.{name}"), ours, raw, Some((reach, 1.0)));
        report.figures(&format!("sqlite, {kb} KB"), &measured);
    }
    Ok(())
}
