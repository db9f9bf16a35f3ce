//! What is stored and asked about again, what is no answer, and what must not leak.

use std::{path::Path, sync::Mutex, time::Duration};

use larder::{Cache, Error, OriginErrorKind, ServedBy, StaleReason};

use crate::server::{Place, Server, answer, answer_with, ask, close, request, within};

#[tokio::test]
async fn what_has_expired_is_confirmed_without_a_body_also_after_a_restart() {
    let server = Server::start(|seen| match seen.header("if-none-match") {
        Some("\"1\"") => answer_with(304, &[("etag", "\"1\"")], ""),
        Some(other) => panic!("{other}"),
        None => answer_with(200, &[("etag", "\"1\""), ("last-modified", "then")], "the body"),
    });
    let place = Place::new(&server);
    let settings = "ttl: 1h, stale_if_error: 1d";
    let cache = place.cache(settings);
    let first = ask(&cache, 1).await.unwrap();
    assert!(!first.is_revalidated());
    close(cache).await;
    let cache = place.cache(settings);
    within(cache.expire(&request(&cache, 1).key())).await.unwrap();
    let second = ask(&cache, 1).await.unwrap();
    assert_eq!((second.value(), second.is_revalidated()), (first.value(), true));
    assert_eq!(second.served_by(), ServedBy::Origin);
    assert_eq!(second.entry().etag(), Some("\"1\""));
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].header("if-modified-since"), Some("then"));
    assert_eq!(ask(&cache, 1).await.unwrap().served_by(), ServedBy::Tier("memory"));
}

#[tokio::test]
async fn what_may_not_be_served_any_more_is_kept_to_be_confirmed() {
    let server = Server::start(|seen| match seen.header("if-none-match") {
        _ if seen.number > 2 => answer(500, "down"),
        Some("\"1\"") => answer_with(304, &[("etag", "\"1\"")], ""),
        _ => answer_with(200, &[("etag", "\"1\"")], "the body"),
    });
    let place = Place::new(&server);
    let cache = place.cache("ttl: 20ms");
    let expired = Duration::from_millis(30);
    ask(&cache, 1).await.unwrap();
    tokio::time::sleep(expired).await;
    let hit = ask(&cache, 1).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.is_revalidated()), (&b"the body"[..], true));
    tokio::time::sleep(expired).await;
    let error = ask(&cache, 1).await.unwrap_err();
    assert!(error.to_string().contains("500"), "{error}");
    let cache = place.cache("ttl: 20ms, revalidate_for: 0s");
    ask(&cache, 1).await.unwrap_err();
    assert_eq!(server.seen()[3].header("if-none-match"), Some("\"1\""), "kept as said then");
}

