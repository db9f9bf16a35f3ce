//! What a caller of the chain can be told.

use std::{sync::Arc, time::Duration};

use cache_core::{Key, OriginError};

/// Why the chain has no answer.
///
/// Errors are cheap to clone: all who waited for one load get the same one.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The origin failed.
    #[error(transparent)]
    Origin(Arc<OriginError>),
    /// The loader panicked; the next call loads again.
    #[error("the load of `{key}` panicked: {message}")]
    LoadPanicked {
        /// What was loaded.
        key: Key,
        /// The panic's message.
        message: String,
    },
    /// The load was stopped before it ended, because its runtime was shut down for example.
    #[error("the load of `{key}` was stopped before it ended")]
    LoadAborted {
        /// What was loaded.
        key: Key,
    },
    /// The load took longer than its policy's `hard_timeout`. It goes on, unless it bypassed the
    /// cache.
    #[error("the load of `{key}` has not ended within {limit:?}")]
    LoadTimedOut {
        /// What was loaded.
        key: Key,
        /// How long was waited.
        limit: Duration,
    },
    /// The origin asked to be left alone for a while, by `Retry-After`; it is not asked before.
    #[error("source `{name}` is not asked for another {after:?}: {cause}")]
    LeftAlone {
        /// The source.
        name: String,
        /// For how long.
        after: Duration,
        /// What it answered.
        cause: Arc<OriginError>,
    },
    /// A tier that is required did not take the value; others may have it.
    #[error("tier `{tier}`, which is required, did not store `{key}`: {reason}")]
    NotStored {
        /// What was to be stored.
        key: Key,
        /// The tier's name.
        tier: &'static str,
        /// What it said.
        reason: String,
    },
    /// No tier of the chain has this name.
    #[error("the chain has no tier `{name}`; it has: {known}")]
    UnknownTier {
        /// The name.
        name: String,
        /// The chain's tiers, for people.
        known: String,
    },
    /// A policy that a call asks for makes no sense.
    #[error("the policy that the call asks for makes no sense: {problem}")]
    Policy {
        /// What is wrong with it.
        problem: String,
    },
    /// A series, or the range that is asked for, makes no sense.
    #[error("the series of source `{name}` cannot be read: {problem}")]
    Series {
        /// The source.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing usable is stored, and the call does not load.
    #[error("nothing usable is stored under `{key}`, and the call is not to load it")]
    NotCached {
        /// What was asked for.
        key: Key,
    },
    /// Nothing usable is stored, and the cache is offline.
    #[error("nothing usable is stored under `{key}`, and the cache is offline")]
    Offline {
        /// What is missing.
        key: Key,
    },
    /// No origin is known for the source.
    #[error("no origin answers for source `{name}`; {known}")]
    NoOrigin {
        /// The source.
        name: String,
        /// What is known, for people.
        known: String,
    },
    /// A tier failed; only in strict mode.
    #[error(transparent)]
    Tier(Arc<cache_core::Error>),
    /// The value is not what `get_as` was asked for.
    #[error("the value of `{key}` cannot be read as {type_name}: {reason}")]
    Decode {
        /// Its key.
        key: Key,
        /// The type asked for.
        type_name: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The value was read as another type before; decoded values are shared.
    #[error("the value of `{key}` was read as {stored} before, and cannot be read as {asked} too")]
    TypeMismatch {
        /// Its key.
        key: Key,
        /// The type it is shared as.
        stored: &'static str,
        /// The type asked for.
        asked: &'static str,
    },
    /// The cache has been closed.
    #[error("the cache has been closed")]
    Closed,
}

impl From<OriginError> for Error {
    fn from(error: OriginError) -> Self {
        Self::Origin(Arc::new(error))
    }
}
