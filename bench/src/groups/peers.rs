//! Other caches, used as their documentation recommends.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cached::stores::ShardedLruCache;
use larder::Key;
use multi_tier_cache::{CacheManager, CacheStrategy, DashMapCache, MokaCache, MokaCacheConfig};
use tokio::runtime::Runtime;

use super::used;
use crate::{Result, allocations, data, measure::Case, report::Report};

/// moka's documentation advises a faster hasher than its default where keys are trusted; foyer is
/// given the same one.
type Hasher = foldhash::fast::RandomState;

const HOUR: Duration = Duration::from_hours(1);

pub(crate) struct HitPath {
    pub(crate) moka: moka::future::Cache<String, Bytes, Hasher>,
    foyer: foyer_memory::Cache<String, Bytes, Hasher>,
    cached: ShardedLruCache<String, Bytes>,
    multi: CacheManager,
}

impl HitPath {
    /// All with the same entries, and room for twice as many.
    pub(crate) fn new(runtime: &Runtime, keys: &[Key], value: usize) -> Result<Self> {
        let room = 2 * keys.len();
        let moka = moka::future::Cache::builder()
            .max_capacity(room as u64)
            .time_to_live(HOUR)
            .build_with_hasher(Hasher::default());
        let foyer = foyer_memory::CacheBuilder::new(room)
            .with_eviction_config(foyer_memory::LruConfig::default())
            .with_hash_builder(Hasher::default())
            .build();
        let cached = ShardedLruCache::new(room);
        let config = MokaCacheConfig { max_capacity: room as u64, ..MokaCacheConfig::default() };
        let multi = CacheManager::new_with_backends(
            Arc::new(MokaCache::new(config)?),
            Arc::new(DashMapCache::new()),
            None,
        )?;
        runtime.block_on(async {
            for (n, key) in keys.iter().enumerate() {
                let own = || data::table(value, n as u64);
                moka.insert(key.as_str().to_owned(), own()).await;
                foyer.insert(key.as_str().to_owned(), own());
                cached.set(key.as_str().to_owned(), own());
                multi.set_with_strategy(key.as_str(), own(), CacheStrategy::Custom(HOUR)).await?;
            }
            // What is inserted is in place only when its pending work is done.
            moka.run_pending_tasks().await;
            Ok::<_, multi_tier_cache::CacheError>(())
        })?;
        Ok(Self { moka, foyer, cached, multi })
    }

    pub(crate) fn cases<'a>(&'a self, runtime: &'a Runtime, asked: &'a [&'a str]) -> Vec<Case<'a>> {
        vec![
            Case::new("moka future get", move |times| {
                in_task!(runtime, times, asked, |key| {
                    used(self.moka.get(*key).await.as_ref());
                });
            }),
            Case::new("foyer get", move |times| {
                in_task!(runtime, times, asked, |key| {
                    used(self.foyer.get(*key).as_deref());
                });
            }),
            Case::new("multi-tier-cache get", move |times| {
                in_task!(runtime, times, asked, |key| {
                    if let Ok(value) = self.multi.get(key).await {
                        used(value.as_ref());
                    }
                });
            }),
            Case::new("cached get", move |times| {
                super::each(times, asked, |key| used(self.cached.get(key).as_ref()));
            }),
        ]
    }
}

impl HitPath {
    /// Allocations of a hit.
    pub(crate) fn allocations<'a>(
        &self,
        runtime: &Runtime,
        report: &mut Report,
        next: &mut impl FnMut() -> &'a str,
    ) {
        let moka = allocations::per_operation(10_000, || {
            used(runtime.block_on(self.moka.get(next())).as_ref());
        });
        let foyer = allocations::per_operation(10_000, || used(self.foyer.get(next()).as_deref()));
        let multi = allocations::per_operation(10_000, || {
            if let Ok(value) = runtime.block_on(self.multi.get(next())) {
                used(value.as_ref());
            }
        });
        for (name, count) in [("moka future", moka), ("foyer", foyer), ("multi-tier-cache", multi)]
        {
            report.figure(format!("hit-path: allocations of {name} get"), count, "");
        }
    }
}

/// moka with room for so much.
pub(crate) fn moka<K, V>(room: u64) -> moka::sync::Cache<K, V, Hasher>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    moka::sync::Cache::builder().max_capacity(room).build_with_hasher(Hasher::default())
}
