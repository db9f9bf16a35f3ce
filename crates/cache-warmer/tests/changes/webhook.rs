//! Webhooks against servers on this machine, well-behaved and not.

use std::{
    error::Error,
    future::IntoFuture,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Uri},
    response::Response,
};
use cache_warmer::changes::{Change, Command, Notifier, NotifyError, NotifyLimits, Webhook};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::full_change;

/// Secrets in each place where a webhook can have them, and the header that the first two become.
const CANARIES: [&str; 6] = [
    "canary-user",
    "canary-password",
    "canary-path",
    "canary-query",
    "canary-secret",
    "Y2FuYXJ5LXVzZXI6Y2FuYXJ5LXBhc3N3b3Jk",
];

/// A call that a server got.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn url(&self) -> String {
        format!("http://{}/hook?key=1", self.address)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn status(status: u16) -> Response {
    Response::builder().status(status).body(Body::from("an answer")).unwrap()
}

/// A server that answers its first call, its second and so on as it is told. It stops with the
/// test's runtime.
async fn serve(answer: impl Fn(usize) -> Response + Clone + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let app =
        Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| {
            let mut seen = log.lock().unwrap();
            seen.push(Seen { method, uri, headers, body });
            let response = answer(seen.len());
            async { response }
        });
    tokio::spawn(axum::serve(listener, app).into_future());
    Server { address, seen }
}

/// Limits under which a test takes no time.
fn quick() -> NotifyLimits {
    let mut limits = NotifyLimits::default();
    limits.backoff = Duration::from_millis(1);
    limits
}

async fn notify(url: &str, secret: Option<&str>, limits: NotifyLimits) -> Result<(), NotifyError> {
    let notifier = Notifier::new().webhook(Webhook::new(url, secret).unwrap()).limits(limits);
    let mut told = notifier.notify(&full_change()).await;
    assert_eq!(told.len(), 1);
    told.remove(0).1
}

/// HMAC-SHA256 as RFC 2104 has it, for keys of up to 64 bytes.
fn hmac(key: &[u8], message: &[u8]) -> String {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message);
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c));
    let code = outer.chain_update(inner.finalize()).finalize();
    code.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn the_change_is_posted_and_signed() {
    // RFC 4231, case 2.
    let known = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(hmac(b"Jefe", b"what do ya want for nothing?"), known);

    let server = serve(|_| status(204)).await;
    notify(&server.url(), Some("a secret"), quick()).await.unwrap();
    let seen = server.seen();
    let [call] = seen.as_slice() else { panic!("{seen:?}") };
    assert_eq!((&call.method, call.uri.to_string()), (&Method::POST, "/hook?key=1".to_owned()));
    assert_eq!(serde_json::from_slice::<Change>(&call.body).unwrap(), full_change());
    assert_eq!(call.header("content-type"), Some("application/json"));
    assert_eq!(call.header("x-larder-event"), Some("change"));
    let signature = format!("sha256={}", hmac(b"a secret", &call.body));
    assert_eq!(call.header("x-larder-signature"), Some(signature.as_str()));
}

#[tokio::test]
async fn without_a_secret_there_is_no_signature() {
    let server = serve(|_| status(200)).await;
    notify(&server.url(), None, quick()).await.unwrap();
    assert_eq!(server.seen()[0].header("x-larder-signature"), None);
}

#[tokio::test]
async fn it_is_called_again_until_it_has_room() {
    let server = serve(|call| status([503, 429, 500].get(call - 1).copied().unwrap_or(200))).await;
    notify(&server.url(), Some("s"), quick()).await.unwrap();
    let seen = server.seen();
    assert_eq!(seen.len(), 4);
    let delivery = |call: &Seen| call.header("x-larder-delivery").unwrap().to_owned();
    assert!(seen.iter().all(|call| delivery(call) == delivery(&seen[0])), "it is one change");
    assert!(seen.iter().all(|call| call.body == seen[0].body));
    notify(&server.url(), None, quick()).await.unwrap();
    assert_ne!(delivery(&server.seen()[4]), delivery(&seen[0]), "it is another");
}

#[tokio::test]
async fn it_is_given_up_after_the_last_attempt() {
    let server = serve(|_| status(502)).await;
    let error = notify(&server.url(), None, quick()).await.unwrap_err();
    assert_eq!(server.seen().len(), 5);
    assert!(error.to_string().contains("HTTP 502, in attempt 5 of 5"), "{error}");
}

