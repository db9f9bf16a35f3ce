//! What processes that share a tier tell each other through it.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::{Barrier, Key, Result, Stamp};

/// A change that another process made in a shared tier.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It set a barrier.
    Barrier(Barrier),
    /// It stored an entry under the key; one that was loaded before `as_of` may be out of date.
    Stored {
        /// The key.
        key: Key,
        /// A stamp that the entry's does not exceed.
        as_of: Stamp,
    },
}

/// Changes since the last ones that were told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changes {
    /// These, in the order they were made.
    Known(Vec<Change>),
    /// More than is known: what was copied from the tier may all be out of date.
    Unknown,
}

/// Who is told of changes, on a thread of the tier's.
pub type Follower = Box<dyn Fn(Changes) + Send + Sync>;

/// A tier through which processes learn what others have changed in it.
pub trait Journal: fmt::Debug + Send + Sync + 'static {
    /// Tells `follower` what other processes change from now on, until the tier is closed; another
    /// follower takes its place.
    fn follow(&self, follower: Follower);
}

/// A tier through which processes agree on who loads a key: single flight across processes.
///
/// A lease saves work and is no lock: who loads without one does no harm, since of two values the
/// one loaded later stays.
#[async_trait]
pub trait Lease: fmt::Debug + Send + Sync + 'static {
    /// Takes the leases of all keys for `owner`, for `duration` from now; takes none, and says false,
    /// if somebody else has one of them. A barrier that covers a key ends its lease: what is being
    /// loaded is out of date.
    async fn lease(&self, keys: &[Key], owner: u64, duration: Duration) -> Result<bool>;

    /// Makes those of the leases that `owner` has last for `duration` from now.
    async fn renew(&self, keys: &[Key], owner: u64, duration: Duration) -> Result<()>;

    /// Whether nobody but `owner` has one of the leases.
    async fn is_free(&self, keys: &[Key], owner: u64) -> Result<bool>;

    /// Gives back those of the leases that `owner` has.
    async fn release(&self, keys: &[Key], owner: u64) -> Result<()>;
}
