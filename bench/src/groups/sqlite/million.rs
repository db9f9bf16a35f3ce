//! A file with a million rows: opened, read, and how large it is.

use std::{fs, hint::black_box, path::Path, time::Duration};

use larder::{
    Cache, Key,
    tiers::{SqliteOptions, SqliteTier},
};
use tokio::runtime::Runtime;

use super::{VALUE, bare::Bare, store};
use crate::{
    Result, data,
    groups::{each, here},
    measure::{Case, Effort, measure},
    report::Report,
};

const SMALL: usize = 200;

pub(crate) fn run(
    effort: &Effort,
    report: &mut Report,
    threads: &Runtime,
    directory: &Path,
) -> Result<()> {
    size(report, threads, directory)?;
    let rows = if effort.quick { 100_000 } else { 1_000_000 };
    let (few, many) = (directory.join("few.db"), directory.join("many.db"));
    let keys = data::keys(rows);
    let value = |n| data::noise(SMALL, n as u64);
    for (path, rows) in [(&few, 1_000), (&many, rows)] {
        let cache = open(path)?;
        store(threads, &cache, &keys[..rows], value)?;
        threads.block_on(cache.close(Duration::from_mins(1)));
    }
    let bare = Bare::open(&directory.join("many-bare.db"))?;
    bare.fill(&keys, value);

    let first = |path: &Path, times: u64| {
        for _ in 0..times {
            let Ok(cache) = open(path) else { return };
            threads.block_on(async {
                drop(black_box(cache.get(&keys[0]).await));
                cache.close(Duration::from_mins(1)).await;
            });
        }
    };
    let opened = vec![
        Case::new("open and read of 1,000 rows", |times| first(&few, times)).times(3),
        Case::new("open and read of many rows", |times| first(&many, times)).times(3),
    ];
    let measured = measure(&effort.rounds(5, 11), opened);
    let both = ("open and read of many rows", "open and read of 1,000 rows");
    report.compare("scale.sqlite_open_1m", &measured, both, Some((2.0, 5.0)));
    report.figures("sqlite", &measured);

    let (cache, here) = (open(&many)?, here()?);
    let asked: Vec<&str> =
        data::order(rows, 4_096).into_iter().map(|at| keys[at].as_str()).collect();
    let read = vec![
        Case::new("bare read among many rows", |times| {
            each(times, &asked, |key| drop(bare.get(key)));
        }),
        Case::new("get among many rows", |times| {
            in_task!(here, times, asked, |key| drop(black_box(cache.get(*key).await)));
        }),
    ];
    let measured = measure(effort, read);
    let both = ("get among many rows", "bare read among many rows");
    report.compare("scale.sqlite_get_1m", &measured, both, Some((1.2, 1.6)));
    report.figures("sqlite", &measured);
    Ok(())
}

fn open(path: &Path) -> Result<Cache> {
    let tier = SqliteTier::new(SqliteOptions::new(path))?;
    Ok(Cache::builder().tier(tier).build()?)
}

/// The size of a file, beside that of the values in it.
fn size(report: &mut Report, threads: &Runtime, directory: &Path) -> Result<()> {
    const ROWS: usize = 100_000;
    let path = directory.join("size.db");
    let cache = open(&path)?;
    let keys: Vec<Key> = data::keys(ROWS);
    store(threads, &cache, &keys, |n| data::noise(VALUE, n as u64))?;
    threads.block_on(cache.close(Duration::from_mins(1)));
    let file = fs::metadata(&path)?.len() as f64;
    let payload = (ROWS * VALUE) as f64;
    report.ratio("scale.sqlite_file_size", file, (payload, "its values"), Some((1.3, 1.45)));
    fs::remove_file(&path)?;
    Ok(())
}
