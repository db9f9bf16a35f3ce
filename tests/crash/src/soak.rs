//! Three processes on one file: two that read, and one that writes as fast as it can.
//!
//! For the first quarter of the time nobody writes: what reads take then is what the others are
//! compared with. Every value is checked, and every error is told.

use std::{
    collections::BTreeMap,
    error::Error as _,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use clap::Args;
use larder::{Key, SetOptions};
use tokio::{runtime::Runtime, task::JoinSet};

use tier_testkit::Dice;

use crate::{
    Result,
    life::{Reaped, itself},
    lines::now,
    writer::{close, open},
};

/// Entries in the file.
const ENTRIES: usize = 20_000;
/// Size of each.
const BYTES: usize = 2_048;
/// Entries of one write while the file is filled.
const FILL: usize = 500;
/// Writes at a time.
const TASKS: u64 = 64;
const READERS: u64 = 2;
/// Until all have started.
const START: Duration = Duration::from_millis(500);
/// So long around a change of phase nothing is counted.
const MARGIN: Duration = Duration::from_millis(100);

/// What a process of the soak does, and when.
#[derive(Clone, Debug, Args)]
pub(crate) struct Part {
    #[arg(long)]
    path: PathBuf,
    #[arg(long)]
    seed: u64,
    /// When reads are counted; these instants are of the clock that all processes share
    #[arg(long)]
    begin: u64,
    /// When the writer starts
    #[arg(long)]
    busy: u64,
    #[arg(long)]
    end: u64,
}

/// A value, which tells its key and its version.
fn value(seed: u64, entry: usize, version: u64) -> Bytes {
    let mut value = format!("{entry} {version}\n").into_bytes();
    let mut dice = Dice::stream(seed ^ version, entry as u64);
    while value.len() < BYTES {
        value.extend(dice.throw().to_le_bytes());
    }
    value.into()
}

fn key(entry: usize) -> Key {
    Key::new(format!("soak:{entry}"))
}

/// The version that this value of the entry is.
fn version(seed: u64, entry: usize, found: &[u8]) -> Option<u64> {
    let head = found.split(|byte| *byte == b'\n').next()?;
    let (_, version) = std::str::from_utf8(head).ok()?.split_once(' ')?;
    let version = version.parse().ok()?;
    (value(seed, entry, version) == found).then_some(version)
}

/// Reads random entries, one at a time.
pub(crate) async fn read(part: Part) -> Result<()> {
    let cache = open(&part.path)?;
    let mut dice = Dice::new(part.seed ^ u64::from(std::process::id()));
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    let mut newest = vec![0; ENTRIES];
    let mut errors = Errors::default();
    let margin = MARGIN.as_nanos() as u64;
    while now() < part.end {
        let entry = dice.below(ENTRIES);
        let (at, began) = (now(), Instant::now());
        let found = cache.get(&key(entry)).await;
        let took = began.elapsed().as_micros() as u64;
        match found {
            Err(error) => errors.add(&error),
            Ok(None) => errors.note(format!("entry {entry} is missing")),
            Ok(Some(hit)) => match version(part.seed, entry, hit.value()) {
                Some(version) if version >= newest[entry] => newest[entry] = version,
                Some(version) => errors.note(format!("entry {entry} went back to {version}")),
                None => errors.note(format!("entry {entry} is not what was set")),
            },
        }
        if (part.begin..part.busy).contains(&at) {
            idle.push(took);
        } else if at > part.busy + margin && at + margin < part.end {
            busy.push(took);
        }
    }
    close(&cache).await?;
    println!("idle {}; busy {}", figures(idle), figures(busy));
    errors.tell(part.busy);
    Ok(())
}

/// Sets random entries, many at a time.
pub(crate) async fn write(part: Part) -> Result<()> {
    let cache = open(&part.path)?;
    let (versions, written) = (Arc::new(AtomicU64::new(1)), Arc::new(AtomicU64::new(0)));
    tokio::time::sleep(Duration::from_nanos(part.busy.saturating_sub(now()))).await;
    let began = Instant::now();
    let mut tasks: JoinSet<Errors> = JoinSet::new();
    for task in 0..TASKS {
        let (cache, part) = (cache.clone(), part.clone());
        let (versions, written) = (Arc::clone(&versions), Arc::clone(&written));
        tasks.spawn(async move {
            let mut dice = Dice::stream(part.seed, task);
            let mut errors = Errors::default();
            while now() < part.end {
                // Each task has entries of its own, whose versions only grow.
                let own = ENTRIES / TASKS as usize;
                let entry = task as usize * own + dice.below(own);
                let version = versions.fetch_add(1, Ordering::Relaxed);
                let value = value(part.seed, entry, version);
                match cache.set(&key(entry), value, SetOptions::default()).await {
                    Err(error) => errors.add(&error),
                    Ok(outcome) if outcome.stored_in().count() == 1 => {
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(outcome) => errors.note(format!("entry {entry}: {outcome:?}")),
                }
            }
            errors
        });
    }
    let all = tasks.join_all().await;
    let errors = all.into_iter().fold(Errors::default(), Errors::and);
    let rate = written.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} writes per second, write-ahead log {:.1} MiB", wal_mib(&part.path));
    errors.tell(part.busy);
    close(&cache).await
}

/// What failed, how often, and when first.
#[derive(Debug, Default)]
struct Errors(BTreeMap<String, (u64, u64)>);

impl Errors {
    fn note(&mut self, what: String) {
        self.0.entry(what).or_insert((0, now())).0 += 1;
    }

    /// With all its causes.
    fn add(&mut self, error: &larder::Error) {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        self.note(text);
    }

    fn and(mut self, other: Self) -> Self {
        for (what, (times, first)) in other.0 {
            let sum = self.0.entry(what).or_insert((0, first));
            *sum = (sum.0 + times, sum.1.min(first));
        }
        self
    }

    /// Says them, a line each, with times from an instant on.
    fn tell(&self, from: u64) {
        for (what, (times, first)) in &self.0 {
            let after = first.saturating_sub(from) / 1_000_000;
            println!("error: {times} times, first {after} ms after the writer began: {what}");
        }
    }
}

fn wal_mib(path: &Path) -> f64 {
    let mut wal = path.to_owned().into_os_string();
    wal.push("-wal");
    fs::metadata(wal).map_or(0.0, |found| found.len() as f64 / f64::from(1 << 20))
}

fn figures(mut micros: Vec<u64>) -> String {
    micros.sort_unstable();
    let last = micros.len().saturating_sub(1);
    let at = |percent: usize| micros.get(last * percent / 100).copied().unwrap_or(0);
    let count = micros.len();
    format!("{count} reads, p50 {} us, p99 {} us, most {} us", at(50), at(99), at(100))
}

async fn fill(path: &Path, seed: u64) -> Result<()> {
    let cache = open(path)?;
    let all: Vec<usize> = (0..ENTRIES).collect();
    for some in all.chunks(FILL) {
        let entry = |&entry: &usize| (key(entry), value(seed, entry, 0), SetOptions::default());
        for outcome in cache.set_many(some.iter().map(entry).collect()).await? {
            outcome?;
        }
    }
    close(&cache).await
}

/// Lets the processes run, and reports.
pub(crate) fn run(seconds: u64, seed: u64, runtime: &Runtime) -> Result<()> {
    let started = Instant::now();
    let dir = tempfile::Builder::new().prefix("larder-soak-").tempdir()?;
    let path = dir.path().join("cache.db");
    runtime.block_on(fill(&path, seed))?;
    println!("soak: {ENTRIES} entries of {BYTES} bytes, filled in {:.1?}", started.elapsed());
    let nanos = |time: Duration| time.as_nanos() as u64;
    let begin = now() + nanos(START);
    let time = Duration::from_secs(seconds);
    let (busy, end) = (begin + nanos(time / 4), begin + nanos(time));
    let part = |subcommand: &str| -> Result<Reaped> {
        let mut command = itself(subcommand)?;
        command.arg("--path").arg(&path).args(["--seed", &seed.to_string()]);
        command.args(["--begin", &begin.to_string(), "--busy", &busy.to_string()]);
        Ok(Reaped(command.args(["--end", &end.to_string()]).spawn()?))
    };
    let mut parts = Vec::new();
    for reader in 1..=READERS {
        parts.push((format!("reader {reader}"), part("soak-read")?));
    }
    parts.push(("writer".to_owned(), part("soak-write")?));
    let (mut errors, mut said) = (Vec::new(), Vec::new());
    for (name, part) in &mut parts {
        let stdout = part.0.stdout.take().ok_or("a process has no output")?;
        let (line, failed) = listen(stdout)?;
        println!("soak: {name}: {line}");
        errors.extend(failed.into_iter().map(|error| format!("{name}: {error}")));
        let status = part.0.wait()?;
        if !status.success() {
            errors.push(format!("{name} ended: {status}"));
        }
        said.push(line);
    }
    if errors.is_empty() {
        println!("soak: {seconds} s, 3 processes, 0 errors, seed {seed}");
        return Ok(());
    }
    let shown = errors.iter().take(10).fold(String::new(), |text, error| text + "\n    " + error);
    Err(format!("soak: errors, seed {seed}:{shown}").into())
}

/// The line that a process said, and its errors.
fn listen(stdout: impl Read) -> Result<(String, Vec<String>)> {
    let (mut said, mut errors) = (String::new(), Vec::new());
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        match line.strip_prefix("error: ") {
            Some(error) => errors.push(error.to_owned()),
            None => said = line,
        }
    }
    Ok((said, errors))
}
