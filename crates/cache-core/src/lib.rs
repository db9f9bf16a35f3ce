//! The contract between Larder's cache tiers, and the types that cross it.
//!
//! One rule explains the rest: **an entry is served only if it was loaded after the last
//! invalidation that covers it.** Every [`Entry`] carries the [`Stamp`] of the instant its load
//! started, every invalidation is a [`Barrier`] with a stamp of its own, and a [`Tier`] refuses to
//! store, and never returns, an entry that a barrier covers.
//!
//! This crate does no I/O, spawns nothing and needs no async runtime.

mod barrier;
mod clock;
mod codec;
mod compression;
mod entry;
mod error;
mod escape;
mod journal;
mod key;
mod key_builder;
mod origin;
mod request;
mod stamp;
mod tier;

pub use barrier::{Barrier, BarrierSet, Effect, Selector, Verdict};
pub use clock::{Clock, SystemClock, Timestamp};
pub use codec::{Codec, CodecError, CodecId};
pub use compression::{
    CodecStats, CodecUse, Compression, Dictionaries, Dictionary, DictionaryId, Form,
    KeptDictionary, Packed,
};
pub use entry::{Entry, EntryBuilder, Freshness, InvalidTag, Tag};
pub use error::{BoxError, Chained, Error, ErrorKind, Op, Result};
pub use escape::Escaped;
pub use journal::{Change, Changes, Follower, Journal, Lease};
pub use key::{AsKey, Key, MAX_KEY_BYTES};
pub use key_builder::{Geography, KeyBuilder};
pub use origin::{Answer, Load, Loaded, Origin, OriginError, OriginErrorKind, Ttl, origin_fn};
pub use request::Request;
pub use stamp::{Stamp, StampClock};
pub use tier::{
    Capability, CodecUsage, Filter, Inspect, Problem, ProblemKind, PutOutcome, SourceUsage,
    Stamped, Summary, SyncTier, Tier, Usage, Validation,
};
