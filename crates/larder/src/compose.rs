//! From configuration to a chain.

use cache_core::Ttl;

use crate::{
    BuildError, Cache, CacheBuilder,
    config::{self, CacheConfig, TierKind},
};

#[cfg(feature = "memory")]
use crate::config::Eviction;
#[cfg(feature = "sqlite")]
use crate::config::{Algorithm, CompressionConfig};

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
        for kind in config.tiers() {
            builder = match kind {
                TierKind::Memory => memory(builder, config)?,
                TierKind::Sqlite => sqlite(builder, config)?,
                TierKind::Redis => {
                    let what = "the Redis tier is not part of this version; set \
                                `cache.redis.enable: false`";
                    return Err(BuildError::Unsupported(what.to_owned()));
                }
            };
        }
        let sources = config.sources.keys().chain(config.ttl_policies.keys());
        for source in sources {
            builder = builder.policy(source, config.policy_for(source));
        }
        http(builder, config)
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
fn memory(builder: CacheBuilder, config: &CacheConfig) -> Result<CacheBuilder, BuildError> {
    let policy = match config.memory.policy {
        Eviction::ClockPro => tier_memory::MemoryPolicy::ClockPro,
        Eviction::Lru => tier_memory::MemoryPolicy::Lru,
    };
    let capacity = config.memory.capacity_bytes();
    let clock = std::sync::Arc::new(cache_core::SystemClock::new());
    let tier = tier_memory::MemoryTier::with_policy(capacity, policy, clock);
    Ok(builder.tier_with(tier, config.tier_options(TierKind::Memory)))
}

#[cfg(not(feature = "memory"))]
fn memory(_: CacheBuilder, _: &CacheConfig) -> Result<CacheBuilder, BuildError> {
    Err(missing("the memory tier", "memory"))
}

#[cfg(feature = "sqlite")]
fn sqlite(builder: CacheBuilder, config: &CacheConfig) -> Result<CacheBuilder, BuildError> {
    let section = &config.sqlite;
    let mut options = tier_sqlite::SqliteOptions::new(&section.path)
        .busy_timeout(section.busy_timeout)
        .readers(section.readers as usize)
        .max_bytes(section.max_size)
        .poll_interval(section.poll_interval)
        .refuse_newer(!config.graceful_mode);
    if let Some(codec) = compressor(&config.compression)? {
        let threshold = usize::try_from(config.compression.threshold_bytes()).unwrap_or(usize::MAX);
        options = options.compress(codec, threshold);
    }
    for codec in decoders()? {
        options = options.decoder(codec);
    }
    let tier = tier_sqlite::SqliteTier::new(options)
        .map_err(|error| BuildError::Tier { tier: "sqlite", source: error.into() })?;
    Ok(builder.tier_with(tier, config.tier_options(TierKind::Sqlite)))
}

#[cfg(not(feature = "sqlite"))]
fn sqlite(_: CacheBuilder, _: &CacheConfig) -> Result<CacheBuilder, BuildError> {
    Err(missing("the SQLite tier", "sqlite"))
}

/// What the section means: `None` if values are stored as they are.
///
/// A `level` without an `algorithm` is on the scale of zlib, as older files have it: 0 is off, and
/// up to 6 and up to 9 mean the fast and the thorough end of what pays on JSON. Zstandard's levels
/// 1 and 3 compress such documents as far as zlib's 6 does in a tenth of the time.
#[cfg(feature = "sqlite")]
fn choice(section: &CompressionConfig) -> Option<(Algorithm, u32)> {
    let level = section.level.map(u32::from);
    match (section.enable, section.algorithm, level) {
        (false, ..)
        | (_, Some(Algorithm::None), _)
        | (_, None | Some(Algorithm::Zlib), Some(0)) => None,
        (_, Some(Algorithm::Zlib), level) => Some((Algorithm::Zlib, level.unwrap_or(6))),
        (_, Some(Algorithm::Zstd), level) => Some((Algorithm::Zstd, level.unwrap_or(1))),
        (_, None, Some(7..)) => Some((Algorithm::Zstd, 3)),
        (_, None, _) => Some((Algorithm::Zstd, 1)),
    }
}

