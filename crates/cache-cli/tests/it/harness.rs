//! A directory, a binary and an API for each test.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::{
    Router,
    extract::{Path as Segment, State},
    routing::get,
};
use tempfile::TempDir;
use tokio::sync::{Semaphore, watch};

/// An empty directory to run the binary in.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A configuration with sources `a` and `b` of `api`, and a SQLite file `cache.db`.
    pub(crate) fn configure(&self, api: &Api) {
        let at = api.address;
        self.write(
            "larder.yaml",
            &format!(
                "cache:\n  sqlite: {{path: cache.db}}\n  sources:\n    \
                 a: {{allow_private: true, url: \"http://{at}/a/{{cbsa}}\"}}\n    \
                 b: {{allow_private: true, url: \"http://{at}/b/{{cbsa}}\"}}\n"
            ),
        );
    }

    /// The binary in this directory, with an environment of its own.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn larder(&self, args: &[&str]) -> Run {
        Run(self.command(args).output().unwrap())
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits until the SQLite file holds a row.
    pub(crate) async fn stored_something(&self) {
        let file = self.path("cache.db");
        let some = || {
            let file = rusqlite::Connection::open(&file).ok()?;
            file.query_row("SELECT count(*) > 0 FROM entries", [], |row| row.get(0)).ok()
        };
        while some() != Some(true) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    /// Rows in the SQLite file.
    pub(crate) fn stored(&self) -> u64 {
        let file = rusqlite::Connection::open(self.path("cache.db")).unwrap();
        file.query_row("SELECT count(*) FROM entries", [], |row| row.get(0)).unwrap()
    }

    /// Rows of a source in the SQLite file.
    pub(crate) fn stored_of(&self, source: &str) -> u64 {
        let file = rusqlite::Connection::open(self.path("cache.db")).unwrap();
        let count = "SELECT count(*) FROM entries WHERE source = ?1";
        file.query_row(count, [source], |row| row.get(0)).unwrap()
    }
}

/// How a run ended.
pub(crate) struct Run(pub(crate) Output);

impl Run {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    /// Everything it said.
    pub(crate) fn said(&self) -> String {
        self.stdout() + &self.stderr()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.0.stdout).unwrap_or_else(|error| {
            panic!("no JSON ({error}): {}", self.said());
        })
    }

    /// Each line of what was printed.
    pub(crate) fn json_lines(&self) -> Vec<serde_json::Value> {
        let line = |line: &str| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("no JSON ({error}): {line}: {}", self.said()))
        };
        self.stdout().lines().map(line).collect()
    }

    /// Asserts the exit code, showing what was said if it differs.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "{}", self.said());
        self
    }
}

/// An API on loopback that counts its calls and answers only as often as it was permitted.
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
    counter: Arc<Counter>,
}

struct Counter {
    begun: watch::Sender<u64>,
    answered: AtomicU64,
    permits: Semaphore,
}

impl Api {
    pub(crate) async fn start(permits: usize) -> Self {
        let counter = Arc::new(Counter {
            begun: watch::Sender::new(0),
            answered: AtomicU64::new(0),
            permits: Semaphore::new(permits),
        });
        let router = Router::new().route("/{source}/{cbsa}", get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = router.with_state(Arc::clone(&counter));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, counter }
    }

    /// One that answers whatever is asked.
    pub(crate) async fn open() -> Self {
        Self::start(1_000_000).await
    }

    pub(crate) fn permit(&self, answers: usize) {
        self.counter.permits.add_permits(answers);
    }

    pub(crate) fn answered(&self) -> u64 {
        self.counter.answered.load(Ordering::SeqCst)
    }

    /// Waits until this many requests have arrived.
    pub(crate) async fn reached(&self, requests: u64) {
        let mut begun = self.counter.begun.subscribe();
        begun.wait_for(|begun| *begun >= requests).await.unwrap();
    }
}

async fn answer(
    State(counter): State<Arc<Counter>>,
    Segment((source, cbsa)): Segment<(String, u32)>,
) -> String {
    counter.begun.send_modify(|begun| *begun += 1);
    counter.permits.acquire().await.unwrap().forget();
    counter.answered.fetch_add(1, Ordering::SeqCst);
    format!("{{\"source\": \"{source}\", \"cbsa\": {cbsa}}}")
}

/// Sends a signal to a child.
pub(crate) fn signal(child: &Child, name: &str) {
    let status =
        Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// The contents of a file.
pub(crate) fn contents(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}
