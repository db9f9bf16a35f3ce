//! The slow, rate-limited API that the demonstration caches: a server on loopback.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use cache_warmer::Gazetteer;
use tokio::{net::TcpListener, sync::oneshot, task::JoinSet, time::sleep};

use super::documents::Document;

/// Span in which requests are counted against the rate.
const WINDOW: Duration = Duration::from_secs(1);

/// The date of the delineations that the documents are made from.
const LAST_MODIFIED: &str = "Fri, 14 Sep 2018 00:00:00 GMT";

const JSON: &str = "application/json";

/// How slow and how strict the origin is.
#[derive(Debug, Clone)]
pub(crate) struct OriginOptions {
    /// Bounds of the time an answer takes; the upper one is excluded. 200 to 600 ms by default.
    pub(crate) latency: Range<Duration>,
    /// Requests answered within any one second; more are refused. 50 by default.
    pub(crate) rate_per_second: u32,
}

impl Default for OriginOptions {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(200)..Duration::from_millis(600),
            rate_per_second: 50,
        }
    }
}

/// A running origin; dropping it stops it without waiting for the answers under way.
#[derive(Debug)]
pub(crate) struct DemoOrigin {
    addr: SocketAddr,
    desk: Arc<Desk>,
    close: oneshot::Sender<()>,
    server: JoinSet<io::Result<()>>,
}

