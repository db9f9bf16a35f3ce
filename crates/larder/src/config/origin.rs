//! How the origin of a source is asked: `cache.sources.NAME.retry`, and what limits become.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Limits, OriginOptions, RetryOptions};

use super::{CacheConfig, SourceConfig, forms, text, values::RateLimit};

/// `cache.sources.NAME.retry`: how often a call that failed is made again, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RetryConfig {
    /// Most calls, the first included, at least 1. Default: 3.
    #[serde(deserialize_with = "text::text")]
    pub attempts: u32,
    /// Longest delay before the second call; it doubles with each further one. Default: 500 ms.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub base: Duration,
    /// Longest delay. Default: 30 s.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub max: Duration,
    /// No call is begun later than this after the first. Default: 1 minute.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub budget: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        let RetryOptions { base, max, budget, .. } = RetryOptions::default();
        Self { attempts: 3, base, max, budget }
    }
}

impl CacheConfig {
    /// How the origin of a source is asked.
    pub fn origin_options(&self, source: &SourceConfig) -> OriginOptions {
        let SourceConfig { rate_limit, burst, concurrency, quota, quota_reserve, retry, .. } =
            source;
        let mut limits = Limits::default();
        limits.rate = rate_limit.map(RateLimit::into);
        limits.burst = *burst;
        limits.concurrency = *concurrency;
        limits.quota = quota.map(RateLimit::into);
        limits.reserve = *quota_reserve;
        let RetryConfig { attempts, base, max, budget } = *retry;
        let probe_every = source.probe.url.as_ref().map(|_url| source.probe.check_every);
        OriginOptions { probe_every, ..OriginOptions::default() }
            .limits(limits)
            .retry(RetryOptions::attempts(attempts).delay(base, max).budget(budget))
            .breaker(self.breaker.options())
    }
}

impl From<RateLimit> for crate::Rate {
    fn from(RateLimit { count, per }: RateLimit) -> Self {
        Self { count, per }
    }
}
