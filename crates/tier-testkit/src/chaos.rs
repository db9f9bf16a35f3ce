//! A tier that fails when, and as, a test wants it to.

mod control;
mod faults;

use std::sync::Arc;

use async_trait::async_trait;
use cache_core::{
    Barrier, Capability, Entry, Error, ErrorKind, Filter, Inspect, Key, Op, PutOutcome, Result,
    Stamp, Stamped, Summary, Tier, Timestamp, Usage, Validation,
};

use self::{control::Held, faults::Fate};

pub use self::{
    control::Chaos,
    faults::{Call, Fault, Faults},
};

/// Any tier, with faults; [`ChaosTier::chaos`] controls them.
///
/// Without faults it does what the tier inside does, but has no synchronous side: it is always
/// waited for. The same seed gives the same faults: those of the n-th call of a kind depend on
/// nothing else but the [`Faults`] that are set.
///
/// ```
/// use tier_testkit::{Call, ChaosTier, Fault, Faults};
/// # fn example(mine: impl cache_core::Tier) {
/// let tier = ChaosTier::new("flaky", mine, 7);
/// let chaos = tier.chaos();
/// chaos.set(Faults::none().on(Call::Put, Fault::Lost, 0.1));
/// // Give the tier to a chain, use it, and then:
/// chaos.heal();
/// assert!(chaos.faults(Fault::Lost) <= chaos.calls(Call::Put));
/// # }
/// ```
#[derive(Debug)]
pub struct ChaosTier<T> {
    inner: Arc<T>,
    chaos: Chaos,
}

impl<T: Tier> ChaosTier<T> {
    /// A tier called `name` that does what `inner` does, until faults are set.
    pub fn new(name: &'static str, inner: T, seed: u64) -> Self {
        let inner = Arc::new(inner);
        let chaos = Chaos::new(name, Arc::<T>::clone(&inner), seed);
        Self { inner, chaos }
    }

    /// The handle that sets faults, and counts; every clone controls the same tier.
    pub fn chaos(&self) -> Chaos {
        self.chaos.clone()
    }

    /// The tier inside, without faults.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    fn failure(&self, kind: ErrorKind, op: Op) -> Error {
        Error::new(kind, op, self.name()).with_source("chaos")
    }

    /// Meets the faults that strike before anything is done; what is left to meet.
    async fn enter(&self, call: Call, op: Op) -> Result<Fate> {
        let fate = self.chaos.draw(call).map_err(|kind| self.failure(kind, op))?;
        self.chaos.carry_out_due(false).await;
        if fate.delayed {
            yield_times(fate.yields).await;
        }
        if fate.hangs {
            self.chaos.until_healed().await;
        }
        if fate.end == Some(Fault::Error) {
            return Err(self.failure(self.chaos.error_kind(), op));
        }
        Ok(fate)
    }

    /// Ends a write: others that it overtook are due, and the caller may not learn of it.
    async fn leave<R>(&self, fate: &Fate, op: Op, result: Result<R>) -> Result<R> {
        self.chaos.carry_out_due(true).await;
        match fate.end {
            Some(Fault::Unconfirmed) => Err(self.failure(self.chaos.error_kind(), op)),
            _ => result,
        }
    }

    /// A put that is acknowledged and not done, or not yet; whether it was.
    async fn pretends(&self, fate: &Fate, entries: &[(Key, Entry)]) -> bool {
        match fate.end {
            Some(Fault::Lost) => self.chaos.carry_out_due(true).await,
            Some(Fault::Late) => {
                self.chaos.carry_out_due(true).await;
                let late = |(key, entry): &(Key, Entry)| Held {
                    key: key.clone(),
                    entry: entry.clone(),
                    overtaken_by: fate.overtaken_by,
                };
                self.chaos.hold(entries.iter().map(late));
            }
            _ => return false,
        }
        true
    }

    async fn inspecting(&self, op: Op) -> Result<&dyn Inspect> {
        self.enter(Call::Inspect, op).await?;
        self.inner.as_inspect().ok_or_else(|| self.failure(ErrorKind::Internal, op))
    }
}

/// How many of a batch's entries are done: some at least, and all where it is confirmed.
fn done(fate: &Fate, len: usize) -> usize {
    if fate.end == Some(Fault::Unconfirmed) && len > 0 {
        1 + (fate.chance % len as u64) as usize
    } else {
        len
    }
}

