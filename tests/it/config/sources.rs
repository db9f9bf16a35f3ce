//! Sources as the configuration describes them: what they are asked, how long it holds, what
//! becomes of it when they are down.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use larder::{
    Cache, CacheBuilder, Error, Key, OriginErrorKind, Request, ServedBy, StaleReason, Timestamp,
    config::CacheConfig,
};
use tier_testkit::ManualClock;
use tokio::runtime::Runtime;

use super::{Place, load, now};
use crate::harness::{close, within};

/// An HTTP server on the loopback interface with a runtime of its own; dropping it cuts all
/// connections.
struct Server {
    port: u16,
    requests: Arc<AtomicU64>,
    asked: Arc<Mutex<Vec<String>>>,
    runtime: Option<Runtime>,
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, asked) = (Arc::new(AtomicU64::new(0)), Arc::<Mutex<Vec<String>>>::default());
        let (count, note) = (Arc::clone(&requests), Arc::clone(&asked));
        let answer = move |uri: axum::http::Uri| async move {
            let n = count.fetch_add(1, Ordering::SeqCst) + 1;
            note.lock().unwrap().push(uri.to_string());
            format!("{{\"uri\": \"{uri}\", \"answer\": {n}}}")
        };
        let router = Router::new().fallback(get(answer));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        Self { port, requests, asked, runtime: Some(runtime) }
    }

    fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Two sources at `server`: one fresh for two hours, one by the default of 3 days.
fn sources(place: &Path, server: &Server) -> CacheConfig {
    let (place, port) = (place.display(), server.port);
    load(&format!(
        "cache:
  sqlite: {{path: '{place}'}}
  defaults: {{ttl: 3d}}
  ttl_policies: {{epa_aqs: 2h, live: 0s, frozen: never, census_acs: 365}}
  sources:
    epa_aqs: {{allow_private: true, url: 'http://127.0.0.1:{port}/air/{{cbsa}}', query: {{key: hush}}}}
    census: {{allow_private: true, url: 'http://127.0.0.1:{port}/people/{{cbsa}}', params: {{year: 2022}}}}
    live: {{allow_private: true, url: 'http://127.0.0.1:{port}/live/{{cbsa}}'}}
    frozen: {{allow_private: true, url: 'http://127.0.0.1:{port}/frozen/{{cbsa}}'}}
    own: {{allow_private: true, url: 'http://127.0.0.1:{port}/own/{{cbsa}}', ttl: 90s}}
    census_acs: {{allow_private: true, url: 'http://127.0.0.1:{port}/acs/{{cbsa}}'}}
"
    ))
}

const MARKETS: [u32; 3] = [14_500, 19_740, 22_660];

async fn ask(cache: &Cache, source: &str, market: u32) -> Result<larder::Hit, Error> {
    let values = [("cbsa".to_owned(), market.to_string())].into();
    let request = cache.request_for(source, &values).unwrap();
    within(cache.request(&request)).await
}

#[tokio::test]
async fn each_market_is_asked_for_once_and_never_again_while_it_is_fresh() {
    let (place, server) = (Place::new(), Server::start());
    let config = sources(&place.path(), &server);
    let cache = Cache::from_config(&config).unwrap();
    for round in 0..2 {
        for (n, market) in MARKETS.into_iter().enumerate() {
            let hit = ask(&cache, "census", market).await.unwrap();
            let by = if round == 0 { ServedBy::Origin } else { ServedBy::Tier("memory") };
            assert_eq!(hit.served_by(), by);
            let text =
                format!("{{\"uri\": \"/people/{market}?year=2022\", \"answer\": {}}}", n + 1);
            assert_eq!(hit.value(), text.as_bytes());
        }
        assert_eq!(server.requests(), 3, "round {round}");
    }
    close(cache).await;

    let restarted = Cache::from_config(&config).unwrap();
    for market in MARKETS {
        let hit = ask(&restarted, "census", market).await.unwrap();
        assert_eq!(hit.served_by(), ServedBy::Tier("sqlite"));
    }
    assert_eq!((server.requests(), restarted.stats().loads), (3, 0));
}

#[tokio::test]
async fn a_source_that_is_down_costs_only_what_is_not_stored() {
    let (place, server) = (Place::new(), Server::start());
    let config = sources(&place.path(), &server);
    let cache = Cache::from_config(&config).unwrap();
    let before = ask(&cache, "census", 14_500).await.unwrap();
    drop(server);
    let after = ask(&cache, "census", 14_500).await.unwrap();
    assert_eq!((after.value(), after.served_by()), (before.value(), ServedBy::Tier("memory")));

    for attempt in 1..=2 {
        let Err(Error::Origin(error)) = ask(&cache, "census", 19_740).await else { panic!() };
        assert_eq!((error.origin(), error.kind()), ("census", OriginErrorKind::Network));
        let text = Error::Origin(error).to_string();
        assert!(text.contains("source `census`") && text.contains("http://127.0.0.1:"), "{text}");
        assert_eq!(cache.stats().load_failures, attempt, "a failure is not stored");
    }
    close(cache).await;
    let restarted = Cache::from_config(&config).unwrap();
    let hit = ask(&restarted, "census", 14_500).await.unwrap();
    assert_eq!((hit.value(), hit.served_by()), (before.value(), ServedBy::Tier("sqlite")));
}

