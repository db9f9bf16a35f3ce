//! What counts as an answer, and what is asked to get one.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body as Sent, Bytes},
    http::{HeaderMap, Method as Verb, Response, Uri},
    routing::any,
};
use cache_core::{
    Answer, Entry, Load, Loaded, Origin, OriginError, OriginErrorKind, Request, Stamp, Ttl,
};
use origin_http::{
    Auth, Body, HttpOrigin, HttpSource, Method, Probe, ProbeFrom, SetupError, VersionFrom,
};
use serde_json::json;

/// What has arrived.
type Seen = Arc<Mutex<Vec<(Verb, Uri, HeaderMap, String)>>>;

/// A source on a server that answers everything alike, and what the server sees.
async fn source(
    status: u16,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> (HttpSource, Seen) {
    let seen = Seen::default();
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let (note, body) = (Arc::clone(&seen), body.into());
    let handle = move |verb: Verb, uri: Uri, asked: HeaderMap, sent: String| async move {
        note.lock().unwrap().push((verb, uri, asked, sent));
        let start = Response::builder().status(status);
        let response = headers.iter().fold(start, |it, (name, value)| it.header(name, value));
        response.body(Sent::from(body)).unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum::serve(listener, Router::new().fallback(any(handle))).await.unwrap();
    });
    let mut source = HttpSource::new("api", format!("http://{address}/data/{{id}}"));
    source.allow_private = true;
    (source, seen)
}

async fn load_with(source: HttpSource, stored: Option<Entry>) -> Result<Loaded, OriginError> {
    let request = Request::new("api").param("id", 7);
    HttpOrigin::new(source).unwrap().load(Load::new(request).with_stored(stored)).await
}

async fn load(source: HttpSource) -> Result<Loaded, OriginError> {
    load_with(source, None).await
}

#[tokio::test]
async fn bodies_are_posted_with_values_in_their_places_and_keys_outside_the_cache_key() {
    let (mut source, seen) = source(200, &[], "ok").await;
    let template = json!({"seriesid": ["{series}", "{{x}}"], "startyear": "{from}", "n": 1.50});
    source.method = Method::Post(Body::Json(template));
    source.auth = Some(Auth::Body { field: "registrationkey".into(), value: "a{b}c".into() });
    source.params.insert("from".into(), "2020".into());
    let origin = HttpOrigin::new(source.clone()).unwrap();
    let values = [("id", "7"), ("series", "LAU\"1"), ("other", "x")];
    let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let request = origin.request("api", &values).unwrap();
    assert_eq!(request.key().as_str(), r#"api:from=2020&id=7&series=LAU"1"#);
    origin.load(Load::new(request)).await.unwrap();
    let (verb, uri, headers, body) = seen.lock().unwrap()[0].clone();
    assert_eq!((verb, uri.to_string().as_str()), (Verb::POST, "/data/7"));
    assert_eq!(headers["content-type"], "application/json");
    let sent: serde_json::Value = serde_json::from_str(&body).unwrap();
    let expected = json!({"seriesid": ["LAU\"1", "{x}"], "startyear": "2020", "n": 1.50,
        "registrationkey": "a{b}c"});
    assert_eq!(sent, expected);
    let values = [("id".to_owned(), "7".to_owned())].into();
    let missing = origin.request("api", &values).unwrap_err().to_string();
    assert!(missing.contains("its body needs `series`"), "{missing}");

    let query = [("data".to_owned(), "[out:json];node({box});out;".to_owned())];
    source.method = Method::Post(Body::Form(query.into()));
    source.auth = Some(Auth::Header { name: "x-key".into(), value: "hush".into() });
    let request = Request::new("api").param("id", 7).param("box", "1,2,3,4");
    HttpOrigin::new(source.clone()).unwrap().load(Load::new(request)).await.unwrap();
    let (_, _, headers, body) = seen.lock().unwrap()[1].clone();
    assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
    assert_eq!(headers["x-key"], "hush");
    assert_eq!(body, "data=%5Bout%3Ajson%5D%3Bnode%281%2C2%2C3%2C4%29%3Bout%3B");

    source.method = Method::Get;
    source.auth = Some(Auth::Query { name: "key".into(), value: "hush".into() });
    load(source.clone()).await.unwrap();
    assert_eq!(seen.lock().unwrap()[2].1.to_string(), "/data/7?key=hush");
    source.auth = Some(Auth::Body { field: "key".into(), value: "hush".into() });
    assert!(matches!(HttpOrigin::new(source.clone()), Err(SetupError::AuthBody)));
    assert!(!format!("{source:?}").contains("hush"));
}

#[tokio::test]
async fn an_html_page_is_no_answer_unless_it_was_asked_for() {
    let html = [("content-type", "text/html; charset=utf-8")];
    let (mut source, _) = source(200, &html, "<html>log in").await;
    let error = load(source.clone()).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Unusable);
    assert!(error.to_string().contains("HTML page"), "{error}");
    source.checks.content_types = vec!["TEXT/*".into()];
    assert!(load(source.clone()).await.is_ok());
    source.checks.content_types = vec!["application/json".into()];
    let error = load(source).await.unwrap_err();
    assert!(error.to_string().contains("HTML page"), "{error}");
}

