//! The promises of a tier, as tests.

use std::{future::Future, sync::Arc, time::Duration};

use cache_core::{
    Barrier, Clock, Entry, Filter, Key, PutOutcome, Selector, StampClock, Tag, Tier, Timestamp,
};

use crate::ManualClock;

/// Checks that a tier keeps the promises of [`Tier`].
///
/// `make` is called once a promise; each tier it returns must be empty and must read time from the
/// clock it is given.
///
/// # Panics
/// When a promise is broken; the message names it.
pub async fn conformance<T: Tier>(make: impl AsyncFn(Arc<ManualClock>) -> T) {
    let fresh = async || {
        let clock = Arc::new(ManualClock::default());
        let tier = make(Arc::clone(&clock)).await;
        Bench { tier, stamps: StampClock::new(Arc::<ManualClock>::clone(&clock)), clock }
    };
    fresh().await.returns_what_was_put().await;
    fresh().await.serves_stale_but_never_dead().await;
    fresh().await.keeps_the_latest_load().await;
    fresh().await.barriers_win().await;
    fresh().await.barriers_select_exactly().await;
    fresh().await.removes().await;
    fresh().await.batches_do_what_single_calls_do().await;
    fresh().await.keeps_keys_apart().await;
    fresh().await.inspects_without_changing().await;
    fresh().await.knows_its_latest_stamp().await;
    fresh().await.takes_concurrent_puts_in_any_order().await;
}

struct Bench<T> {
    tier: T,
    clock: Arc<ManualClock>,
    stamps: StampClock,
}

fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap_or_else(|error| panic!("the suite uses a bad tag: {error}"))
}

/// Unwraps a tier's result: on a healthy tier none of the operations may fail.
fn ok<T>(result: cache_core::Result<T>, promise: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("promise broken: {promise}: a healthy tier failed: {error}"),
    }
}

impl<T: Tier> Bench<T> {
    fn entry(&self, value: &str) -> Entry {
        Entry::builder(value.to_owned(), self.stamps.issue()).build()
    }

    fn after(&self, millis: u64) -> Timestamp {
        self.clock.now().saturating_add(Duration::from_millis(millis))
    }

    async fn get(&self, key: &Key) -> Option<Entry> {
        let found = ok(self.tier.get(key).await, "get");
        if let (Some(sync), Some(entry)) = (self.tier.as_sync(), &found) {
            let now = sync.get_now(key, self.clock.now());
            assert_eq!(now.as_ref(), Some(entry), "promise broken: both sides of a tier agree");
        }
        found
    }

    async fn put(&self, key: &Key, entry: &Entry) -> PutOutcome {
        ok(self.tier.put(key, entry).await, "put")
    }

    async fn bar(&self, selector: Selector) -> u64 {
        let barrier = Barrier { selector, stamp: self.stamps.issue() };
        ok(self.tier.bar(&barrier).await, "bar")
    }

    async fn returns_what_was_put(self) {
        const PROMISE: &str = "promise broken: get returns what was put, unchanged";
        let key = Key::new("census:a");
        assert_eq!(self.get(&key).await, None, "promise broken: an empty tier has nothing");
        let large: Vec<u8> = (0..40_000_u32).map(|n| (n % 251) as u8).collect();
        for value in [&b""[..], b"x", b"\0\xff not text", &large] {
            let entry = Entry::builder(value.to_vec(), self.stamps.issue())
                .expires_at(self.after(1_000))
                .stale_until(self.after(2_000))
                .version(Some("2022"))
                .etag(Some("\"abc\""))
                .source_last_modified(Some("Wed, 21 Oct 2015 07:28:00 GMT"))
                .content_type(Some("application/json"))
                .tags([tag("boulder-co"), tag("acs, 5yr")])
                .build();
            assert_eq!(self.put(&key, &entry).await, PutOutcome::Stored, "{PROMISE}");
            assert_eq!(self.get(&key).await.as_ref(), Some(&entry), "{PROMISE}");
        }
        let bare = self.entry("bare");
        assert_eq!(self.put(&key, &bare).await, PutOutcome::Stored);
        assert_eq!(self.get(&key).await, Some(bare), "{PROMISE}: metadata of the value before");
    }

    async fn serves_stale_but_never_dead(self) {
        let key = Key::new("census:a");
        let entry = Entry::builder("v", self.stamps.issue())
            .expires_at(self.after(100))
            .stale_until(self.after(200))
            .build();
        self.put(&key, &entry).await;
        for (step, expected) in [(99, true), (1, true), (99, true), (1, false)] {
            self.clock.advance(Duration::from_millis(step));
            let found = self.get(&key).await.is_some();
            assert_eq!(
                found, expected,
                "promise broken: stale is returned, dead is not (limits are exclusive)"
            );
        }
        let later = self.entry("later");
        assert_eq!(self.put(&key, &later).await, PutOutcome::Stored);
        assert_eq!(self.get(&key).await, Some(later), "a dead entry makes way");
    }

