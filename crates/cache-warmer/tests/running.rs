//! Runs: what is asked for, in which calls, again or not at all.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cache_warmer::{Gazetteer, Summary, TaskOutcome, Warmer};
use larder::{
    Cache, CacheBuilder, Clock, Limits, Load, Loaded, Origin, OriginError, OriginErrorKind,
    OriginOptions, Policy, Request, origin_fn,
    series::{Series, Step},
    tiers::MemoryTier,
};
use tier_testkit::ManualClock;

/// The CBSA codes that an origin was asked about, call by call.
type Asked = Arc<Mutex<Vec<Vec<String>>>>;

fn market(request: &Request) -> String {
    request.value("cbsa").unwrap().to_owned()
}

fn builder() -> CacheBuilder {
    Cache::builder().tier(MemoryTier::new(64 << 20))
}

/// An origin that fails the calls that `fails` says, by their number from 0 on.
fn flaky(
    asked: &Asked,
    fails: impl Fn(usize) -> Option<OriginErrorKind> + Send + Sync + 'static,
) -> impl Origin {
    let asked = Arc::clone(asked);
    origin_fn(move |load: Load| {
        let number = {
            let mut asked = asked.lock().unwrap();
            asked.push(vec![market(&load.request)]);
            asked.len() - 1
        };
        let answer = match fails(number) {
            Some(kind) => Err(OriginError::new(kind, load.request.source(), "as it was told")),
            None => Ok(Loaded::new("v")),
        };
        async move { answer }
    })
}

fn warmer(cache: &Cache, sources: &[&str], markets: usize) -> Warmer {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let sources: Vec<String> = sources.iter().map(ToString::to_string).collect();
    let markets = Gazetteer::us().markets().iter().take(markets).map(|market| (market, &NONE));
    Warmer::new(cache, &sources, markets).retry_after(Duration::from_millis(1))
}

async fn run(warmer: Warmer) -> Summary {
    let run = warmer.run(|_event| {}, std::future::pending());
    tokio::time::timeout(Duration::from_mins(1), run).await.unwrap()
}

fn calls(asked: &Asked) -> usize {
    asked.lock().unwrap().len()
}

#[tokio::test]
async fn an_origin_that_fails_now_and_then_ends_with_all_stored() {
    let asked = Asked::default();
    let fails = |number: usize| (number % 10 == 3).then_some(OriginErrorKind::Status(503));
    let cache = builder().origin("a", flaky(&asked, fails)).build().unwrap();
    let mut again = 0;
    let summary = warmer(&cache, &["a"], 200)
        .run(
            |event| again += usize::from(matches!(event.outcome, TaskOutcome::Retrying(_))),
            std::future::pending(),
        )
        .await;
    let total = summary.total();
    assert_eq!((total.fetched, total.failed, total.left()), (200, 0, 0));
    assert!(again >= 20, "{again} were tried again");
    assert_eq!(total.calls, calls(&asked));
}

#[tokio::test]
async fn what_cannot_pass_is_not_tried_again() {
    let asked = Asked::default();
    let cache = builder()
        .origin("a", flaky(&asked, |_| Some(OriginErrorKind::Status(400))))
        .build()
        .unwrap();
    let summary = run(warmer(&cache, &["a"], 20)).await;
    assert_eq!((summary.failed.len(), calls(&asked)), (20, 20));
}

#[tokio::test]
async fn the_first_failure_ends_a_run_that_is_to_fail_fast() {
    let asked = Asked::default();
    let fails = |number: usize| (number == 10).then_some(OriginErrorKind::Network);
    let cache = builder().origin("a", flaky(&asked, fails)).build().unwrap();
    let total = run(warmer(&cache, &["a"], 100).parallel(1).fail_fast(true)).await.total();
    assert_eq!((total.fetched, total.failed, total.left()), (10, 1, 89));
    assert_eq!(calls(&asked), 11);
}

