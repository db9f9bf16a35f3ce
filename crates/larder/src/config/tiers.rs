//! `cache.memory`, `cache.sqlite`, `cache.redis` and `cache.breaker`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::BreakerOptions;

use super::{
    forms, text,
    values::{Eviction, Secret, Ttl},
};

const MIB: u64 = 1 << 20;

/// `cache.memory`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct MemoryConfig {
    /// Default: true.
    #[serde(deserialize_with = "text::text")]
    pub enable: bool,
    /// Capacity in MiB. Default: 256.
    #[serde(deserialize_with = "text::text")]
    pub size_mb: u64,
    /// What is given up when it is full. Default: `clock_pro`.
    pub policy: Eviction,
    /// Whether values are held in their compressed form: more of them fit, and each hit decompresses
    /// its value. Default: false.
    #[serde(deserialize_with = "text::text")]
    pub compress: bool,
    /// Whether a `set` fails when this tier did not take the value. Default: false.
    #[serde(deserialize_with = "text::text")]
    pub required: bool,
    /// Refused: memory that is only read stays empty. Default: false.
    #[serde(deserialize_with = "text::text")]
    pub read_only: bool,
    /// Longest time that this tier keeps its copy of an entry. Default: as long as the entry lives.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub max_ttl: Option<Duration>,
}

impl MemoryConfig {
    /// Capacity in bytes.
    pub const fn capacity_bytes(&self) -> u64 {
        self.size_mb.saturating_mul(MIB)
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            enable: true,
            size_mb: 256,
            policy: Eviction::ClockPro,
            compress: false,
            required: false,
            read_only: false,
            max_ttl: None,
        }
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
    /// Largest size of the file, beside its log; what was used least recently makes room. Default:
    /// 1 GiB.
    #[serde(deserialize_with = "text::size", serialize_with = "text::write_size")]
    pub max_size: u64,
    /// How often to look for what other processes have changed in the file. Default: 200 ms.
    #[serde(deserialize_with = "text::text", serialize_with = "text::write_duration")]
    pub poll_interval: Duration,
    /// Whether a `set` fails when this tier did not take the value. Default: false.
    #[serde(deserialize_with = "text::text")]
    pub required: bool,
    /// Whether the tier is asked only, never written to. Default: false.
    #[serde(deserialize_with = "text::text")]
    pub read_only: bool,
    /// Longest time that this tier keeps its copy of an entry. Default: as long as the entry lives.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub max_ttl: Option<Duration>,
}

impl Default for SqliteConfig {
    fn default() -> Self {
        Self {
            enable: true,
            path: ".cache/larder.db".into(),
            busy_timeout: Duration::from_secs(5),
            readers: 2,
            max_size: 1024 * MIB,
            poll_interval: Duration::from_millis(200),
            required: false,
            read_only: false,
            max_ttl: None,
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
    /// Whether a `set` fails when this tier did not take the value. Default: false.
    #[serde(deserialize_with = "text::text")]
    pub required: bool,
    /// Whether the tier is asked only, never written to. Default: false.
    #[serde(deserialize_with = "text::text")]
    pub read_only: bool,
    /// Longest time that this tier keeps its copy of an entry. Default: as long as the entry lives.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub max_ttl: Option<Duration>,
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
            required: false,
            read_only: false,
            max_ttl: None,
        }
    }
}

/// `cache.breaker`: when a failing tier is skipped, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BreakerConfig {
    /// Failures in a row after which a tier is skipped, at least 1. Default: 5.
    #[serde(deserialize_with = "text::text")]
    pub failures: u32,
    /// Share of failures, above 0 and up to 1, among the operations within `window` after which a
    /// tier is skipped. Default: 0.5.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub error_share: f64,
    /// The time that `error_share` is about. Default: 10 s.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub window: Duration,
    /// For how long a tier is skipped at first; doubled after each failed probe. Default: 5 s.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub cooldown: Duration,
    /// Longest time a tier is skipped between probes. Default: 60 s.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub max_cooldown: Duration,
}

impl BreakerConfig {
    /// The options it describes.
    pub fn options(&self) -> BreakerOptions {
        let Self { failures, error_share, window, cooldown, max_cooldown } = *self;
        BreakerOptions { failures, error_share, window, cooldown, max_cooldown }
    }
}

impl Default for BreakerConfig {
    fn default() -> Self {
        let options = BreakerOptions::default();
        let BreakerOptions { failures, error_share, window, cooldown, max_cooldown } = options;
        Self { failures, error_share, window, cooldown, max_cooldown }
    }
}