    async fn keeps_the_latest_load(self) {
        const PROMISE: &str = "promise broken: the entry loaded last stays";
        let key = Key::new("census:a");
        let (old, new) = (self.entry("old"), self.entry("new"));
        assert_eq!(self.put(&key, &new).await, PutOutcome::Stored);
        assert_eq!(self.put(&key, &old).await, PutOutcome::Superseded, "{PROMISE}");
        assert_eq!(self.get(&key).await.as_ref(), Some(&new), "{PROMISE}");
        let twin = Entry::builder("twin", new.as_of()).build();
        assert_eq!(self.put(&key, &twin).await, PutOutcome::Superseded, "{PROMISE}: equal stamp");
        assert_eq!(self.get(&key).await, Some(new), "{PROMISE}: equal stamp");
    }

    async fn barriers_win(self) {
        const PROMISE: &str = "promise broken: nothing loaded before a barrier is stored or served";
        let key = Key::new("census:a");
        let (stored, in_flight) = (self.entry("stored"), self.entry("in flight"));
        self.put(&key, &stored).await;
        assert_eq!(self.bar(Selector::Key(key.clone())).await, 1, "bar tells how many went");
        assert_eq!(self.get(&key).await, None, "{PROMISE}");
        assert_eq!(self.put(&key, &in_flight).await, PutOutcome::Barred, "{PROMISE}");
        assert_eq!(self.get(&key).await, None, "{PROMISE}");
        let after = self.entry("after");
        assert_eq!(self.put(&key, &after).await, PutOutcome::Stored, "later loads are welcome");
        assert_eq!(self.bar(Selector::Key(Key::new("census:b"))).await, 0);
        assert_eq!(self.get(&key).await, Some(after));
    }

    async fn barriers_select_exactly(self) {
        let keys = ["census:a", "census:b", "census_acs:a", "bls:a"].map(Key::new);
        let selectors = [
            (Selector::Key(keys[1].clone()), [true, false, true, true]),
            (Selector::Source("census".into()), [false, false, true, true]),
            (Selector::Tag(tag("t")), [false, true, false, false]),
            (Selector::SourceTag("census".into(), tag("t")), [false, true, true, true]),
            (Selector::All, [false; 4]),
            (Selector::Tag(tag("unknown")), [true; 4]),
            (Selector::Key(Key::new("")), [true; 4]),
            (Selector::Source("".into()), [true; 4]),
            (Selector::SourceTag("".into(), tag("t")), [true; 4]),
        ];
        for (selector, stay) in selectors {
            for (n, key) in keys.iter().enumerate() {
                let tags = if n == 1 { vec![] } else { vec![tag("t")] };
                let entry = Entry::builder("v", self.stamps.issue()).tags(tags).build();
                assert_eq!(self.put(key, &entry).await, PutOutcome::Stored);
            }
            let removed = self.bar(selector.clone()).await;
            for (key, stays) in keys.iter().zip(stay) {
                let found = self.get(key).await.is_some();
                assert_eq!(found, stays, "promise broken: a barrier on {selector} and key {key}");
            }
            let expected = stay.iter().filter(|stays| !**stays).count() as u64;
            assert_eq!(removed, expected, "promise broken: bar on {selector} tells how many went");
        }
        // An entry has the tags of its latest write only.
        let entry = Entry::builder("v", self.stamps.issue()).tags([tag("old")]).build();
        self.put(&keys[0], &entry).await;
        let entry = Entry::builder("v", self.stamps.issue()).tags([tag("new")]).build();
        self.put(&keys[0], &entry).await;
        assert_eq!(self.bar(Selector::Tag(tag("old"))).await, 0);
        assert!(self.get(&keys[0]).await.is_some(), "promise broken: tags are of the latest write");
    }

    async fn removes(self) {
        let key = Key::new("census:a");
        self.put(&key, &self.entry("v")).await;
        assert!(ok(self.tier.remove(&key).await, "remove"), "remove tells that there was one");
        assert_eq!(self.get(&key).await, None, "promise broken: removed is gone");
        assert!(
            !ok(self.tier.remove(&key).await, "remove"),
            "promise broken: remove is idempotent"
        );
        let again = self.entry("again");
        assert_eq!(self.put(&key, &again).await, PutOutcome::Stored, "remove is no barrier");
    }

