//! What Larder replaces: the Python manager's way, and diskcache.

use std::{path::Path, process::Command, time::Instant};

use larder::{
    Cache, Key, SetOptions,
    tiers::{SqliteOptions, SqliteTier},
};
use tokio::runtime::Runtime;

use super::VALUE;
use crate::{Result, data, report::Report};

/// Measures in Python: prints a name and nanoseconds a line.
const SCRIPT: &str = include_str!("python.py");
const KEYS: usize = 1_000;

pub(crate) fn run(report: &mut Report, threads: &Runtime, directory: &Path) -> Result<()> {
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(&python).arg("-c").arg(SCRIPT).arg(directory).output();
    let Ok(output) = output else {
        println!("no {python}: not compared with it");
        return Ok(());
    };
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let theirs = |name: &str| -> Option<f64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let (get, put) = ours(threads, directory)?;
    for (name, ours, base, goal) in [
        ("get_vs_python", get, "manager_get", (0.03, 0.1)),
        ("put_vs_python", put, "manager_put", (0.03, 0.1)),
        ("get_vs_diskcache", get, "diskcache_get", (0.7, 1.0)),
        ("put_vs_diskcache", put, "diskcache_put", (0.5, 1.0)),
    ] {
        match theirs(base) {
            Some(theirs) => {
                report.ratio(&format!("sqlite.{name}"), ours, (theirs, base), Some(goal));
            }
            None => println!("not there: {base}; `pip install diskcache`, or set PYTHON"),
        }
    }
    Ok(())
}

/// Nanoseconds of a read, and of a `set` that is acknowledged once it is committed, one at a time.
fn ours(threads: &Runtime, directory: &Path) -> Result<(f64, f64)> {
    let tier = SqliteTier::new(SqliteOptions::new(directory.join("beside-python.db")))?;
    let cache = Cache::builder().tier(tier).build()?;
    let keys: Vec<Key> = data::keys(KEYS);
    let value = data::noise(VALUE, 1);
    let task = async move {
        let mut puts = Vec::new();
        for _ in 0..2 {
            for key in &keys {
                let started = Instant::now();
                cache.set(key, value.clone(), SetOptions::default()).await?;
                puts.push(started.elapsed().as_nanos() as f64);
            }
        }
        let mut gets = Vec::new();
        for key in keys.iter().cycle().take(5 * KEYS) {
            let started = Instant::now();
            drop(std::hint::black_box(cache.get(key).await?));
            gets.push(started.elapsed().as_nanos() as f64);
        }
        Ok::<_, larder::Error>((crate::measure::median(gets), crate::measure::median(puts)))
    };
    Ok(threads.block_on(async { tokio::spawn(task).await })??)
}