#[tokio::test]
async fn a_secret_of_a_source_reaches_the_server_and_neither_key_nor_error() {
    let (place, server) = (Place::new(), Server::start());
    let cache = Cache::from_config(&sources(&place.path(), &server)).unwrap();
    ask(&cache, "epa_aqs", 14_500).await.unwrap();
    assert_eq!(*server.asked.lock().unwrap(), ["/air/14500?key=hush"]);
    let keys = within(cache.list_keys(10)).await.unwrap();
    assert_eq!(keys.iter().map(Key::as_str).collect::<Vec<_>>(), ["epa_aqs:cbsa=14500"]);
    drop(server);
    let error = ask(&cache, "epa_aqs", 19_740).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
}

#[tokio::test]
async fn answers_stay_fresh_as_long_as_the_policy_of_their_source_says() {
    let (place, server) = (Place::new(), Server::start());
    let config = sources(&place.path(), &server);
    // At the time of the tiers, whose clocks are the machine's.
    let began = now();
    let clock = Arc::new(ManualClock::at(began));
    let builder = CacheBuilder::from_config(&config).unwrap();
    let cache = builder.clock(Arc::<ManualClock>::clone(&clock)).build().unwrap();
    let hours =
        |hours: u64| Timestamp::from_millis(began).saturating_add(Duration::from_hours(hours));
    for (source, expected) in [
        ("epa_aqs", hours(2)),
        ("census", hours(3 * 24)),
        ("frozen", Timestamp::NEVER),
        ("own", Timestamp::from_millis(began + 90_000)),
        ("census_acs", hours(365 * 24)),
    ] {
        let hit = ask(&cache, source, 14_500).await.unwrap();
        assert_eq!(hit.entry().expires_at(), expected, "{source}");
    }
    ask(&cache, "live", 14_500).await.unwrap();
    assert_eq!(server.requests(), 6);
    assert!(
        within(cache.get(&Request::new("live").param("cbsa", 14_500).key()))
            .await
            .unwrap()
            .is_none()
    );
    ask(&cache, "live", 14_500).await.unwrap();
    assert_eq!(server.requests(), 7, "what is fresh for no time is asked for each time");
    let stored = within(cache.list_keys(10)).await.unwrap();
    assert_eq!(stored.len(), 5, "and is not stored: {stored:?}");

    clock.advance(Duration::from_millis(2 * 3_600_000 - 1));
    ask(&cache, "epa_aqs", 14_500).await.unwrap();
    assert_eq!(server.requests(), 7, "fresh to the last millisecond");
    clock.advance(Duration::from_millis(1));
    let hit = ask(&cache, "epa_aqs", 14_500).await.unwrap();
    assert_eq!((hit.served_by(), server.requests()), (ServedBy::Origin, 8));
    assert_eq!(hit.entry().expires_at(), hours(4));
    for source in ["census", "frozen", "census_acs"] {
        ask(&cache, source, 14_500).await.unwrap();
    }
    assert_eq!(server.requests(), 8, "each source has its own time");
}

#[tokio::test]
async fn nobody_is_asked_offline() {
    let (place, server) = (Place::new(), Server::start());
    let mut config = sources(&place.path(), &server);
    let cache = Cache::from_config(&config).unwrap();
    ask(&cache, "census", 14_500).await.unwrap();
    close(cache).await;
    config.offline = true;
    let cache = Cache::from_config(&config).unwrap();
    let hit = ask(&cache, "census", 14_500).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Tier("sqlite"));
    let Err(Error::Offline { key }) = ask(&cache, "census", 19_740).await else { panic!() };
    assert_eq!((key.source(), server.requests()), ("census", 1));
}

#[tokio::test]
async fn a_source_that_is_down_is_answered_for_as_long_as_its_policy_says() {
    let (place, server) = (Place::new(), Server::start());
    let (path, port) = (place.path(), server.port);
    let config = load(&format!(
        "cache:
  sqlite: {{path: '{}'}}
  defaults: {{ttl: 1h, stale_if_error: 2h, throttle: 0s}}
  ttl_policies: {{briefly: 30m}}
  sources:
    plain: {{allow_private: true, url: 'http://127.0.0.1:{port}/plain/{{cbsa}}'}}
    briefly: {{allow_private: true, url: 'http://127.0.0.1:{port}/briefly/{{cbsa}}'}}
    strict: {{allow_private: true, url: 'http://127.0.0.1:{port}/strict/{{cbsa}}', stale_if_error: 0s}}
    picky: {{allow_private: true, url: 'http://127.0.0.1:{port}/picky/{{cbsa}}', stale_on: server_error}}
",
        path.display()
    ));
    let began = now();
    let clock = Arc::new(ManualClock::at(began));
    let builder = CacheBuilder::from_config(&config).unwrap();
    let cache = builder.clock(Arc::<ManualClock>::clone(&clock)).build().unwrap();
    for source in ["plain", "briefly", "strict", "picky"] {
        ask(&cache, source, 14_500).await.unwrap();
    }
    drop(server);
    // In minutes after the load: who is still answered for.
    for (minute, answered) in [
        (29, &["plain", "briefly", "strict", "picky"][..]),
        (59, &["plain", "briefly", "strict", "picky"]),
        (61, &["plain", "briefly"]),
        (149, &["plain", "briefly"]),
        (151, &["plain"]),
        (181, &[]),
    ] {
        clock.set(began + minute * 60_000);
        for source in ["plain", "briefly", "strict", "picky"] {
            match ask(&cache, source, 14_500).await {
                Ok(hit) => {
                    assert!(answered.contains(&source), "{source} after {minute} minutes: {hit:?}");
                    let fresh = minute < if source == "briefly" { 30 } else { 60 };
                    let reason = (!fresh).then_some(StaleReason::LoadFailed);
                    assert_eq!(hit.stale_reason(), reason, "{source} after {minute} minutes");
                }
                Err(error) => {
                    assert!(!answered.contains(&source), "{source} after {minute}: {error}");
                }
            }
        }
    }
}
