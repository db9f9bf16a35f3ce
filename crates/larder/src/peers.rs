//! What other processes change in a tier that is shared with them.

use std::sync::Arc;

use cache_core::{Change, Changes, Selector, SyncTier};

use crate::inner::Inner;

/// Has the tiers that can tell of changes tell this chain, as long as it is there.
pub(crate) fn follow(inner: &Arc<Inner>) {
    for tier in &inner.chain.tiers {
        let Some(journal) = tier.tier().as_journal() else { continue };
        let inner = Arc::downgrade(inner);
        journal.follow(Box::new(move |changes| {
            if let Some(inner) = inner.upgrade() {
                inner.heed(changes);
            }
        }));
    }
}

impl Inner {
    /// Makes the changes of others count here: in the tiers of this process, and for loads and looks
    /// under way. Nothing is told on, and nothing shared is changed: they have done so.
    fn heed(&self, changes: Changes) {
        match changes {
            Changes::Known(changes) => changes.into_iter().for_each(|change| self.heed_one(change)),
            Changes::Unknown => {
                tracing::info!("changes of other processes were missed: memory starts anew");
                self.looks.detach_where(|_| true);
                self.own_tiers().for_each(SyncTier::give_up_all);
            }
        }
    }

    fn heed_one(&self, change: Change) {
        match change {
            Change::Barrier(barrier) => {
                self.chain.observe(barrier.stamp);
                self.chain.remember(&barrier);
                self.detach(|key| barrier.selector.may_select(key));
                for tier in self.own_tiers() {
                    tier.bar_now(&barrier);
                }
                // What is loaded from now on is of that version, and who is told so relies on the rest.
                if let Selector::OtherVersion(source, version) = &barrier.selector {
                    self.chain.versions.set(source, version, barrier.stamp);
                }
            }
            Change::Stored { key, as_of } => {
                self.chain.observe(as_of);
                // A look that has read what was there before must not bring it back.
                self.looks.detach(&key);
                self.own_tiers().for_each(|tier| tier.give_up_older(&key, as_of));
            }
            // One of a kind that is not known here: all may be out of date.
            _ => self.own_tiers().for_each(SyncTier::give_up_all),
        }
    }

    fn own_tiers(&self) -> impl Iterator<Item = &dyn SyncTier> {
        self.chain.leading().iter().filter_map(crate::guard::Guard::sync)
    }
}
