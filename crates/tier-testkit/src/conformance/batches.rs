//! Batch forms.

use cache_core::{Effect, Key, PutOutcome, Selector, Tier};

use super::{Bench, ok};

impl<T: Tier> Bench<T> {
    pub(super) async fn batches_do_what_single_calls_do(self) {
        let key = |n: u32| Key::new(format!("census:{n}"));
        let (old, new) = (self.entry("old"), self.entry("new"));
        let puts = [(key(1), new.clone()), (key(2), old.clone()), (key(1), old.clone())];
        let outcomes = ok(self.tier.put_many(&puts).await, "put_many");
        let expected = [PutOutcome::Stored, PutOutcome::Stored, PutOutcome::Superseded];
        assert_eq!(outcomes, expected, "promise broken: put_many tells each outcome, in order");
        let asked = [key(2), key(9), key(1), key(2)];
        let found = ok(self.tier.get_many(&asked).await, "get_many");
        assert_eq!(
            found,
            [Some(old.clone()), None, Some(new), Some(old)],
            "promise broken: get_many answers in the order of its keys, repetitions too"
        );
        let removed = ok(self.tier.remove_many(&[key(1), key(9), key(1)]).await, "remove_many");
        assert_eq!(removed, 1, "promise broken: remove_many counts what went");
        assert_eq!(self.get(&key(1)).await, None, "promise broken: remove_many removes");
        let none = ok(self.tier.get_many(&[]).await, "get_many").len()
            + ok(self.tier.put_many(&[]).await, "put_many").len();
        assert_eq!(none, 0, "promise broken: an empty batch has no results");
        let none = ok(self.tier.remove_many(&[]).await, "remove_many");
        assert_eq!(none, 0, "promise broken: an empty batch removes nothing");
    }

    pub(super) async fn batches_obey_barriers(self) {
        const PROMISE: &str = "promise broken: batches obey barriers as single calls do";
        let [gone, stale, kept, unusable] = ["a:gone", "a:stale", "a:kept", ""].map(Key::new);
        let puts = [&gone, &stale, &unusable, &kept];
        let puts = puts.map(|key| (key.clone(), self.limited(key.as_str()).build()));
        self.bar(Selector::Key(gone.clone()), Effect::Forget).await;
        self.bar(Selector::Key(stale.clone()), Effect::Expire).await;
        let outcomes = ok(self.tier.put_many(&puts).await, "put_many");
        assert_eq!(outcomes[0], PutOutcome::Barred, "{PROMISE}");
        assert_eq!(outcomes[1], PutOutcome::Stored, "{PROMISE}");
        let refused = matches!(outcomes[2], PutOutcome::Refused { .. });
        assert!(refused, "promise broken: a key that cannot be stored is refused, in batches too");
        assert_eq!(outcomes[3], PutOutcome::Stored, "{PROMISE}");
        let found = ok(self.tier.get_many(&[kept, stale, gone]).await, "get_many");
        let expected = [Some(puts[3].1.clone()), Some(puts[1].1.to_expired()), None];
        assert_eq!(found, expected, "{PROMISE}");
    }
}
