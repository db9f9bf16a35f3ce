//! The settings themselves, with their defaults.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Policy, TierOptions};

use super::{
    compression::CompressionConfig,
    error::ConfigError,
    jobs::{ChangesConfig, JobConfig, NotifyConfig},
    loader::Loader,
    policies::{DefaultsConfig, SourceConfig},
    text,
    tiers::{BreakerConfig, MemoryConfig, RedisConfig, SqliteConfig},
    validate,
    values::{PolicyTtl, TierKind, Ttl},
};

/// Everything below `cache:`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CacheConfig {
    /// The tiers in the order they are asked; `None`: all that are enabled, fastest first.
    #[serde(deserialize_with = "text::chain")]
    pub chain: Option<Vec<TierKind>>,
    /// The memory tier.
    pub memory: MemoryConfig,
    /// The SQLite tier.
    pub sqlite: SqliteConfig,
    /// The Redis tier.
    pub redis: RedisConfig,
    /// Longest time a read of a tier may take before the chain goes on without it. Default: 2 s.
    #[serde(deserialize_with = "text::text", serialize_with = "text::write_duration")]
    pub read_timeout: Duration,
    /// Longest time anything else that a tier does may take. Default: 10 s.
    #[serde(deserialize_with = "text::text", serialize_with = "text::write_duration")]
    pub write_timeout: Duration,
    /// How long a process that was killed while it loaded keeps those that share a tier with it from
    /// loading the same; zero: processes do not wait for each other. Default: 5 s.
    #[serde(deserialize_with = "text::text", serialize_with = "text::write_duration")]
    pub lease: Duration,
    /// The file that remembers calls to sources with a `rate_limit` or a `quota`. Default: beside that
    /// of the SQLite tier, or nothing but this process's memory if that tier is off.
    pub ledger: Option<PathBuf>,
    /// Largest value that is stored in a persistent tier, or read from one, in bytes. Default: 64 MiB.
    #[serde(deserialize_with = "text::size", serialize_with = "text::write_size")]
    pub max_value_size: u64,
    /// When a failing tier is skipped.
    pub breaker: BreakerConfig,
    /// Compression in the persistent tiers.
    pub compression: CompressionConfig,
    /// Prefetching.
    pub prefetch: PrefetchConfig,
    /// Logging and alerts.
    pub monitoring: MonitoringConfig,
    /// What a source gets that says nothing itself.
    pub defaults: DefaultsConfig,
    /// TTL by source; `sources.NAME.ttl` goes before it.
    #[serde(deserialize_with = "policies")]
    pub ttl_policies: BTreeMap<String, Ttl>,
    /// Whether a failing tier is passed over (true) or fails the request. Default: true.
    #[serde(deserialize_with = "text::text")]
    pub graceful_mode: bool,
    /// Whether no origin is ever asked: reads are answered by the tiers alone. Default: false.
    #[serde(deserialize_with = "text::text")]
    pub offline: bool,
    /// Sources fetched over HTTP, by name.
    pub sources: BTreeMap<String, SourceConfig>,
    /// What is warmed by a schedule, by name.
    pub jobs: BTreeMap<String, JobConfig>,
    /// Who is told of changes.
    pub notify: NotifyConfig,
    /// The file that changes are noted in. Default: beside that of the SQLite tier, or none if that tier
    /// is off.
    pub changes_log: Option<PathBuf>,
}

impl CacheConfig {
    /// Starts a loader without any layer but the defaults.
    pub fn loader() -> Loader {
        Loader::default()
    }

    /// The tiers to build, in the order they are asked.
    pub fn tiers(&self) -> Vec<TierKind> {
        match &self.chain {
            Some(chain) => chain.clone(),
            None => TierKind::ALL.into_iter().filter(|kind| self.is_enabled(*kind)).collect(),
        }
    }

    /// Whether a tier is switched on, in the chain or not.
    pub fn is_enabled(&self, kind: TierKind) -> bool {
        match kind {
            TierKind::Memory => self.memory.enable,
            TierKind::Sqlite => self.sqlite.enable,
            TierKind::Redis => self.redis.enable,
        }
    }

    /// How the chain treats a tier.
    pub fn tier_options(&self, kind: TierKind) -> TierOptions {
        let (required, read_only, max_ttl) = match kind {
            TierKind::Memory => (self.memory.required, self.memory.read_only, self.memory.max_ttl),
            TierKind::Sqlite => (self.sqlite.required, self.sqlite.read_only, self.sqlite.max_ttl),
            TierKind::Redis => (self.redis.required, self.redis.read_only, self.redis.max_ttl),
        };
        TierOptions {
            required,
            read_only,
            max_ttl,
            read_timeout: self.read_timeout,
            write_timeout: self.write_timeout,
            breaker: self.breaker.options(),
        }
    }

