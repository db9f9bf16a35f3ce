//! Programs' own clients and functions as origins.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use larder::{
    Cache, Limits, Loaded, OriginError, OriginErrorKind, OriginOptions, Policy, Request,
    RetryOptions, ServedBy, origin_fn, tiers::MemoryTier,
};

use crate::server::{Server, answer, answer_with, within};

/// The example is a program; what it shows is what is tried here.
#[expect(dead_code, unreachable_pub, reason = "its main function is not run")]
#[path = "../../crates/larder/examples/reqwest.rs"]
mod example;

#[tokio::test]
async fn a_client_that_is_there_already_asks_by_way_of_the_cache() {
    let server = Server::start(|seen| match (seen.number, seen.header("if-none-match")) {
        (1, _) => answer(503, "busy"),
        (_, Some("\"1\"")) => answer_with(304, &[], ""),
        (_, Some(other)) => panic!("{other}"),
        (_, None) => answer_with(200, &[("etag", "\"1\""), ("content-type", "text/plain")], "v"),
    });
    _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().user_agent("mine").build().unwrap();
    let builder = Cache::builder()
        .tier(MemoryTier::new(1 << 20))
        .default_policy(Policy::ttl(Duration::from_millis(20)));
    let cache = example::with_client(builder, client).build().unwrap();
    let url = format!("http://127.0.0.1:{}/points/1", server.port);
    let first = within(example::get(&cache, &url)).await.unwrap();
    assert_eq!(
        (first.value().as_ref(), first.entry().content_type()),
        (&b"v"[..], Some("text/plain"))
    );
    assert_eq!(server.count(), 2, "busy, and again");
    assert_eq!(server.seen()[0].header("user-agent"), Some("mine"));
    tokio::time::sleep(Duration::from_millis(30)).await;
    let second = within(example::get(&cache, &url)).await.unwrap();
    assert!(second.is_revalidated() && second.value() == "v");
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn a_function_is_an_origin_with_limits_retries_and_versions() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let origin = origin_fn(move |load| {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if call == 0 {
                return Err(OriginError::new(OriginErrorKind::Network, "mine", "gone"));
            }
            let market = load.request.value("market").unwrap_or_default();
            Ok(Loaded::new(format!("of {market}")).version(if call < 2 { "1" } else { "2" }))
        }
    });
    let retry = RetryOptions::attempts(2).delay(Duration::from_millis(1), Duration::from_millis(1));
    let options = OriginOptions::default()
        .retry(retry)
        .limits(Limits::default().quota(3, Duration::from_hours(1)));
    let cache = Cache::builder()
        .tier(MemoryTier::new(1 << 20))
        .origin("mine", origin)
        .origin_options("mine", options)
        .build()
        .unwrap();
    let ask = async |market: &str| {
        within(cache.request(&Request::new("mine").param("market", market))).await
    };
    assert_eq!(ask("a").await.unwrap().value(), "of a");
    assert_eq!(calls.load(Ordering::SeqCst), 2, "it was asked again");
    assert_eq!(ask("a").await.unwrap().served_by(), ServedBy::Tier("memory"));
    assert_eq!(ask("b").await.unwrap().entry().version(), Some("2"));
    // Of another version now, and there are no calls left to load it anew.
    let stale = ask("a").await.unwrap();
    let failure = stale.failure().unwrap().to_string();
    assert!(stale.is_stale() && failure.contains("quota of 3 calls"), "{failure}");
}
