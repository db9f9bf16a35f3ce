//! Traces of accesses to caches, replayed for their hit ratios.

use std::{fs, io::BufReader, path::Path};

use crate::{Result, data::Dice};

/// The keys that were accessed, in their order.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) keys: Vec<u64>,
    /// The capacities, in entries, that it is replayed with.
    pub(crate) capacities: Vec<usize>,
}

/// The traces in a directory: `*.lis.zst` (each line `first count ...` reads so many blocks), and
/// `*.trace.xz` (32-bit big-endian integers).
pub(crate) fn read(directory: &Path) -> Result<Vec<Trace>> {
    let mut files: Vec<_> = fs::read_dir(directory)?.collect::<std::io::Result<_>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    let mut traces = Vec::new();
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        let keys = if name.ends_with(".lis.zst") {
            blocks(&String::from_utf8(zstd::decode_all(fs::File::open(file.path())?)?)?)?
        } else if name.ends_with(".trace.xz") {
            let mut bytes = Vec::new();
            lzma_rs::xz_decompress(&mut BufReader::new(fs::File::open(file.path())?), &mut bytes)?;
            let words = bytes.as_chunks::<4>().0;
            words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).collect()
        } else {
            continue;
        };
        let name = name.split('.').next().unwrap_or_default().to_lowercase();
        let capacities = capacities(&name, &keys);
        traces.push(Trace { name, keys, capacities });
    }
    Ok(traces)
}

fn blocks(text: &str) -> Result<Vec<u64>> {
    let mut keys = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(first), Some(count)) = (numbers.next(), numbers.next()) else {
            return Err(format!("a line of a trace is not `first count ...`: {line}").into());
        };
        let first = first?;
        keys.extend(first..first + count?);
    }
    Ok(keys)
}

/// The sizes at which the published comparisons of these traces look.
fn capacities(name: &str, keys: &[u64]) -> Vec<usize> {
    match name {
        "oltp" => vec![256, 512, 1_000, 2_000],
        "p6" => vec![20_000, 80_000, 160_000],
        _ => {
            let mut distinct = keys.to_vec();
            distinct.sort_unstable();
            distinct.dedup();
            [32, 8, 2].iter().map(|part| (distinct.len() / part).max(16)).collect()
        }
    }
}

/// Accesses that follow Zipf's law with the exponent 0.99, as benchmarks of key-value stores have
/// them (YCSB; Gray et al. 1994), and capacities of 1, 5 and 10 %.
pub(crate) fn zipf(distinct: usize, accesses: usize) -> Trace {
    const EXPONENT: f64 = 0.99;
    let mut sum = 0.0;
    let cumulative: Vec<f64> = (1..=distinct)
        .map(|rank| {
            sum += (rank as f64).powf(-EXPONENT);
            sum
        })
        .collect();
    let mut dice = Dice::new(99);
    let mut key = || {
        let at = dice.share() * sum;
        cumulative.partition_point(|edge| *edge < at) as u64
    };
    let keys = (0..accesses).map(|_| key()).collect();
    let capacities = vec![distinct / 100, distinct / 20, distinct / 10];
    Trace { name: "zipf".to_owned(), keys, capacities }
}
