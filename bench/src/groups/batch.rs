//! Many keys in one call.

use std::hint::black_box;

use larder::Key;

use super::{bare, fill, here, memory_only};
use crate::{
    Result, data,
    measure::{Case, Effort, measure},
    report::Report,
};

const BATCH: usize = 1_000;

pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    let runtime = here()?;
    let keys = data::keys(10_000);
    let cache = memory_only().build()?;
    fill(&runtime, &cache, &keys, |n| data::table(2_000, n as u64))?;
    let bare = bare(&cache, &keys);
    let batch: Vec<Key> = data::order(keys.len(), keys.len())
        .iter()
        .take(BATCH)
        .map(|at| keys[*at].clone())
        .collect();
    let cases = vec![
        Case::new("quick_cache gets", |times| {
            for _ in 0..times {
                for key in &batch {
                    drop(black_box(bare.get(key)));
                }
            }
        })
        .operations(BATCH as u64),
        Case::new("gets", |times| {
            runtime.block_on(async {
                for _ in 0..times {
                    for key in &batch {
                        drop(black_box(cache.get(key).await));
                    }
                }
            });
        })
        .operations(BATCH as u64),
        Case::new("get_many", |times| {
            for _ in 0..times {
                drop(black_box(runtime.block_on(cache.get_many(&batch))));
            }
        })
        .operations(BATCH as u64),
    ];
    let measured = measure(effort, cases);
    report.compare("batch.get_many_memory", &measured, ("get_many", "quick_cache gets"), None);
    report.compare("batch.get_many_vs_gets", &measured, ("get_many", "gets"), None);
    report.figures("batch", &measured);
    Ok(())
}