#[tokio::test]
async fn what_is_fresh_is_asked_for_only_if_it_is_to_be_refreshed_or_too_old() {
    let (asked, clock) = (Asked::default(), Arc::new(ManualClock::default()));
    let origin = flaky(&asked, |_| None);
    let tier = MemoryTier::with_clock(64 << 20, Arc::clone(&clock) as Arc<dyn Clock>);
    let cache =
        Cache::builder().tier(tier).clock(Arc::clone(&clock) as _).origin("a", origin).build();
    let cache = cache.unwrap();
    run(warmer(&cache, &["a"], 10)).await;
    clock.advance(Duration::from_secs(100));
    run(warmer(&cache, &["a"], 15)).await;
    assert_eq!(calls(&asked), 15);
    let total = run(warmer(&cache, &["a"], 15).max_age(Duration::from_mins(1))).await.total();
    assert_eq!((total.fetched, total.fresh), (10, 5), "those of the first run");
    let total = run(warmer(&cache, &["a"], 15).refresh(true)).await.total();
    assert_eq!((total.fetched, calls(&asked)), (15, 40));
    let total = run(warmer(&cache, &["a"], 15)).await.total();
    assert_eq!((total.fresh, total.calls_saved()), (15, 15));
}

/// Answers up to ten markets by one call, and says so.
#[derive(Debug)]
struct Lists(Asked);

#[async_trait::async_trait]
impl Origin for Lists {
    async fn load(&self, load: Load) -> Result<Loaded, OriginError> {
        self.0.lock().unwrap().push(vec![market(&load.request)]);
        Ok(Loaded::new("v"))
    }

    fn groups(&self, requests: &[Request]) -> Vec<Vec<usize>> {
        let places: Vec<usize> = (0..requests.len()).collect();
        places.chunks(10).map(<[usize]>::to_vec).collect()
    }

    async fn load_many(
        &self,
        loads: Vec<Load>,
    ) -> Result<Vec<Result<Loaded, OriginError>>, OriginError> {
        self.0.lock().unwrap().push(loads.iter().map(|load| market(&load.request)).collect());
        Ok(loads.iter().map(|_| Ok(Loaded::new("v"))).collect())
    }
}

#[tokio::test]
async fn markets_are_asked_for_together_where_the_source_allows_it() {
    let asked = Asked::default();
    let cache = builder().origin("a", Lists(Arc::clone(&asked))).build().unwrap();
    run(warmer(&cache, &["a"], 7)).await;
    let plan = warmer(&cache, &["a"], 107);
    let forecast = plan.forecast().await.unwrap();
    assert_eq!((forecast.calls(), forecast.sources[0].fresh), (10, 7));
    let total = run(plan).await.total();
    assert_eq!((total.fetched, total.calls, total.calls_saved()), (100, 10, 97));
    let asked = asked.lock().unwrap();
    assert_eq!(asked.iter().map(Vec::len).collect::<Vec<_>>(), [&[7][..], &[10; 10]].concat());
    let distinct: BTreeSet<&String> = asked.iter().flatten().collect();
    assert_eq!(distinct.len(), 107);
}

#[tokio::test]
async fn a_source_that_waits_for_its_rate_takes_no_place_of_the_others() {
    let (slow, quick) = (Asked::default(), Asked::default());
    let limits = Limits::default().rate(5, Duration::from_secs(1));
    let cache = builder()
        .origin("slow", flaky(&slow, |_| None))
        .origin("quick", flaky(&quick, |_| None))
        .origin_options("slow", OriginOptions::default().limits(limits))
        .build()
        .unwrap();
    let began = Instant::now();
    let mut quick_done = None;
    let summary = warmer(&cache, &["slow", "quick"], 10)
        .parallel(1)
        .run(
            |event| {
                if event.task.source == "quick" {
                    quick_done = Some(began.elapsed());
                }
            },
            std::future::pending(),
        )
        .await;
    assert_eq!(summary.total().fetched, 20);
    let (quick_done, all) = (quick_done.unwrap(), began.elapsed());
    assert!(all >= Duration::from_millis(1_800), "ten calls at 5 a second: {all:?}");
    assert!(quick_done < all / 2, "{quick_done:?} of {all:?}");
}

