//! The settings themselves, with their defaults.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    error::ConfigError,
    loader::Loader,
    redact::{self, Params, redact_url},
    text, validate,
    values::{Algorithm, PolicyTtl, RateLimit, Secret, TierKind, Ttl},
};

const MIB: u64 = 1 << 20;

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
    /// Sources fetched over HTTP, by name.
    pub sources: BTreeMap<String, SourceConfig>,
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

    /// The TTL of a source: its own, else its policy, else the default.
    pub fn ttl_for(&self, source: &str) -> Ttl {
        let own = self.sources.get(source).and_then(|config| config.ttl);
        own.or_else(|| self.ttl_policies.get(source).copied()).unwrap_or(self.defaults.ttl)
    }

    /// Checks what a loaded configuration has already passed; for one that was changed in code.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate::check(self).map_err(validate::Problem::without_place)
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            chain: None,
            memory: MemoryConfig::default(),
            sqlite: SqliteConfig::default(),
            redis: RedisConfig::default(),
            compression: CompressionConfig::default(),
            prefetch: PrefetchConfig::default(),
            monitoring: MonitoringConfig::default(),
            defaults: DefaultsConfig::default(),
            ttl_policies: BTreeMap::new(),
            graceful_mode: true,
            sources: BTreeMap::new(),
        }
    }
}

/// `cache.memory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct MemoryConfig {
    /// Default: true.
    #[serde(deserialize_with = "text::text")]
    pub enable: bool,
    /// Capacity in MiB. Default: 256.
    #[serde(deserialize_with = "text::text")]
    pub size_mb: u64,
}

impl MemoryConfig {
    /// Capacity in bytes.
    pub const fn capacity_bytes(&self) -> u64 {
        self.size_mb.saturating_mul(MIB)
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self { enable: true, size_mb: 256 }
    }
}

/// `cache.sqlite`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SqliteConfig {
    /// Default: true.
    #[serde(deserialize_with = "text::text")]
    pub enable: bool,
    /// The database file, relative to the working directory. Default: `.cache/larder.db`.
    #[serde(deserialize_with = "text::text")]
    pub path: PathBuf,
    /// How long to wait for another process's lock. Default: 5 s.
    #[serde(deserialize_with = "text::text", serialize_with = "text::write_duration")]
    pub busy_timeout: Duration,
    /// Reading connections, 1 to 16. Default: 2.
    #[serde(deserialize_with = "text::text")]
    pub readers: u32,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            enable: true,
            path: ".cache/larder.db".into(),
            busy_timeout: Duration::from_secs(5),
            readers: 2,
        }
    }
}

/// `cache.redis`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Default: false.
    #[serde(deserialize_with = "text::text")]
    pub enable: bool,
    /// Name or address, without scheme and port. Default: `localhost`.
    #[serde(deserialize_with = "text::text")]
    pub host: String,
    /// Default: 6379.
    #[serde(deserialize_with = "text::text")]
    pub port: u16,
    /// Number of the database. Default: 0.
    #[serde(deserialize_with = "text::text")]
    pub db: u32,
    /// Default: none.
    #[serde(deserialize_with = "text::text")]
    pub password: Option<Secret>,
    /// How long Redis keeps an entry whose own TTL does not say. Default: 7 days.
    pub ttl_default: Ttl,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            enable: false,
            host: "localhost".to_owned(),
            port: 6379,
            db: 0,
            password: None,
            ttl_default: Ttl::days(7),
        }
    }
}

/// `cache.compression`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct CompressionConfig {
    /// Default: true.
    #[serde(deserialize_with = "text::text")]
    pub enable: bool,
    /// `None`: the build's best.
    #[serde(deserialize_with = "text::text")]
    pub algorithm: Option<Algorithm>,
    /// Smaller values, in KiB, stay as they are. Default: 10.
    #[serde(deserialize_with = "text::text")]
    pub threshold_kb: u64,
    /// Of the algorithm: zstd 1 to 19, else 0 to 9, zlib's scale. Default: the algorithm's own.
    #[serde(deserialize_with = "text::text")]
    pub level: Option<u8>,
}

impl CompressionConfig {
    /// The threshold in bytes.
    pub const fn threshold_bytes(&self) -> u64 {
        self.threshold_kb.saturating_mul(1024)
    }
}

impl Default for CompressionConfig {
    fn default() -> Self {
        Self { enable: true, algorithm: None, threshold_kb: 10, level: None }
    }
}

/// `cache.prefetch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct PrefetchConfig {
    /// Has no effect yet. Default: true.
    #[serde(deserialize_with = "text::text")]
    pub enabled: bool,
    /// Has no effect yet. Default: 50.
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

/// `cache.defaults`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct DefaultsConfig {
    /// Default: 30 days.
    pub ttl: Ttl,
}

impl Default for DefaultsConfig {
    fn default() -> Self {
        Self { ttl: Ttl::days(30) }
    }
}

/// One source under `cache.sources`. Printing it hides secrets, so what is printed does not load.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SourceConfig {
    /// Template with placeholders such as `{cbsa}`.
    #[serde(deserialize_with = "text::text", serialize_with = "redact::write_url")]
    pub url: Option<String>,
    /// Defaults for placeholders, and further query parameters.
    #[serde(serialize_with = "redact::write_params")]
    pub params: BTreeMap<String, String>,
    /// Appended to the URL; the place for API keys.
    pub query: BTreeMap<String, Secret>,
    /// Sent with each request.
    pub headers: BTreeMap<String, Secret>,
    /// For one request, above zero. Default: 30 s.
    #[serde(deserialize_with = "text::text", serialize_with = "text::write_duration")]
    pub timeout: Duration,
    /// Largest answer taken, in bytes. Default: 64 MiB.
    #[serde(deserialize_with = "text::size", serialize_with = "text::write_size")]
    pub max_body: u64,
    /// Default: none.
    #[serde(deserialize_with = "text::text")]
    pub rate_limit: Option<RateLimit>,
    /// Default: the source's policy, else `defaults.ttl`.
    #[serde(deserialize_with = "text::text")]
    pub ttl: Option<Ttl>,
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            url: None,
            params: BTreeMap::new(),
            query: BTreeMap::new(),
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(30),
            max_body: 64 * MIB,
            rate_limit: None,
            ttl: None,
        }
    }
}

impl fmt::Debug for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, params, query, headers, timeout, max_body, rate_limit, ttl } = self;
        f.debug_struct("SourceConfig")
            .field("url", &url.as_deref().map(redact_url))
            .field("params", &Params(params))
            .field("query", query)
            .field("headers", headers)
            .field("timeout", timeout)
            .field("max_body", max_body)
            .field("rate_limit", rate_limit)
            .field("ttl", ttl)
            .finish()
    }
}

fn policies<'de, D>(deserializer: D) -> Result<BTreeMap<String, Ttl>, D::Error>
where
    D: Deserializer<'de>,
{
    let policies = BTreeMap::<String, PolicyTtl>::deserialize(deserializer)?;
    Ok(policies.into_iter().map(|(source, PolicyTtl(ttl))| (source, ttl)).collect())
}
