//! Sources whose data change.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use larder::{
    Cache, Hit, Load, Loaded, Origin, OriginError, OriginErrorKind, OriginOptions, Policy, Request,
    ServedBy,
    tiers::{MemoryTier, SqliteOptions, SqliteTier},
};
use tempfile::TempDir;

use crate::server::{close, within};

/// An origin that tells its version by a probe.
#[derive(Clone, Debug, Default)]
struct Editions(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    edition: u32,
    loads: u32,
    probes: u32,
    is_down: bool,
}

#[async_trait]
impl Origin for Editions {
    async fn load(&self, _: Load) -> Result<Loaded, OriginError> {
        let mut state = self.0.lock().unwrap();
        state.loads += 1;
        Ok(Loaded::new(format!("edition {}", state.edition)))
    }

    async fn probe(&self) -> Result<Option<String>, OriginError> {
        let mut state = self.0.lock().unwrap();
        state.probes += 1;
        if state.is_down {
            return Err(OriginError::new(OriginErrorKind::Network, "atlas", "gone"));
        }
        Ok(Some(state.edition.to_string()))
    }
}

impl Editions {
    fn publish(&self) {
        self.0.lock().unwrap().edition += 1;
    }

    fn probes(&self) -> u32 {
        self.0.lock().unwrap().probes
    }
}

fn cache(dir: &TempDir, origin: &Editions, every: Duration) -> Cache {
    let options = SqliteOptions::new(dir.path().join("cache.db"));
    let policy = Policy::default().stale_if_error(Duration::from_hours(1));
    Cache::builder()
        .tier(MemoryTier::new(1 << 20))
        .tier(SqliteTier::new(options).unwrap())
        .origin("atlas", origin.clone())
        .policy("atlas", policy)
        .origin_options("atlas", OriginOptions::default().probe_every(every))
        .build()
        .unwrap()
}

async fn ask(cache: &Cache) -> Hit {
    within(cache.request(&Request::new("atlas").param("page", 1))).await.unwrap()
}

async fn version(cache: &Cache, wanted: &str) {
    within(async {
        while cache.source_version("atlas").as_deref() != Some(wanted) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_new_version_that_a_probe_finds_makes_what_is_stored_stale_at_once() {
    let (dir, origin) = (TempDir::new().unwrap(), Editions::default());
    origin.publish();
    let cache = cache(&dir, &origin, Duration::from_millis(50));
    ask(&cache).await;
    version(&cache, "1").await;
    let first = ask(&cache).await;
    assert_eq!((first.value().as_ref(), first.entry().version()), (&b"edition 1"[..], Some("1")));
    origin.publish();
    version(&cache, "2").await;
    let second = ask(&cache).await;
    assert_eq!((second.value().as_ref(), second.entry().version()), (&b"edition 2"[..], Some("2")));
    assert_eq!(second.served_by(), ServedBy::Origin);
    assert_eq!(ask(&cache).await.served_by(), ServedBy::Tier("memory"));
}

#[tokio::test]
async fn processes_that_share_a_tier_and_those_that_follow_probe_once() {
    let (dir, origin) = (TempDir::new().unwrap(), Editions::default());
    origin.publish();
    for _ in 0..3 {
        let cache = cache(&dir, &origin, Duration::from_hours(6));
        ask(&cache).await;
        version(&cache, "1").await;
        close(cache).await;
    }
    assert_eq!(origin.probes(), 1);
}

#[tokio::test]
async fn a_probe_that_fails_harms_nobody() {
    let (dir, origin) = (TempDir::new().unwrap(), Editions::default());
    origin.0.lock().unwrap().is_down = true;
    let cache = cache(&dir, &origin, Duration::from_millis(20));
    assert_eq!(ask(&cache).await.value(), "edition 0");
    within(async {
        while origin.probes() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(ask(&cache).await.served_by(), ServedBy::Tier("memory"));
    origin.0.lock().unwrap().is_down = false;
    version(&cache, "0").await;
}