#[tokio::test]
async fn what_a_server_refuses_is_not_sent_again() {
    for (refused, hint) in [(400, "check that"), (401, "secret"), (404, "URL"), (410, "URL")] {
        let server = serve(move |_| status(refused)).await;
        let error = notify(&server.url(), None, quick()).await.unwrap_err();
        assert_eq!(server.seen().len(), 1, "{refused}");
        let is_told = matches!(error, NotifyError::Refused { status, .. } if status == refused);
        assert!(is_told && error.to_string().contains(hint), "{error}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    for redirect in [302, 307] {
        let answer = move |_| {
            let there = Response::builder().status(redirect).header("location", "/elsewhere");
            there.body(Body::empty()).unwrap()
        };
        let server = serve(answer).await;
        let error = notify(&server.url(), Some("s"), quick()).await.unwrap_err();
        assert_eq!(server.seen().len(), 1);
        assert!(error.to_string().contains("not followed"), "{error}");
    }
}

/// How long it takes to tell a server that asks for a pause once.
async fn time_with(retry_after: &'static str, limits: NotifyLimits) -> Duration {
    let answer = move |call| {
        let answer = Response::builder().status(if call == 1 { 503 } else { 200 });
        answer.header("retry-after", retry_after).body(Body::empty()).unwrap()
    };
    let server = serve(answer).await;
    let began = Instant::now();
    notify(&server.url(), None, limits).await.unwrap();
    assert_eq!(server.seen().len(), 2);
    began.elapsed()
}

#[tokio::test]
async fn a_server_is_left_alone_as_long_as_it_asks_but_not_longer_than_may_be() {
    let mut limits = quick();
    assert!(time_with("1", limits.clone()).await >= Duration::from_secs(1));
    limits.longest_retry_after = Duration::from_millis(100);
    let took = time_with("3600", limits).await;
    assert!((100..30_000).contains(&took.as_millis()), "{took:?}");
    for no_seconds in ["soon", "-1", "Wed, 21 Oct 2065 07:28:00 GMT"] {
        assert!(time_with(no_seconds, quick()).await < Duration::from_secs(30));
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_waited_for_without_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let calls = tokio::spawn(async move {
        let mut open = Vec::new();
        while open.len() < 2 {
            open.push(listener.accept().await.unwrap());
        }
        open
    });
    let mut limits = quick();
    limits.webhook_timeout = Duration::from_millis(100);
    limits.attempts = 2;
    let began = Instant::now();
    let error = notify(&url, None, limits).await.unwrap_err();
    assert!((200..10_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    assert!(matches!(error, NotifyError::Unreachable { attempts: 2, .. }), "{error}");
    assert_eq!(calls.await.unwrap().len(), 2);
}

#[tokio::test]
async fn secrets_are_in_no_text() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let [user, password, path, query, secret, _] = CANARIES;
    let mut said = Vec::new();
    for (server, place) in [
        (serve(|_| status(500)).await.address, "HTTP 500"),
        (serve(|_| status(403)).await.address, "HTTP 403"),
        (closed, "refused"),
    ] {
        let url = format!("http://{user}:{password}@{server}/{path}?key={query}");
        let notifier =
            Notifier::new().webhook(Webhook::new(&url, Some(secret)).unwrap()).limits(quick());
        said.push(format!("{notifier:?} {notifier:#?}"));
        let (which, told) = notifier.notify(&full_change()).await.remove(0);
        assert_eq!(which, format!("webhook http://{server}"));
        let error = told.unwrap_err();
        assert!(error.to_string().contains(place), "{error}");
        said.push(format!("{which} {error} {error:?}"));
        let mut cause = error.source();
        while let Some(next) = cause {
            said.push(format!("{next} {next:?}"));
            cause = next.source();
        }
    }
    for (url, secret) in [
        (format!("ftp://{user}:{password}@h.example/{path}?{query}"), Some(secret)),
        (format!("http://{user}:{password}@h.example:99999/{path}?{query}"), Some(secret)),
        (format!("{path}?{query}"), None),
        ("http:///".to_owned(), None),
        ("https://h.example/".to_owned(), Some("")),
    ] {
        let error = Webhook::new(&url, secret).unwrap_err();
        said.push(format!("{error} {error:?}"));
    }
    let said = said.join(" ");
    let leaked: Vec<_> = CANARIES.iter().filter(|canary| said.contains(**canary)).collect();
    assert!(leaked.is_empty(), "{leaked:?}: {said}");
    assert!(
        said.contains("only `https:` and `http:`") && said.contains("secret is empty"),
        "{said}"
    );
}

#[tokio::test]
async fn one_that_fails_holds_up_no_other() {
    let server = serve(|_| status(200)).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let notifier = Notifier::new()
        .webhook(Webhook::new(&format!("http://{closed}/"), None).unwrap())
        .command(Command::new("no-such-program-of-larder", ["canary-argument"]))
        .webhook(Webhook::new(&server.url(), None).unwrap())
        .limits(quick());
    assert!(!notifier.is_empty() && Notifier::new().is_empty());
    let told = notifier.notify(&full_change()).await;
    let told: Vec<_> = told.iter().map(|(which, told)| (which.as_str(), told.is_ok())).collect();
    let (closed, open) =
        (format!("webhook http://{closed}"), format!("webhook http://{}", server.address));
    let command = "command no-such-program-of-larder";
    assert_eq!(told, [(closed.as_str(), false), (command, false), (open.as_str(), true)]);
    assert_eq!(server.seen().len(), 1);
}
