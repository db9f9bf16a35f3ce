//! Many readers of one missing key: one load, and what waiting for it costs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use larder::{Key, Loaded};

use super::memory_only;
use crate::{
    Result,
    measure::{Case, Effort, measure},
    report::Report,
};

const READERS: u64 = 1_000;

pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    let cache = memory_only().build()?;
    let loads = Arc::new(AtomicU64::new(0));
    let mut stampedes = 0_u32;
    let cases = vec![
        Case::timed("tokio tasks alone", |times| {
            let started = Instant::now();
            for _ in 0..times {
                runtime.block_on(async {
                    let tasks: Vec<_> =
                        (0..READERS).map(|n| tokio::spawn(async move { n })).collect();
                    for task in tasks {
                        let _done = task.await;
                    }
                });
            }
            started.elapsed()
        })
        .operations(READERS),
        Case::timed("readers of a missing key", |times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                stampedes += 1;
                let key = Key::new(format!("stampede:{stampedes}"));
                let started = Instant::now();
                runtime.block_on(async {
                    let reader = |_| {
                        let (cache, key, loads) = (cache.clone(), key.clone(), Arc::clone(&loads));
                        tokio::spawn(async move {
                            let load = move |_| async move {
                                loads.fetch_add(1, Ordering::Relaxed);
                                tokio::task::yield_now().await;
                                Ok(Loaded::new("v"))
                            };
                            cache.get_or_load(&key, load).await.is_ok()
                        })
                    };
                    let tasks: Vec<_> = (0..READERS).map(reader).collect();
                    for task in tasks {
                        let _done = task.await;
                    }
                });
                took += started.elapsed();
            }
            took
        })
        .operations(READERS),
    ];
    let measured = measure(&effort.rounds(5, 15), cases);
    let cases = ("readers of a missing key", "tokio tasks alone");
    report.compare("stampede.readers_1000", &measured, cases, None);
    report.figures("stampede", &measured);
    let per_stampede = loads.load(Ordering::Relaxed) as f64 / f64::from(stampedes);
    report.ratio("stampede.loads", per_stampede, (1.0, "one load"), Some((1.0, 1.0)));
    Ok(())
}