#[tokio::test]
async fn at_the_end_of_a_quota_the_rest_is_left_and_the_forecast_knew() {
    let (scarce, plenty) = (Asked::default(), Asked::default());
    let limits = Limits::default().quota(5, Duration::from_hours(24));
    let cache = builder()
        .origin("scarce", flaky(&scarce, |_| None))
        .origin("plenty", flaky(&plenty, |_| None))
        .origin_options("scarce", OriginOptions::default().limits(limits))
        .build()
        .unwrap();
    let plan = warmer(&cache, &["scarce", "plenty"], 20);
    let forecast = plan.forecast().await.unwrap();
    let of = |name: &str| forecast.sources.iter().find(|it| it.source == name).unwrap();
    assert_eq!((of("scarce").calls, of("scarce").beyond_quota()), (20, 15));
    assert_eq!(of("plenty").beyond_quota(), 0);
    let summary = run(plan).await;
    let scarce_did = &summary.sources["scarce"];
    assert_eq!((scarce_did.fetched, scarce_did.left(), scarce_did.failed), (5, 15, 0));
    let because = scarce_did.left_because.as_ref().unwrap().to_string();
    assert!(because.contains("quota of 5 calls"), "{because}");
    assert_eq!(summary.sources["plenty"].fetched, 20);
    assert_eq!(calls(&scarce), 5);
}

#[tokio::test]
async fn a_run_behind_the_program_is_watched_paused_resumed_and_cancelled() {
    let asked = Asked::default();
    let limits = Limits::default().rate(200, Duration::from_secs(1));
    let cache = builder()
        .origin("a", flaky(&asked, |_| None))
        .origin_options("a", OriginOptions::default().limits(limits))
        .build()
        .unwrap();
    let mut run = warmer(&cache, &["a"], 400).spawn();
    for _ in 0..10 {
        assert!(matches!(run.next_event().await.unwrap().outcome, TaskOutcome::Fetched));
    }
    run.pause();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let paused_at = calls(&asked);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(calls(&asked), paused_at, "at 200 a second there would be 20 more");
    assert_eq!(run.under_way(), 0);
    run.resume();
    while calls(&asked) < paused_at + 10 {
        run.next_event().await.unwrap();
    }
    run.cancel();
    let total = run.join().await.unwrap().total();
    assert!(total.left() > 0 && total.failed == 0, "{total:?}");
    assert_eq!(total.fetched, calls(&asked));
    // What was fetched is the state: only the rest is asked for.
    let rest = warmer(&cache, &["a"], 400).spawn().join().await.unwrap().total();
    assert_eq!((rest.fresh, rest.fetched), (total.fetched, 400 - total.fetched));
}

#[tokio::test]
async fn what_is_stale_is_waited_for_and_not_taken_for_fresh() {
    let (asked, clock) = (Asked::default(), Arc::new(ManualClock::default()));
    let tier = MemoryTier::with_clock(64 << 20, Arc::clone(&clock) as Arc<dyn Clock>);
    let hour = Duration::from_hours(1);
    let policy = Policy::ttl(hour).stale_while_revalidate(hour).stale_if_error(hour * 24);
    let fails = |number: usize| (number >= 20).then_some(OriginErrorKind::Status(503));
    let cache = Cache::builder()
        .tier(tier)
        .clock(Arc::clone(&clock) as _)
        .default_policy(policy)
        .origin("a", flaky(&asked, fails))
        .build()
        .unwrap();
    run(warmer(&cache, &["a"], 10)).await;
    clock.advance(hour + Duration::from_mins(1));
    let total = run(warmer(&cache, &["a"], 10)).await.total();
    assert_eq!((total.fetched, total.fresh, total.calls), (10, 0, 10));
    clock.advance(hour + Duration::from_mins(1));
    let summary = run(warmer(&cache, &["a"], 10)).await;
    let total = summary.total();
    assert_eq!((total.failed, total.fresh, total.fetched), (10, 0, 0), "stale is no news");
    assert_eq!(calls(&asked), 20 + 10 * 4, "and is no reason not to try again");
}

