//! Callers that go away, and tiers that are closed.

use cache_core::{Effect, Entry, Filter, Key, PutOutcome, Selector, Tier};

use super::{Bench, abandon, ok, watch::unless_it_panics};

/// Reads after a call was dropped: what it began may go on for a while.
const LOOKS: usize = 20;

impl<T: Tier> Bench<T> {
    /// Checks that `key` has one of these, all the time.
    async fn has_one_of(&self, key: &Key, allowed: &[Option<&Entry>], call: &str) {
        for _ in 0..LOOKS {
            let found = self.get(key).await;
            assert!(
                allowed.contains(&found.as_ref()),
                "promise broken: a dropped {call} leaves each entry wholly written or untouched: \
                 {found:?}"
            );
        }
    }

    pub(super) async fn a_dropped_put_is_whole_or_nothing(self) {
        const PROMISE: &str =
            "promise broken: a dropped put neither blocks nor replaces later ones";
        let keys = ["census:a", "census:b"].map(Key::new);
        let key = &keys[0];
        for round in 0..30 {
            let old = self.limited("old").etag(Some("old")).build();
            self.put(key, &old).await;
            self.put(&keys[1], &old).await;
            let new = self.limited("another").version(Some("new")).build();
            if round % 2 == 0 {
                abandon(self.tier.put(key, &new), 1 + round % 3);
            } else {
                let batch = keys.clone().map(|key| (key, new.clone()));
                abandon(self.tier.put_many(&batch), 1 + round % 3);
            }
            for key in &keys {
                self.has_one_of(key, &[Some(&old), Some(&new)], "put").await;
            }
            let later = self.limited("later").build();
            assert_eq!(self.put(key, &later).await, PutOutcome::Stored, "{PROMISE}");
            for _ in 0..LOOKS {
                assert_eq!(self.get(key).await.as_ref(), Some(&later), "{PROMISE}");
            }
        }
    }

    pub(super) async fn other_dropped_calls_are_whole_or_nothing(self) {
        let key = Key::new("census:a");
        let keys = [key.clone()];
        for round in 0..30 {
            let polls = 1 + round % 3;
            let entry = self.limited("v").build();
            self.put(&key, &entry).await;
            abandon(self.tier.get(&key), polls);
            abandon(self.tier.get_many(&keys), polls);
            self.has_one_of(&key, &[Some(&entry)], "get").await;

            let stale = entry.to_expired();
            let expire = self.barrier(Selector::source("census"), Effect::Expire);
            abandon(self.tier.bar(&expire), polls);
            self.has_one_of(&key, &[Some(&entry), Some(&stale)], "bar").await;
            ok(self.tier.bar(&expire).await, "bar");
            let promise = "promise broken: a barrier whose first setting was dropped can be set";
            assert_eq!(self.get(&key).await.as_ref(), Some(&stale), "{promise}");

            let forget = self.barrier(Selector::source("census"), Effect::Forget);
            abandon(self.tier.bar(&forget), polls);
            self.has_one_of(&key, &[Some(&stale), None], "bar").await;
            ok(self.tier.bar(&forget).await, "bar");
            assert_eq!(self.get(&key).await, None, "{promise}");

            let entry = self.limited("v").build();
            self.put(&key, &entry).await;
            abandon(self.tier.remove(&key), polls);
            self.has_one_of(&key, &[Some(&entry), None], "remove").await;
        }
    }

    pub(super) async fn answers_after_it_was_closed(self) {
        let key = Key::new("census:a");
        let entry = self.limited("v").build();
        self.put(&key, &entry).await;
        ok(self.tier.close().await, "close");

        let (tier, keys) = (&self.tier, [key.clone()]);
        let batch = [(key.clone(), entry.clone())];
        let barrier = self.barrier(Selector::source("bls"), Effect::Forget);
        let calls = async {
            let mut found = Vec::new();
            for _ in 0..2 {
                found.push(tier.get(&key).await);
                drop(tier.get_many(&keys).await);
                drop(tier.put(&key, &entry).await);
                drop(tier.put_many(&batch).await);
                drop(tier.bar(&barrier).await);
                drop(tier.remove(&key).await);
                drop(tier.remove_many(&keys).await);
                if let Some(stamped) = tier.as_stamped() {
                    drop(stamped.latest_stamp().await);
                }
                if let Some(inspect) = tier.as_inspect() {
                    drop(inspect.scan(&Filter::all(), None, 9).await);
                    drop(inspect.usage().await);
                    drop(inspect.remove_dead(entry.loaded_at(), None).await);
                }
                drop(tier.close().await);
            }
            found
        };
        let Some(found) = unless_it_panics(calls).await else {
            panic!("promise broken: a closed tier answers or fails, it does not panic")
        };
        let wrong = found.into_iter().flatten().flatten().find(|found| *found != entry);
        assert_eq!(wrong, None, "promise broken: a closed tier returns what was put, or nothing");
    }
}
