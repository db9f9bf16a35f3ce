//! The configuration: one YAML file, `LARDER_...` variables and code, merged and checked.
//!
//! Layers, the weakest first: the defaults, the file, the environment, code.
//! Every error says where its setting was written and what to write instead; none shows a secret.
//!
//! ```
//! use larder::config::{CacheConfig, Ttl};
//!
//! let yaml = "cache: {memory: {size_mb: 64}, ttl_policies: {census: 365d}}";
//! let loaded = CacheConfig::loader()
//!     .yaml(yaml, "larder.yaml")
//!     .env([("LARDER_CACHE__REDIS__HOST", "cache.local")])
//!     .set("cache.graceful_mode", "false")
//!     .load()?;
//! assert_eq!(loaded.config.memory.capacity_bytes(), 64 << 20);
//! assert_eq!(loaded.config.ttl_for("census"), Ttl::days(365));
//! assert_eq!(loaded.config.ttl_for("other"), Ttl::days(30));
//! # Ok::<(), larder::config::ConfigError>(())
//! ```

mod admit;
mod advice;
mod compression;
mod duration;
mod error;
mod forms;
mod http;
mod interpolate;
mod jobs;
mod layer;
mod loader;
mod model;
mod origin;
mod place;
mod policies;
mod range;
mod redact;
mod schema;
mod settings;
mod size;
mod text;
mod tiers;
mod validate;
mod values;
mod yaml;

pub use self::{
    compression::{CompressionConfig, SourceCompressionConfig},
    duration::{format_duration, parse_duration},
    error::{ConfigError, ValueError},
    http::{AuthConfig, BatchConfig, ProbeConfig, ResponseConfig, Status, VersionFromConfig},
    jobs::{ChangesConfig, JobConfig, NotifyConfig},
    loader::{Loaded, Loader},
    model::{CacheConfig, MonitoringConfig, PrefetchConfig},
    origin::RetryConfig,
    place::Provenance,
    policies::{DefaultsConfig, SourceConfig},
    range::{RangeConfig, RangeStep},
    settings::{Setting, Warning},
    size::{format_size, parse_size},
    tiers::{BreakerConfig, MemoryConfig, RedisConfig, SqliteConfig},
    values::{Algorithm, DictionaryUse, Eviction, RateLimit, Secret, TierKind, Ttl},
};
