//! Warming through the public interface.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cache_warmer::{Gazetteer, TaskOutcome, Warmer, market_request};
use larder::{
    Cache, Filter, Load, Loaded, Origin, OriginError, OriginErrorKind, tiers::MemoryTier,
};
use tier_testkit::CountingOrigin;

fn sources(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

fn cache(origin: &Arc<impl Origin>, names: &[&str]) -> Cache {
    let builder = Cache::builder().tier(MemoryTier::new(16 << 20));
    let add = |builder: larder::CacheBuilder, name: &&str| {
        builder.shared_origin(*name, Arc::clone(origin) as Arc<dyn Origin>)
    };
    names.iter().fold(builder, add).build().unwrap()
}

fn warmer(cache: &Cache, names: &[&str], markets: usize) -> Warmer {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let markets = Gazetteer::us().markets().iter().take(markets).map(|market| (market, &NONE));
    Warmer::new(cache, &sources(names), markets)
}

#[tokio::test]
async fn asks_origins_once_and_finds_everything_fresh_afterwards() {
    let origin = Arc::new(CountingOrigin::default());
    let cache = cache(&origin, &["a", "b"]);
    let first = warmer(&cache, &["a", "b"], 10).run(|_| {}, std::future::pending()).await.total();
    assert_eq!((first.planned, first.fetched, first.fresh, first.left()), (20, 20, 0, 0));
    assert!(first.bytes > 0);
    assert_eq!((first.calls, first.calls_saved()), (20, 0));
    let second = warmer(&cache, &["a", "b"], 12).run(|_| {}, std::future::pending()).await;
    assert_eq!(second.sources["a"].planned, 12);
    let second = second.total();
    assert_eq!((second.planned, second.fetched, second.fresh), (24, 4, 20));
    assert_eq!((second.calls, second.calls_saved()), (4, 20));
    assert_eq!(origin.calls(), 24);
}

#[tokio::test]
async fn a_failing_source_does_not_stop_the_others() {
    let (good, bad) = (Arc::new(CountingOrigin::default()), Arc::new(CountingOrigin::default()));
    bad.set_down(true);
    let cache = Cache::builder()
        .tier(MemoryTier::new(16 << 20))
        .shared_origin("good", good)
        .shared_origin("bad", bad)
        .build()
        .unwrap();
    let mut events = Vec::new();
    let names = ["good", "bad", "unknown"];
    let warmer = warmer(&cache, &names, 5).retry_after(Duration::ZERO);
    let run = warmer.run(
        |event| {
            if !matches!(event.outcome, TaskOutcome::Retrying(_)) {
                let failed = matches!(event.outcome, TaskOutcome::Failed(_));
                events.push((event.task.source.clone(), failed));
            }
        },
        std::future::pending(),
    );
    let summary = run.await;
    assert_eq!((summary.total().fetched, summary.failed.len()), (5, 10));
    assert_eq!(events.len(), 15);
    assert!(events.iter().all(|(source, failed)| *failed == (source != "good")), "{events:?}");
    let unknown = summary.failed.iter().find(|(task, _)| task.source == "unknown").unwrap();
    assert!(unknown.1.to_string().contains("good"), "names the sources there are: {}", unknown.1);
}

/// Counts how many loads are under way, and stops the run at the third.
#[derive(Debug, Default)]
struct Crowd {
    now: AtomicUsize,
    most: AtomicUsize,
    calls: AtomicU64,
    third: tokio::sync::Notify,
}

#[async_trait::async_trait]
impl Origin for Crowd {
    async fn load(&self, load: Load) -> Result<Loaded, OriginError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        if self.calls.fetch_add(1, Ordering::SeqCst) == 2 {
            self.third.notify_one();
        }
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        if load.request.source().is_empty() {
            return Err(OriginError::new(OriginErrorKind::Other, "", "no source"));
        }
        Ok(Loaded::new("v"))
    }
}

#[tokio::test]
async fn keeps_as_many_under_way_as_it_may() {
    let origin = Arc::new(Crowd::default());
    let cache = cache(&origin, &["a"]);
    let warmer = warmer(&cache, &["a"], 40).parallel(4);
    warmer.run(|_| {}, std::future::pending()).await;
    assert_eq!(origin.most.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn stopped_it_finishes_what_is_under_way_and_tells_what_is_left() {
    let origin = Arc::new(Crowd::default());
    let cache = cache(&origin, &["a"]);
    let warmer = warmer(&cache, &["a"], 40).parallel(2);
    let summary = warmer.run(|_| {}, origin.third.notified()).await;
    let total = summary.total();
    assert!(total.fetched >= 3 && total.left() > 0, "{summary:?}");
    assert_eq!(total.fetched + total.left(), 40);
    assert_eq!(origin.calls.load(Ordering::SeqCst), total.fetched as u64, "none in vain");
}

#[tokio::test]
async fn answers_carry_the_tag_of_their_market() {
    let origin = Arc::new(CountingOrigin::default());
    let cache = cache(&origin, &["a"]);
    let boulder = Gazetteer::us().resolve("Boulder, CO").unwrap();
    let extra = BTreeMap::from([("year".to_owned(), "2022".to_owned())]);
    let request = market_request(&cache, "a", boulder, &extra).unwrap();
    assert_eq!(request.value("year"), Some("2022"));
    cache.request(&request).await.unwrap();
    let tag = larder::Tag::new("market:boulder-co").unwrap();
    let found = cache.scan(&Filter::tag(tag), None, 9).await.unwrap();
    assert_eq!(found.len(), 1);
}
