//! An HTTP server that answers as it is told, and keeps what it has seen.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Response, Uri},
    routing::any,
};
use larder::{Cache, Error, Hit, ReadOptions, Request, config::CacheConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Which one it is, from 1 on.
    pub(crate) number: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

type Answer = dyn Fn(&Seen) -> Response<Body> + Send + Sync;

pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    runtime: Option<Runtime>,
}

impl Server {
    /// Answers each request with what `answer` makes of it.
    pub(crate) fn start(answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let answer: Arc<Answer> = Arc::new(answer);
        let note = Arc::clone(&seen);
        let handle = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| async move {
            let at = Instant::now();
            let seen = {
                let mut all = note.lock().unwrap();
                let number = all.len() + 1;
                all.push(Seen { at, method, uri, headers, body, number });
                all[number - 1].clone()
            };
            answer(&seen)
        };
        let router = Router::new().fallback(any(handle));
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
        Self { port, seen, runtime: Some(runtime) }
    }

    /// Answers `ok` to everything.
    pub(crate) fn plain() -> Self {
        Self::start(|_seen| answer(200, "ok"))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn answer(status: u16, body: impl Into<Body>) -> Response<Body> {
    Response::builder().status(status).body(body.into()).unwrap()
}

pub(crate) fn answer_with(
    status: u16,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Response<Body> {
    let start = Response::builder().status(status);
    let builder = headers.iter().fold(start, |it, (name, value)| it.header(*name, *value));
    builder.body(body.into()).unwrap()
}

/// A directory with the cache of one source, `census`, at a server.
pub(crate) struct Place {
    dir: TempDir,
    port: u16,
}

impl Place {
    pub(crate) fn new(server: &Server) -> Self {
        Self { dir: TempDir::new().unwrap(), port: server.port }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The configuration with these further settings of the source, in one line of YAML.
    pub(crate) fn config(&self, settings: &str) -> CacheConfig {
        self.config_with(&format!("{{cbsa}}', {settings}"))
    }

    /// The same with what follows `/census/` in the URL.
    pub(crate) fn config_with(&self, rest: &str) -> CacheConfig {
        let (path, port) = (self.path("cache.db"), self.port);
        let yaml = format!(
            "cache:
  sqlite: {{path: '{}'}}
  sources:
    census: {{allow_private: true, url: 'http://127.0.0.1:{port}/census/{rest}}}
",
            path.display()
        );
        CacheConfig::loader().yaml(yaml, "larder.yaml").load().unwrap().config
    }

    pub(crate) fn cache(&self, settings: &str) -> Cache {
        Cache::from_config(&self.config(settings)).unwrap()
    }
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), future).await.unwrap()
}

pub(crate) fn request(cache: &Cache, market: u32) -> Request {
    let values: BTreeMap<String, String> = [("cbsa".to_owned(), market.to_string())].into();
    cache.request_for("census", &values).unwrap()
}

pub(crate) async fn ask(cache: &Cache, market: u32) -> Result<Hit, Error> {
    ask_with(cache, market, ReadOptions::default()).await
}

pub(crate) async fn ask_with(
    cache: &Cache,
    market: u32,
    options: ReadOptions,
) -> Result<Hit, Error> {
    within(cache.request_with(&request(cache, market), options)).await
}

pub(crate) async fn close(cache: Cache) {
    let report = within(cache.close(Duration::from_secs(30))).await;
    assert!(report.is_clean(), "{report:?}");
}
