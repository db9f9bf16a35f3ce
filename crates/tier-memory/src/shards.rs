//! How the capacity is divided: `quick_cache` gives each shard an equal part of it, so an entry
//! larger than one part never fits.

use std::thread::available_parallelism;

use quick_cache::{Options, OptionsBuilder};

/// A shard smaller than this would turn away values that users expect to be cached.
const MIN_SHARD_BYTES: u64 = 16 << 20;
/// Share of a shard that one entry may take, and that holds entries used more than once. Of the
/// traces in `docs/benchmarks.md` each has fewer misses than under exact LRU from 80 to 97 %; the
/// mean is best at 90.
const HOT_PERCENT: u64 = 90;
/// Decides how many keys are remembered of entries that were given up, which is what recognises
/// those that come back: half as many as there are entries of this size, in up to 3 % of the
/// capacity.
const TYPICAL_ENTRY_BYTES: u64 = 1 << 10;

pub(crate) fn options(mut builder: OptionsBuilder, capacity: u64) -> Options {
    builder
        .shards(count(capacity))
        .estimated_items_capacity((capacity / TYPICAL_ENTRY_BYTES).clamp(64, 1 << 24) as usize)
        .weight_capacity(capacity)
        .hot_allocation(HOT_PERCENT as f64 / 100.0)
        .build()
        .unwrap_or_else(|error| unreachable!("both capacities are set: {error}"))
}

/// A power of two of shards: enough for the machine's threads, and each large enough for an entry.
pub(crate) fn count(capacity: u64) -> usize {
    let threads = available_parallelism().map_or(1, usize::from).next_power_of_two();
    // The power of two below, since quick_cache rounds up.
    let by_size = (capacity / MIN_SHARD_BYTES).checked_ilog2().map_or(1, |log| 1_usize << log);
    by_size.min(4 * threads)
}

/// Weight of the largest entry that a shard of this capacity takes.
pub(crate) fn largest_entry(shard_capacity: u64) -> u64 {
    shard_capacity / 100 * HOT_PERCENT
}