#[tokio::test]
async fn checks_tell_answers_from_failures_with_status_200() {
    let body = r#"{"status": "REQUEST_NOT_PROCESSED", "Results": {}, "n": 1}"#;
    let (mut source, _) = source(200, &[], body).await;
    source.checks.must_equal.insert("/status".into(), json!("REQUEST_SUCCEEDED"));
    let error = load(source.clone()).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Unusable);
    let text = error.to_string();
    assert!(
        text.contains(r#""REQUEST_SUCCEEDED" at `/status`"#) && !text.contains("NOT_P"),
        "{text}"
    );
    source.checks.must_equal = [("/n".to_owned(), json!(1))].into();
    assert!(load(source.clone()).await.is_ok());
    source.checks.must_exist = vec!["/Results".into(), "/Results/series".into()];
    let error = load(source.clone()).await.unwrap_err();
    assert!(error.to_string().contains("nothing at `/Results/series`"), "{error}");
    source.checks.must_exist = vec!["Results".into()];
    let refused = HttpOrigin::new(source).unwrap_err().to_string();
    assert!(refused.contains("`must_exist`") && refused.contains("JSON pointer"), "{refused}");
}

#[tokio::test]
async fn what_is_no_json_fails_a_check_and_harms_nothing() {
    let deep = "[".repeat(1 << 20);
    for body in [&b"{\"a\": \xff\xfe}"[..], b"<html>", b"", b"{\"a\": 1", deep.as_bytes()] {
        let (mut source, _) = source(200, &[], Bytes::copy_from_slice(body)).await;
        source.checks.must_exist = vec!["/a".into()];
        let error = load(source).await.unwrap_err();
        assert_eq!(error.kind(), OriginErrorKind::Unusable, "{error}");
        assert!(error.to_string().contains("no JSON at line"), "{error}");
    }
}

