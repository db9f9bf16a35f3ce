//! Single flight across processes: of all that share a tier, one loads a key at a time.

use std::{sync::Arc, time::Duration};

use cache_core::{Entry, Key, Op};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    Hit,
    chain::{Chain, Found, Look},
    fly::{Pending, abandoned, hard_timeout, timed_out},
    inner::Inner,
};

/// How soon to look again for what another process loads: at first, and at most.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));
/// After so many leases that others were quicker to take, loads that fail or bring nothing to store are
/// not waited for any more.
const LOST: u32 = 2;
/// Longest time that a lease is made longer for, where the load has a time limit.
const LONGEST: Duration = Duration::from_hours(1);
/// How long another process's load is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// The right to load some keys, kept until it is given back or dropped; a process that was killed
/// loses it at its deadline.
#[derive(Debug)]
pub(crate) struct Leases {
    chain: Arc<Chain>,
    at: usize,
    keys: Vec<Key>,
    owner: u64,
    renewal: AbortOnDropHandle<()>,
}

impl Leases {
    /// Makes the leases last as long as the load, but not beyond `until`: one that hangs must not keep
    /// others from trying.
    fn new(
        chain: &Arc<Chain>,
        at: usize,
        keys: Vec<Key>,
        owner: u64,
        until: Option<Instant>,
    ) -> Self {
        let (own, renewed) = (Arc::clone(chain), keys.clone());
        let renewal = AbortOnDropHandle::new(tokio::spawn(async move {
            while until.is_none_or(|until| Instant::now() < until) {
                tokio::time::sleep(own.lease / 3).await;
                let Some(tier) = own.tiers.get(at) else { return };
                tier.renew(&renewed, owner, own.lease).await;
            }
        }));
        Self { chain: Arc::clone(chain), at, keys, owner, renewal }
    }

    /// Lets others load.
    pub(crate) async fn release(self) {
        let Self { chain, at, keys, owner, renewal } = self;
        drop(renewal);
        if let Some(tier) = chain.tiers.get(at) {
            tier.release(&keys, owner).await;
        }
    }
}

impl Inner {
    /// Waits until no other process loads one of the keys, and lands what others have brought; the
    /// rest is for this process to load.
    ///
    /// All keys or none: who had some and waited for others might be waited for by them.
    pub(crate) async fn lease(
        &self,
        pending: &mut Vec<Pending>,
        began: Instant,
        unwanted: bool,
    ) -> Option<Leases> {
        let chain = &self.chain;
        let skipped = |at: usize| pending.iter().any(|one| one.wanted.skip.contains(at));
        let at = chain.leasing().filter(|at| !skipped(*at))?;
        // What is not stored is of no use to others.
        let stores = |one: &Pending| one.key.is_storable() && one.wanted.policy.stores();
        let forced = pending.iter().any(|one| one.wanted.is_forced());
        if chain.lease.is_zero() || forced || !pending.iter().any(stores) {
            return None;
        }
        let tier = chain.tiers.get(at)?;
        let owner = chain.owner;
        let (mut pause, mut lost) = (LOOK_AGAIN.0, 0);
        let gives_up = began.checked_add(PATIENCE)?;
        loop {
            let keys: Vec<Key> = pending.iter().map(|one| one.key.clone()).collect();
            let free = tier.is_free(&keys, owner).await;
            let taken = free && tier.lease(&keys, owner, chain.lease).await?;
            lost += u32::from(free && !taken);
            // Whoever had a lease has stored what it loaded before it gave that back.
            let mut looks = chain.look_aside(at, &keys).await.into_iter();
            pending.retain_mut(|one| !looks.next().is_some_and(|look| self.land_newer(one, &look)));
            if taken {
                // One that may take for ever is not taken to hang.
                let until = hard_timeout(pending).map(|hard| Instant::now() + hard.min(LONGEST));
                let leases = Leases::new(chain, at, keys, owner, until);
                if pending.is_empty() {
                    leases.release().await;
                    return None;
                }
                return Some(leases);
            }
            if pending.is_empty() || Instant::now() >= gives_up || lost >= LOST {
                return None;
            }
            self.fail_late(pending, began);
            tokio::select! {
                biased;
                () = abandoned(pending), if unwanted => {
                    pending.clear();
                    return None;
                }
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LOOK_AGAIN.1);
        }
    }

    /// Lands a key that another process has loaded meanwhile; whether it has.
    fn land_newer(&self, one: &mut Pending, look: &Look) -> bool {
        let Some(Found { entry, tier }) = &look.fresh else { return false };
        let now = self.clock.now();
        let newer = one.stored.as_ref().is_none_or(|stored| entry.as_of() > stored.as_of());
        if !newer || !one.wanted.accepts(entry, now) {
            return false;
        }
        let Some(by) = self.chain.tiers.get(*tier).map(crate::guard::Guard::by) else {
            return false;
        };
        let hit = Hit::new(entry.clone(), by, now);
        if let Some(leader) = &one.leader {
            leader.if_current(|| self.chain.fill_now(&one.key, entry));
        }
        one.land(Ok(hit));
        true
    }

    /// Tells those who have waited too long.
    fn fail_late(&self, pending: &mut [Pending], began: Instant) {
        let waited = began.elapsed();
        for one in pending.iter_mut().filter(|one| one.leader.is_some()) {
            let limit = one.wanted.policy.hard_timeout;
            if limit.is_some_and(|limit| waited >= limit) {
                let error = timed_out(&one.key, limit);
                self.fail(one, error);
            }
        }
    }
}

impl Chain {
    /// The place of the tier that knows which process loads a key: the nearest that can.
    pub(crate) fn leasing(&self) -> Option<usize> {
        self.tiers.iter().position(|tier| !tier.is_read_only() && tier.tier().as_lease().is_some())
    }

    /// What one tier has; no read, and counted nowhere.
    async fn look_aside(&self, at: usize, keys: &[Key]) -> Vec<Look> {
        let Some(tier) = self.tiers.get(at) else { return Vec::new() };
        let found = tier.aside(Op::Get, tier.tier().get_many(keys)).await.unwrap_or_default();
        let look = |(key, entry): (&Key, Option<Entry>)| {
            let mut look = Look::default();
            if let Some(entry) = entry {
                self.consider(key, entry, at, &mut look);
            }
            look
        };
        keys.iter().zip(found).map(look).collect()
    }
}

impl crate::guard::Guard {
    /// Takes the leases; `None` if the tier cannot say, and loading goes on without.
    pub(crate) async fn lease(&self, keys: &[Key], owner: u64, duration: Duration) -> Option<bool> {
        let lease = self.tier().as_lease()?;
        self.aside(Op::Lease, lease.lease(keys, owner, duration)).await
    }

    async fn renew(&self, keys: &[Key], owner: u64, duration: Duration) {
        if let Some(lease) = self.tier().as_lease() {
            self.aside(Op::Lease, lease.renew(keys, owner, duration)).await;
        }
    }

    async fn is_free(&self, keys: &[Key], owner: u64) -> bool {
        let Some(lease) = self.tier().as_lease() else { return true };
        self.aside(Op::Lease, lease.is_free(keys, owner)).await.unwrap_or(true)
    }

    pub(crate) async fn release(&self, keys: &[Key], owner: u64) {
        if let Some(lease) = self.tier().as_lease() {
            // One that cannot be given back ends by itself.
            self.aside(Op::Lease, lease.release(keys, owner)).await;
        }
    }
}
