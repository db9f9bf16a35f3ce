//! Fetching ahead what may be asked for next: the neighbours of a market that somebody asks about.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use larder::{Cache, Error, Hit, ReadOptions, Slots, config::PrefetchConfig};
use tokio::sync::mpsc;

use crate::{Gazetteer, Market, market_request};

/// Most markets and sources that wait to be fetched; further ones are dropped.
const MOST_WAITING: usize = 256;
/// What was looked at within this time is not looked at again.
const AGAIN_AFTER: Duration = Duration::from_hours(1);
/// Of how many markets and sources it is remembered when they were looked at.
const REMEMBERED: usize = 10_000;

/// Answers questions about markets, and fetches the answers about markets near them behind that.
///
/// What it fetches ahead gives way to all calls that somebody waits for, leaves alone the share of a quota
/// that is reserved for them, and is never more than a few calls at a time. It is stored below memory where
/// there is another tier, so that nothing makes room for it that is in use. Clones are the same.
#[derive(Clone)]
pub struct Prefetch(Arc<Inner>);

struct Inner {
    cache: Cache,
    gazetteer: &'static Gazetteer,
    radius_miles: f64,
    slots: Slots,
    waiting: mpsc::Sender<Ahead>,
    looked: Mutex<HashMap<(String, u32), Instant>>,
    dropped: AtomicU64,
}

/// What is to be fetched ahead.
struct Ahead {
    source: String,
    market: &'static Market,
}

impl Prefetch {
    /// Fetches ahead markets within `radius_miles`, `parallel` at a time, until the last clone is dropped.
    /// Zero miles: nothing.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(cache: &Cache, radius_miles: f64, parallel: usize) -> Self {
        let (waiting, mut queue) = mpsc::channel::<Ahead>(MOST_WAITING);
        let slots = Slots::new(parallel);
        let inner = Arc::new(Inner {
            cache: cache.clone(),
            gazetteer: Gazetteer::us(),
            radius_miles,
            slots: slots.clone(),
            waiting,
            looked: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        let cache = cache.clone();
        tokio::spawn(async move {
            // The queue is bounded, and so is what is taken from it.
            let places = Arc::new(tokio::sync::Semaphore::new(parallel.max(1)));
            while let Some(ahead) = queue.recv().await {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                let (cache, slots) = (cache.clone(), slots.clone());
                tokio::spawn(async move {
                    fetch(&cache, &slots, &ahead).await;
                    drop(place);
                });
            }
        });
        Self(inner)
    }

    /// The same as a configuration says.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn from_config(cache: &Cache, config: &PrefetchConfig) -> Self {
        let radius = if config.enabled { config.nearby_radius_miles } else { 0.0 };
        Self::new(cache, radius, config.max_parallel_requests as usize)
    }

    /// The answer of `source` about a market; see [`market_request`]. Its neighbours are fetched ahead.
    ///
    /// # Errors
    /// Those of [`market_request`] and of [`Cache::request`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn get(
        &self,
        source: &str,
        market: &Market,
        extra: &BTreeMap<String, String>,
    ) -> Result<Hit, Error> {
        let request = market_request(&self.0.cache, source, market, extra)?;
        let hit = self.0.cache.request(&request).await?;
        self.around(source, market);
        Ok(hit)
    }

    /// Has the answers of `source` about the neighbours of a market fetched ahead, those that are near
    /// first. Returns at once.
    pub fn around(&self, source: &str, market: &Market) {
        let inner = &*self.0;
        if inner.radius_miles <= 0.0 || !inner.looks(source, market) {
            return;
        }
        for (near, _) in inner.gazetteer.near(market, inner.radius_miles) {
            let ahead = Ahead { source: source.to_owned(), market: near };
            if inner.waiting.try_send(ahead).is_err() {
                inner.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Calls that are under way.
    pub fn under_way(&self) -> usize {
        self.0.slots.under_way()
    }

    /// What was not fetched ahead because too much was waiting.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// Whether the neighbours of a market have not been looked at lately; notes that they are now.
    fn looks(&self, source: &str, market: &Market) -> bool {
        let now = Instant::now();
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (source.to_owned(), market.cbsa());
        if looked.get(&key).is_some_and(|at| now.duration_since(*at) < AGAIN_AFTER) {
            return false;
        }
        if looked.len() >= REMEMBERED {
            looked.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
            // All of them lately: it forgets rather than grows.
            if looked.len() >= REMEMBERED {
                looked.clear();
            }
        }
        looked.insert(key, now);
        true
    }
}

async fn fetch(cache: &Cache, slots: &Slots, ahead: &Ahead) {
    let Ahead { source, market } = ahead;
    let options = ReadOptions::default().in_background().within(slots).sparing_memory();
    let fetched = match market_request(cache, source, market, &BTreeMap::new()) {
        Ok(request) => cache.request_with(&request, options).await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = fetched {
        let market = market.slug();
        tracing::debug!(source, market, %error, "it is not fetched ahead");
    }
}

impl fmt::Debug for Prefetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefetch")
            .field("radius_miles", &self.0.radius_miles)
            .field("slots", &self.0.slots)
            .finish_non_exhaustive()
    }
}