#[tokio::test]
async fn nothing_can_be_an_answer() {
    for (body, at, absent) in [
        ("", "", true),
        (" [ ] ", "", true),
        ("{}", "", true),
        ("null", "", true),
        ("[1]", "", false),
        (r#"{"rows": []}"#, "/rows", true),
        (r#"{"rows": ""}"#, "/rows", true),
        ("{}", "/rows", true),
        (r#"{"rows": [0]}"#, "/rows", false),
        (r#"{"rows": 0}"#, "/rows", false),
    ] {
        let (mut source, _) = source(200, &[], body).await;
        assert!(load(source.clone()).await.unwrap().value().is_some(), "{body}: it was not asked");
        source.checks.empty_is_absent = Some(at.into());
        let loaded = load(source).await.unwrap();
        assert_eq!(loaded.answer == Answer::Absent, absent, "{body} at `{at}`");
    }
    let (mut source, _) = source(204, &[], "").await;
    assert!(load(source.clone()).await.is_err());
    source.checks.empty_is_absent = Some(String::new());
    assert_eq!(load(source).await.unwrap().answer, Answer::Absent);
}

#[tokio::test]
async fn statuses_have_lifetimes_of_their_own() {
    let ten = Duration::from_mins(10);
    let (mut missing, _) = source(404, &[], "no such thing").await;
    assert_eq!(load(missing.clone()).await.unwrap_err().kind(), OriginErrorKind::Status(404));
    missing.status_ttl.insert(404, ten);
    let loaded = load(missing.clone()).await.unwrap();
    assert_eq!((loaded.answer, loaded.ttl), (Answer::Absent, Some(Ttl::For(ten))));
    let (mut partial, _) = source(206, &[], "part").await;
    assert!(load(partial.clone()).await.is_err());
    partial.checks.statuses.push(206);
    partial.status_ttl.insert(206, ten);
    assert_eq!(load(partial).await.unwrap().ttl, Some(Ttl::For(ten)));
    for status in [401, 403, 429, 500, 503, 302, 204] {
        missing.status_ttl = [(status, ten)].into();
        assert!(
            matches!(HttpOrigin::new(missing.clone()), Err(SetupError::StatusTtl(_))),
            "{status}"
        );
    }
}

#[tokio::test]
async fn what_is_stored_is_asked_about_by_its_validators_and_confirmed_without_a_body() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let (source, seen) = source(304, &[("etag", "\"2\"")], "").await;
    let entry = |etag: Option<&str>, modified: Option<&str>| {
        let entry = Entry::builder("old", Stamp::ZERO);
        entry.etag(etag).source_last_modified(modified).build()
    };
    let loaded = load_with(source.clone(), Some(entry(Some("\"1\""), Some(date)))).await.unwrap();
    assert_eq!((loaded.answer, loaded.etag.as_deref()), (Answer::NotModified, Some("\"2\"")));
    let headers = seen.lock().unwrap()[0].2.clone();
    assert_eq!(
        (&headers["if-none-match"], &headers["if-modified-since"]),
        (&"\"1\"".parse().unwrap(), &date.parse().unwrap())
    );
    // Who has not been asked whether anything has changed cannot say that it has not.
    for stored in [None, Some(entry(None, None))] {
        let error = load_with(source.clone(), stored).await.unwrap_err();
        assert_eq!(error.kind(), OriginErrorKind::Status(304));
        assert!(!seen.lock().unwrap().last().unwrap().2.contains_key("if-none-match"));
    }
}

#[tokio::test]
async fn cache_control_counts_where_it_is_to() {
    let headers = [("cache-control", "max-age=60, stale-if-error=600")];
    let (mut source, _) = source(200, &headers, "v").await;
    assert_eq!(load(source.clone()).await.unwrap().ttl, None);
    source.respect_cache_control = true;
    // The key is the source's, not one user's.
    source.auth = Some(Auth::Header { name: "authorization".into(), value: "Bearer x".into() });
    let loaded = load(source).await.unwrap();
    assert_eq!(loaded.ttl, Some(Ttl::For(Duration::from_mins(1))));
    assert_eq!((loaded.stale_for, loaded.store), (Some(Duration::from_mins(10)), true));
}

#[tokio::test]
async fn answers_and_probes_tell_versions() {
    let headers = [("x-edition", "2022b"), ("etag", "\"e\""), ("last-modified", "then")];
    let (mut source, seen) = source(200, &headers, r#"{"meta": {"vintage": 2023}}"#).await;
    source.version = Some(VersionFrom::Header("X-Edition".into()));
    assert_eq!(load(source.clone()).await.unwrap().version.as_deref(), Some("2022b"));
    source.version = Some(VersionFrom::Pointer("/meta/vintage".into()));
    assert_eq!(load(source.clone()).await.unwrap().version.as_deref(), Some("2023"));
    source.version = Some(VersionFrom::Pointer("/meta/none".into()));
    assert_eq!(load(source.clone()).await.unwrap().version, None);

    assert_eq!(HttpOrigin::new(source.clone()).unwrap().probe().await.unwrap(), None);
    source.headers.insert("x-key".into(), "hush".into());
    let url = source.url.replace("data/{id}", "editions");
    for (from, verb, version) in [
        (ProbeFrom::Validators, Verb::HEAD, "\"e\""),
        (ProbeFrom::Header("Last-Modified".into()), Verb::HEAD, "then"),
        (ProbeFrom::Pointer("/meta/vintage".into()), Verb::GET, "2023"),
    ] {
        source.probe = Some(Probe::new(&url, from));
        let origin = HttpOrigin::new(source.clone()).unwrap();
        assert_eq!(origin.probe().await.unwrap().as_deref(), Some(version));
        let (asked, uri, headers, _) = seen.lock().unwrap().last().unwrap().clone();
        assert_eq!(
            (asked, uri.path(), &headers["x-key"]),
            (verb, "/editions", &"hush".parse().unwrap())
        );
    }
    // Another server, as its name is another, is not given the source's keys.
    let elsewhere = url.replace("127.0.0.1", "localhost");
    source.probe = Some(Probe::new(&elsewhere, ProbeFrom::Validators));
    assert!(HttpOrigin::new(source.clone()).unwrap().probe().await.unwrap().is_some());
    assert!(!seen.lock().unwrap().last().unwrap().2.contains_key("x-key"));
    source.probe = Some(Probe::new(&url, ProbeFrom::Header("x-none".into())));
    let error = HttpOrigin::new(source.clone()).unwrap().probe().await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Unusable);
    source.probe = Some(Probe::new("http://h/{id}", ProbeFrom::Validators));
    assert!(matches!(HttpOrigin::new(source), Err(SetupError::Probe)));
}

#[tokio::test]
async fn private_addresses_are_refused_before_anything_is_sent() {
    let (mut source, seen) = source(200, &[], "ok").await;
    source.allow_private = false;
    let refused = HttpOrigin::new(source.clone()).unwrap_err().to_string();
    assert!(refused.contains("private address") && refused.contains("allow_private"), "{refused}");
    // A name that only this machine knows to be its own.
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name = name.trim();
    if !name.is_empty() && tokio::net::lookup_host((name, 0)).await.is_ok() {
        source.url = source.url.replace("127.0.0.1", name);
        let error = load(source.clone()).await.unwrap_err();
        assert_eq!(error.kind(), OriginErrorKind::Request, "{error}");
        assert!(error.to_string().contains("allow_private"), "{error}");
    }
    source.url = "https://api.example/{id}".into();
    source.probe = Some(Probe::new("http://169.254.169.254/latest", ProbeFrom::Validators));
    assert!(matches!(HttpOrigin::new(source), Err(SetupError::Private("probe"))));
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_to_something_else_than_http_is_not_followed() {
    for to in
        ["file:///etc/passwd", "ftp://127.0.0.1/", "http://169.254.169.254/latest", "//10.0.0.1/"]
    {
        let (source, _) = source(302, &[("location", to)], "").await;
        let error = load(source).await.unwrap_err();
        assert!(
            matches!(error.kind(), OriginErrorKind::Status(302) | OriginErrorKind::Network),
            "{to}: {error}"
        );
        assert!(!error.to_string().contains("passwd"), "{error}");
    }
}

/// The beginning of what gzip makes.
const GZIP: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3];
/// A mebibyte of zeros, deflated and flushed: again and again it is as many as one likes.
const ZEROS: &[u8] = include_bytes!("zeros.deflate");

#[tokio::test]
async fn ten_gigabytes_of_zeros_cost_no_more_than_the_limit() {
    let handle = async || {
        let parts = std::iter::once(GZIP).chain(std::iter::repeat_n(ZEROS, 10_240));
        let parts = parts.map(|part| Ok::<_, std::io::Error>(Bytes::from_static(part)));
        let body = Sent::from_stream(futures_util::stream::iter(parts));
        Response::builder().header("content-encoding", "gzip").body(body).unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum::serve(listener, Router::new().fallback(any(handle))).await.unwrap();
    });
    let mut source = HttpSource::new("api", format!("http://{address}/"));
    (source.allow_private, source.max_body_bytes) = (true, 8 << 20);
    let before = peak_kib();
    let origin = HttpOrigin::new(source).unwrap();
    let error = origin.load(Load::new(Request::new("api"))).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::TooLarge, "{error}");
    let grown = peak_kib() - before;
    println!("{grown} KiB more at the peak for a limit of 8 MiB");
    assert!(grown < (2 * 8 + 16) << 10, "{grown} KiB more than before");
}

/// The most memory that this process has had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn what_is_packed_badly_is_no_answer() {
    for (coding, body) in [
        ("gzip", b"this is no gzip".to_vec()),
        ("gzip", [GZIP, &ZEROS[..ZEROS.len() / 2]].concat()),
        ("br", vec![0xff; 64]),
        ("zstd", vec![0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff]),
        ("zstd", b"no".to_vec()),
    ] {
        let (source, _) = source(200, &[("content-encoding", coding)], body).await;
        let error = load(source).await.unwrap_err();
        assert_eq!(error.kind(), OriginErrorKind::Network, "{coding}: {error}");
    }
}

