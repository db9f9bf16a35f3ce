//! Reads and writes of the SQLite tier, beside SQLite itself on a file of the same shape.

use std::{
    hint::black_box,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use larder::{
    Cache, Key, Loaded, SetOptions,
    tiers::{MemoryTier, SqliteOptions, SqliteTier},
};
use tokio::runtime::Runtime;

mod bare;
mod documents;
mod million;
mod python;

use self::bare::Bare;
use super::here;
use crate::{
    Result, data,
    measure::{Case, Effort, measure, median},
    report::Report,
};

const VALUE: usize = 2_000;
const TASKS: u64 = 64;

pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    let rows = if effort.quick { 10_000 } else { 100_000 };
    let keys = data::keys(rows);
    let directory = tempfile::tempdir()?;
    let threads = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    let cache = open(&directory.path().join("ours.db"))?;
    store(&threads, &cache, &keys, |n| data::noise(VALUE, n as u64))?;
    let bare = Bare::open(&directory.path().join("bare.db"))?;
    bare.fill(&keys, |n| data::noise(VALUE, n as u64));
    let asked: Vec<&str> =
        data::order(rows, rows.min(4_096)).into_iter().map(|at| keys[at].as_str()).collect();

    reads(effort, report, &threads, &cache, &bare, &asked)?;
    writes(&effort.rounds(5, 11), report, &threads, &cache, &bare);
    fills(report, &threads, directory.path(), &bare)?;
    queued(&effort.rounds(5, 11), report, &threads, directory.path())?;
    documents::run(effort, report, directory.path())?;
    million::run(effort, report, &threads, directory.path())?;
    python::run(report, &threads, directory.path())
}

fn open(path: &Path) -> Result<Cache> {
    let tier = SqliteTier::new(SqliteOptions::new(path))?;
    Ok(Cache::builder().tier(tier).build()?)
}

fn store(
    runtime: &Runtime,
    cache: &Cache,
    keys: &[Key],
    value: impl Fn(usize) -> Bytes,
) -> Result<()> {
    for (batch, keys) in keys.chunks(1_000).enumerate() {
        let entry = |(n, key): (usize, &Key)| {
            (key.clone(), value(batch * 1_000 + n), SetOptions::default())
        };
        let entries = keys.iter().enumerate().map(entry).collect();
        for outcome in runtime.block_on(cache.set_many(entries))? {
            outcome?;
        }
    }
    Ok(())
}

fn reads(
    effort: &Effort,
    report: &mut Report,
    threads: &Runtime,
    cache: &Cache,
    bare: &Bare,
    asked: &[&str],
) -> Result<()> {
    let here = here()?;
    let shared: Arc<[String]> = asked.iter().map(|key| (*key).to_owned()).collect();
    let thousand: Vec<Key> = asked.iter().take(1_000).map(Key::new).collect();
    let cases = vec![
        Case::new("bare read", |times| super::each(times, asked, |key| drop(bare.get(key)))),
        Case::timed("get", |times| {
            let (cache, asked) = (cache.clone(), Arc::clone(&shared));
            // In a task of the runtime, as programs do.
            let task = async move {
                let started = Instant::now();
                for key in asked.iter().cycle().take(times as usize) {
                    drop(black_box(cache.get(key).await));
                }
                started.elapsed()
            };
            threads.block_on(async { tokio::spawn(task).await }).unwrap_or_default()
        }),
        Case::new("get, current thread", |times| {
            in_task!(here, times, asked, |key| {
                drop(black_box(cache.get(*key).await));
            });
        }),
        Case::new("get, 64 tasks", |times| {
            let tasks = (0..TASKS).map(|task| {
                let (cache, asked) = (cache.clone(), Arc::clone(&shared));
                async move {
                    let own = asked.iter().cycle().skip(61 * task as usize);
                    for key in own.take(times as usize) {
                        drop(black_box(cache.get(key).await));
                    }
                }
            });
            all(threads, tasks);
        })
        .operations(TASKS)
        .times(64),
        Case::new("bare reads in one transaction", |times| {
            for _ in 0..times {
                bare.in_transaction(|| {
                    for key in &thousand {
                        drop(bare.get(key.as_str()));
                    }
                });
            }
        })
        .operations(1_000),
        Case::new("get_many of 1,000", |times| {
            for _ in 0..times {
                drop(black_box(threads.block_on(cache.get_many(&thousand))));
            }
        })
        .operations(1_000),
    ];
    let measured = measure(effort, cases);
    let goals = [
        ("sqlite.get", "get", "bare read", (1.4, 3.0)),
        ("sqlite.get_64", "get, 64 tasks", "bare read", (0.7, 1.0)),
        ("sqlite.get_current_thread", "get, current thread", "bare read", (2.0, 3.5)),
        ("sqlite.get_many_1000", "get_many of 1,000", "bare reads in one transaction", (1.25, 1.6)),
    ];
    for (name, ours, base, goal) in goals {
        report.compare(name, &measured, (ours, base), Some(goal));
    }
    report.figures("sqlite", &measured);
    Ok(())
}

