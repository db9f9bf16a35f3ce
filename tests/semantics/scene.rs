//! A chain with one policy and one key, on a clock moved by hand and with tiers that need no
//! threads: time stands still unless a test moves it.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use larder::{
    Cache, CacheBuilder, Entry, Error, Hit, Key, LoadContext, Loaded, OriginError, OriginErrorKind,
    Policy, PolicyPatch, ReadOptions, ServedBy, StaleReason, Tier, tiers::MemoryTier,
};
use tier_testkit::{Chaos, ChaosTier};
use tokio::task::JoinHandle;

use crate::harness::{Begun, Bench, Loads, bring, gated, joined, key, never, within};

pub(crate) const MEMORY: ServedBy = ServedBy::Tier("memory");
pub(crate) const LOWER: ServedBy = ServedBy::Tier("lower");

/// More than enough for all that can be done without waiting to be done.
const TURNS: usize = 1_000;

pub(crate) type Answer = Result<Loaded, OriginError>;
pub(crate) type Asked = Result<Hit, Error>;
/// A load under way.
pub(crate) type Boxed = Pin<Box<dyn Future<Output = Answer> + Send>>;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The answer of an HTTP status.
pub(crate) fn status(code: u16) -> OriginError {
    OriginError::new(OriginErrorKind::Status(code), "census", format!("status {code}"))
}

/// A load that answers at once.
pub(crate) fn give(
    answer: Answer,
) -> impl FnOnce(LoadContext) -> std::future::Ready<Answer> + Send + 'static {
    move |_| std::future::ready(answer)
}

/// A load that fails at once, because the network does.
pub(crate) fn fail() -> impl FnOnce(LoadContext) -> std::future::Ready<Answer> + Send + 'static {
    give(Err(crate::harness::failure("unplugged")))
}

/// The same, but not before others had a turn.
pub(crate) fn fail_later() -> impl FnOnce(LoadContext) -> Boxed + Send + 'static {
    |_| {
        Box::pin(async {
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            Err(crate::harness::failure("unplugged"))
        })
    }
}

/// A load that never ends.
pub(crate) fn hang() -> impl FnOnce(LoadContext) -> std::future::Pending<Answer> + Send + 'static {
    |_| std::future::pending()
}

/// A load that brings `value` at once, and is counted.
pub(crate) fn count(
    loads: &Loads,
    value: &'static str,
) -> impl FnOnce(LoadContext) -> std::future::Ready<Answer> + Send + 'static {
    let loads = loads.clone();
    move |_| {
        loads.add();
        std::future::ready(Ok(Loaded::new(value)))
    }
}

/// Lets all tasks do what they can without waiting.
pub(crate) async fn settle() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// Lets tasks go on until `done`, which must come without waiting.
#[track_caller]
pub(crate) fn soon(mut done: impl FnMut() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        for _ in 0..TURNS {
            if done() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("at {caller}: it does not happen");
    }
}

/// What a call for reading says beside its value.
pub(crate) fn patch(change: impl FnOnce(PolicyPatch) -> PolicyPatch) -> ReadOptions {
    ReadOptions::default().policy(change(PolicyPatch::default()))
}

/// Value, and why it is stale if it is.
pub(crate) fn told(hit: &Hit) -> (&str, Option<StaleReason>) {
    (std::str::from_utf8(hit.value()).unwrap(), hit.stale_reason())
}

/// A tier over memory that has to be waited for, as one on a disk or a network.
pub(crate) fn waited_for(bench: &Bench, name: &'static str) -> ChaosTier<MemoryTier> {
    ChaosTier::new(name, bench.memory(), 1)
}

pub(crate) struct Scene {
    pub(crate) bench: Bench,
    pub(crate) cache: Cache,
    pub(crate) key: Key,
    pub(crate) tiers: Vec<Arc<dyn Tier>>,
    lower: Option<Chaos>,
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.tiers.iter().map(|tier| tier.name()).collect();
        f.write_str(&names.join(" over "))
    }
}

impl Scene {
    /// Memory alone.
    pub(crate) fn memory(policy: &Policy) -> Self {
        Self::new(true, false, policy)
    }

    /// A tier that has to be waited for, alone.
    pub(crate) fn lower(policy: &Policy) -> Self {
        Self::new(false, true, policy)
    }

    /// Memory over a tier that has to be waited for.
    pub(crate) fn chain(policy: &Policy) -> Self {
        Self::new(true, true, policy)
    }

    /// What holds in each of them: they take different ways through the code.
    pub(crate) fn each(policy: &Policy) -> [Self; 3] {
        [Self::memory(policy), Self::lower(policy), Self::chain(policy)]
    }

