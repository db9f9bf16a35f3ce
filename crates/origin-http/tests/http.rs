//! The HTTP origin against servers on this machine, well-behaved and not.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::{
    collections::BTreeMap,
    error::Error,
    future::IntoFuture,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::Request as Call,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use cache_core::{Load, Loaded, Origin, OriginError, OriginErrorKind, Request};
use origin_http::{HttpOrigin, HttpSource, Probe, ProbeFrom};

/// A source on this machine.
fn local(name: &str, url: impl Into<String>) -> HttpSource {
    let mut source = HttpSource::new(name, url);
    source.allow_private = true;
    source
}

/// Secrets in each place where a source can have them, and the header that the last two become.
const CANARIES: [&str; 6] = [
    "canary-template",
    "canary-query",
    "canary-header",
    "canary-user",
    "canary-password",
    "Y2FuYXJ5LXVzZXI6Y2FuYXJ5LXBhc3N3b3Jk",
];

/// A source with a secret everywhere.
fn guarded(server: SocketAddr) -> HttpSource {
    let [template, query, header, user, password, _] = CANARIES;
    let url = format!("http://{user}:{password}@{server}/data?token={template}");
    let mut source = local("api", url);
    source.query.insert("key".into(), query.into());
    source.headers.insert("x-api-key".into(), header.into());
    source
}

fn leaks(text: &str) -> Vec<&'static str> {
    CANARIES.into_iter().filter(|canary| text.contains(canary)).collect()
}

async fn load(source: HttpSource, request: Request) -> Result<Loaded, OriginError> {
    HttpOrigin::new(source).unwrap().load(Load::new(request)).await
}

/// The failure of a source, after a look for secrets in all that it says.
async fn failure(source: HttpSource) -> OriginError {
    let error = load(source, Request::new("api")).await.unwrap_err();
    let (mut said, mut cause) = (vec![format!("{error} {error:?} {error:#?}")], error.source());
    while let Some(next) = cause {
        said.push(format!("{next} {next:?}"));
        cause = next.source();
    }
    let said = said.join(" ");
    assert_eq!(leaks(&said), [""; 0], "{said}");
    assert_eq!(error.origin(), "api");
    assert!(!said.contains("/data"), "a path may hold a key: {said}");
    error
}

/// A call that a server got.
#[derive(Clone)]
struct Seen {
    target: String,
    headers: HeaderMap,
}

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn targets(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.target).collect()
    }
}

/// A server that gives `answer` to the target of each call. It stops with the test's runtime.
async fn serve(answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let app = Router::new().fallback(move |call: Call| {
        let (target, headers) = (call.uri().to_string(), call.headers().clone());
        let response = answer(&target);
        log.lock().unwrap().push(Seen { target, headers });
        async { response }
    });
    tokio::spawn(axum::serve(listener, app).into_future());
    Server { address, seen }
}

fn ok(body: impl Into<Body>) -> Response {
    Response::new(body.into())
}

/// An answer whose body holds every secret, as some servers send back what they refuse.
fn status(code: u16, headers: &[(&str, &str)]) -> Response {
    let response = Response::builder().status(code);
    let add = |response: http::response::Builder, &(name, value): &(&str, &str)| {
        response.header(name, value)
    };
    headers.iter().fold(response, add).body(Body::from(CANARIES.join(" "))).unwrap()
}

#[derive(Clone, Copy)]
enum Then {
    Close,
    /// Leaves the connection open until the client closes it.
    Hold,
}

/// A server that answers one call with these bytes, which need not be HTTP.
fn raw(answer: impl Into<Vec<u8>>, then: Then) -> SocketAddr {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut call, mut buffer) = (Vec::new(), [0; 4096]);
        while !call.ends_with(b"\r\n\r\n") {
            let length = stream.read(&mut buffer).unwrap();
            call.extend_from_slice(&buffer[..length]);
        }
        stream.write_all(&answer).unwrap();
        if matches!(then, Then::Hold) {
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
        }
    });
    address
}

/// Zeros, 2 MiB in 13 KiB of gzip: one literal, then the longest match of DEFLATE's fixed code
/// over and over.
fn bomb() -> Vec<u8> {
    let bits = ["110", "00110000", &"1100010100000".repeat(8192)].concat();
    let byte = |bits: &[u8]| bits.iter().rev().fold(0, |byte, bit| (byte << 1) | (bit - b'0'));
    let mut gzip = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
    gzip.extend(bits.as_bytes().chunks(8).map(byte));
    gzip
}

