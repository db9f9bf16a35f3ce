//! What one history happens to: a chain, its tiers, and the clocks, which move together.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use larder::{Cache, Clock, Entry, Key, Stamp, SyncTier, Tag, Timestamp, Ttl, tiers::MemoryTier};
use tier_testkit::{Chaos, ChaosTier, Dice, ManualClock};
use tokio::sync::oneshot;

use crate::{
    model::{Instance, Model, Origin},
    plan::{First, Plan, Weather},
};

/// Room for about three entries.
const SMALL: u64 = 1_700;
const LARGE: u64 = 16 << 20;
/// The clocks move by so much at a time, so that what has a time limit ends near it.
pub(crate) const MOMENT: Duration = Duration::from_millis(250);

/// What one history happens to.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) cache: Cache,
    clock: Arc<ManualClock>,
    first: Option<Arc<MemoryTier>>,
    pub(crate) chaos: Vec<Arc<ChaosTier<MemoryTier>>>,
    model: Mutex<Model>,
    /// Loads that wait to be let go on.
    pub(crate) gates: Mutex<Vec<oneshot::Sender<()>>>,
    /// What is left to do for calls that have just returned.
    returned: Mutex<BTreeMap<usize, Finish>>,
}

/// What is left to do for a call that has returned.
pub(crate) type Finish = Box<dyn FnOnce(&World) + Send>;

impl World {
    pub(crate) fn new(plan: Plan) -> Arc<Self> {
        let clock = Arc::new(ManualClock::default());
        let memory = |capacity| {
            Arc::new(MemoryTier::with_clock(capacity, Arc::<ManualClock>::clone(&clock)))
        };
        let mut builder = Cache::builder().clock(Arc::<ManualClock>::clone(&clock));
        for (source, policy) in &plan.policies {
            builder = builder.policy(*source, policy.clone());
        }
        let first = match plan.first {
            First::Chaos => None,
            First::Memory | First::CappedMemory => Some(memory(LARGE)),
            First::SmallMemory => Some(memory(SMALL)),
        };
        if let Some(first) = &first {
            builder = builder.shared_tier_with(Arc::<MemoryTier>::clone(first), plan.options(0));
        }
        let mut chaos = Vec::new();
        for (at, name) in plan.names().into_iter().enumerate().skip(usize::from(first.is_some())) {
            let inner = MemoryTier::with_clock(LARGE, Arc::<ManualClock>::clone(&clock));
            let tier = Arc::new(ChaosTier::new(name, inner, plan.seed ^ at as u64));
            let options = plan.options(at);
            builder = builder.shared_tier_with(Arc::<ChaosTier<MemoryTier>>::clone(&tier), options);
            chaos.push(tier);
        }
        let (model, gates, returned) = (Mutex::default(), Mutex::default(), Mutex::default());
        let cache = builder.build().unwrap();
        let world = Self { plan, cache, clock, first, chaos, model, gates, returned };
        world.sow();
        Arc::new(world)
    }

    /// Puts something into a tier that is only read.
    fn sow(&self) {
        if !self.plan.read_only {
            return;
        }
        let mut dice = Dice::stream(self.plan.seed, 1);
        let mut model = self.model();
        let past = Timestamp::from_millis(self.now().as_millis() - 10_000);
        for key in &self.plan.keys {
            let id = model.instances.len();
            let as_of = Stamp::from_packed(Stamp::at(past).packed() + id as u64);
            let body = format!("{key}={id}");
            let ttl = dice.millis(&[12_000, 20_000, 600_000]);
            let stale_for = dice.millis(&[0, 10_000]);
            let mut tags: Vec<Tag> =
                self.plan.tags.iter().filter(|_| dice.percent(50)).cloned().collect();
            tags.sort_unstable();
            let expiry = past.saturating_add(ttl);
            let entry = Entry::builder(body.clone(), as_of)
                .loaded_at(past)
                .expires_at(expiry)
                .stale_until(expiry.saturating_add(stale_for))
                .content_type(Some(id.to_string()))
                .own_lifetime(true)
                .tags(tags.iter().cloned())
                .build();
            self.tier(2).put_now(key, &entry);
            let tick = model.tick();
            let (jitter, loaded_at) = (0.0, (past, past));
            model.instances.push(Instance {
                key: key.clone(),
                origin: Origin::Seed,
                op: usize::MAX,
                body,
                absent: false,
                tags,
                stamped: (tick, tick),
                as_of: Some(as_of),
                ended: Some(tick),
                loaded_at,
                ttl: Ttl::For(ttl),
                stale_for,
                jitter,
                own_lifetime: true,
                storable: true,
                forgets: false,
                failed: false,
                hard_timeout: None,
                may_be_dropped: false,
            });
        }
    }

    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The tier at a place, without faults.
    pub(crate) fn tier(&self, at: usize) -> &MemoryTier {
        match (&self.first, at) {
            (Some(first), 0) => first,
            (first, at) => self.chaos[at - usize::from(first.is_some())].inner(),
        }
    }

    pub(crate) fn chaos(&self, at: usize) -> Option<Chaos> {
        let at = at.checked_sub(usize::from(self.first.is_some()))?;
        Some(self.chaos[at].chaos())
    }

    /// What each tier holds now, looked at past the chain and all faults.
    pub(crate) fn held(&self, key: &Key) -> [Option<Entry>; 3] {
        [0, 1, 2].map(|at| self.tier(at).get_now(key.as_str(), self.now()))
    }

    /// Moves all clocks together.
    pub(crate) async fn advance(&self, by: Duration) {
        let mut left = by;
        // Where nothing is under way, nothing has a time limit.
        let moment = if self.model().is_busy() { MOMENT } else { by };
        while !left.is_zero() {
            let step = left.min(moment);
            left -= step;
            self.clock.advance(step);
            self.model().moved(self.now());
            tokio::time::advance(step).await;
            rounds(6).await;
        }
    }

    /// Lets one of the loads that wait go on.
    pub(crate) fn open_gate(&self, dice: &mut Dice) -> bool {
        let mut gates = self.gates.lock().unwrap();
        gates.retain(|gate| !gate.is_closed());
        if gates.is_empty() {
            return false;
        }
        let at = dice.below(gates.len());
        gates.swap_remove(at).send(()).is_ok()
    }

    /// Does what is left to do for a call that has returned, in the order of the calls: tokio wakes
    /// those who wait for one thing in an order of its own, another one each time.
    pub(crate) async fn finish(&self, call: usize, finish: Finish) {
        self.returned.lock().unwrap().insert(call, finish);
        rounds(1).await;
        let all = std::mem::take(&mut *self.returned.lock().unwrap());
        for (call, finish) in all {
            if !self.model().calls[call].dropped {
                finish(self);
            }
        }
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.plan.weather == Weather::Calm
    }
}

/// Lets every task that can go on do so once, `times` times.
pub(crate) async fn rounds(times: usize) {
    let mut left = times;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