    async fn batches_do_what_single_calls_do(self) {
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
        let none = ok(self.tier.get_many(&[]).await, "get_many");
        assert!(none.is_empty() && ok(self.tier.put_many(&[]).await, "put_many").is_empty());
    }

    async fn keeps_keys_apart(self) {
        let long = "x".repeat(cache_core::MAX_KEY_BYTES - 2);
        let names = ["a:b", "a:B", "a:b ", "a:b%", "a:_", "a:*", "a:'\"--", "a:é", "a:e\u{301}"];
        let keys: Vec<Key> =
            names.iter().map(Key::new).chain([Key::new(format!("a:{long}"))]).collect();
        for key in &keys {
            self.put(key, &self.entry(key.as_str())).await;
        }
        for key in &keys {
            let found = self.get(key).await;
            let value = found.as_ref().map(|entry| &entry.value()[..]);
            assert_eq!(value, Some(key.as_str().as_bytes()), "promise broken: keys are kept apart");
        }
    }

    async fn inspects_without_changing(self) {
        let Some(inspect) = self.tier.as_inspect() else { return };
        for (name, ttl) in [("b:2", 100), ("a:1", 100), ("b:1", 10), ("c:1", 100)] {
            let entry = Entry::builder(vec![7; 1_000], self.stamps.issue())
                .expires_at(self.after(ttl))
                .tags([tag(name)])
                .build();
            self.put(&Key::new(name), &entry).await;
        }
        let scan = async |filter: Filter, after: Option<&Key>, limit| {
            let found = ok(inspect.scan(&filter, after, limit).await, "scan");
            found.into_iter().map(|summary| summary.key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(scan(Filter::all(), None, 9).await, ["a:1", "b:1", "b:2", "c:1"]);
        assert_eq!(scan(Filter::source("b"), None, 9).await, ["b:1", "b:2"]);
        assert_eq!(scan(Filter::tag(tag("b:2")), None, 9).await, ["b:2"]);
        assert_eq!(scan(Filter::source("a").and_tag(tag("b:2")), None, 9).await, [""; 0]);
        assert_eq!(scan(Filter::all(), Some(&Key::new("b:1")), 1).await, ["b:2"], "paging");

        let usage = ok(inspect.usage().await, "usage");
        assert_eq!(usage.total().entries, 4, "promise broken: usage counts entries");
        assert_eq!(usage.total().raw_bytes, 4_000, "promise broken: usage counts raw bytes");
        let names: Vec<_> = usage.sources.iter().map(|one| one.source.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"], "promise broken: usage is by source");

        self.clock.advance(Duration::from_millis(10));
        let now = self.clock.now();
        let one = ok(inspect.remove_dead(now, Some(&Key::new("a:1"))).await, "remove_dead");
        assert_eq!(one, 0, "promise broken: only the dead are removed");
        assert_eq!(ok(inspect.remove_dead(now, None).await, "remove_dead"), 1);
        let usage = ok(inspect.usage().await, "usage");
        assert_eq!(usage.total().entries, 3, "promise broken: usage follows removal");
    }

    async fn knows_its_latest_stamp(self) {
        const PROMISE: &str = "promise broken: no stamp in the tier exceeds its latest";
        let Some(stamped) = self.tier.as_stamped() else { return };
        let latest = async || ok(stamped.latest_stamp().await, "latest_stamp");
        let key = Key::new("census:a");
        let (first, second) = (self.entry("first"), self.entry("second"));
        self.put(&key, &second).await;
        assert!(latest().await >= second.as_of(), "{PROMISE}: an entry");
        self.put(&Key::new("census:b"), &first).await;
        assert!(latest().await >= second.as_of(), "{PROMISE}: an older entry");
        let barrier = Barrier { selector: Selector::All, stamp: self.stamps.issue() };
        ok(self.tier.bar(&barrier).await, "bar");
        assert!(latest().await >= barrier.stamp, "{PROMISE}: a barrier");
    }

    async fn takes_concurrent_puts_in_any_order(self) {
        let key = Key::new("census:a");
        let mut entries: Vec<Entry> = (0..63).map(|n| self.entry(&n.to_string())).collect();
        let last = self.entry("last");
        entries.push(last.clone());
        let puts = entries.iter().rev().zip(entries.iter()).map(async |(late, early)| {
            self.put(&key, early).await;
            self.put(&key, late).await;
        });
        // Polled in turn by one task: interleaved wherever the tier waits.
        let mut puts: Vec<_> = puts.map(Box::pin).collect();
        std::future::poll_fn(|context| {
            puts.retain_mut(|put| put.as_mut().poll(context).is_pending());
            if puts.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        assert_eq!(self.get(&key).await, Some(last), "promise broken: the latest load stays");
    }
}
