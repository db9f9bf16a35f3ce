//! A chain of cache tiers in front of slow, rate-limited, costly data APIs.
//!
//! ```text
//! program -> memory -> SQLite -> origin (an HTTP API, or a loader of your own)
//! ```
//!
//! **An entry is served only if it was loaded after the last invalidation that covers it.**
//!
//! ```
//! use larder::{Cache, Key, Loaded};
//!
//! # #[cfg(feature = "memory")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let cache = Cache::builder().tier(larder::tiers::MemoryTier::new(64 << 20)).build()?;
//!
//! let key = Key::builder("census").param("cbsa", 14500).param("year", 2022).build();
//! let hit = cache
//!     .get_or_load(&key, |_load| async { Ok(Loaded::new(r#"{"population": 330758}"#)) })
//!     .await?;
//! assert_eq!(hit.value(), r#"{"population": 330758}"#);
//!
//! let census = cache.get_as::<serde_json::Value>(&key).await?.expect("it is stored");
//! assert_eq!(census["population"], 330758);
//! # Ok(())
//! # })
//! # }
//! # #[cfg(not(feature = "memory"))]
//! # fn main() {}
//! ```
//!
//! The methods of [`Cache`] that wait need a tokio runtime around them: loads run in tasks of
//! their own, so that a caller that goes away does not cancel what others wait for.

mod asking;
mod breaker;
mod builder;
mod cache;
mod chain;
#[cfg(feature = "config")]
mod compose;
#[cfg(feature = "config")]
pub mod config;
#[cfg(feature = "zstd")]
mod dictionaries;
mod error;
mod flight;
#[cfg(test)]
mod flight_tests;
mod fly;
mod front;
mod guard;
mod hit;
#[cfg(feature = "sqlite")]
pub mod import;
mod inner;
mod landing;
mod load;
mod loading;
mod missed;
mod note;
mod origin_options;
mod outcome;
mod packing;
mod pauses;
mod peers;
mod policy;
mod probes;
mod read;
mod reads;
mod requests;
#[cfg(feature = "series")]
mod rows;
#[cfg(feature = "series")]
pub mod series;
mod shared_loads;
mod stats;
mod sync;
mod tasks;
mod ticker;
mod tier_options;
mod versions;
mod wait;

pub use cache_core::{
    Answer, AsKey, Barrier, Capability, Chained, Clock, Codec, CodecError, CodecId, CodecStats,
    CodecUsage, CodecUse, Compression, Dictionary, DictionaryId, Effect, Entry, ErrorKind, Escaped,
    Filter, Freshness, Geography, Inspect, InvalidTag, KeptDictionary, Key, KeyBuilder, Load,
    Loaded, Origin, OriginError, OriginErrorKind, Problem, ProblemKind, PutOutcome, Request,
    Selector, SourceUsage, Stamp, Summary, SyncTier, SystemClock, Tag, Tier, Timestamp, Ttl, Usage,
    Validation, origin_fn,
};

pub use crate::{
    builder::{BuildError, CacheBuilder},
    cache::Cache,
    error::Error,
    hit::{Hit, ServedBy, StaleReason},
    load::LoadContext,
    origin_options::{
        Ledger, Limits, LimitsError, OriginOptions, QuotaUsage, Rate, RetryOptions, Slots, Urgency,
    },
    outcome::{CloseReport, PutReport, ReadMode, ReadOptions, Removed, SetOptions, SetOutcome},
    policy::{Failure, Failures, Policy, PolicyPatch},
    stats::{Latency, Stats, TierLatency, TierStats},
    tier_options::{BreakerOptions, TierOptions},
};

#[cfg(feature = "zstd")]
pub use crate::dictionaries::{DictionaryError, TrainedDictionary};

/// The error of a tier, as its trait returns it.
pub use cache_core::Error as TierError;

/// The tiers and codecs that were compiled in.
pub mod tiers {
    pub use codec_compress::Compressor;
    #[cfg(feature = "zlib")]
    pub use codec_compress::Zlib;
    #[cfg(feature = "zstd")]
    pub use codec_compress::{TrainError, Zstd, train};
    #[cfg(feature = "memory")]
    pub use tier_memory::{DEFAULT_CAPACITY_BYTES, MemoryPolicy, MemoryStats, MemoryTier};
    #[cfg(feature = "sqlite")]
    pub use tier_sqlite::{SqliteOptions, SqliteTier};
}

/// Origins that speak HTTP.
#[cfg(feature = "http")]
pub mod http {
    pub use origin_http::{
        Auth, Batch, BatchError, Body, Checks, HttpClient, HttpOrigin, HttpSource, Method, Probe,
        ProbeFrom, SetupError, TemplateError, VersionFrom,
    };
}
