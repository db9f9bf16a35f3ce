//! How the chain asks the origin of a source.

use std::time::Duration;

use crate::BreakerOptions;

pub use origin_limits::{Ledger, Limits, LimitsError, Rate, Slots, Urgency, Usage as QuotaUsage};

/// How the chain asks the origin of a source: all loads of the source, whoever brings them.
///
/// By default it is asked as soon as there is something to load, once, and left alone only when it
/// asks for that.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct OriginOptions {
    /// What the API allows. Default: everything.
    pub limits: Limits,
    /// How often a call that failed is made again. Default: not at all.
    pub retry: RetryOptions,
    /// When a failing origin is not asked for a while. Default: never.
    pub breaker: Option<BreakerOptions>,
    /// How often the origin is asked for the version of its data, by
    /// [`Origin::probe`](crate::Origin::probe), by all who share a tier together; from the first read
    /// on that is not answered by memory. When it has changed, what is stored is stale at once.
    /// Default: never.
    pub probe_every: Option<Duration>,
}

impl OriginOptions {
    /// Keeps these limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes calls that failed again.
    #[must_use]
    pub fn retry(mut self, retry: RetryOptions) -> Self {
        self.retry = retry;
        self
    }

    /// Leaves a failing origin alone for a while.
    #[must_use]
    pub fn breaker(mut self, breaker: BreakerOptions) -> Self {
        self.breaker = Some(breaker);
        self
    }

    /// Asks for the version of its data so often.
    #[must_use]
    pub fn probe_every(mut self, every: Duration) -> Self {
        self.probe_every = Some(every);
        self
    }

    /// What is wrong with them, for people.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.probe_every.is_some_and(|every| every.is_zero()) {
            return Some("a probe every 0 s would never end".to_owned());
        }
        if let Err(error) = self.limits.check() {
            return Some(error.to_string());
        }
        if let Some(problem) = self.breaker.and_then(|breaker| breaker.problem()) {
            return Some(problem.to_owned());
        }
        self.retry.problem().map(str::to_owned)
    }
}

/// How often a call that failed is made again, and when.
///
/// Calls are made again after a network error and the statuses 429, 502, 503 and 504: not after
/// others, nor after a time limit. Each delay is drawn from all up to one that doubles ("full
/// jitter"), so that callers who failed together do not return together; a `Retry-After` is waited
/// for instead. A loader that is given to one call cannot be called twice, and is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryOptions {
    /// Most calls, the first included; at least 1, which is the default.
    pub attempts: u32,
    /// Longest delay before the second call; it doubles with each further one. Default: 500 ms.
    pub base: Duration,
    /// Longest delay. Default: 30 s.
    pub max: Duration,
    /// No call is begun later than this after the first. Default: 1 minute.
    pub budget: Duration,
}

impl Default for RetryOptions {
    fn default() -> Self {
        Self {
            attempts: 1,
            base: Duration::from_millis(500),
            max: Duration::from_secs(30),
            budget: Duration::from_mins(1),
        }
    }
}

impl RetryOptions {
    /// Up to so many calls.
    pub fn attempts(attempts: u32) -> Self {
        Self { attempts, ..Self::default() }
    }

    /// Delays that start at up to `base`, and are never longer than `max`.
    #[must_use]
    pub fn delay(mut self, base: Duration, max: Duration) -> Self {
        self.base = base;
        self.max = max;
        self
    }

    /// Begins no call later than this after the first.
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = budget;
        self
    }

    fn problem(&self) -> Option<&'static str> {
        if self.attempts == 0 {
            return Some("attempts is 0, and a call is made at least once");
        }
        (self.max < self.base).then_some("the longest delay is shorter than the first")
    }

    /// The longest delay after so many calls.
    pub(crate) fn ceiling(&self, calls: u32) -> Duration {
        let doubled = 1_u32.checked_shl(calls.saturating_sub(1)).unwrap_or(u32::MAX);
        self.base.saturating_mul(doubled).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let retry = RetryOptions::attempts(9).delay(Duration::from_secs(1), Duration::from_secs(5));
        let ceilings: Vec<u64> = (1..=4).map(|calls| retry.ceiling(calls).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 5]);
        assert_eq!(retry.ceiling(u32::MAX).as_secs(), 5);
    }

    #[test]
    fn senseless_options_are_told() {
        let problem = |retry| OriginOptions::default().retry(retry).problem();
        assert_eq!(problem(RetryOptions::default()), None);
        assert!(problem(RetryOptions::attempts(0)).is_some_and(|text| text.contains("once")));
        let backwards = RetryOptions::default().delay(Duration::from_secs(2), Duration::ZERO);
        assert!(problem(backwards).is_some_and(|text| text.contains("shorter")));
        let limits = Limits::default().burst(0);
        assert!(OriginOptions::default().limits(limits).problem().is_some());
        let breaker = BreakerOptions::default().failures(0);
        assert!(OriginOptions::default().breaker(breaker).problem().is_some());
    }
}
