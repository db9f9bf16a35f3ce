//! Barriers: which entries they cover.

use cache_core::{Barrier, Effect, Entry, Key, PutOutcome, Selector, Stamp, Tier};

use super::{Bench, ok, tag, watch::within};

/// Keys that a careless comparison of prefixes takes for one another.
const KEYS: [&str; 12] = [
    "census",
    "census:acs",
    "census:acs:2022",
    "census:acs:2022:x",
    "census:acs5:2022",
    "census:%:x",
    "census:acs;",
    "census_acs:2022",
    "Census:acs",
    "bls:a",
    "bls:b",
    ":x",
];

fn selectors() -> Vec<Selector> {
    let by_tag = |prefix: &str, text: &str| Selector::PrefixTag(prefix.into(), tag(text));
    let other = |source: &str, version: &str| Selector::OtherVersion(source.into(), version.into());
    let prefixes = [
        "census",
        "census:",
        "census:acs",
        "census:acs:2022",
        "census:acs:2022:x",
        "cens",
        "census:acs5:20",
        "census:%",
        "census:a_s",
        "c*",
        "bls",
        "",
        "nothing",
    ];
    prefixes
        .into_iter()
        .map(Selector::prefix)
        .chain([KEYS[1], KEYS[0], KEYS[9], "", "census:a"].map(|key| Selector::Key(Key::new(key))))
        .chain(["t", "u", "T", "%", "unknown"].map(|text| Selector::Tag(tag(text))))
        .chain([by_tag("census", "t"), by_tag("census:acs", "t"), by_tag("census:acs", "u")])
        .chain([by_tag("", "t"), by_tag("bls", "unknown"), by_tag("cens", "t")])
        .chain([other("census", "2021"), other("census", "2022"), other("census", "")])
        .chain([other("bls", "2022"), other("cens", "2022"), other("census:acs", "2021")])
        .chain([Selector::All])
        .collect()
}

impl<T: Tier> Bench<T> {
    /// What is stored under the `n`th of the keys: with tags, a version, both or none of them.
    fn sample(&self, n: usize, as_of: Stamp) -> (Key, Entry) {
        let tags = [&["t"][..], &[], &["t", "u"]][n % 3];
        let version = [Some("2021"), Some("2022"), None, Some(""), None][n % 5];
        let entry = self.limited_at(&n.to_string(), as_of).version(version);
        (Key::new(KEYS[n]), entry.tags(tags.iter().map(|text| tag(text))).build())
    }

    fn samples(&self, as_of: impl Fn() -> Stamp) -> Vec<(Key, Entry)> {
        (0..KEYS.len()).map(|n| self.sample(n, as_of())).collect()
    }

    pub(super) async fn barriers_select_exactly(self) {
        for selector in selectors() {
            let every_way = async {
                for effect in [Effect::Forget, Effect::Expire] {
                    for barrier_first in [false, true] {
                        self.one_barrier(&selector, effect, barrier_first).await;
                    }
                }
            };
            // Each with a time of its own: these are most of all calls.
            within("selectors", every_way).await;
        }
    }

    async fn one_barrier(&self, selector: &Selector, effect: Effect, barrier_first: bool) {
        const COUNT: &str = "promise broken: bar tells how many entries it changed";
        const AGAIN: &str = "promise broken: a barrier that is set again changes nothing";
        let older = self.barrier(selector.clone(), effect);
        let early = self.samples(|| self.stamps.issue());
        let barrier = self.barrier(selector.clone(), effect);
        if barrier_first {
            ok(self.tier.bar(&barrier).await, "bar");
            // It arrives late, and does not take the place of the newer one.
            ok(self.tier.bar(&older).await, "bar");
            self.put_under(&barrier, &early).await;
        } else {
            for (key, entry) in &early {
                self.put(key, entry).await;
            }
            let changed = ok(self.tier.bar(&barrier).await, "bar");
            self.finds(&barrier, &early).await;
            let expected = early.iter().filter(|(key, entry)| barrier.covers(key, entry)).count();
            assert_eq!(changed, expected as u64, "{COUNT}: {effect:?} {selector}");
        }
        let again = ok(self.tier.bar(&barrier).await, "bar");
        self.finds(&barrier, &early).await;
        assert_eq!(again, 0, "{AGAIN}: {effect:?} {selector}");

        // Of the very instant: still covered.
        self.put_under(&barrier, &self.samples(|| barrier.stamp)).await;
        let later = self.samples(|| self.stamps.issue());
        self.put_under(&barrier, &later).await;
        let again = ok(self.tier.bar(&barrier).await, "bar");
        for (key, entry) in &early {
            let outcome = self.put(key, entry).await;
            let promise = "promise broken: an entry that comes again, late, is not stored";
            assert_ne!(outcome, PutOutcome::Stored, "{promise}");
        }
        self.finds(&barrier, &later).await;
        assert_eq!(again, 0, "{AGAIN}: {effect:?} {selector}");
    }

    /// Puts entries after a barrier, which must know the ones it covers.
    async fn put_under(&self, barrier: &Barrier, entries: &[(Key, Entry)]) {
        const PROMISE: &str = "promise broken: put says whether a barrier covers the entry";
        let mut outcomes = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            outcomes.push(self.put(key, entry).await);
        }
        self.finds(barrier, entries).await;
        for ((key, entry), outcome) in entries.iter().zip(outcomes) {
            let barred = barrier.effect == Effect::Forget && barrier.covers(key, entry);
            let expected = if barred { PutOutcome::Barred } else { PutOutcome::Stored };
            assert_eq!(outcome, expected, "{PROMISE}: {} and key {key}", barrier.selector);
        }
    }

    /// Checks that reading finds these entries as the barrier lets them be.
    async fn finds(&self, barrier: &Barrier, entries: &[(Key, Entry)]) {
        let Barrier { selector, effect, .. } = barrier;
        for (key, entry) in entries {
            let (expected, promise) = match (barrier.covers(key, entry), effect) {
                (false, _) => {
                    (Some(entry.clone()), "a barrier leaves alone what it does not cover")
                }
                (true, Effect::Forget) => (None, "what a barrier forgets is never served"),
                (true, Effect::Expire) => {
                    (Some(entry.to_expired()), "what a barrier expires is served stale")
                }
            };
            let found = self.get(key).await;
            assert_eq!(found, expected, "promise broken: {promise}: {selector} and key {key}");
        }
    }

    pub(super) async fn tags_are_of_the_latest_write(self) {
        const PROMISE: &str = "promise broken: an entry has the tags of its latest write only";
        let key = Key::new("census:a");
        for effect in [Effect::Forget, Effect::Expire] {
            self.put(&key, &self.limited("v").tags([tag("old"), tag("both")]).build()).await;
            let entry = self.limited("v").tags([tag("new"), tag("both")]).build();
            self.put(&key, &entry).await;
            let changed = self.bar(Selector::Tag(tag("old")), effect).await;
            assert_eq!(changed, 0, "{PROMISE}");
            assert_eq!(self.get(&key).await, Some(entry), "{PROMISE}");
            assert_eq!(self.bar(Selector::Tag(tag("both")), effect).await, 1, "{PROMISE}");
        }
    }
}