    fn new(memory: bool, lower: bool, policy: &Policy) -> Self {
        let bench = Bench::new();
        let mut tiers: Vec<Arc<dyn Tier>> = Vec::new();
        if memory {
            tiers.push(Arc::new(bench.memory()));
        }
        let lower = lower.then(|| {
            let tier = waited_for(&bench, "lower");
            let chaos = tier.chaos();
            tiers.push(Arc::new(tier));
            chaos
        });
        let cache = builder(&bench, &tiers, policy).build().unwrap();
        Self { bench, cache, key: key("census:a"), tiers, lower }
    }

    /// A builder of a chain with the same tiers and clock.
    pub(crate) fn builder(&self, policy: &Policy) -> CacheBuilder {
        builder(&self.bench, &self.tiers, policy)
    }

    /// The same as it is after a restart with another policy: what memory had is gone.
    #[must_use]
    pub(crate) fn restarted(mut self, policy: &Policy) -> Self {
        for tier in &mut self.tiers {
            if tier.name() == "memory" {
                *tier = Arc::new(self.bench.memory());
            }
        }
        self.with(|scene| scene.builder(policy))
    }

    /// The same tiers in another chain.
    #[must_use]
    pub(crate) fn with(mut self, builder: impl FnOnce(&Self) -> CacheBuilder) -> Self {
        self.cache = builder(&self).build().unwrap();
        self
    }

    /// The tier that has to be waited for.
    pub(crate) fn chaos(&self) -> &Chaos {
        self.lower.as_ref().unwrap()
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.bench.advance(millis);
    }

    /// Loads `value`, which must be stored then.
    pub(crate) async fn have(&self, value: &'static str) -> Hit {
        let refresh = ReadOptions::refresh();
        let hit = self.ask_with(refresh, bring(value)).await.unwrap();
        assert_eq!(self.get().await.unwrap().value(), value, "{self}");
        hit
    }

    pub(crate) async fn get(&self) -> Option<Hit> {
        within(self.cache.get(&self.key)).await.unwrap()
    }

    pub(crate) async fn get_with(&self, options: ReadOptions) -> Option<Hit> {
        within(self.cache.get_with(&self.key, options)).await.unwrap()
    }

    pub(crate) async fn ask<F, Fut>(&self, load: F) -> Asked
    where
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        within(self.cache.get_or_load(&self.key, load)).await
    }

    pub(crate) async fn ask_with<F, Fut>(&self, options: ReadOptions, load: F) -> Asked
    where
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        within(self.cache.get_or_load_with(&self.key, options, load)).await
    }

    /// The same in a task of its own.
    pub(crate) fn start<F, Fut>(&self, load: F) -> JoinHandle<Asked>
    where
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        self.start_with(ReadOptions::default(), load)
    }

    pub(crate) fn start_with<F, Fut>(&self, options: ReadOptions, load: F) -> JoinHandle<Asked>
    where
        F: FnOnce(LoadContext) -> Fut + Send + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let (cache, key) = (self.cache.clone(), self.key.clone());
        tokio::spawn(async move { cache.get_or_load_with(&key, options, load).await })
    }

    /// Readers that ask for the key, and must not be those that load.
    pub(crate) fn followers(&self, readers: usize) -> Vec<JoinHandle<Asked>> {
        (0..readers).map(|_| self.start(never())).collect()
    }

    /// A load under way, the caller who started it, and `readers` who wait for it too.
    pub(crate) async fn crowd(&self, readers: usize) -> (Begun, Vec<JoinHandle<Asked>>) {
        let (gate, load) = gated();
        let mut callers = vec![self.start(load)];
        let begun = gate.begun().await;
        callers.extend(self.followers(readers));
        self.joined_by(readers as u64).await;
        (begun, callers)
    }

    /// Waits until so many readers wait for the load of another one.
    pub(crate) async fn joined_by(&self, readers: u64) {
        soon(|| self.cache.stats().joined >= readers).await;
    }

    /// Waits until so many loads have begun.
    pub(crate) async fn loading(&self, loads: u64) {
        soon(|| self.cache.stats().loads == loads).await;
    }

    /// The next call must load: no flight is left.
    pub(crate) async fn next_call_loads(&self) {
        let loads = Loads::default();
        let hit = self.ask(count(&loads, "next")).await.unwrap();
        assert_eq!((hit.value().as_ref(), loads.count()), (&b"next"[..], 1), "{self}");
    }

    /// What each tier holds under the key, in the order of the chain.
    pub(crate) async fn held(&self) -> Vec<Option<Entry>> {
        let mut held = Vec::new();
        for tier in &self.tiers {
            held.push(within(tier.get(&self.key)).await.unwrap());
        }
        held
    }
}

fn builder(bench: &Bench, tiers: &[Arc<dyn Tier>], policy: &Policy) -> CacheBuilder {
    let bare = bench.bare().policy("census", policy.clone());
    tiers.iter().fold(bare, |builder, tier| builder.shared_tier(Arc::clone(tier)))
}

/// The error of a call that must fail.
pub(crate) async fn error(call: JoinHandle<Asked>) -> Error {
    joined(call).await.unwrap_err()
}