    /// Where calls are remembered; `None`: in memory.
    pub fn ledger_path(&self) -> Option<PathBuf> {
        let is_kept = self.tiers().contains(&TierKind::Sqlite);
        let beside = is_kept.then(|| self.sqlite.path.with_extension("calls.db"));
        self.ledger.clone().or(beside)
    }

    /// The file that changes are noted in; `None` if there is none.
    pub fn changes_path(&self) -> Option<PathBuf> {
        let is_kept = self.tiers().contains(&TierKind::Sqlite);
        let beside = is_kept.then(|| self.sqlite.path.with_extension("changes.jsonl"));
        self.changes_log.clone().or(beside)
    }

    /// The TTL of a source: its own, else its policy, else the default.
    pub fn ttl_for(&self, source: &str) -> Ttl {
        let own = self.sources.get(source).and_then(|config| config.ttl);
        own.or_else(|| self.ttl_policies.get(source).copied()).unwrap_or(self.defaults.ttl)
    }

    /// How the values of a source are compressed: as all are, changed where the source says so.
    pub fn compression_for(&self, source: &str) -> CompressionConfig {
        match self.sources.get(source) {
            Some(own) => self.compression.changed(&own.compression),
            None => self.compression.clone(),
        }
    }

    /// The policy of a source: the defaults, changed where the source says so.
    pub fn policy_for(&self, source: &str) -> Policy {
        let own = self.sources.get(source);
        let mut patch = own.map(SourceConfig::patch).unwrap_or_default();
        patch.ttl = Some(self.ttl_for(source).into());
        let mut policy = self.defaults.policy().patched(&patch);
        // What is compared must be there.
        policy.keeps_expired =
            own.is_some_and(|own| own.critical || own.changes != ChangesConfig::default());
        policy.version = own.and_then(|own| own.version.as_deref()).map(Into::into);
        policy
    }

    /// Checks what a loaded configuration has already passed; for one that was changed in code.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate::check(self).map_err(validate::Problem::without_place)
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        let TierOptions { read_timeout, write_timeout, .. } = TierOptions::default();
        Self {
            chain: None,
            memory: MemoryConfig::default(),
            sqlite: SqliteConfig::default(),
            redis: RedisConfig::default(),
            read_timeout,
            write_timeout,
            lease: Duration::from_secs(5),
            ledger: None,
            max_value_size: 64 << 20,
            breaker: BreakerConfig::default(),
            compression: CompressionConfig::default(),
            prefetch: PrefetchConfig::default(),
            monitoring: MonitoringConfig::default(),
            defaults: DefaultsConfig::default(),
            ttl_policies: BTreeMap::new(),
            graceful_mode: true,
            offline: false,
            sources: BTreeMap::new(),
            jobs: BTreeMap::new(),
            notify: NotifyConfig::default(),
            changes_log: None,
        }
    }
}

/// `cache.prefetch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PrefetchConfig {
    /// Whether programs that fetch neighbours ahead do so. Default: true.
    #[serde(deserialize_with = "text::text")]
    pub enabled: bool,
    /// How far `larder warm --nearby` goes if it is not told. Default: 50.
    #[serde(deserialize_with = "text::text")]
    pub nearby_radius_miles: f64,
    /// Loads at the same time, at least 1. Default: 5.
    #[serde(deserialize_with = "text::text")]
    pub max_parallel_requests: u32,
}

impl Default for PrefetchConfig {
    fn default() -> Self {
        Self { enabled: true, nearby_radius_miles: 50.0, max_parallel_requests: 5 }
    }
}

/// `cache.monitoring`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MonitoringConfig {
    /// Default: false.
    #[serde(deserialize_with = "text::text")]
    pub log_cache_hits: bool,
    /// A share, 0 to 1. Has no effect yet.
    #[serde(deserialize_with = "text::text")]
    pub alert_on_low_hit_rate: Option<f64>,
    /// Has no effect yet.
    #[serde(deserialize_with = "text::text")]
    pub alert_on_high_latency_ms: Option<f64>,
}

fn policies<'de, D>(deserializer: D) -> Result<BTreeMap<String, Ttl>, D::Error>
where
    D: Deserializer<'de>,
{
    let policies = BTreeMap::<String, PolicyTtl>::deserialize(deserializer)?;
    Ok(policies.into_iter().map(|(source, PolicyTtl(ttl))| (source, ttl)).collect())
}
