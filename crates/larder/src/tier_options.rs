//! How the chain treats a tier.

use std::time::Duration;

/// How the chain treats a tier.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TierOptions {
    /// Whether a `set` fails when this tier did not take the value. Default: no.
    pub required: bool,
    /// Whether the tier is asked only, never written to. What was invalidated here is not served
    /// from it by this process; others are not told. Default: no.
    pub read_only: bool,
    /// Longest time that this tier keeps its copy of an entry. Default: as long as the entry lives.
    pub max_ttl: Option<Duration>,
    /// Longest time a read may take before the chain goes on without the tier. Default: 2 s.
    pub read_timeout: Duration,
    /// Longest time anything else may take. Default: 10 s.
    pub write_timeout: Duration,
    /// When the tier is skipped for a while.
    pub breaker: BreakerOptions,
}

impl TierOptions {
    /// What is wrong with them, for people.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let problems = [
            (
                self.required && self.read_only,
                "a tier that is only read cannot be required to store",
            ),
            (
                self.read_timeout.is_zero() || self.write_timeout.is_zero(),
                "a time limit of zero lets nothing through",
            ),
            (self.max_ttl.is_some_and(|max| max.is_zero()), "a max_ttl of zero keeps nothing"),
        ];
        let problem = problems.into_iter().find_map(|(wrong, problem)| wrong.then_some(problem));
        problem.or_else(|| self.breaker.problem())
    }

    /// A tier without which a `set` fails.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// A tier that is asked only.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// A tier that keeps its copies for at most `limit`.
    #[must_use]
    pub fn max_ttl(mut self, limit: Duration) -> Self {
        self.max_ttl = Some(limit);
        self
    }

    /// A tier whose reads may take so long.
    #[must_use]
    pub fn read_timeout(mut self, limit: Duration) -> Self {
        self.read_timeout = limit;
        self
    }

    /// A tier whose other operations may take so long.
    #[must_use]
    pub fn write_timeout(mut self, limit: Duration) -> Self {
        self.write_timeout = limit;
        self
    }

    /// Says when the tier is skipped for a while.
    #[must_use]
    pub fn breaker(mut self, breaker: BreakerOptions) -> Self {
        self.breaker = breaker;
        self
    }
}

impl Default for TierOptions {
    fn default() -> Self {
        Self {
            required: false,
            read_only: false,
            max_ttl: None,
            read_timeout: Duration::from_secs(2),
            write_timeout: Duration::from_secs(10),
            breaker: BreakerOptions::default(),
        }
    }
}

/// When a failing tier is skipped, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct BreakerOptions {
    /// Failures in a row after which it is skipped, at least 1. Default: 5.
    pub failures: u32,
    /// Share of failures, above 0 and up to 1, among the operations within `window` after which it
    /// is skipped, if there were 20 operations at least. Default: 0.5.
    pub error_share: f64,
    /// The time that `error_share` is about. Default: 10 s.
    pub window: Duration,
    /// For how long it is skipped at first; doubled after each failed probe. Default: 5 s.
    pub cooldown: Duration,
    /// Longest time it is skipped between probes. Default: 60 s.
    pub max_cooldown: Duration,
}

impl BreakerOptions {
    /// What is wrong with them, for people.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let Self { failures, error_share, window, cooldown, max_cooldown } = *self;
        let problems = [
            (failures == 0, "failures is 0, and a breaker opens after 1 at least"),
            (
                !(error_share > 0.0 && error_share <= 1.0),
                "error_share is no share above 0 and up to 1",
            ),
            (
                window.is_zero() || cooldown.is_zero(),
                "a breaker's window and cooldown are longer than zero",
            ),
            (max_cooldown < cooldown, "max_cooldown is shorter than cooldown"),
        ];
        problems.into_iter().find_map(|(wrong, problem)| wrong.then_some(problem))
    }

    /// Opens after so many failures in a row.
    #[must_use]
    pub const fn failures(mut self, failures: u32) -> Self {
        self.failures = failures;
        self
    }

    /// Opens at this share of failures within `window`.
    #[must_use]
    pub const fn error_share(mut self, share: f64, window: Duration) -> Self {
        self.error_share = share;
        self.window = window;
        self
    }

    /// Stays open for so long at first, and at most.
    #[must_use]
    pub const fn cooldown(mut self, first: Duration, max: Duration) -> Self {
        self.cooldown = first;
        self.max_cooldown = max;
        self
    }
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self {
            failures: 5,
            error_share: 0.5,
            window: Duration::from_secs(10),
            cooldown: Duration::from_secs(5),
            max_cooldown: Duration::from_mins(1),
        }
    }
}
