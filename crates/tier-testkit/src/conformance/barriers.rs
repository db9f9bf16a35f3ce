//! Barriers: what they do to an entry.

use std::time::Duration;

use cache_core::{Barrier, Clock as _, Effect, Freshness, Key, PutOutcome, Selector, Tier};

use super::{Bench, ok, tag};

impl<T: Tier> Bench<T> {
    pub(super) async fn barriers_forget(self) {
        const PROMISE: &str = "promise broken: nothing loaded before a barrier is stored or served";
        let key = Key::new("census:a");
        let (stored, in_flight) = (self.entry("stored"), self.entry("in flight"));
        self.put(&key, &stored).await;
        let barrier = self.barrier(Selector::Key(key.clone()), Effect::Forget);
        let gone = ok(self.tier.bar(&barrier).await, "bar");
        assert_eq!(gone, 1, "promise broken: bar tells how many entries went");
        assert_eq!(self.get(&key).await, None, "{PROMISE}");
        assert_eq!(self.put(&key, &in_flight).await, PutOutcome::Barred, "{PROMISE}");
        assert_eq!(self.get(&key).await, None, "{PROMISE}");
        let after = self.entry("after");
        let promise = "promise broken: what is loaded after a barrier is stored";
        assert_eq!(self.put(&key, &after).await, PutOutcome::Stored, "{promise}");
        for _ in 0..2 {
            let gone = ok(self.tier.bar(&barrier).await, "bar");
            assert_eq!(gone, 0, "promise broken: a barrier that is set again changes nothing");
            assert_eq!(self.get(&key).await.as_ref(), Some(&after), "{promise}");
        }
        let gone = self.bar(Selector::Key(Key::new("census:b")), Effect::Forget).await;
        assert_eq!(gone, 0, "promise broken: bar tells how many entries went");
        assert_eq!(self.get(&key).await, Some(after), "{promise}");
    }

    pub(super) async fn barriers_expire(self) {
        const PROMISE: &str = "promise broken: what was loaded before a barrier that expires it is \
                               returned, stale, and otherwise unchanged";
        let (key, lasting) = (Key::new("census:a"), Key::new("census:b"));
        let (stored, in_flight) = (self.limited("stored").build(), self.limited("moving").build());
        let forever = self.entry("forever");
        self.put(&key, &stored).await;
        self.put(&lasting, &forever).await;
        let barrier = self.barrier(Selector::source("census"), Effect::Expire);
        let changed = ok(self.tier.bar(&barrier).await, "bar");
        assert_eq!(changed, 2, "promise broken: bar tells how many entries it made stale");
        assert_eq!(self.get(&key).await, Some(stored.to_expired()), "{PROMISE}");
        let now = self.clock.now();
        let found = self.get(&lasting).await.map(|entry| entry.freshness(now));
        assert_eq!(found, Some(Freshness::Stale), "{PROMISE}");

        let outcome = self.put(&key, &in_flight).await;
        assert_eq!(outcome, PutOutcome::Stored, "{PROMISE}: a load that was under way");
        let found = self.get(&key).await;
        assert_eq!(found, Some(in_flight.to_expired()), "{PROMISE}: a load that was under way");
        let again = ok(self.tier.bar(&barrier).await, "bar");
        assert_eq!(again, 0, "promise broken: a barrier that is set again changes nothing");
        assert_eq!(self.get(&key).await, Some(in_flight.to_expired()), "{PROMISE}");
        let again = self.put(&key, &in_flight).await;
        let promise = "promise broken: an expired entry is not made fresh by putting it again";
        assert_eq!(again, PutOutcome::Superseded, "{promise}");
        assert_eq!(self.get(&key).await, Some(in_flight.to_expired()), "{promise}");

        let after = self.limited("after").build();
        let promise = "promise broken: what is loaded after a barrier is fresh";
        assert_eq!(self.put(&key, &after).await, PutOutcome::Stored, "{promise}");
        assert_eq!(self.get(&key).await.as_ref(), Some(&after), "{promise}");
        let again = ok(self.tier.bar(&barrier).await, "bar");
        assert_eq!(again, 0, "promise broken: a barrier that is set again changes nothing");
        assert_eq!(self.get(&key).await, Some(after), "{promise}");

        let promise = "promise broken: an expired entry dies at its own time";
        self.put(&key, &self.limited("mortal").build()).await;
        self.bar(Selector::Key(key.clone()), Effect::Expire).await;
        self.clock.advance(Duration::from_millis(1_999));
        assert!(self.get(&key).await.is_some(), "{promise}");
        self.clock.advance(Duration::from_millis(1));
        assert_eq!(self.get(&key).await, None, "{promise}");
        assert_eq!(self.get(&lasting).await, Some(forever.to_expired()), "{promise}");
    }

    /// Every order of an entry, a barrier that forgets it, and one that expires it.
    pub(super) async fn forgetting_is_stronger_than_expiring(self) {
        const PROMISE: &str = "promise broken: forgetting is stronger than expiring, whichever of \
                               two barriers comes first";
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        // When each is from: the entry, the one that forgets, the one that expires.
        for ages in orders {
            for (n, order) in orders.into_iter().enumerate() {
                let [first, second, third] = ages;
                let source = format!("r{first}{second}{third}{n}");
                let (key, tag) = (Key::new(format!("{source}:a")), tag(&source));
                let issued = [self.stamps.issue(), self.stamps.issue(), self.stamps.issue()];
                let [loaded, forgotten, expired] = ages.map(|age| issued[age]);
                let entry = self.limited_at("v", loaded).tags([tag.clone()]).build();
                // By different selectors, so that neither takes the place of the other.
                let forget = Barrier::forget(Selector::source(&source), forgotten);
                let expire = Barrier::expire(Selector::Tag(tag), expired);
                let mut gone = false;
                for step in order {
                    match step {
                        0 => drop(self.put(&key, &entry).await),
                        1 => {
                            ok(self.tier.bar(&forget).await, "bar");
                            gone = loaded <= forgotten;
                        }
                        _ => {
                            let changed = ok(self.tier.bar(&expire).await, "bar");
                            let promise = "promise broken: what is forgotten is not expired";
                            assert!(!gone || changed == 0, "{promise}: {changed} entries were");
                        }
                    }
                }
                let expected = if loaded <= forgotten {
                    None
                } else {
                    Some(if loaded <= expired { entry.to_expired() } else { entry })
                };
                let found = self.get(&key).await;
                assert_eq!(found, expected, "{PROMISE}: ages {ages:?}, order {order:?}");
            }
        }
    }
}
