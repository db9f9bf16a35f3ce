//! From configuration to a chain.

mod compression;
#[cfg(feature = "http")]
mod http;

use std::sync::Arc;

use cache_core::Ttl;
use codec_compress::Compressor;

use crate::{
    BuildError, Cache, CacheBuilder,
    config::{self, CacheConfig, TierKind},
};

#[cfg(feature = "memory")]
use crate::config::Eviction;

impl Cache {
    /// The chain that `config` describes; [`CacheBuilder::from_config`] if more is to be added.
    ///
    /// # Errors
    /// As [`CacheBuilder::from_config`].
    pub fn from_config(config: &CacheConfig) -> Result<Self, BuildError> {
        CacheBuilder::from_config(config)?.build()
    }
}

impl CacheBuilder {
    /// A builder with the tiers, policies and sources that `config` describes.
    ///
    /// # Errors
    /// When it asks for something that was not compiled in, or a source makes no sense.
    pub fn from_config(config: &CacheConfig) -> Result<Self, BuildError> {
        let mut builder = Self::default()
            .default_policy(config.defaults.policy())
            .strict(!config.graceful_mode)
            .offline(config.offline)
            .lease(config.lease)
            .log_hits(config.monitoring.log_cache_hits);
        let compressor = Arc::new(compression::compressor(config)?);
        for kind in config.tiers() {
            builder = match kind {
                TierKind::Memory => memory(builder, config, &compressor)?,
                TierKind::Sqlite => sqlite(builder, config, &compressor)?,
                TierKind::Redis => {
                    let what = "the Redis tier is not part of this version; set \
                                `cache.redis.enable: false`";
                    return Err(BuildError::Unsupported(what.to_owned()));
                }
            };
        }
        let named = config.sources.keys().chain(config.ttl_policies.keys());
        for source in named {
            builder = builder.policy(source, config.policy_for(source));
        }
        for (name, source) in &config.sources {
            builder = builder.origin_options(name, config.origin_options(source));
            if let Some(series) = source.range.series() {
                builder = builder.series(name, series);
            }
        }
        let builder = ledger(builder, config);
        sources(compression::training(builder, config, compressor), config)
    }
}

impl From<config::Ttl> for Ttl {
    fn from(ttl: config::Ttl) -> Self {
        ttl.duration().map_or(Self::Never, Self::For)
    }
}

impl From<Ttl> for config::Ttl {
    fn from(ttl: Ttl) -> Self {
        match ttl {
            Ttl::Never => Self::Never,
            Ttl::For(duration) => Self::After(duration),
        }
    }
}

#[cfg(feature = "memory")]
#[expect(clippy::unnecessary_wraps, reason = "its counterpart without the feature fails")]
fn memory(
    builder: CacheBuilder,
    config: &CacheConfig,
    compressor: &Arc<Compressor>,
) -> Result<CacheBuilder, BuildError> {
    let policy = match config.memory.policy {
        Eviction::ClockPro => tier_memory::MemoryPolicy::ClockPro,
        Eviction::Lru => tier_memory::MemoryPolicy::Lru,
    };
    let capacity = config.memory.capacity_bytes();
    let clock = Arc::new(cache_core::SystemClock::new());
    let mut tier = tier_memory::MemoryTier::with_policy(capacity, policy, clock);
    if config.memory.compress {
        tier = tier.compressing(Arc::<Compressor>::clone(compressor));
    }
    Ok(builder.tier_with(tier, config.tier_options(TierKind::Memory)))
}

#[cfg(not(feature = "memory"))]
fn memory(
    _: CacheBuilder,
    _: &CacheConfig,
    _: &Arc<Compressor>,
) -> Result<CacheBuilder, BuildError> {
    Err(missing("the memory tier", "memory"))
}

#[cfg(feature = "sqlite")]
fn sqlite(
    builder: CacheBuilder,
    config: &CacheConfig,
    compressor: &Arc<Compressor>,
) -> Result<CacheBuilder, BuildError> {
    let section = &config.sqlite;
    let options = tier_sqlite::SqliteOptions::new(&section.path)
        .busy_timeout(section.busy_timeout)
        .readers(section.readers as usize)
        .max_bytes(section.max_size)
        .max_value_bytes(config.max_value_size)
        .poll_interval(section.poll_interval)
        .refuse_newer(!config.graceful_mode)
        .compression(Arc::<Compressor>::clone(compressor));
    let tier = tier_sqlite::SqliteTier::new(options)
        .map_err(|error| BuildError::Tier { tier: "sqlite", source: error.into() })?;
    Ok(builder.tier_with(tier, config.tier_options(TierKind::Sqlite)))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(
    _: CacheBuilder,
    _: &CacheConfig,
    _: &Arc<Compressor>,
) -> Result<CacheBuilder, BuildError> {
    Err(missing("the SQLite tier", "sqlite"))
}

#[cfg(feature = "sqlite")]
fn ledger(builder: CacheBuilder, config: &CacheConfig) -> CacheBuilder {
    match config.ledger_path() {
        Some(path) => builder.ledger(crate::Ledger::at(path)),
        None => builder,
    }
}

/// Without SQLite, calls are remembered in memory.
#[cfg(not(feature = "sqlite"))]
fn ledger(builder: CacheBuilder, _: &CacheConfig) -> CacheBuilder {
    builder
}

#[cfg(feature = "http")]
use http::sources;

#[cfg(not(feature = "http"))]
fn sources(builder: CacheBuilder, config: &CacheConfig) -> Result<CacheBuilder, BuildError> {
    match config.sources.iter().find(|(_, source)| source.url.is_some()) {
        None => Ok(builder),
        Some((name, _)) => Err(missing(&format!("`url` of source `{name}`"), "http")),
    }
}

#[cfg(not(all(
    feature = "memory",
    feature = "sqlite",
    feature = "zlib",
    feature = "zstd",
    feature = "http"
)))]
fn missing(what: &str, feature: &'static str) -> BuildError {
    BuildError::FeatureDisabled { what: what.to_owned(), feature }
}