// What is asked.

#[tokio::test]
async fn values_are_encoded_and_stay_in_their_places() {
    let server = serve(|_| ok("")).await;
    let url = format!("http://{}/areas/{{area}}/v{{year}}?view={{view}}", server.address);
    let mut source = local("api", url);
    source.params.insert("year".into(), "2022".into());
    let request = Request::new("api").param("area", "a/b?c#d%20é {x}").context("view", "1&admin=1");
    load(source, request).await.unwrap();
    assert_eq!(
        server.targets(),
        ["/areas/a%2Fb%3Fc%23d%2520%C3%A9%20%7Bx%7D/v2022?view=1%26admin%3D1"]
    );
}

#[tokio::test]
async fn a_value_of_dots_does_not_climb() {
    let server = serve(|_| ok("")).await;
    let source = local("api", format!("http://{}/open/{{a}}{{b}}/data?d={{a}}", server.address));
    for (a, b) in [("..", ""), (".", "."), (".", ""), ("", "..")] {
        let request = Request::new("api").param("a", a).param("b", b);
        let error = load(source.clone(), request).await.unwrap_err();
        assert_eq!(error.kind(), OriginErrorKind::Request, "{a:?} {b:?}");
    }
    assert_eq!(server.targets(), [""; 0], "nothing was asked");

    let request = Request::new("api").param("a", "..").param("b", "x");
    load(source, request).await.unwrap();
    assert_eq!(server.targets(), ["/open/..x/data?d=.."]);
}

#[tokio::test]
async fn parameters_that_the_template_does_not_name_go_to_the_query() {
    let server = serve(|_| ok("")).await;
    let source = local("api", format!("http://{}/areas/{{area}}", server.address));
    let request = Request::new("api")
        .param("area", 14500)
        .param("name", "Boulder, CO & more=é")
        .context("spelling", "never sent");
    load(source.clone(), request).await.unwrap();
    load(source, Request::new("api").param("area", 1)).await.unwrap();
    assert_eq!(server.targets(), ["/areas/14500?name=Boulder%2C+CO+%26+more%3D%C3%A9", "/areas/1"]);
}

#[tokio::test]
async fn secrets_are_sent_where_they_belong() {
    let server = serve(|_| ok("")).await;
    load(guarded(server.address), Request::new("api").param("year", 2022)).await.unwrap();
    let [template, query, header, _, _, basic] = CANARIES;
    let seen = server.seen().remove(0);
    assert_eq!(seen.target, format!("/data?token={template}&year=2022&key={query}"));
    assert_eq!(seen.headers["x-api-key"], header);
    assert_eq!(seen.headers["authorization"], format!("Basic {basic}"));
    let agent = seen.headers["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("larder/"), "{agent}");
}

#[test]
fn a_request_holds_what_tells_answers_apart_and_no_secret() {
    let mut source = guarded(([127, 0, 0, 1], 9).into());
    source.url += "&area={area}&year={year}";
    source.params.insert("year".into(), "2022".into());
    source.params.insert("view".into(), "detail".into());
    let origin = HttpOrigin::new(source).unwrap();
    let values = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    };

    let request = origin.request("api", &values(&[("area", "14500"), ("title", "no")])).unwrap();
    assert_eq!(request.key().as_str(), "api:area=14500&view=detail&year=2022");
    assert_eq!(leaks(&format!("{request:?}")), [""; 0]);

    let request = origin.request("api", &values(&[("area", "1"), ("year", "2023")])).unwrap();
    assert_eq!(
        request.key().as_str(),
        "api:area=1&view=detail&year=2023",
        "a caller's value goes before the default"
    );
}

#[tokio::test]
async fn a_value_that_is_missing_is_named_with_what_to_write() {
    let server = serve(|_| ok("")).await;
    let source = local("api", format!("http://{}/{{area}}", server.address));
    let asked = HttpOrigin::new(source.clone()).unwrap().request("api", &BTreeMap::new());
    let loaded = load(source, Request::new("api").param("place", 1)).await;
    for error in [asked.unwrap_err(), loaded.unwrap_err()] {
        assert_eq!(error.kind(), OriginErrorKind::Request);
        let said = error.to_string();
        for part in ["`api`", "`area`", "`params`"] {
            assert!(said.contains(part), "{part} in: {said}");
        }
    }
    assert_eq!(server.targets(), [""; 0], "nothing was asked");
}