#[tokio::test]
async fn what_an_api_repeats_of_the_request_is_not_stored() {
    let body = r#"{"Header": {"url": "https://a/?key=hush", "rows": 2}, "Data": [1.50, 2]}"#;
    let (mut source, _) = source(200, &[], body).await;
    source.checks.drop = vec!["/Header/url".into(), "/none".into()];
    let loaded = load(source.clone()).await.unwrap();
    let kept = r#"{"Header": {"url": null, "rows": 2}, "Data": [1.50, 2]}"#;
    assert_eq!(loaded.value().unwrap(), kept);
    source.checks.must_not_exist = vec!["/remark".into()];
    assert!(load(source.clone()).await.is_ok());
    source.checks.must_not_exist = vec!["/Header/rows".into()];
    let error = load(source).await.unwrap_err();
    assert_eq!(error.kind(), OriginErrorKind::Unusable);
    assert!(error.to_string().contains("something at `/Header/rows`"), "{error}");
}

#[tokio::test]
async fn nothing_is_stored_that_is_packed_in_a_way_that_was_not_asked_for() {
    for packed in ["deflate", "x-gzip", "aes128gcm"] {
        let (source, _) = source(200, &[("content-encoding", packed)], "bytes").await;
        let error = load(source).await.unwrap_err();
        assert_eq!(error.kind(), OriginErrorKind::Unusable);
        assert!(error.to_string().contains(packed), "{error}");
    }
    let (source, _) = source(200, &[("content-encoding", "identity")], "bytes").await;
    assert_eq!(load(source).await.unwrap().value().unwrap(), "bytes");
}

