//! Reads and writes of the SQLite tier, beside SQLite itself on a file of the same shape.

use std::{hint::black_box, path::Path, sync::Arc, time::Instant};

use bytes::Bytes;
use larder::{
    Cache, Key, SetOptions,
    tiers::{SqliteOptions, SqliteTier},
};
use rusqlite::{Connection, OptionalExtension};
use tokio::runtime::Runtime;

use super::here;
use crate::{
    Result, data,
    measure::{Case, Effort, measure},
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
    store(&threads, &cache, &keys)?;
    let bare = Bare::open(&directory.path().join("bare.db"))?;
    bare.fill(&keys);
    let asked: Vec<&str> =
        data::order(rows, rows.min(4_096)).into_iter().map(|at| keys[at].as_str()).collect();

    reads(effort, report, &threads, &cache, &bare, &asked)?;
    writes(&effort.rounds(5, 11), report, &threads, &cache, &bare);
    Ok(())
}

fn open(path: &Path) -> Result<Cache> {
    let tier = SqliteTier::new(SqliteOptions::new(path))?;
    Ok(Cache::builder().tier(tier).build()?)
}

fn store(runtime: &Runtime, cache: &Cache, keys: &[Key]) -> Result<()> {
    for (batch, keys) in keys.chunks(1_000).enumerate() {
        let entry = |(n, key): (usize, &Key)| {
            let value = data::noise(VALUE, (batch * 1_000 + n) as u64);
            (key.clone(), value, SetOptions::default())
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
    let cases = vec![
        Case::new("bare rows, 1,000 in a transaction", |times| {
            for _ in 0..times {
                bare.in_transaction(|| {
                    for key in keys.iter().take(1_000) {
                        bare.put(key.as_str(), &value);
                    }
                });
            }
        })
        .operations(1_000)
        .times(2),
        Case::new("set, 64 tasks", |times| {
            let tasks = (0..TASKS).map(|task| {
                let (cache, value) = (cache.clone(), value.clone());
                let own: Vec<Key> =
                    keys.iter().skip(16 * task as usize).take(16).cloned().collect();
                async move {
                    for key in own.iter().cycle().take(times as usize) {
                        let set = cache.set(key, value.clone(), SetOptions::default());
                        drop(black_box(set.await));
                    }
                }
            });
            all(threads, tasks);
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

fn all(runtime: &Runtime, tasks: impl Iterator<Item = impl Future<Output = ()> + Send + 'static>) {
    runtime.block_on(async {
        let tasks: Vec<_> = tasks.map(tokio::spawn).collect();
        for task in tasks {
            let _done = task.await;
        }
    });
}

/// SQLite as a program would use it by itself: a table with an index on a hash of the key.
struct Bare(Connection);

impl Bare {
    fn open(path: &Path) -> Result<Self> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
             PRAGMA cache_size = -65536; PRAGMA mmap_size = 0;
             CREATE TABLE entries (
                 id INTEGER PRIMARY KEY, hash INTEGER NOT NULL UNIQUE, key TEXT NOT NULL,
                 as_of INTEGER NOT NULL, expires_at INTEGER NOT NULL, value BLOB NOT NULL
             );",
        )?;
        Ok(Self(connection))
    }

    fn fill(&self, keys: &[Key]) {
        for (batch, keys) in keys.chunks(1_000).enumerate() {
            self.in_transaction(|| {
                for (n, key) in keys.iter().enumerate() {
                    self.put(key.as_str(), &data::noise(VALUE, (batch * 1_000 + n) as u64));
                }
            });
        }
    }

    fn in_transaction(&self, work: impl FnOnce()) {
        let _begun = self.0.execute_batch("BEGIN IMMEDIATE");
        work();
        let _ended = self.0.execute_batch("COMMIT");
    }

    fn put(&self, key: &str, value: &Bytes) {
        let statement = self.0.prepare_cached(
            "INSERT INTO entries (hash, key, as_of, expires_at, value) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (hash) DO UPDATE SET as_of = excluded.as_of, value = excluded.value",
        );
        if let Ok(mut statement) = statement {
            let parameters = (hash(key), key, 1, i64::MAX, &value[..]);
            let _stored = black_box(statement.execute(parameters));
        }
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let statement = self.0.prepare_cached(
            "SELECT as_of, expires_at, value FROM entries WHERE hash = ?1 AND key = ?2",
        );
        let row = |row: &rusqlite::Row<'_>| {
            black_box((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
            row.get::<_, Vec<u8>>(2)
        };
        statement.ok()?.query_row((hash(key), key), row).optional().ok()?
    }
}

/// Any good hash will do.
fn hash(key: &str) -> i64 {
    use std::hash::BuildHasher;
    foldhash::quality::FixedState::default().hash_one(key).cast_signed()
}