#[test]
fn what_describes_a_source_shows_no_secret() {
    let mut source = guarded(([127, 0, 0, 1], 9).into());
    let probe = format!("https://{}:x@probe.example/data?key={}", CANARIES[3], CANARIES[1]);
    source.probe = Some(Probe::new(probe, ProbeFrom::Validators));
    let shown = format!("{source:?} {source:#?} {:?}", HttpOrigin::new(source.clone()).unwrap());
    assert_eq!(leaks(&shown), [""; 0], "{shown}");
    assert!(shown.contains("http://127.0.0.1:9") && !shown.contains("/data"), "{shown}");

    source.url = "http://canary-user:canary?password@".into();
    assert_eq!(leaks(&format!("{source:?}")), [""; 0], "not even of a URL that is none");

    source.headers.insert("x-bad".into(), "canary-header\n".into());
    let error = HttpOrigin::new(source).unwrap_err();
    assert_eq!(leaks(&format!("{error} {error:?}")), [""; 0]);
    assert!(error.to_string().contains("`x-bad`"), "{error}");
}

// What is answered.

#[tokio::test]
async fn an_answer_carries_what_the_server_says_about_it() {
    let server = serve(|target| {
        let modified = "Tue, 15 Nov 2022 12:45:26 GMT";
        let head = [("content-type", "application/json"), ("etag", "\"v1\"")];
        let response = Response::builder().header("last-modified", modified);
        match target {
            "/bare" => ok(vec![0, 159, 146, 150]),
            _ => head
                .iter()
                .fold(response, |response, (name, value)| response.header(*name, *value))
                .body(Body::from("{}"))
                .unwrap(),
        }
    })
    .await;
    let at = |path| local("api", format!("http://{}/{path}", server.address));

    let full = load(at("full"), Request::new("api")).await.unwrap();
    assert_eq!(full.value().unwrap(), "{}");
    assert_eq!(full.content_type.as_deref(), Some("application/json"));
    assert_eq!(full.etag.as_deref(), Some("\"v1\""));
    assert_eq!(full.source_last_modified.as_deref(), Some("Tue, 15 Nov 2022 12:45:26 GMT"));

    let bare = load(at("bare"), Request::new("api")).await.unwrap();
    assert_eq!(bare, Loaded::new(vec![0, 159, 146, 150]), "bytes pass as they are");
}

