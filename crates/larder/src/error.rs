//! What a caller of the chain can be told.

use std::sync::Arc;

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
