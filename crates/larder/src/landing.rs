//! Landing: answers are given to the tiers, and to those who wait for them.

use cache_core::{Barrier, Entry, Key, Selector, Stamp};
use futures_util::future::join_all;

use crate::{
    Hit,
    fly::Pending,
    inner::{Inner, Leader},
    note::By,
};

/// What is to become of a loaded entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Store,
    /// Its lifetime is zero: it is not stored, and what is there goes.
    Forget,
    /// It cannot, or is not to, be stored.
    Pass,
}

impl Inner {
    pub(crate) async fn store_and_land(&self, landing: Vec<(Pending, Entry, Fate, bool)>) {
        let (mut fills, mut replaces) = (Vec::new(), Vec::new());
        let (mut waiting, mut forgotten, mut spared) = (Vec::new(), Vec::new(), Vec::new());
        for (mut one, entry, fate, revalidated) in landing {
            let (key, as_of) = (one.key.clone(), entry.as_of());
            let loaded = entry.clone();
            let hit = move |now| Hit::new(loaded, By::ORIGIN, now).revalidated(revalidated);
            let entry = self.chain.shared(entry);
            // Those who wait are given it in any case; it may have been invalidated meanwhile.
            let admitted = Some(entry).filter(|_| fate == Fate::Store);
            let admitted = admitted.and_then(|entry| self.chain.admit(&key, entry));
            // One that was detached, or given up, may be older than what has come meanwhile.
            let current = one.leader.as_ref().is_some_and(Leader::is_current);
            let newest = current || !self.loading.is_outdated(&key, as_of);
            let Some(entry) = admitted else {
                self.chain.counters.not_stored.add(1);
                if fate == Fate::Forget {
                    forgotten.push(self.begin_to_forget(&one, as_of).await);
                }
                one.land(Ok(hit(self.clock.now())));
                continue;
            };
            if newest {
                self.loading.note(&key, as_of);
            }
            replaces.push(newest && one.stored.is_some());
            spared.push(one.wanted.spares_memory);
            if one.wanted.spares_memory {
                self.chain.pass_leading(&key, &entry);
                waiting.push((one, hit));
                fills.push((key, entry));
                continue;
            }
            // Lower tiers remember longer, and are asked first about what may be older.
            if current && self.chain.fill_now(&key, &entry) {
                // Who asks from now on finds it in memory; slower tiers need not be waited for.
                self.looks.detach(&key);
                one.land(Ok(hit(self.clock.now())));
            } else {
                waiting.push((one, hit));
            }
            fills.push((key, entry));
        }
        self.chain.fill_waiting(&fills, &replaces).await;
        self.note_stored(&fills);
        for ((key, entry), spared) in fills.iter().zip(spared) {
            self.looks.detach(key);
            if spared {
                // A look may have found there what the others had before.
                self.chain.pass_leading(key, entry);
            } else if !self.loading.is_outdated(key, entry.as_of()) {
                self.chain.refill_now(key, entry);
            }
        }
        for (mut one, hit) in waiting {
            one.land(Ok(hit(self.clock.now())));
        }
        join_all(forgotten.into_iter().map(|one| self.forget(one))).await;
    }

    /// Sees to it that nobody is given what an answer that is not stored makes out of date; tells
    /// what the tiers are to do about it.
    async fn begin_to_forget(&self, one: &Pending, as_of: Stamp) -> (Key, Option<Barrier>) {
        let key = one.key.clone();
        self.loading.note(&key, as_of);
        // Most of what is never stored has nothing stored before it, and needs no barrier.
        let may_be_stored = one.stored.is_some() || one.unsure;
        let barrier = may_be_stored.then(|| Barrier::forget(Selector::Key(key.clone()), as_of));
        if let Some(barrier) = &barrier {
            self.chain.bar_leading(barrier).await;
            self.looks.detach(&key);
        }
        (key, barrier)
    }

    async fn forget(&self, (key, barrier): (Key, Option<Barrier>)) {
        let done = match barrier {
            Some(barrier) => self.chain.bar(&[barrier]).await,
            None => self.chain.remove_dead(Some(&key)).await,
        };
        if done.is_err() {
            tracing::debug!(%key, "what is out of date stays for now");
        }
    }
}
