//! What a refresh changes: noted, told and listed.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use axum::{
    Router,
    http::HeaderMap,
    routing::{get, post},
};

use crate::harness::Place;

/// An API whose answers hold a number that tests set, and one that is never the same; what is posted
/// to it is kept.
struct Rents {
    rent: Arc<AtomicU64>,
    posted: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    at: std::net::SocketAddr,
}

impl Rents {
    async fn start() -> Self {
        let (rent, asked) = (Arc::new(AtomicU64::new(1450)), Arc::new(AtomicU64::new(0)));
        let posted = Arc::<Mutex<Vec<(HeaderMap, String)>>>::default();
        let (now, notes) = (Arc::clone(&rent), Arc::clone(&posted));
        let router = Router::new()
            .route(
                "/rents/{cbsa}",
                get(move || {
                    let (rent, asked) =
                        (now.load(Ordering::SeqCst), asked.fetch_add(1, Ordering::SeqCst));
                    async move { format!(r#"{{"rent": {rent}, "took_ms": {asked}}}"#) }
                }),
            )
            .route(
                "/hook",
                post(move |headers: HeaderMap, body: String| {
                    notes.lock().unwrap().push((headers, body));
                    async {}
                }),
            );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { rent, posted, at }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_changed_is_noted_told_and_listed() {
    let (place, api) = (Place::new(), Rents::start().await);
    let at = api.at;
    let told = place.path("told.json");
    place.write("tell.sh", &format!("cat > {}\n", told.display()));
    place.write(
        "larder.yaml",
        &format!(
            "cache:
  sqlite: {{path: cache.db}}
  sources:
    rents:
      url: \"http://{at}/rents/{{cbsa}}\"
      allow_private: true
      critical: true
      changes: {{ignore: [/took_ms]}}
  notify:
    webhook: http://{at}/hook?key=hunter2
    secret: hush
    command: [/bin/sh, tell.sh]
"
        ),
    );
    let warm = |args: &[&str]| {
        let base = ["warm", "-m", "boulder-co", "-m", "denver-co", "-s", "rents"];
        place.larder(&[&base[..], args].concat()).expect(0)
    };
    warm(&[]);
    warm(&["--refresh"]);
    let none = place.larder(&["changes"]).expect(0);
    assert_eq!(none.stdout(), "nothing has changed\n", "what is ignored does not count");
    api.rent.store(1475, Ordering::SeqCst);
    let run = warm(&["--refresh"]);
    assert!(run.stdout().contains("2 of them changed"), "{}", run.said());

    let listed = place.larder(&["changes", "--since", "1h", "-F", "json"]).expect(0).json();
    let changes = listed["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2, "{listed}");
    let markets: Vec<_> = changes.iter().map(|change| &change["market"]).collect();
    assert!(markets.contains(&&"boulder-co".into()), "{markets:?}");
    let delta = &changes[0]["deltas"][0];
    assert_eq!(
        (&delta["pointer"], &delta["old"], &delta["new"]),
        (&"/rent".into(), &"1450".into(), &"1475".into())
    );
    let table = place.larder(&["changes"]).expect(0);
    assert!(table.stdout().contains("/rent: 1450 -> 1475"), "{}", table.stdout());
    let other = place.larder(&["changes", "--source", "other"]).expect(0);
    assert_eq!(other.stdout(), "nothing has changed\n");
    place.larder(&["changes", "--since", "soon"]).expect(2);

    let posted = api.posted.lock().unwrap();
    assert_eq!(posted.len(), 2, "one for each change");
    for (headers, body) in &*posted {
        assert!(headers["x-larder-signature"].to_str().unwrap().starts_with("sha256="));
        assert!(body.contains("/rent"), "{body}");
    }
    assert!(std::fs::read_to_string(told).unwrap().contains("larder.change/1"));
    for secret in ["hunter2", "hush"] {
        assert!(!run.said().contains(secret), "{}", run.said());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_pointer_or_no_url_is_refused_with_its_place() {
    let place = Place::new();
    for (settings, said) in [
        ("  sources: {a: {url: 'http://a.example/{cbsa}', changes: {ignore: [took]}}}", "took"),
        (
            "  sources: {a: {url: 'http://a.example/{cbsa}'}}\n  notify: {webhook: 'ftp://a.example/'}",
            "`cache.notify.webhook`",
        ),
    ] {
        place.write("larder.yaml", &format!("cache:\n  sqlite: {{path: cache.db}}\n{settings}\n"));
        let run = place.larder(&["warm", "-m", "boulder-co", "-s", "a"]).expect(2);
        assert!(run.stderr().contains(said), "{}", run.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_kept_to_be_compared() {
    let (place, api) = (Place::new(), Rents::start().await);
    let at = api.at;
    place.write(
        "larder.yaml",
        &format!(
            "cache:\n  sqlite: {{path: cache.db}}\n  sources:\n    rents: {{allow_private: true, ttl: \
             50ms, url: \"http://{at}/rents/{{cbsa}}\", changes: {{ignore: [/took_ms]}}}}\n"
        ),
    );
    let args = ["warm", "-m", "boulder-co", "-s", "rents"];
    place.larder(&args).expect(0);
    api.rent.store(1500, Ordering::SeqCst);
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    let run = place.larder(&args).expect(0);
    assert!(run.stdout().contains("1 of them changed"), "{}", run.said());
}