fn writes(effort: &Effort, report: &mut Report, threads: &Runtime, cache: &Cache, bare: &Bare) {
    let value = data::noise(VALUE, 1);
    let keys: Vec<Key> = (0..1_024).map(|n| Key::new(data::key(5_000_000 + n))).collect();
    let keys = &keys;
    // What is stored is new, as what is loaded mostly is.
    let (next, next_bare) = (AtomicUsize::new(10_000_000), AtomicUsize::new(10_000_000));
    let take = |next: &AtomicUsize, count: usize| -> Vec<Key> {
        let first = next.fetch_add(count, Ordering::Relaxed);
        (first..first + count).map(|n| Key::new(data::key(n))).collect()
    };
    let cases = vec![
        Case::timed("bare rows, 1,000 in a transaction", |times| {
            let fresh = take(&next_bare, 1_000 * times as usize);
            let started = Instant::now();
            for keys in fresh.chunks(1_000) {
                bare.in_transaction(|| {
                    for key in keys {
                        bare.put(key.as_str(), &value);
                    }
                });
            }
            started.elapsed()
        })
        .operations(1_000)
        .times(2),
        Case::timed("set, 64 tasks", |times| {
            let own: Vec<Vec<Key>> = (0..TASKS).map(|_| take(&next, times as usize)).collect();
            let tasks = own.into_iter().map(|own| {
                let (cache, value) = (cache.clone(), value.clone());
                async move {
                    for key in &own {
                        let set = cache.set(key, value.clone(), SetOptions::default());
                        drop(black_box(set.await));
                    }
                }
            });
            let started = Instant::now();
            all(threads, tasks);
            started.elapsed()
        })
        .operations(TASKS)
        .times(32),
        Case::timed("bare autocommit", |times| {
            let started = Instant::now();
            for key in keys.iter().cycle().take(times as usize) {
                bare.put(key.as_str(), &value);
            }
            started.elapsed()
        })
        .times(64),
    ];
    let measured = measure(effort, cases);
    let acked = ("set, 64 tasks", "bare rows, 1,000 in a transaction");
    report.compare("sqlite.put_acked_64", &measured, acked, Some((2.5, 4.0)));
    report.figures("sqlite", &measured);
}

/// What storing in the file costs a reader whose value was loaded: it is stored behind the answer.
fn fills(report: &mut Report, threads: &Runtime, directory: &Path, bare: &Bare) -> Result<()> {
    const LOADS: usize = 500;
    let tier = SqliteTier::new(SqliteOptions::new(directory.join("fills.db")))?;
    let with = Cache::builder().tier(MemoryTier::new(1 << 30)).tier(tier).build()?;
    let without = Cache::builder().tier(MemoryTier::new(1 << 30)).build()?;
    let value = data::noise(VALUE, 1);
    let mut next = 20_000_000;
    // From the end of a load until the reader has its value.
    let mut fill = |cache: &Cache| {
        let mut took: Vec<f64> = Vec::with_capacity(LOADS);
        for _ in 0..LOADS {
            next += 1;
            let (key, value) = (data::key(next), value.clone());
            let ended = Arc::new(Mutex::new(None));
            let noted = Arc::clone(&ended);
            let load = move |_| async move {
                *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                Ok(Loaded::new(value))
            };
            let cache = cache.clone();
            let read = async move { cache.get_or_load(&key, load).await.map(|_| Instant::now()) };
            let read = threads.block_on(async { tokio::spawn(read).await });
            let ended = *ended.lock().unwrap_or_else(PoisonError::into_inner);
            if let (Ok(Ok(read)), Some(ended)) = (read, ended) {
                took.push(read.duration_since(ended).as_nanos() as f64);
            }
        }
        median(took)
    };
    let autocommit = || {
        let mut took = Vec::with_capacity(LOADS);
        for n in 0..LOADS {
            let started = Instant::now();
            bare.put(&data::key(30_000_000 + n), &value);
            took.push(started.elapsed().as_nanos() as f64);
        }
        median(took)
    };
    let rounds: Vec<(f64, f64, f64)> =
        (0..7).map(|_| (fill(&with), fill(&without), autocommit())).collect();
    let ours = median(rounds.iter().map(|(with, without, _)| (with - without).max(0.0)).collect());
    let committed = median(rounds.iter().map(|(.., took)| *took).collect());
    report.ratio("sqlite.put_queued", ours, (committed, "bare autocommit, p50"), Some((0.05, 0.1)));
    let with = median(rounds.iter().map(|(with, ..)| *with).collect());
    report.figure("sqlite: from the end of a load to its reader, p50", with, "ns");
    Ok(())
}

/// What a `set` that is queued for the file takes.
fn queued(effort: &Effort, report: &mut Report, threads: &Runtime, directory: &Path) -> Result<()> {
    let tier = SqliteTier::new(SqliteOptions::new(directory.join("queued.db")))?;
    let cache = Cache::builder().tier(MemoryTier::new(1 << 30)).tier(tier).build()?;
    let value = data::noise(VALUE, 1);
    let keys: Vec<Key> = (0..256).map(|n| Key::new(data::key(6_000_000 + n))).collect();
    let set = async |key: &Key| {
        let options = SetOptions::default().queued();
        drop(black_box(cache.set(key, value.clone(), options).await));
    };
    let case = Case::timed("set, queued", |times| {
        let took = threads.block_on(async {
            let started = Instant::now();
            for key in keys.iter().cycle().take(times as usize) {
                set(key).await;
            }
            started.elapsed()
        });
        // What is queued is written before the next round.
        drop(threads.block_on(cache.set(&keys[0], value.clone(), SetOptions::default())));
        took
    });
    let measured = measure(effort, vec![case.times(64)]);
    report.figures("sqlite", &measured);
    Ok(())
}

fn all(runtime: &Runtime, tasks: impl Iterator<Item = impl Future<Output = ()> + Send + 'static>) {
    runtime.block_on(async {
        let tasks: Vec<_> = tasks.map(tokio::spawn).collect();
        for task in tasks {
            let _done = task.await;
        }
    });
}