#[cfg(feature = "sqlite")]
fn compressor(
    section: &CompressionConfig,
) -> Result<Option<std::sync::Arc<dyn cache_core::Codec>>, BuildError> {
    let Some((algorithm, level)) = choice(section) else { return Ok(None) };
    let zstd_compiled = cfg!(feature = "zstd");
    let named = section.algorithm.is_some();
    if algorithm == Algorithm::Zlib {
        zlib(level).map(Some)
    } else if zstd_compiled || named {
        zstd(level).map(Some)
    } else if cfg!(feature = "zlib") {
        // zlib stands in where Zstandard was not compiled in and was not asked for by name.
        zlib(section.level.map_or(6, u32::from)).map(Some)
    } else {
        Ok(None)
    }
}

/// Every codec that was compiled in: values stored under another setting stay readable.
#[cfg(feature = "sqlite")]
fn decoders() -> Result<Vec<std::sync::Arc<dyn cache_core::Codec>>, BuildError> {
    let mut all = Vec::new();
    if cfg!(feature = "zlib") {
        all.push(zlib(6)?);
    }
    if cfg!(feature = "zstd") {
        all.push(zstd(1)?);
    }
    Ok(all)
}

#[cfg(all(feature = "sqlite", feature = "zlib"))]
fn zlib(level: u32) -> Result<std::sync::Arc<dyn cache_core::Codec>, BuildError> {
    let codec = codec_compress::Zlib::new(level)
        .map_err(|error| BuildError::Unsupported(format!("`cache.compression`: {error}")))?;
    Ok(std::sync::Arc::new(codec))
}

#[cfg(all(feature = "sqlite", not(feature = "zlib")))]
fn zlib(_: u32) -> Result<std::sync::Arc<dyn cache_core::Codec>, BuildError> {
    Err(missing("`cache.compression.algorithm: zlib`", "zlib"))
}

#[cfg(all(feature = "sqlite", feature = "zstd"))]
fn zstd(level: u32) -> Result<std::sync::Arc<dyn cache_core::Codec>, BuildError> {
    let codec = codec_compress::Zstd::new(level)
        .map_err(|error| BuildError::Unsupported(format!("`cache.compression`: {error}")))?;
    Ok(std::sync::Arc::new(codec))
}

#[cfg(all(feature = "sqlite", not(feature = "zstd")))]
fn zstd(_: u32) -> Result<std::sync::Arc<dyn cache_core::Codec>, BuildError> {
    Err(missing("`cache.compression.algorithm: zstd`", "zstd"))
}

#[cfg(feature = "http")]
fn http(mut builder: CacheBuilder, config: &CacheConfig) -> Result<CacheBuilder, BuildError> {
    let client = origin_http::HttpClient::default();
    let exposed = |secrets: &std::collections::BTreeMap<String, config::Secret>| {
        secrets.iter().map(|(name, secret)| (name.clone(), secret.expose().to_owned())).collect()
    };
    for (name, source) in &config.sources {
        let Some(url) = &source.url else { continue };
        let mut http = origin_http::HttpSource::new(name, url);
        http.params.clone_from(&source.params);
        http.query = exposed(&source.query);
        http.headers = exposed(&source.headers);
        http.timeout = source.timeout;
        http.max_body_bytes = source.max_body;
        http.rate =
            source.rate_limit.map(|rate| origin_http::Rate { count: rate.count, per: rate.per });
        let origin = origin_http::HttpOrigin::with_client(http, &client)
            .map_err(|error| BuildError::Source { name: name.clone(), source: error.into() })?;
        builder = builder.origin(name, origin);
    }
    Ok(builder)
}

#[cfg(not(feature = "http"))]
fn http(builder: CacheBuilder, config: &CacheConfig) -> Result<CacheBuilder, BuildError> {
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