#[tokio::test]
async fn gzip_is_asked_for_and_undone() {
    const SQUEEZED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x4a\xcc\x2b\x2e\x4f\
        \x2d\x52\xb2\x52\x2a\x2e\x2c\x4d\x4d\xad\x4a\x4d\x51\xaa\x05\x00\x67\xca\xb9\xdf\x15\x00\
        \x00\x00";
    let server = serve(|_| {
        Response::builder().header("content-encoding", "gzip").body(Body::from(SQUEEZED)).unwrap()
    })
    .await;
    let loaded = load(guarded(server.address), Request::new("api")).await.unwrap();
    assert_eq!(loaded.value().unwrap(), r#"{"answer":"squeezed"}"#);
    let accepted = server.seen()[0].headers["accept-encoding"].clone();
    for coding in ["gzip", "br", "zstd"] {
        assert!(accepted.to_str().unwrap().contains(coding), "{accepted:?}");
    }
}

// What goes wrong.

#[tokio::test]
async fn no_connection_is_a_network_error() {
    // Bound but not listening: nobody else can take the port, and nobody answers.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let error = failure(guarded(socket.local_addr().unwrap())).await;
    assert_eq!(error.kind(), OriginErrorKind::Network);
    assert!(error.to_string().contains("refused"), "{error}");
}

#[tokio::test]
async fn a_status_that_is_no_answer_says_what_to_do() {
    for (code, headers, after, hint) in [
        (401, &[][..], None, "`headers` or `query`"),
        (403, &[], None, "`headers` or `query`"),
        (404, &[], None, "404 Not Found"),
        (429, &[("retry-after", "7")], Some(7), "`rate_limit`"),
        (429, &[("retry-after", "soon")], None, "`rate_limit`"),
        (500, &[], None, "500 Internal Server Error"),
        (503, &[("retry-after", "120")], Some(120), "503"),
    ] {
        let server = serve(move |_| status(code, headers)).await;
        let error = failure(guarded(server.address)).await;
        assert_eq!(error.kind(), OriginErrorKind::Status(code));
        assert_eq!(error.retry_after(), after.map(Duration::from_secs), "{code} {headers:?}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[tokio::test]
async fn time_runs_out_before_the_head_and_in_the_body() {
    let limit = Duration::from_millis(200);
    for sent in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"] {
        let mut source = guarded(raw(sent, Then::Hold));
        source.timeout = limit;
        let started = Instant::now();
        let error = failure(source).await;
        assert!(started.elapsed() >= limit, "after {sent:?}");
        assert_eq!(error.kind(), OriginErrorKind::Timeout, "after {sent:?}: {error}");
        assert!(error.to_string().contains("within 200ms; raise `timeout`"), "{error}");
    }
}

#[tokio::test]
async fn a_body_of_exactly_the_limit_passes() {
    let server = serve(|_| ok("0123456789")).await;
    let mut source = guarded(server.address);
    source.max_body_bytes = 10;
    assert_eq!(load(source, Request::new("api")).await.unwrap().value().unwrap(), "0123456789");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_as_soon_as_it_shows() {
    // The connections stay open: waiting for the end would be a timeout.
    let declared = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n";
    let chunked =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n012345\r\n5\r\n67890\r\n";
    let unframed = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n01234567890";
    for sent in [declared, chunked, unframed] {
        let mut source = guarded(raw(sent, Then::Hold));
        source.max_body_bytes = 10;
        let error = failure(source).await;
        assert_eq!(error.kind(), OriginErrorKind::TooLarge, "{sent:?}: {error}");
        assert!(error.to_string().contains("10 bytes; raise `max_body`"), "{error}");
    }
}

#[tokio::test]
async fn a_body_that_grows_over_the_limit_when_decompressed_is_refused() {
    let server = serve(|_| {
        Response::builder().header("content-encoding", "gzip").body(Body::from(bomb())).unwrap()
    })
    .await;
    let mut source = guarded(server.address);
    source.max_body_bytes = 1 << 20;
    assert!((bomb().len() as u64) < source.max_body_bytes / 64, "small when it arrives");
    let error = failure(source).await;
    assert_eq!(error.kind(), OriginErrorKind::TooLarge, "{error}");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_answer() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n";
    let gzip = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nhalf";
    for sent in ["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", chunked, gzip, "nonsense\r\n"]
    {
        let error = failure(guarded(raw(sent, Then::Close))).await;
        assert_eq!(error.kind(), OriginErrorKind::Network, "{sent:?}: {error}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_no_answer() {
    let many = "x-header: value\r\n".repeat(100_000);
    let long = format!("x-header: {}\r\n", "v".repeat(8 << 20));
    let early = "HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n".repeat(50_000);
    for sent in [
        format!("HTTP/1.1 200 OK\r\n{many}\r\nbody"),
        format!("HTTP/1.1 200 OK\r\n{long}\r\nbody"),
        early,
    ] {
        let error = failure(guarded(raw(sent, Then::Close))).await;
        assert_eq!(error.kind(), OriginErrorKind::Network, "{error}");
    }
}

// Where it leads.

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed_with_its_headers() {
    let server = serve(|target| match target {
        "/moved" => ok("here"),
        _ => status(302, &[("location", "/moved")]),
    })
    .await;
    let loaded = load(guarded(server.address), Request::new("api")).await.unwrap();
    assert_eq!(loaded.value().unwrap(), "here");
    assert_eq!(server.seen()[1].headers["x-api-key"], CANARIES[2]);
}

#[tokio::test]
async fn a_redirect_elsewhere_is_not_followed() {
    let other = serve(|_| ok("")).await;
    let port = other.address.port();
    for place in [format!("http://localhost:{port}/data"), format!("http://127.0.0.1:{port}/data")]
    {
        let to = format!("{place}?key={}", CANARIES[1]);
        let server = serve(move |_| status(307, &[("location", &to)])).await;
        let error = failure(guarded(server.address)).await;
        assert_eq!(error.kind(), OriginErrorKind::Status(307), "{place}: {error}");
        assert_eq!(other.targets(), [""; 0], "{place} must not see keys");
    }
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let server = serve(|_| status(302, &[("location", "/data")])).await;
    let error = failure(guarded(server.address)).await;
    assert_eq!(error.kind(), OriginErrorKind::Status(StatusCode::FOUND.as_u16()));
    assert_eq!(server.seen().len(), 6, "the call and five redirects");
}

// How often.
