//! The promises of a tier, as tests.

mod barriers;
mod batches;
mod entries;
mod inspect;
mod interrupted;
mod orders;
mod selectors;
mod watch;

use std::{future::poll_fn, pin::pin, sync::Arc, task::Poll, time::Duration};

use cache_core::{
    Barrier, Clock, Effect, Entry, EntryBuilder, Key, PutOutcome, Selector, Stamp, StampClock, Tag,
    Tier, Timestamp,
};

use self::watch::within;
use crate::ManualClock;

/// Checks that a tier keeps the promises of [`Tier`].
///
/// `make` is called once a promise; each tier it returns must be empty, must have room for a few
/// hundred small entries, and must read time from the clock it is given. Any async runtime will do,
/// or none. A check that takes a minute counts as a call that is never answered.
///
/// One of the checks delivers puts and barriers in random orders. Its seed is always the same,
/// unless the environment variable `TIER_TESTKIT_SEED` holds another number.
///
/// # Panics
/// When a promise is broken; the message names it.
pub async fn conformance<T: Tier>(make: impl AsyncFn(Arc<ManualClock>) -> T) {
    let fresh = async || {
        let clock = Arc::new(ManualClock::default());
        let tier = make(Arc::clone(&clock)).await;
        Bench { tier, stamps: StampClock::new(Arc::<ManualClock>::clone(&clock)), clock }
    };
    // The simplest first: what breaks them breaks the others too.
    within("entries", fresh().await.returns_what_was_put()).await;
    within("lifetimes", fresh().await.serves_stale_but_never_dead()).await;
    within("entries", fresh().await.returns_every_field()).await;
    within("replacement", fresh().await.keeps_the_latest_load()).await;
    within("replacement", fresh().await.lets_the_dead_be_replaced()).await;
    within("removal", fresh().await.removes()).await;
    within("keys", fresh().await.keeps_keys_apart()).await;
    within("batches", fresh().await.batches_do_what_single_calls_do()).await;
    within("barriers", fresh().await.barriers_forget()).await;
    within("barriers", fresh().await.barriers_expire()).await;
    within("barriers", fresh().await.forgetting_is_stronger_than_expiring()).await;
    within("batches", fresh().await.batches_obey_barriers()).await;
    fresh().await.barriers_select_exactly().await;
    within("selectors", fresh().await.tags_are_of_the_latest_write()).await;
    within("replacement", fresh().await.renews()).await;
    within("orders", fresh().await.any_order_ends_in_the_same_state()).await;
    within("concurrency", fresh().await.takes_concurrent_puts_in_any_order()).await;
    within("concurrency", fresh().await.barriers_catch_puts_under_way()).await;
    within("inspection", fresh().await.inspects_without_changing()).await;
    within("inspection", fresh().await.scans_exactly()).await;
    within("stamps", fresh().await.knows_its_latest_stamp()).await;
    within("dropped puts", fresh().await.a_dropped_put_is_whole_or_nothing()).await;
    within("dropped calls", fresh().await.other_dropped_calls_are_whole_or_nothing()).await;
    within("closing", fresh().await.answers_after_it_was_closed()).await;
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
fn ok<T>(result: cache_core::Result<T>, call: &str) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("promise broken: {call}: a healthy tier does not fail: {error}"),
    }
}

/// Polls the futures in turn until all are done: interleaved wherever the tier waits.
async fn together<F: Future>(futures: impl IntoIterator<Item = F>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    poll_fn(|context| {
        futures.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl<T: Tier> Bench<T> {
    fn entry(&self, value: &str) -> Entry {
        Entry::builder(value.to_owned(), self.stamps.issue()).build()
    }

    /// Starts an entry that is fresh for a second, and stale for another.
    fn limited(&self, value: &str) -> EntryBuilder {
        self.limited_at(value, self.stamps.issue())
    }

    /// The same, loaded at `as_of`.
    fn limited_at(&self, value: &str, as_of: Stamp) -> EntryBuilder {
        Entry::builder(value.to_owned(), as_of)
            .expires_at(self.after(1_000))
            .stale_until(self.after(2_000))
    }

    fn after(&self, millis: u64) -> Timestamp {
        self.clock.now().saturating_add(Duration::from_millis(millis))
    }

    async fn get(&self, key: &Key) -> Option<Entry> {
        let found = ok(self.tier.get(key).await, "get");
        if let Some(sync) = self.tier.as_sync() {
            let now = sync.get_now(key.as_str(), self.clock.now());
            assert_eq!(now, found, "promise broken: both sides of a tier agree");
        }
        found
    }

    async fn put(&self, key: &Key, entry: &Entry) -> PutOutcome {
        ok(self.tier.put(key, entry).await, "put")
    }

    /// Sets a barrier with a stamp of now; how many entries it changed.
    async fn bar(&self, selector: Selector, effect: Effect) -> u64 {
        let barrier = self.barrier(selector, effect);
        ok(self.tier.bar(&barrier).await, "bar")
    }

    fn barrier(&self, selector: Selector, effect: Effect) -> Barrier {
        let stamp = self.stamps.issue();
        match effect {
            Effect::Forget => Barrier::forget(selector, stamp),
            Effect::Expire => Barrier::expire(selector, stamp),
        }
    }
}

/// Polls a future so many times and drops it, as a caller does that goes away.
fn abandon(future: impl Future, polls: usize) {
    let mut future = pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..polls {
        if future.as_mut().poll(&mut context).is_ready() {
            return;
        }
        std::thread::yield_now();
    }
}
