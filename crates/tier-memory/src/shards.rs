//! How the capacity is divided: `quick_cache` gives each shard an equal part of it, so an entry
//! larger than one part never fits.

use std::thread::available_parallelism;

use quick_cache::{Options, OptionsBuilder};

/// A shard smaller than this would turn away values that users expect to be cached.
const MIN_SHARD_BYTES: u64 = 16 << 20;
/// Share of a shard that one entry may take, and that holds entries used more than once; the
/// default of `quick_cache`.
const HOT_PERCENT: u64 = 97;
/// A guess; `quick_cache` asks for the right order of magnitude only.
const TYPICAL_ENTRY_BYTES: u64 = 4 << 10;

pub(crate) fn options(mut builder: OptionsBuilder, capacity: u64) -> Options {
    let threads = available_parallelism().map_or(1, usize::from);
    // The power of two below, since quick_cache rounds up.
    let by_size = (capacity / MIN_SHARD_BYTES).checked_ilog2().map_or(1, |log| 1_usize << log);
    builder
        .shards(by_size.min(4 * threads))
        .estimated_items_capacity((capacity / TYPICAL_ENTRY_BYTES).clamp(64, 1 << 24) as usize)
        .weight_capacity(capacity)
        .hot_allocation(HOT_PERCENT as f64 / 100.0)
        .build()
        .unwrap_or_else(|error| unreachable!("both capacities are set: {error}"))
}

/// Weight of the largest entry that a shard of this capacity takes.
pub(crate) fn largest_entry(shard_capacity: u64) -> u64 {
    shard_capacity / 100 * HOT_PERCENT
}
