//! What the modules share: a chain on a temporary file with a clock moved by hand, and loads that
//! begin and end when told to.

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use larder::{
    Cache, CacheBuilder, Key, LoadContext, Loaded, OriginError, OriginErrorKind, Tag,
    tiers::{MemoryTier, SqliteOptions, SqliteTier},
};
use tempfile::TempDir;
use tier_testkit::ManualClock;
use tokio::{sync::oneshot, task::JoinHandle};

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// No test may hang: whatever waits does so within this.
const LIMIT: Duration = Duration::from_secs(30);

/// The answer of `future`, which must come.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap()
}

/// What a task that must end returns.
pub(crate) async fn joined<T>(task: JoinHandle<T>) -> T {
    within(task).await.unwrap()
}

/// A directory for one test, and its clock.
pub(crate) struct Bench {
    dir: TempDir,
    pub(crate) clock: Arc<ManualClock>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), clock: Arc::new(ManualClock::default()) }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("cache.db")
    }

    pub(crate) fn memory(&self) -> MemoryTier {
        MemoryTier::with_clock(16 << 20, Arc::<ManualClock>::clone(&self.clock))
    }

    pub(crate) fn sqlite(&self) -> SqliteTier {
        let clock = Arc::<ManualClock>::clone(&self.clock);
        SqliteTier::new(SqliteOptions::new(self.path()).clock(clock)).unwrap()
    }

    /// A builder that reads this bench's clock, without tiers.
    pub(crate) fn bare(&self) -> CacheBuilder {
        Cache::builder().clock(Arc::<ManualClock>::clone(&self.clock))
    }

    /// A builder with memory over SQLite.
    pub(crate) fn builder(&self) -> CacheBuilder {
        self.bare().tier(self.memory()).tier(self.sqlite())
    }

    /// Memory over SQLite; another call gives what a restarted process would have.
    pub(crate) fn cache(&self) -> Cache {
        self.builder().build().unwrap()
    }

    /// Memory alone.
    pub(crate) fn memory_only(&self) -> Cache {
        self.bare().tier(self.memory()).build().unwrap()
    }

    /// SQLite alone, in the same file.
    pub(crate) fn sqlite_only(&self) -> Cache {
        self.bare().tier(self.sqlite()).build().unwrap()
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }
}

/// Closes the cache; everything must have ended.
pub(crate) async fn close(cache: Cache) {
    let report = within(cache.close(LIMIT)).await;
    assert!(report.is_clean(), "{report:?}");
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text)
}

pub(crate) fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

/// A failure of a load.
pub(crate) fn failure(message: &str) -> OriginError {
    OriginError::new(OriginErrorKind::Network, "test", message)
}

/// A load that brings `value` at once.
pub(crate) fn bring(
    value: &'static str,
) -> impl FnOnce(LoadContext) -> std::future::Ready<Result<Loaded, OriginError>> + Send + 'static {
    move |_| std::future::ready(Ok(Loaded::new(value)))
}

/// A load that must not happen.
pub(crate) fn never()
-> impl FnOnce(LoadContext) -> std::future::Ready<Result<Loaded, OriginError>> + Send + 'static {
    |context| panic!("loaded `{}`, which should have been found", context.key)
}

/// Counts loads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loads(Arc<AtomicU64>);

impl Loads {
    /// Counts one more; how many it makes.
    pub(crate) fn add(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The other end of a gated load.
pub(crate) struct Gate {
    began: oneshot::Receiver<LoadContext>,
    end: oneshot::Sender<Result<Loaded, OriginError>>,
}

/// What remains to be told to a load that has begun.
pub(crate) struct Begun {
    pub(crate) context: LoadContext,
    end: oneshot::Sender<Result<Loaded, OriginError>>,
}

impl Gate {
    /// Waits until the load has begun.
    pub(crate) async fn begun(self) -> Begun {
        Begun { context: within(self.began).await.unwrap(), end: self.end }
    }
}

impl Begun {
    /// Ends the load.
    pub(crate) fn end(self, result: Result<Loaded, OriginError>) {
        assert!(self.end.send(result).is_ok(), "the load has gone");
    }

    /// Ends the load with a value.
    pub(crate) fn bring(self, value: &'static str) {
        self.end(Ok(Loaded::new(value)));
    }
}

/// A load that says when it has begun, and ends when it is told to.
pub(crate) fn gated()
-> (Gate, impl FnOnce(LoadContext) -> BoxFuture<Result<Loaded, OriginError>> + Send + 'static) {
    let (began_in, began) = oneshot::channel();
    let (end, end_in) = oneshot::channel();
    let load = move |context| -> BoxFuture<_> {
        Box::pin(async move {
            assert!(began_in.send(context).is_ok(), "nobody waits for the load to begin");
            end_in.await.unwrap_or_else(|_gone| Err(failure("the gate is gone")))
        })
    };
    (Gate { began, end }, load)
}

/// A `get_or_load` under way in a task of its own, and the gate of its load.
pub(crate) fn load_gated(
    cache: &Cache,
    key: &Key,
) -> (Gate, JoinHandle<Result<larder::Hit, larder::Error>>) {
    let (gate, load) = gated();
    let (cache, key) = (cache.clone(), key.clone());
    (gate, tokio::spawn(async move { cache.get_or_load(&key, load).await }))
}

/// Waits, by giving way, until `done`; for what happens in tasks behind a call.
pub(crate) async fn until(mut done: impl FnMut() -> bool) {
    within(async {
        while !done() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}