#[async_trait]
impl<T: Tier> Tier for ChaosTier<T> {
    fn name(&self) -> &'static str {
        self.chaos.name()
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        let fate = self.enter(Call::Get, Op::Get).await.map_err(|error| error.with_key(key))?;
        if fate.end == Some(Fault::Lost) {
            return Ok(None);
        }
        self.inner.get(key).await
    }

    async fn put(&self, key: &Key, entry: &Entry) -> Result<PutOutcome> {
        let fate = self.enter(Call::Put, Op::Put).await.map_err(|error| error.with_key(key))?;
        if self.pretends(&fate, &[(key.clone(), entry.clone())]).await {
            return Ok(PutOutcome::Stored);
        }
        let outcome = self.inner.put(key, entry).await;
        self.leave(&fate, Op::Put, outcome).await.map_err(|error| error.with_key(key))
    }

    async fn remove(&self, key: &Key) -> Result<bool> {
        let fate = self.enter(Call::Remove, Op::Remove).await;
        let fate = fate.map_err(|error| error.with_key(key))?;
        let removed = self.inner.remove(key).await;
        self.leave(&fate, Op::Remove, removed).await.map_err(|error| error.with_key(key))
    }

    async fn bar(&self, barrier: &Barrier) -> Result<u64> {
        let fate = self.enter(Call::Bar, Op::Bar).await?;
        let changed = self.inner.bar(barrier).await;
        self.leave(&fate, Op::Bar, changed).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let fate = self.enter(Call::Get, Op::Get).await?;
        if fate.end == Some(Fault::Lost) {
            return Ok(vec![None; keys.len()]);
        }
        self.inner.get_many(keys).await
    }

    async fn put_many(&self, entries: &[(Key, Entry)]) -> Result<Vec<PutOutcome>> {
        let fate = self.enter(Call::Put, Op::Put).await?;
        if self.pretends(&fate, entries).await {
            return Ok(vec![PutOutcome::Stored; entries.len()]);
        }
        let outcomes = self.inner.put_many(&entries[..done(&fate, entries.len())]).await;
        self.leave(&fate, Op::Put, outcomes).await
    }

    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let fate = self.enter(Call::Remove, Op::Remove).await?;
        let removed = self.inner.remove_many(&keys[..done(&fate, keys.len())]).await;
        self.leave(&fate, Op::Remove, removed).await
    }

    async fn close(&self) -> Result<()> {
        let fate = self.enter(Call::Close, Op::Close).await?;
        self.chaos.settle().await;
        let closed = self.inner.close().await;
        self.leave(&fate, Op::Close, closed).await
    }

    fn as_stamped(&self) -> Option<&dyn Stamped> {
        self.inner.as_stamped().map(|_| self as &dyn Stamped)
    }

    fn as_inspect(&self) -> Option<&dyn Inspect> {
        self.inner.as_inspect().map(|_| self as &dyn Inspect)
    }
}

#[async_trait]
impl<T: Tier> Stamped for ChaosTier<T> {
    async fn latest_stamp(&self) -> Result<Stamp> {
        self.enter(Call::Stamp, Op::Get).await?;
        let Some(stamped) = self.inner.as_stamped() else {
            return Err(self.failure(ErrorKind::Internal, Op::Get));
        };
        stamped.latest_stamp().await
    }
}

#[async_trait]
impl<T: Tier> Inspect for ChaosTier<T> {
    async fn scan(
        &self,
        filter: &Filter,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Summary>> {
        self.inspecting(Op::Inspect).await?.scan(filter, after, limit).await
    }

    async fn usage(&self) -> Result<Usage> {
        self.inspecting(Op::Inspect).await?.usage().await
    }

    async fn validate(&self, repair: bool) -> Result<Validation> {
        self.inspecting(Op::Inspect).await?.validate(repair).await
    }

    async fn remove_dead(&self, now: Timestamp, key: Option<&Key>) -> Result<u64> {
        self.inspecting(Op::Expire).await?.remove_dead(now, key).await
    }
}

/// Lets others run, `times` times.
async fn yield_times(mut times: usize) {
    std::future::poll_fn(|context| {
        if times == 0 {
            return std::task::Poll::Ready(());
        }
        times -= 1;
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