#[tokio::test]
async fn what_is_posted_is_never_conditional() {
    let (mut source, seen) = source(200, &[("etag", "\"1\"")], "v").await;
    source.method = Method::Post(Body::Form([("a".to_owned(), "b".to_owned())].into()));
    let stored = Entry::builder("old", Stamp::ZERO).etag(Some("\"1\"")).build();
    load_with(source, Some(stored)).await.unwrap();
    assert!(!seen.lock().unwrap()[0].2.contains_key("if-none-match"));
}

/// A server that leads `/data` to `to` with this status, and answers everything else.
async fn leading(status: u16, to: String) -> (HttpSource, Seen) {
    let seen = Seen::default();
    let note = Arc::clone(&seen);
    let handle = move |verb: Verb, uri: Uri, asked: HeaderMap, sent: String| async move {
        note.lock().unwrap().push((verb, uri.clone(), asked, sent));
        let start = Response::builder();
        if uri.path().starts_with("/data") {
            return start.status(status).header("location", to).body(Sent::empty()).unwrap();
        }
        start.body(Sent::from("there")).unwrap()
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum::serve(listener, Router::new().fallback(any(handle))).await.unwrap();
    });
    let mut source = HttpSource::new("api", format!("http://{address}/data/{{id}}"));
    source.allow_private = true;
    (source, seen)
}

#[tokio::test]
async fn a_redirect_never_makes_another_question_of_what_is_posted() {
    for (status, followed) in [(301, false), (302, false), (303, false), (307, true), (308, true)] {
        let (mut source, seen) = leading(status, "/moved".to_owned()).await;
        source.method = Method::Post(Body::Form([("a".to_owned(), "b".to_owned())].into()));
        let answer = load(source).await;
        assert_eq!(answer.is_ok(), followed, "{status}: {answer:?}");
        let last = seen.lock().unwrap().last().unwrap().clone();
        assert_eq!((last.0, last.3.as_str()), (Verb::POST, "a=b"), "{status}");
    }
}

#[tokio::test]
async fn redirects_lead_to_named_hosts_and_to_no_others() {
    let (other, asked) = source(200, &[], "elsewhere").await;
    let port = other.url.split(':').nth(2).unwrap().split('/').next().unwrap().to_owned();
    let (mut source, _) = leading(302, format!("http://localhost:{port}/x")).await;
    let error = load(source.clone()).await.unwrap_err();
    assert!(error.to_string().contains("`redirect_hosts`"), "{error}");
    source.redirect_hosts = vec!["other.example".into()];
    assert!(load(source.clone()).await.is_err());
    assert!(asked.lock().unwrap().is_empty());
    source.redirect_hosts.push("LOCALHOST".into());
    assert_eq!(load(source).await.unwrap().value().unwrap(), "elsewhere");
}