impl DemoOrigin {
    /// Serves `GET /v1/{source}/{cbsa}` on `addr`, which must be a loopback address; port 0 picks one.
    pub(crate) async fn start(addr: SocketAddr, options: OriginOptions) -> io::Result<Self> {
        if !addr.ip().is_loopback() {
            let reason = format!("the demo origin serves this machine only, not {addr}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let desk = Arc::new(Desk::new(options));
        let router = Router::new()
            .route("/v1/{source}/{cbsa}", get(answer))
            .fallback(answer_unknown)
            .with_state(Arc::clone(&desk));
        let (close, closed) = oneshot::channel();
        let mut server = JoinSet::new();
        server.spawn(async move {
            // A dropped sender means the same as a sent message: nobody wants the server any more.
            let asked_to_close = async { closed.await.unwrap_or_default() };
            axum::serve(listener, router).with_graceful_shutdown(asked_to_close).await
        });
        Ok(Self { addr, desk, close, server })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Requests answered with a document.
    pub(crate) fn calls(&self) -> u64 {
        self.desk.calls.load(Ordering::Relaxed)
    }

    /// Requests refused because they came too fast.
    pub(crate) fn refused(&self) -> u64 {
        self.desk.refused.load(Ordering::Relaxed)
    }

    /// Finishes the answers under way, and returns when new connections are refused.
    pub(crate) async fn stop(mut self) -> io::Result<()> {
        // It fails when the server is gone already, which is what is wanted.
        self.close.send(()).ok();
        match self.server.join_next().await {
            Some(Ok(served)) => served,
            Some(Err(err)) => Err(io::Error::other(err)),
            None => Ok(()),
        }
    }
}

/// What all requests share.
struct Desk {
    options: OriginOptions,
    calls: AtomicU64,
    refused: AtomicU64,
    /// A std mutex: it is held for a few instructions and never across an await.
    traffic: Mutex<Traffic>,
}

#[derive(Default)]
struct Traffic {
    admitted: VecDeque<Instant>,
    /// How often each document was asked for.
    asked: HashMap<(Document, u32), u64>,
}

impl Desk {
    fn new(options: OriginOptions) -> Self {
        let (calls, refused, traffic) = Default::default();
        Self { options, calls, refused, traffic }
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request; the answer to give if it comes too fast.
    fn refusal(&self) -> Option<Response> {
        if self.traffic().admit(Instant::now(), self.options.rate_per_second) {
            return None;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        let retry = [(header::RETRY_AFTER, "1")];
        Some((retry, failure(StatusCode::TOO_MANY_REQUESTS, "too many requests")).into_response())
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { options, calls, refused, traffic: _ } = self;
        f.debug_struct("Desk")
            .field("options", options)
            .field("calls", calls)
            .field("refused", refused)
            .finish_non_exhaustive()
    }
}

impl Traffic {
    /// Counts a request at `now` unless `rate` were counted in the second before it.
    fn admit(&mut self, now: Instant, rate: u32) -> bool {
        let is_over = |&then: &Instant| now.saturating_duration_since(then) >= WINDOW;
        while self.admitted.front().is_some_and(is_over) {
            self.admitted.pop_front();
        }
        let admits = self.admitted.len() < usize::try_from(rate).unwrap_or(usize::MAX);
        if admits {
            self.admitted.push_back(now);
        }
        admits
    }

    /// Which call for the document this is, from 0.
    fn number(&mut self, document: Document, cbsa: u32) -> u64 {
        let asked = self.asked.entry((document, cbsa)).or_default();
        let number = *asked;
        *asked += 1;
        number
    }
}

async fn answer(
    State(desk): State<Arc<Desk>>,
    uri: Uri,
    Path((source, cbsa)): Path<(String, String)>,
) -> Response {
    if let Some(refusal) = desk.refusal() {
        return refusal;
    }
    let gazetteer = Gazetteer::us();
    let market = cbsa.parse().ok().and_then(|cbsa| gazetteer.get(cbsa));
    let (Some(document), Some(market)) = (Document::from_name(&source), market) else {
        return unknown(&desk, &uri).await;
    };
    let number = desk.traffic().number(document, market.cbsa());
    sleep(latency(&desk.options.latency, uri.path(), number)).await;
    match document.render(gazetteer, market) {
        Ok(json) => {
            desk.calls.fetch_add(1, Ordering::Relaxed);
            let etag = format!("\"{:016x}\"", fnv1a(&json));
            let headers = [
                (header::CONTENT_TYPE, JSON),
                (header::ETAG, etag.as_str()),
                (header::LAST_MODIFIED, LAST_MODIFIED),
            ];
            (headers, json).into_response()
        }
        Err(_) => failure(StatusCode::INTERNAL_SERVER_ERROR, "cannot render"),
    }
}

async fn answer_unknown(State(desk): State<Arc<Desk>>, uri: Uri) -> Response {
    match desk.refusal() {
        Some(refusal) => refusal,
        None => unknown(&desk, &uri).await,
    }
}

async fn unknown(desk: &Desk, uri: &Uri) -> Response {
    sleep(latency(&desk.options.latency, uri.path(), 0)).await;
    failure(StatusCode::NOT_FOUND, "no such source or market")
}

/// An answer that says what is wrong; `reason` must need no escaping in JSON.
fn failure(status: StatusCode, reason: &'static str) -> Response {
    let json = Bytes::from(format!("{{\"error\":\"{reason}\"}}"));
    (status, [(header::CONTENT_TYPE, JSON)], json).into_response()
}

/// A time within `range` that depends on nothing but the arguments.
fn latency(range: &Range<Duration>, path: &str, number: u64) -> Duration {
    let hash = fnv1a(&[path.as_bytes(), &number.to_le_bytes()].concat());
    // The last bytes hardly reach the upper bits of such a hash, and those decide below.
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let span = range.end.saturating_sub(range.start).as_nanos();
    let share = (span * u128::from(mixed)) >> 64;
    range.start + Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
}

/// FNV-1a of 64 bits: std's hashers promise no stable value, and an `ETag` must outlive the build.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use tokio::{task::spawn_blocking, time::timeout};

    use super::*;

    const INSTANT: Range<Duration> = Duration::ZERO..Duration::ZERO;

    async fn start(rate_per_second: u32, latency: Range<Duration>) -> DemoOrigin {
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let options = OriginOptions { latency, rate_per_second };
        DemoOrigin::start(addr, options).await.expect("starts")
    }

    /// Status, head in lower case, and body.
    async fn get(addr: SocketAddr, path: &'static str) -> io::Result<(u16, String, String)> {
        // A thread with a blocking stream: tokio's own needs a feature that nothing else here does.
        spawn_blocking(move || get_blocking(addr, path)).await.expect("no panic")
    }

    fn get_blocking(addr: SocketAddr, path: &str) -> io::Result<(u16, String, String)> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (head, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.expect("a status"), head.to_lowercase(), body.to_owned()))
    }

    #[tokio::test]
    async fn documents_are_served_with_their_validators() {
        let origin = start(100, INSTANT).await;
        let (status, head, body) = get(origin.addr(), "/v1/profile/14500").await.unwrap();
        assert_eq!(status, 200);
        assert!(head.contains("\r\ncontent-type: application/json"), "{head}");
        assert!(head.contains("\r\nlast-modified: fri, 14 sep 2018 00:00:00 gmt"), "{head}");
        assert!(body.starts_with(r#"{"cbsa":14500,"#), "{body}");
        let etag =
            |head: &str| head.lines().find(|line| line.starts_with("etag: \"")).map(str::to_owned);
        let (_, again, _) = get(origin.addr(), "/v1/profile/14500").await.unwrap();
        let (_, other, _) = get(origin.addr(), "/v1/profile/19740").await.unwrap();
        assert!(etag(&head).is_some());
        assert_eq!(etag(&head), etag(&again));
        assert_ne!(etag(&head), etag(&other));
        assert_eq!((origin.calls(), origin.refused()), (3, 0));
    }

    #[tokio::test]
    async fn what_is_unknown_is_not_found_and_not_counted() {
        let origin = start(100, INSTANT).await;
        for path in ["/v1/census/14500", "/v1/profile/99999", "/v1/profile/boulder-co", "/"] {
            let (status, head, body) = get(origin.addr(), path).await.unwrap();
            assert_eq!(status, 404, "{path}");
            assert!(head.contains("content-type: application/json"), "{head}");
            assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{body}");
        }
        assert_eq!((origin.calls(), origin.refused()), (0, 0));
    }

    #[tokio::test]
    async fn too_many_requests_are_refused_at_once() {
        // Only a refusal comes before the reader gives up.
        let slow = Duration::from_mins(1)..Duration::from_mins(2);
        let origin = start(1, slow).await;
        let addr = origin.addr();
        let first = tokio::spawn(get(addr, "/v1/profile/14500"));
        while origin.desk.traffic().asked.is_empty() {
            tokio::task::yield_now().await;
        }
        let (status, head, body) = get(addr, "/v1/profile/14500").await.unwrap();
        assert_eq!(status, 429);
        assert!(head.contains("\r\nretry-after: 1"), "{head}");
        assert_eq!(body, r#"{"error":"too many requests"}"#);
        assert_eq!((origin.calls(), origin.refused()), (0, 1));
        first.abort();
    }

    #[tokio::test]
    async fn answers_take_their_time() {
        let slow = Duration::from_millis(150)..Duration::from_millis(151);
        let origin = start(100, slow).await;
        let asked = Instant::now();
        get(origin.addr(), "/v1/profile/14500").await.unwrap();
        assert!(asked.elapsed() >= Duration::from_millis(150));
    }

    #[tokio::test]
    async fn stopping_finishes_answers_and_refuses_connections() {
        let origin = start(100, Duration::from_millis(200)..Duration::from_millis(201)).await;
        let addr = origin.addr();
        let under_way = tokio::spawn(get(addr, "/v1/profile/14500"));
        while origin.desk.traffic().asked.is_empty() {
            tokio::task::yield_now().await;
        }
        let idle = TcpStream::connect(addr).unwrap();
        timeout(Duration::from_secs(10), origin.stop()).await.expect("stops").unwrap();
        assert_eq!(under_way.await.unwrap().unwrap().0, 200);
        assert_eq!(
            get(addr, "/v1/profile/14500").await.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        drop(idle);
        let again = DemoOrigin::start(addr, OriginOptions::default()).await;
        assert!(again.is_ok(), "the address is free for the next");
    }

    #[tokio::test]
    async fn other_machines_are_not_served() {
        let anywhere = SocketAddr::from(([0, 0, 0, 0], 0));
        assert!(DemoOrigin::start(anywhere, OriginOptions::default()).await.is_err());
    }

    #[test]
    fn the_rate_holds_in_any_second() {
        let mut traffic = Traffic::default();
        let start = Instant::now();
        let mut admit = |ms| traffic.admit(start + Duration::from_millis(ms), 2);
        assert!(admit(0) && admit(900));
        assert!(!admit(950), "a third within the second");
        assert!(admit(1_000), "the first is a second ago, and the refused one does not count");
        assert!(!admit(1_800), "the second is not");
        assert!(admit(1_900));
    }

    #[test]
    fn latency_is_drawn_from_the_range_and_repeatable() {
        let range = Duration::from_millis(200)..Duration::from_millis(600);
        let draws: Vec<Duration> =
            (0..1_000).map(|number| latency(&range, "/v1/profile/14500", number)).collect();
        assert!(draws.iter().all(|draw| range.contains(draw)));
        let mean = draws.iter().sum::<Duration>() / 1_000;
        assert!((380..420).contains(&mean.as_millis()), "{mean:?}");
        assert_eq!(draws[7], latency(&range, "/v1/profile/14500", 7));
        assert_ne!(draws[7], latency(&range, "/v1/profile/19740", 7));
        assert_eq!(latency(&INSTANT, "/", 0), Duration::ZERO);
    }
}
