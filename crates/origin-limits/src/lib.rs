//! Keeps callers within what an API allows: calls a second, calls at a time, calls a day.
//!
//! A [`Limiter`] lets the calls of one source through, each when it is due; a [`Ledger`] remembers
//! them. With the feature `sqlite` the ledger can be a file: then a restart forgets nothing, and all
//! processes that use the file keep the limits together.
//!
//! Rates are kept by the generic cell rate algorithm, quotas as an exact sliding window: a bucket
//! that refills through the day would let nearly twice a day's calls through within a day.

mod decide;
mod ledger;
mod limiter;
mod memory;
mod slots;
#[cfg(feature = "sqlite")]
mod sqlite;
mod turns;

use std::time::Duration;

pub use crate::{
    ledger::Ledger,
    limiter::{Denied, Limiter, Permit, Refusal, Usage},
    slots::{Slot, Slots},
};

/// At most so many calls in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Calls.
    pub count: u32,
    /// In this time.
    pub per: Duration,
}

/// What an API allows. By default: everything.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Calls are spread evenly over time, so that there are no more than this, plus `burst`, in any
    /// window; of at most an hour.
    pub rate: Option<Rate>,
    /// Calls that may come at once after a while without any; at least 1, which is the default.
    pub burst: u32,
    /// Most calls under way at a time, in this process.
    pub concurrency: Option<u32>,
    /// Never more calls than this in any window, however long it is.
    pub quota: Option<Rate>,
    /// Share of the quota, 0 or more and below 1, that only foreground calls may use. Default: 0.
    pub reserve: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rate: None, burst: 1, concurrency: None, quota: None, reserve: 0.0 }
    }
}

impl Limits {
    /// Longest time that a rate may be about: those who wait for their turn would wait for hours.
    pub const LONGEST_RATE: Duration = Duration::from_hours(1);
    /// Longest window of a quota.
    pub const LONGEST_QUOTA: Duration = Duration::from_hours(24 * 366);

    /// So many calls in so long, spread evenly.
    #[must_use]
    pub fn rate(mut self, count: u32, per: Duration) -> Self {
        self.rate = Some(Rate { count, per });
        self
    }

    /// So many calls may come at once after a while without any.
    #[must_use]
    pub fn burst(mut self, burst: u32) -> Self {
        self.burst = burst;
        self
    }

    /// So many calls are under way at a time.
    #[must_use]
    pub fn concurrency(mut self, most: u32) -> Self {
        self.concurrency = Some(most);
        self
    }

    /// Never more calls than this in any window of `per`.
    #[must_use]
    pub fn quota(mut self, count: u32, per: Duration) -> Self {
        self.quota = Some(Rate { count, per });
        self
    }

    /// This share of the quota is for foreground calls.
    #[must_use]
    pub fn reserve(mut self, share: f64) -> Self {
        self.reserve = share;
        self
    }

    /// What is wrong with them, for people.
    ///
    /// # Errors
    /// [`LimitsError`].
    pub fn check(&self) -> Result<(), LimitsError> {
        let Self { rate, burst, concurrency, quota, reserve } = self;
        let nothing = |rate: &Rate| rate.count == 0 || rate.per.is_zero();
        if rate.iter().chain(quota).any(nothing) || *concurrency == Some(0) || *burst == 0 {
            return Err(LimitsError::Nothing);
        }
        if rate.is_some_and(|rate| rate.per > Self::LONGEST_RATE) {
            return Err(LimitsError::SlowRate);
        }
        if rate.is_some_and(|rate| (rate.per.as_micros() as u64) < u64::from(rate.count)) {
            return Err(LimitsError::FastRate);
        }
        if quota.is_some_and(|quota| quota.per > Self::LONGEST_QUOTA) {
            return Err(LimitsError::LongQuota);
        }
        if !(0.0..1.0).contains(reserve) {
            return Err(LimitsError::Reserve);
        }
        Ok(())
    }

    /// Whether calls have to be remembered for them.
    pub fn is_remembered(&self) -> bool {
        self.rate.is_some() || self.quota.is_some()
    }

    /// Calls that the quota lets through in its window; `None` without one.
    pub fn allowance(&self, urgency: Urgency) -> Option<u32> {
        let count = self.quota?.count;
        Some(match urgency {
            Urgency::Foreground => count,
            // At least one: a quota of a few calls is not all reserved.
            Urgency::Background => {
                let open = f64::from(count) * (1.0 - self.reserve);
                #[expect(clippy::cast_sign_loss, reason = "a reserve is below 1")]
                let open = open.floor() as u32;
                open.clamp(1, count)
            }
        })
    }
}

/// Limits that cannot be kept, or that let nothing through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitsError {
    /// A count, a time or a burst of zero.
    #[error("it lets nothing through; allow at least one call in more than no time")]
    Nothing,
    /// The rate is about more than an hour.
    #[error("a rate is about at most an hour; what is about longer is a quota")]
    SlowRate,
    /// More than a million calls a second.
    #[error("it is more than a call in a microsecond, which is no limit")]
    FastRate,
    /// The quota's window is longer than a year.
    #[error("a quota is about at most 366 days")]
    LongQuota,
    /// The reserve is no share.
    #[error("a reserve is a share of at least 0 and below 1")]
    Reserve,
}

/// Who waits for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Urgency {
    /// Somebody, now.
    #[default]
    Foreground,
    /// Nobody yet: it is made ahead, and gives way.
    Background,
}