#[tokio::test]
async fn a_source_that_asks_to_be_left_alone_is_waited_for() {
    let asked = Asked::default();
    let notes = Arc::clone(&asked);
    let origin = origin_fn(move |load: Load| {
        let number = {
            let mut asked = notes.lock().unwrap();
            asked.push(vec![market(&load.request)]);
            asked.len()
        };
        async move {
            if number % 20 == 5 {
                let error = OriginError::new(OriginErrorKind::Status(429), "a", "slow down");
                return Err(error.with_retry_after(Some(Duration::from_millis(100))));
            }
            Ok(Loaded::new("v"))
        }
    });
    let cache = builder().origin("a", origin).build().unwrap();
    let total = run(warmer(&cache, &["a"], 120)).await.total();
    assert_eq!((total.fetched, total.failed, total.left()), (120, 0, 0), "seven times it asks");
}

#[tokio::test]
async fn a_paused_run_that_is_joined_or_dropped_goes_on() {
    let asked = Asked::default();
    let cache = builder().origin("a", flaky(&asked, |_| None)).build().unwrap();
    let joined = warmer(&cache, &["a"], 20).spawn();
    joined.pause();
    let joined = tokio::time::timeout(Duration::from_secs(30), joined.join()).await;
    assert_eq!(joined.unwrap().unwrap().total().fetched, 20);
    let dropped = warmer(&cache, &["a"], 40).spawn();
    dropped.pause();
    drop(dropped);
    let all = async {
        while calls(&asked) < 40 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
}

#[tokio::test]
async fn whoever_asks_for_something_does_not_wait_for_a_run_that_is_paused_or_stopped() {
    let asked = Asked::default();
    let limits = Limits::default().rate(20, Duration::from_secs(1));
    let cache = builder()
        .origin("a", flaky(&asked, |_| None))
        .origin_options("a", OriginOptions::default().limits(limits))
        .build()
        .unwrap();
    let plan = warmer(&cache, &["a"], 40).parallel(40);
    let requests: Vec<Request> =
        plan.tasks().iter().map(|task| task.request().unwrap().clone()).collect();
    let mut run = plan.spawn();
    run.next_event().await.unwrap();
    run.pause();
    // All that is left waits for its turn, and is paused.
    let last = requests.last().unwrap();
    let hit = tokio::time::timeout(Duration::from_secs(10), cache.request(last)).await.unwrap();
    assert_eq!(hit.unwrap().value(), "v");
    let other = &requests[requests.len() - 2];
    let both = async { tokio::join!(cache.request(other), async { run.cancel() }) };
    let (hit, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    assert_eq!(hit.unwrap().value(), "v", "it is not stopped with the run");
    run.join().await.unwrap();
}

#[tokio::test]
async fn of_a_range_only_what_is_missing_is_fetched_unless_it_is_to_be_refreshed() {
    let asked = Asked::default();
    let notes = Arc::clone(&asked);
    let origin = origin_fn(move |load: Load| {
        notes.lock().unwrap().push(vec![load.request.value("from").unwrap().to_owned()]);
        async { Ok(Loaded::new("[1]")) }
    });
    let cache = builder().origin("a", origin).series("a", Series::new(Step::Year)).build().unwrap();
    let boulder = Gazetteer::us().resolve("Boulder, CO").unwrap();
    let plan = |from: &str, to: &str| {
        let years = [("from", from), ("to", to)].map(|(name, it)| (name.to_owned(), it.to_owned()));
        Warmer::new(&cache, &["a".to_owned()], [(boulder, &BTreeMap::from(years))])
    };
    run(plan("2010", "2012")).await;
    assert_eq!(calls(&asked), 3);
    let wider = plan("2010", "2014");
    assert_eq!(wider.forecast().await.unwrap().calls(), 2);
    assert_eq!((run(wider).await.total().calls, calls(&asked)), (2, 5), "two years are missing");
    let anew = plan("2010", "2014").refresh(true);
    assert_eq!(anew.forecast().await.unwrap().calls(), 5);
    assert_eq!((run(anew).await.total().calls, calls(&asked)), (5, 10));
}
