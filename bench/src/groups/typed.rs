//! A hit in memory as a decoded object.

use std::hint::black_box;

use bytes::Bytes;
use larder::{Cache, Key, SetOptions};
use tokio::runtime::Runtime;

use super::{here, memory_only};
use crate::{
    Result, data,
    measure::{Case, Effort, measure},
    report::Report,
};

/// A table as the Census API gives it.
type Table = Vec<Vec<String>>;

pub(crate) fn run(effort: &Effort, report: &mut Report) -> Result<()> {
    let runtime = here()?;
    let cache = memory_only().build()?;
    for (name, size, goal) in
        [("typed.get_as_2kb", 2_000, (0.05, 0.1)), ("typed.get_as_50kb", 50_000, (0.002, 0.005))]
    {
        let document = data::table(size, 1);
        let key = data::key(size);
        runtime.block_on(cache.set(&Key::new(&key), document.clone(), SetOptions::default()))?;
        let (ours, base) = (format!("get_as {size} B"), format!("serde_json {size} B"));
        let measured = measure(effort, cases(&runtime, &cache, &key, &document, &ours, &base));
        report.compare(name, &measured, (&ours, &base), Some(goal));
        report.figures("typed", &measured);
    }
    Ok(())
}

fn cases<'a>(
    runtime: &'a Runtime,
    cache: &'a Cache,
    key: &'a str,
    document: &'a Bytes,
    ours: &str,
    base: &str,
) -> Vec<Case<'a>> {
    vec![
        Case::new(ours, move |times| {
            runtime.block_on(async {
                for _ in 0..times {
                    drop(black_box(cache.get_as::<Table>(key).await));
                }
            });
        }),
        Case::new(base, move |times| {
            for _ in 0..times {
                drop(black_box(serde_json::from_slice::<Table>(document)));
            }
        }),
    ]
}
