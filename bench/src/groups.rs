//! What is measured together.

/// Asks for keys in turn, so many times, in a task. A macro: an async closure would be measured too.
macro_rules! in_task {
    ($runtime:expr, $times:expr, $asked:expr, |$key:ident| $work:expr) => {
        $runtime.block_on(async {
            let mut asked = $asked.iter().cycle();
            for _ in 0..$times {
                if let Some($key) = asked.next() {
                    $work;
                }
            }
        })
    };
}

pub(crate) mod batch;
pub(crate) mod codec;
pub(crate) mod hit_path;
pub(crate) mod insert;
#[cfg(feature = "peers")]
pub(crate) mod peers;
pub(crate) mod scale;
pub(crate) mod sqlite;
pub(crate) mod stampede;
pub(crate) mod typed;
pub(crate) mod warming;

use std::sync::Arc;

use larder::{Cache, CacheBuilder, Entry, Key, SetOptions, tiers::MemoryTier};
use tokio::runtime::Runtime;

use crate::Result;

/// Room for everything.
const ROOM: u64 = 4 << 30;

/// The store under the memory tier, alone.
type Bare = quick_cache::sync::Cache<Key, Entry>;

/// A runtime on this thread.
fn here() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_time().build()?)
}

fn memory_only() -> CacheBuilder {
    Cache::builder().tier(MemoryTier::new(ROOM))
}

/// Puts a value under each key.
fn fill(
    runtime: &Runtime,
    cache: &Cache,
    keys: &[Key],
    value: impl Fn(usize) -> bytes::Bytes,
) -> Result<()> {
    runtime.block_on(async {
        for (n, key) in keys.iter().enumerate() {
            cache.set(key, value(n), SetOptions::default()).await?;
        }
        Ok(())
    })
}

/// The same entries in a bare store: what both find is in the very same place.
fn bare(cache: &Cache, keys: &[Key]) -> Arc<Bare> {
    let bare = Bare::new(keys.len() * 2);
    for key in keys {
        if let Some(hit) = cache.peek(key) {
            bare.insert(key.clone(), hit.into_entry());
        }
    }
    Arc::new(bare)
}

/// Asks for the keys in turn, so many times.
fn each(times: u64, asked: &[&str], get: impl Fn(&str)) {
    let mut asked = asked.iter().cycle();
    for _ in 0..times {
        if let Some(key) = asked.next() {
            get(key);
        }
    }
}

/// What was found is looked at where it is, as a program would, and let go of.
fn used(value: Option<&bytes::Bytes>) {
    std::hint::black_box(value);
}
