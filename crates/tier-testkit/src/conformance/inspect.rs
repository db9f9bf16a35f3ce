//! What only some tiers offer: looking at what is stored, and the latest stamp.

use std::time::Duration;

use cache_core::{
    Barrier, Clock as _, Effect, Entry, Filter, Inspect, Key, Selector, Summary, Tier, Timestamp,
};

use super::{Bench, ok, tag};

async fn scan(inspect: &dyn Inspect, filter: Filter, after: Option<&str>, limit: usize) -> String {
    let after = after.map(Key::new);
    let found = ok(inspect.scan(&filter, after.as_ref(), limit).await, "scan");
    let keys: Vec<_> = found.iter().map(|summary| summary.key.as_str()).collect();
    keys.join(" ")
}

impl<T: Tier> Bench<T> {
    pub(super) async fn inspects_without_changing(self) {
        const USAGE: &str = "promise broken: usage counts what is stored, by source";
        let Some(inspect) = self.tier.as_inspect() else { return };
        for (name, ttl) in [("b:2", 100), ("a:1", 100), ("b:1", 10), ("c:1", 100)] {
            let entry = Entry::builder(vec![7; 1_000], self.stamps.issue())
                .expires_at(self.after(ttl))
                .build();
            self.put(&Key::new(name), &entry).await;
        }
        let again = Entry::builder(vec![7; 2_000], self.stamps.issue());
        self.put(&Key::new("c:1"), &again.expires_at(self.after(100)).build()).await;
        let usage = ok(inspect.usage().await, "usage");
        assert_eq!(usage.total().entries, 4, "{USAGE}: entries");
        assert_eq!(usage.total().raw_bytes, 5_000, "{USAGE}: raw bytes");
        let names: Vec<_> = usage.sources.iter().map(|one| one.source.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"], "{USAGE}: sources, sorted");

        self.clock.advance(Duration::from_millis(10));
        let now = self.clock.now();
        let dead = async |key: Option<&Key>| ok(inspect.remove_dead(now, key).await, "remove_dead");
        let promise = "promise broken: remove_dead removes the dead, and only them";
        assert_eq!(dead(Some(&Key::new("a:1"))).await, 0, "{promise}: of a key");
        assert_eq!(dead(None).await, 1, "{promise}");
        let usage = ok(inspect.usage().await, "usage");
        assert_eq!(usage.total().entries, 3, "{USAGE}: after a removal");
        self.clock.advance(Duration::from_millis(90));
        let now = self.clock.now();
        let dead = ok(inspect.remove_dead(now, Some(&Key::new("a:1"))).await, "remove_dead");
        assert_eq!(dead, 1, "{promise}: of a key");
        let usage = ok(inspect.usage().await, "usage");
        assert_eq!(usage.total().entries, 2, "{USAGE}: after a removal");
    }

    pub(super) async fn scans_exactly(self) {
        const PAGES: &str = "promise broken: scan goes on after a key, up to a limit";
        const SCAN: &str = "promise broken: scan finds what matches, in the order of keys";
        let Some(inspect) = self.tier.as_inspect() else { return };
        let names = ["b:2", "a:1", "b:1", "b:1:x", "b_:1", "b", "bb:1", "b:10", "B:1", "b:%"];
        for name in names {
            self.put(&Key::new(name), &self.limited(name).tags([tag(name)]).build()).await;
        }
        let all = "B:1 a:1 b b:% b:1 b:10 b:1:x b:2 b_:1 bb:1";
        let everything = scan(inspect, Filter::all(), None, 99).await;
        assert_eq!(everything, all, "{SCAN}");
        let cases = [
            (Filter::source("b"), "b b:% b:1 b:10 b:1:x b:2"),
            (Filter::prefix("b:1"), "b:1 b:1:x"),
            (Filter::prefix("b:"), "b b:% b:1 b:10 b:1:x b:2"),
            (Filter::prefix("b:1:x"), "b:1:x"),
            (Filter::prefix("b:%"), "b:%"),
            (Filter::prefix("b:_"), ""),
            (Filter::prefix(""), ""),
            (Filter::tag(tag("b:2")), "b:2"),
            (Filter::tag(tag("unknown")), ""),
            (Filter::source("b").and_tag(tag("b:1:x")), "b:1:x"),
            (Filter::source("a").and_tag(tag("b:2")), ""),
        ];
        for (filter, expected) in cases {
            let found = scan(inspect, filter.clone(), None, 99).await;
            assert_eq!(found, expected, "{SCAN}: {filter:?}");
        }
        assert_eq!(scan(inspect, Filter::all(), Some("b:1"), 1).await, "b:10", "{PAGES}");
        assert_eq!(scan(inspect, Filter::all(), None, 0).await, "", "{PAGES}");
        assert_eq!(scan(inspect, Filter::prefix("b:1"), Some("b:1"), 9).await, "b:1:x", "{PAGES}");
        assert_eq!(scan(inspect, Filter::all(), Some("nothing"), 9).await, "", "{PAGES}");

        self.summaries(inspect).await;
    }

    async fn summaries(&self, inspect: &dyn Inspect) {
        const PROMISE: &str = "promise broken: a summary says what the entry says";
        let summary = async |name: &str| -> Summary {
            let found = ok(inspect.scan(&Filter::prefix(name), None, 1).await, "scan");
            let Some(first) = found.into_iter().next() else {
                panic!("{PROMISE}: {name} is not found")
            };
            first
        };
        let fresh = summary("a:1").await;
        assert_eq!((fresh.key.as_str(), fresh.raw_bytes), ("a:1", 3), "{PROMISE}");
        assert_eq!(fresh.tags, [tag("a:1")], "{PROMISE}: tags");
        let limits: (Timestamp, Timestamp) = (self.after(1_000), self.after(2_000));
        assert_eq!((fresh.expires_at, fresh.stale_until), limits, "{PROMISE}: limits");
        assert!(!fresh.expired, "{PROMISE}: expired");

        let promise = "promise broken: a summary says whether the entry was made stale";
        self.bar(Selector::source("a"), Effect::Expire).await;
        let expired = summary("a:1").await;
        assert!(expired.expired, "{promise}: by a barrier");
        assert_eq!((expired.expires_at, expired.stale_until), limits, "{PROMISE}: limits");
        let in_flight = self.limited("v").build();
        self.bar(Selector::Key(Key::new("a:2")), Effect::Expire).await;
        self.put(&Key::new("a:2"), &in_flight).await;
        assert!(summary("a:2").await.expired, "{promise}: by an earlier barrier");
        self.put(&Key::new("a:3"), &self.limited("v").expired(true).build()).await;
        assert!(summary("a:3").await.expired, "{promise}: before it was put");
        self.put(&Key::new("a:1"), &self.limited("v").build()).await;
        assert!(!summary("a:1").await.expired, "{promise}: not after it was loaded again");

        self.bar(Selector::source("a"), Effect::Forget).await;
        let found = scan(inspect, Filter::source("a"), None, 9).await;
        assert_eq!(found, "", "promise broken: scan does not show what is forgotten");
    }

    pub(super) async fn knows_its_latest_stamp(self) {
        const PROMISE: &str = "promise broken: no stamp in the tier exceeds its latest";
        let Some(stamped) = self.tier.as_stamped() else { return };
        let latest = async || ok(stamped.latest_stamp().await, "latest_stamp");
        let key = Key::new("census:a");
        let (first, second) = (self.entry("first"), self.entry("second"));
        self.put(&key, &second).await;
        assert!(latest().await >= second.as_of(), "{PROMISE}: an entry");
        self.put(&Key::new("census:b"), &first).await;
        assert!(latest().await >= second.as_of(), "{PROMISE}: an older entry");
        let forget = Barrier::forget(Selector::All, self.stamps.issue());
        ok(self.tier.bar(&forget).await, "bar");
        assert!(latest().await >= forget.stamp, "{PROMISE}: a barrier");
        let expire = Barrier::expire(Selector::All, self.stamps.issue());
        ok(self.tier.bar(&expire).await, "bar");
        assert!(latest().await >= expire.stamp, "{PROMISE}: a barrier that expires");
    }
}
