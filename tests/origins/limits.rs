//! Rates, concurrency and quotas, as the server sees them.

use std::{
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use larder::{
    Cache, Error, Key, LoadContext, Loaded, OriginErrorKind, ReadOptions, ServedBy, StaleReason,
};

use crate::server::{Place, Seen, Server, answer, ask, ask_with, close, request, within};

/// Longest time between leave for a call and its arrival, on a machine that does much else: calls that
/// left in order arrive closer together by up to that.
const DELAY: Duration = Duration::from_millis(250);

/// Of all windows between two requests: none has more than `rate` a second, and `burst`.
fn kept(seen: &[Seen], rate: u32, burst: u32) {
    let mut at: Vec<Instant> = seen.iter().map(|seen| seen.at).collect();
    at.sort_unstable();
    for (first, began) in at.iter().enumerate() {
        for (count, ended) in at[first..].iter().enumerate() {
            let span = ended.duration_since(*began) + DELAY;
            let most = span.as_secs_f64() * f64::from(rate) + f64::from(burst);
            assert!(
                (count + 1) as f64 <= most,
                "{} requests in {span:?}, rather {most}",
                count + 1
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_and_its_burst_are_never_exceeded() {
    let server = Server::plain();
    let place = Place::new(&server);
    let cache = place.cache("rate_limit: 20/s, burst: 4");
    join_all((0..50).map(|market| ask(&cache, market))).await.into_iter().for_each(|answer| {
        answer.unwrap();
    });
    assert_eq!(server.count(), 50);
    kept(&server.seen(), 20, 4);
    assert!(place.path("cache.calls.db").exists());
}

/// Run by the test below, as a process of its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of another test"]
async fn one_of_several_processes() {
    let Ok(config) = std::env::var("LARDER_TEST_CONFIG") else { return };
    let first: u32 = std::env::var("LARDER_TEST_FIRST").unwrap().parse().unwrap();
    let seconds: u64 = std::env::var("LARDER_TEST_SECONDS").unwrap().parse().unwrap();
    let config = larder::config::CacheConfig::loader().file(config).load().unwrap().config;
    let cache = Cache::from_config(&config).unwrap();
    let end = Instant::now() + Duration::from_secs(seconds);
    let askers = (0..3_u32).map(async |one| {
        let mut market = first + one * 100_000;
        while Instant::now() < end {
            within(cache.request(&request(&cache, market))).await.unwrap();
            market += 1;
        }
    });
    join_all(askers).await;
    close(cache).await;
}

#[test]
fn processes_keep_a_rate_together() {
    // `LARDER_TEST_SECONDS=60` is the long form.
    let seconds = std::env::var("LARDER_TEST_SECONDS").unwrap_or_else(|_unset| "4".to_owned());
    let server = Server::plain();
    let place = Place::new(&server);
    let config = place.path("larder.yaml");
    let (cache, port) = (place.path("cache.db"), server.port);
    let yaml = format!(
        "cache:
  sqlite: {{path: '{}'}}
  sources:
    census: {{allow_private: true, url: 'http://127.0.0.1:{port}/{{cbsa}}', rate_limit: 25/s, burst: 5}}
",
        cache.display()
    );
    std::fs::write(&config, yaml).unwrap();
    let processes: Vec<_> = (1..=4_u32)
        .map(|number| {
            Command::new(std::env::current_exe().unwrap())
                .args(["limits::one_of_several_processes", "--exact", "--ignored"])
                .env("LARDER_TEST_CONFIG", &config)
                .env("LARDER_TEST_FIRST", (number * 1_000_000).to_string())
                .env("LARDER_TEST_SECONDS", &seconds)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    for process in processes {
        let output = process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
    let seen = server.seen();
    kept(&seen, 25, 5);
    // Each has had its turns.
    for number in 1..=4 {
        let own = |seen: &&Seen| seen.uri.path().starts_with(&format!("/{number}"));
        assert!(seen.iter().filter(own).count() > 0, "process {number} was never let through");
    }
    let seconds: usize = seconds.parse().unwrap();
    println!("{} requests in {seconds} s by 4 processes", seen.len());
    assert!(seen.len() <= 25 * (seconds + 1) + 5 + 12, "{} requests", seen.len());
}

#[tokio::test]
async fn a_quota_outlives_the_process_and_says_when_it_resets() {
    let server = Server::plain();
    let place = Place::new(&server);
    let settings = "quota: 3/day, ttl: 1h";
    let cache = place.cache(settings);
    for market in 0..2 {
        ask(&cache, market).await.unwrap();
    }
    close(cache).await;
    let cache = place.cache(settings);
    assert_eq!(ask(&cache, 1).await.unwrap().served_by(), ServedBy::Tier("sqlite"));
    ask(&cache, 2).await.unwrap();
    let Err(Error::Origin(error)) = ask(&cache, 3).await else { panic!("a fourth") };
    assert_eq!(error.kind(), OriginErrorKind::Quota);
    let text = error.to_string();
    assert!(text.contains("its quota of 3 calls in 1 d is used up"), "{text}");
    assert!(text.contains("in 23 h 59 min") || text.contains("in 1 d"), "{text}");
    assert!(error.retry_after().unwrap() > Duration::from_hours(23));
    let usage = within(cache.quota("census")).await.unwrap();
    assert_eq!((usage.used, usage.allowed), (3, 3));
    assert_eq!(server.count(), 3);
    // What is stored is served all the same.
    assert_eq!(ask(&cache, 0).await.unwrap().value(), "ok");
}

#[tokio::test]
async fn at_the_quota_stale_is_served_where_allowed() {
    let server = Server::plain();
    let place = Place::new(&server);
    let cache = place.cache("quota: 1/day, ttl: 1h, stale_if_error: 1d, throttle: 0s");
    ask(&cache, 1).await.unwrap();
    within(cache.expire(&request(&cache, 1).key())).await.unwrap();
    let hit = ask(&cache, 1).await.unwrap();
    assert_eq!(
        (hit.value().as_ref(), hit.stale_reason()),
        (&b"ok"[..], Some(StaleReason::LoadFailed))
    );
    let Some(Error::Origin(why)) = hit.failure() else { panic!("{hit:?}") };
    assert_eq!(why.kind(), OriginErrorKind::Quota);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn loaders_that_callers_bring_keep_the_same_limits() {
    let server = Server::plain();
    let place = Place::new(&server);
    let cache = place.cache("quota: 3/day");
    ask(&cache, 0).await.unwrap();
    let key = Key::new("census:other");
    let bring = |_: LoadContext| async { Ok(Loaded::new("v")) };
    within(cache.get_or_load(&key, bring)).await.unwrap();
    let keys = [Key::new("census:a"), Key::new("census:b")];
    let many = |contexts: Vec<LoadContext>| async move {
        Ok(contexts.into_iter().map(|one| (one.key, Ok(Loaded::new("v")))).collect())
    };
    let both = within(cache.get_or_load_many(&keys, many)).await.unwrap();
    assert!(both.iter().all(Result::is_ok), "one call for two keys");
    let never = |_: LoadContext| async { panic!("a fourth call") };
    let Err(Error::Origin(error)) = within(cache.get_or_load(&Key::new("census:c"), never)).await
    else {
        panic!("a fourth")
    };
    assert_eq!(error.kind(), OriginErrorKind::Quota);
    // Another source has no quota.
    within(cache.get_or_load(&Key::new("bls:c"), bring)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_waits_for_goes_before_what_is_fetched_ahead() {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let server = Arc::new(Server::start(move |_seen| {
        // The server has a thread of its own, which this may block.
        gate.lock().unwrap().recv().unwrap();
        answer(200, "ok")
    }));
    let place = Place::new(&server);
    let cache = place.cache("concurrency: 1");
    let ask_later = |market, options: ReadOptions| {
        let cache = cache.clone();
        tokio::spawn(async move { ask_with(&cache, market, options).await.unwrap() })
    };
    let mut tasks = vec![ask_later(1, ReadOptions::default().in_background())];
    while server.count() < 1 {
        tokio::task::yield_now().await;
    }
    let loads = |count| {
        let cache = cache.clone();
        async move {
            while cache.stats().loads < count {
                tokio::task::yield_now().await;
            }
            // They have begun; give them time to queue.
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
        }
    };
    for market in 2..=4 {
        tasks.push(ask_later(market, ReadOptions::default().in_background()));
    }
    within(loads(4)).await;
    tasks.push(ask_later(5, ReadOptions::default()));
    within(loads(5)).await;
    for _ in 0..5 {
        open.send(()).unwrap();
    }
    for task in tasks {
        within(task).await.unwrap();
    }
    let order: Vec<String> = server.seen().iter().map(|seen| seen.uri.path().to_owned()).collect();
    assert_eq!(order[..2], ["/census/1", "/census/5"], "{order:?}");
}

#[tokio::test]
async fn a_ledger_that_cannot_be_used_stops_nobody() {
    let server = Server::plain();
    let place = Place::new(&server);
    let mut config = place.config("quota: 2/day");
    std::fs::write(place.path("file"), "no directory").unwrap();
    config.ledger = Some(place.path("file/calls.db"));
    let cache = Cache::from_config(&config).unwrap();
    for market in 0..2 {
        ask(&cache, market).await.unwrap();
    }
    assert!(ask(&cache, 2).await.is_err(), "it is kept by this process alone");
    assert_eq!(server.count(), 2);
}
