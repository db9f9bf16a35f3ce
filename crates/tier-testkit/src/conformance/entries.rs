//! Single entries: what is put, what is found, which of two stays.

use std::time::Duration;

use cache_core::{Effect, Entry, Key, MAX_KEY_BYTES, PutOutcome, Selector, Tier};

use super::{Bench, ok, tag};

impl<T: Tier> Bench<T> {
    pub(super) async fn returns_what_was_put(self) {
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
                .tags([tag("boulder-co"), tag("acs, 5yr"), tag(" é%_*'"), tag(&"x".repeat(256))])
                .build();
            assert_eq!(self.put(&key, &entry).await, PutOutcome::Stored, "{PROMISE}");
            assert_eq!(self.get(&key).await.as_ref(), Some(&entry), "{PROMISE}");
        }
        let bare = self.entry("bare");
        assert_eq!(self.put(&key, &bare).await, PutOutcome::Stored, "{PROMISE}");
        assert_eq!(self.get(&key).await, Some(bare), "{PROMISE}: metadata of the value before");
        let empty = self.limited("v").version(Some("")).etag(Some("")).build();
        self.put(&key, &empty).await;
        assert_eq!(self.get(&key).await, Some(empty), "{PROMISE}: an empty text is not none");
    }

    pub(super) async fn returns_every_field(self) {
        const PROMISE: &str = "promise broken: get returns every field as it was put";
        let key = Key::new("census:a");
        for bits in 0..8 {
            let (absent, own, expired) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let entry = self
                .limited(if absent { "" } else { "v" })
                .absent(absent)
                .own_lifetime(own)
                .expired(expired)
                .loaded_at(self.after(77))
                .build();
            assert_eq!(self.put(&key, &entry).await, PutOutcome::Stored, "{PROMISE}");
            let Some(found) = self.get(&key).await else {
                panic!("{PROMISE}: {entry:?} is not found")
            };
            assert_eq!(found.is_absent(), absent, "{PROMISE}: absent");
            assert_eq!(found.has_own_lifetime(), own, "{PROMISE}: own lifetime");
            assert_eq!(found.is_expired(), expired, "{PROMISE}: expired");
            assert_eq!(found.loaded_at(), entry.loaded_at(), "{PROMISE}: loaded_at");
            assert_eq!(found.as_of(), entry.as_of(), "{PROMISE}: as_of");
            assert_eq!(found.expires_at(), entry.expires_at(), "{PROMISE}: expires_at");
            assert_eq!(found.stale_until(), entry.stale_until(), "{PROMISE}: stale_until");
            assert_eq!(found, entry, "{PROMISE}");
        }
    }

    pub(super) async fn serves_stale_but_never_dead(self) {
        const PROMISE: &str =
            "promise broken: stale is returned, dead is not (limits are exclusive)";
        let key = Key::new("census:a");
        let entry = Entry::builder("v", self.stamps.issue())
            .expires_at(self.after(100))
            .stale_until(self.after(200))
            .build();
        self.put(&key, &entry).await;
        for (step, expected) in [(99, true), (1, true), (99, true), (1, false)] {
            self.clock.advance(Duration::from_millis(step));
            assert_eq!(self.get(&key).await.is_some(), expected, "{PROMISE}");
        }
        let found = ok(self.tier.get_many(std::slice::from_ref(&key)).await, "get_many");
        assert_eq!(found, [None], "{PROMISE}: get_many");
        let later = self.entry("later");
        let outcome = self.put(&key, &later).await;
        assert_eq!(outcome, PutOutcome::Stored, "promise broken: a dead entry makes way");
        assert_eq!(self.get(&key).await, Some(later), "promise broken: a dead entry makes way");
    }

    pub(super) async fn keeps_the_latest_load(self) {
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

    pub(super) async fn lets_the_dead_be_replaced(self) {
        let (key, overtaken) = (Key::new("census:a"), Key::new("census:b"));
        let older = self.entry("older");
        let short = |value: &str| {
            let builder = Entry::builder(value.to_owned(), self.stamps.issue());
            builder.expires_at(self.after(50)).stale_until(self.after(100)).build()
        };
        let (first, newer) = (short("first"), short("newer"));
        self.put(&key, &first).await;
        self.put(&overtaken, &newer).await;

        self.clock.advance(Duration::from_millis(99));
        let twin = first.to_builder().expires_at(self.after(1_000)).build();
        let outcome = self.put(&key, &twin).await;
        let promise = "promise broken: an equal stamp replaces nothing that is not dead";
        assert_eq!(outcome, PutOutcome::Superseded, "{promise}");

        self.clock.advance(Duration::from_millis(1));
        // Not read in between: a tier may remove what it finds dead.
        let outcome = self.put(&overtaken, &older).await;
        let promise = "promise broken: an older load never replaces a newer one, dead or not";
        assert_eq!(outcome, PutOutcome::Superseded, "{promise}");
        assert_eq!(self.get(&overtaken).await, None, "{promise}");

        let promise = "promise broken: an equal stamp replaces what is dead";
        assert_eq!(self.put(&key, &twin).await, PutOutcome::Stored, "{promise}");
        assert_eq!(self.get(&key).await, Some(twin), "{promise}");
    }

    pub(super) async fn renews(self) {
        const PROMISE: &str = "promise broken: an entry that renews another is stored as any";
        let value = "0123456789".repeat(2_000);
        let [held, missing, other, newer, expired] =
            ["held", "missing", "other", "newer", "expired"].map(|it| Key::new(format!("a:{it}")));
        let before = self.limited(&value).etag(Some("\"1\"")).tags([tag("old")]).build();
        self.put(&held, &before).await;
        self.put(&other, &self.entry("of another load")).await;
        self.put(&expired, &before.to_builder().build()).await;
        self.bar(Selector::Key(expired.clone()), Effect::Expire).await;
        let after = self
            .limited(&value)
            .etag(Some("\"2\""))
            .version(Some("2023"))
            .tags([tag("new")])
            .renews(Some(before.as_of()))
            .build();
        self.put(&newer, &self.entry("newer")).await;
        for key in [&held, &missing, &other, &expired] {
            assert_eq!(self.put(key, &after).await, PutOutcome::Stored, "{PROMISE}: {key}");
            assert_eq!(self.get(key).await.as_ref(), Some(&after), "{PROMISE}: {key}");
        }
        assert_eq!(self.put(&newer, &after).await, PutOutcome::Superseded, "{PROMISE}: newer");
        // By its tags of now, not by those of before.
        self.bar(Selector::Tag(tag("old")), Effect::Forget).await;
        assert!(self.get(&held).await.is_some(), "{PROMISE}: tags of before");
        self.bar(Selector::Tag(tag("new")), Effect::Forget).await;
        assert_eq!(self.get(&held).await, None, "{PROMISE}: tags");
    }

    pub(super) async fn removes(self) {
        let key = Key::new("census:a");
        self.put(&key, &self.entry("v")).await;
        let removed = ok(self.tier.remove(&key).await, "remove");
        assert!(removed, "promise broken: remove tells that there was one");
        assert_eq!(self.get(&key).await, None, "promise broken: removed is gone");
        let removed = ok(self.tier.remove(&key).await, "remove");
        assert!(!removed, "promise broken: remove tells that there was nothing");
        let outcome = self.put(&key, &self.entry("again")).await;
        assert_eq!(outcome, PutOutcome::Stored, "promise broken: a removal is no barrier");
    }

    pub(super) async fn keeps_keys_apart(self) {
        const PROMISE: &str = "promise broken: keys are kept apart";
        let long = "x".repeat(MAX_KEY_BYTES - 2);
        let names = ["a:b", "a:B", "a:b ", "a:b%", "a:_", "a:*", "a:'\"--", "a:é", "a:e\u{301}"];
        let keys: Vec<Key> =
            names.iter().map(Key::new).chain([Key::new(format!("a:{long}"))]).collect();
        for key in &keys {
            self.put(key, &self.entry(key.as_str())).await;
        }
        for key in &keys {
            let found = self.get(key).await;
            let value = found.as_ref().map(|entry| &entry.value()[..]);
            assert_eq!(value, Some(key.as_str().as_bytes()), "{PROMISE}");
        }
        for unusable in ["", "a:\n", &"x".repeat(MAX_KEY_BYTES + 1)].map(Key::new) {
            let promise = "promise broken: a key that cannot be stored is refused";
            let outcome = self.put(&unusable, &self.entry("v")).await;
            assert!(matches!(outcome, PutOutcome::Refused { .. }), "{promise}: {outcome:?}");
            assert_eq!(self.get(&unusable).await, None, "{promise}");
        }
    }
}