#[tokio::test]
async fn what_is_no_answer_is_not_stored_and_stale_is_served_where_allowed() {
    let server = Server::start(|seen| match seen.number {
        1 => answer_with(200, &[("content-type", "application/json")], r#"{"status": "OK"}"#),
        2 => answer_with(200, &[("content-type", "text/html")], "<html>sorry</html>"),
        _ => answer_with(200, &[("content-type", "application/json")], r#"{"status": "BUSY"}"#),
    });
    let place = Place::new(&server);
    let cache = place
        .cache("ttl: 1h, stale_if_error: 1d, throttle: 0s, response: {must_equal: {/status: OK}}");
    ask(&cache, 1).await.unwrap();
    within(cache.expire(&request(&cache, 1).key())).await.unwrap();
    for part in ["HTML page", "does not have \"OK\" at `/status`"] {
        let hit = ask(&cache, 1).await.unwrap();
        assert_eq!(hit.stale_reason(), Some(StaleReason::LoadFailed));
        let Some(Error::Origin(why)) = hit.failure() else { panic!("{hit:?}") };
        assert_eq!(why.kind(), OriginErrorKind::Unusable);
        assert!(why.to_string().contains(part), "{why}");
    }
    assert!(ask(&cache, 2).await.is_err(), "there is nothing stale");
    assert_eq!(within(cache.list_keys(10)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_missing_thing_is_remembered_as_long_as_its_status_says() {
    let server = Server::start(|_seen| answer(404, "no such market"));
    let place = Place::new(&server);
    let cache = place.cache("status_ttl: {404: 10m}");
    for _ in 0..2 {
        assert!(ask(&cache, 1).await.unwrap().is_absent());
    }
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_version_in_a_header_makes_older_answers_stale() {
    let edition = std::sync::Arc::new(Mutex::new("1".to_owned()));
    let shown = std::sync::Arc::clone(&edition);
    let server =
        Server::start(move |_seen| answer_with(200, &[("x-edition", &shown.lock().unwrap())], "v"));
    let place = Place::new(&server);
    let cache = place.cache("version_from: {header: X-Edition}");
    for market in 1..=2 {
        assert_eq!(ask(&cache, market).await.unwrap().entry().version(), Some("1"));
    }
    "2".clone_into(&mut edition.lock().unwrap());
    ask(&cache, 3).await.unwrap();
    assert_eq!(cache.source_version("census").as_deref(), Some("2"));
    for market in 1..=2 {
        let hit = ask(&cache, market).await.unwrap();
        assert_eq!((hit.served_by(), hit.entry().version()), (ServedBy::Origin, Some("2")));
    }
    assert_eq!(server.count(), 5);
}

/// All files below a directory, as text.
fn files(dir: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        all.push_str(&path.to_string_lossy());
        all.push_str(&String::from_utf8_lossy(&bytes));
    }
    all
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_in_files_logs_errors_or_what_is_shown() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _logged = tracing::subscriber::set_default(subscriber);
    let server = Server::start(|seen| match seen.number % 3 {
        0 => answer(503, "down"),
        1 => answer_with(401, &[("retry-after", "1")], "who are you"),
        _ => answer(200, "ok"),
    });
    let place = Place::new(&server);
    let config = place.config(
        "ttl: 1h, query: {token: canary-query}, headers: {X-Api-Key: canary-header}, \
         auth: {header: Authorization, value: Bearer canary-auth}, quota: 100/day, \
         form: {secret: canary-form, q: '{cbsa}'}, retry: {attempts: 1}",
    );
    let cache = Cache::from_config(&config).unwrap();
    let mut said = vec![format!("{config:?} {cache:?}")];
    for market in 0..6 {
        match ask(&cache, market).await {
            Ok(hit) => said.push(format!("{hit:?}")),
            Err(error) => said.push(format!("{error} {error:?}")),
        }
    }
    for (name, usage) in within(cache.usage()).await.unwrap() {
        said.push(format!("{name} {usage:?}"));
    }
    said.push(format!("{:?}", within(cache.list_keys(10)).await.unwrap()));
    close(cache).await;
    let sent = server.seen();
    assert!(sent[0].uri.to_string().contains("canary-query"), "they are sent");
    assert!(String::from_utf8_lossy(&sent[0].body).contains("canary-form"));
    assert_eq!(sent[0].header("authorization"), Some("Bearer canary-auth"));
    assert_eq!(sent[0].method.as_str(), "POST");
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "something is logged: {log}");
    let stored = files(place.path("cache.db").parent().unwrap());
    assert!(stored.contains("census:cbsa=1"), "something is stored");
    let said = said.join("\n");
    for (what, text) in [("said", &said), ("log", &log), ("files", &stored)] {
        assert!(!text.contains("canary"), "{what}: {}", around(text));
    }
}

/// Where a secret was found.
fn around(text: &str) -> String {
    let at = text.find("canary").unwrap_or(0);
    text.chars().skip(at.saturating_sub(200)).take(400).collect()
}

#[test]
fn the_sources_for_public_apis_can_be_asked() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/sources.example.yaml");
    let keys = ["CENSUS_API_KEY", "BLS_API_KEY", "AQS_EMAIL", "AQS_KEY", "BEA_API_KEY"];
    let loader = larder::config::CacheConfig::loader().file(path);
    let mut config = loader.env(keys.map(|key| (key, "hush"))).load().unwrap().config;
    config.sqlite.enable = false;
    let cache = Cache::from_config(&config).unwrap();
    let values = ["cbsa", "series", "box", "city", "state", "state_fips", "county_fips"];
    let values = values.map(|name| (name.to_owned(), "1".to_owned())).into();
    for source in config.sources.keys() {
        let request = cache.request_for(source, &values).unwrap();
        assert!(!request.key().as_str().contains("hush"), "{}", request.key());
    }
}
