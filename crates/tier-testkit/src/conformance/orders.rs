//! Puts and barriers in any order, and at once.

use std::{fmt::Write as _, str::FromStr as _};

use cache_core::{Barrier, Effect, Entry, Key, PutOutcome, Selector, Tier};

use super::{Bench, ok, tag, together};
use crate::dice::Dice;

/// Rounds of random orders; each has its own keys, in one tier.
const ROUNDS: usize = 100;

const SEED: &str = "TIER_TESTKIT_SEED";

/// Something that a tier is told.
#[derive(Clone, Debug)]
enum Event {
    Put(Key, Entry),
    Bar(Barrier),
}

/// What must be found under `key` when all events have arrived: the entry loaded last, as the
/// barriers let it be. `Err` where that depends on the order: a barrier that selects by tag or
/// version may forget the last entry and not the one before, which a tier may have dropped by then.
fn settled(events: &[Event], key: &Key) -> Result<Option<Entry>, ()> {
    let mut entries: Vec<&Entry> = Vec::new();
    let mut barriers: Vec<&Barrier> = Vec::new();
    for event in events {
        match event {
            Event::Put(of, entry) if of == key => entries.push(entry),
            Event::Put(..) => {}
            Event::Bar(barrier) => barriers.push(barrier),
        }
    }
    entries.sort_unstable_by_key(|entry| entry.as_of());
    let covered = |entry: &Entry, effect| {
        barriers.iter().any(|barrier| barrier.effect == effect && barrier.covers(key, entry))
    };
    let Some(last) = entries.pop() else { return Ok(None) };
    if covered(last, Effect::Forget) {
        let all = entries.iter().all(|entry| covered(entry, Effect::Forget));
        return if all { Ok(None) } else { Err(()) };
    }
    Ok(Some(if covered(last, Effect::Expire) { last.to_expired() } else { last.clone() }))
}

impl<T: Tier> Bench<T> {
    pub(super) async fn any_order_ends_in_the_same_state(self) {
        let given = std::env::var(SEED).ok().and_then(|text| u64::from_str(&text).ok());
        let seed = given.unwrap_or(2_718_281_828);
        let mut random = Dice::new(seed);
        for round in 0..ROUNDS {
            let source = format!("r{round}");
            let keys = ["a", "b:1", "b:2"].map(|rest| Key::new(format!("{source}:{rest}")));
            let (events, expected) = loop {
                let events = self.happenings(&mut random, &source, &keys);
                let settled: Result<Vec<_>, ()> =
                    keys.iter().map(|key| settled(&events, key)).collect();
                if let Ok(expected) = settled {
                    break (events, expected);
                }
            };
            // Some arrive twice, all in any order.
            let mut arriving = events.clone();
            arriving.extend(events.iter().filter(|_| random.below(2) == 0).cloned());
            random.shuffle(&mut arriving);
            for event in &arriving {
                match event {
                    Event::Put(key, entry) => drop(self.put(key, entry).await),
                    Event::Bar(barrier) => _ = ok(self.tier.bar(barrier).await, "bar"),
                }
            }
            for (key, expected) in keys.iter().zip(expected) {
                let found = self.get(key).await;
                if found != expected {
                    let mut told = String::new();
                    for event in &arriving {
                        // A String takes everything.
                        _ = write!(told, "\n  {event:?}");
                    }
                    panic!(
                        "promise broken: puts and barriers end in the same state in whatever order \
                         they arrive: {key}: {found:?}, not {expected:?}, in round {round} of \
                         {SEED}={seed}, after:{told}"
                    );
                }
            }
        }
    }

    /// A handful of loads and invalidations, in the order they happened in.
    fn happenings(&self, random: &mut Dice, source: &str, keys: &[Key; 3]) -> Vec<Event> {
        let count = 4 + random.below(6);
        let mut events = Vec::with_capacity(count);
        // Few different ones, so that some are set several times.
        let selectors = [random.below(8), random.below(8)];
        for n in 0..count {
            let key = &keys[random.below(keys.len())];
            if n == 0 || random.below(5) < 3 {
                let mut tags = [source, "t", "u"].map(tag).to_vec();
                tags.retain(|_| random.below(2) == 0);
                let version = [None, Some("1"), Some("2")][random.below(3)];
                let entry = self.limited(&n.to_string()).tags(tags).version(version).build();
                events.push(Event::Put(key.clone(), entry));
                continue;
            }
            let selector = match selectors[random.below(2)] {
                0 => Selector::Key(key.clone()),
                1 => Selector::Tag(tag(source)),
                2 => Selector::Tag(tag("t")),
                3 => Selector::source(source),
                4 => Selector::prefix(&format!("{source}:b")),
                5 => Selector::PrefixTag(format!("{source}:b").into(), tag("u")),
                6 => Selector::OtherVersion(source.into(), "2".into()),
                _ => Selector::All,
            };
            let effect = [Effect::Forget, Effect::Expire][random.below(2)];
            events.push(Event::Bar(self.barrier(selector, effect)));
        }
        events
    }

    pub(super) async fn takes_concurrent_puts_in_any_order(self) {
        let key = Key::new("census:a");
        let mut entries: Vec<Entry> = (0..63).map(|n| self.entry(&n.to_string())).collect();
        let last = self.entry("last");
        entries.push(last.clone());
        let puts = entries.iter().rev().zip(entries.iter()).map(async |(late, early)| {
            self.put(&key, early).await;
            self.put(&key, late).await;
        });
        together(puts).await;
        let promise = "promise broken: of puts at the same time the latest load stays";
        assert_eq!(self.get(&key).await, Some(last), "{promise}");
    }

    pub(super) async fn barriers_catch_puts_under_way(self) {
        const PROMISE: &str = "promise broken: a barrier covers puts that are under way with it";
        for effect in [Effect::Forget, Effect::Expire] {
            let keys: Vec<Key> = (0..32).map(|n| Key::new(format!("census:{n}"))).collect();
            let entries: Vec<Entry> = keys.iter().map(|_| self.limited("v").build()).collect();
            let barrier = self.barrier(Selector::source("census"), effect);
            let (tier, barrier) = (&self.tier, &barrier);
            let writes = keys.iter().zip(&entries).enumerate().map(async |(n, (key, entry))| {
                if n == 16 {
                    ok(tier.bar(barrier).await, "bar");
                }
                ok(tier.put(key, entry).await, "put")
            });
            together(writes).await;
            for (key, entry) in keys.iter().zip(&entries) {
                let expected = (effect == Effect::Expire).then(|| entry.to_expired());
                assert_eq!(self.get(key).await, expected, "{PROMISE}: {effect:?}");
            }
            let outcome = self.put(&keys[0], &self.entry("later")).await;
            assert_eq!(outcome, PutOutcome::Stored, "promise broken: later loads are stored");
        }
    }
}
