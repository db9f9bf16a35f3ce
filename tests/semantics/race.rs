//! Pitfalls others fell into: what happens to an entry while somebody else looks at it.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use larder::{
    Clock, Entry, Policy, PutOutcome, ReadOptions, SetOptions, Stamp, SyncTier, Tier, TierOptions,
    tiers::{MemoryTier, SqliteOptions, SqliteTier},
};
use tier_testkit::{Call, Fault, ManualClock};
use tokio::task::JoinSet;

use crate::{
    harness::{Bench, bring, failure, joined, key, load_gated, until, within},
    tools::{Below, fresh, set, tier_stats},
};

const LONG: Duration = Duration::from_secs(25);

// "Removing an expired entry by get-then-remove deletes a newer value: remove only if it is still the
// same entry."

#[tokio::test]
async fn a_read_that_removes_what_is_dead_spares_what_was_stored_meanwhile() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let (cache, other) = (below.alone(&bench), below.alone(&bench));
    within(cache.set(&a, "dead", SetOptions::ttl(Duration::from_secs(1)))).await.unwrap();
    bench.advance(1_000);
    below.hangs(Call::Inspect);
    let purging = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get_with(&a, ReadOptions::purge_expired()).await }
    });
    until(|| below.chaos.hanging() == 1).await;
    set(&other, &a, "new").await;
    below.chaos.heal();
    assert!(joined(purging).await.unwrap().is_none());
    assert_eq!(below.inside(&a).await.unwrap().value(), "new");
}

#[test]
fn a_read_in_memory_that_finds_something_dead_never_removes_what_replaces_it() {
    let clock = Arc::new(ManualClock::default());
    let tier = MemoryTier::with_clock(16 << 20, Arc::<ManualClock>::clone(&clock));
    let a = key("a:1");
    let start = Stamp::at(clock.now()).packed();
    for round in 0..2_000 {
        let stamp = |n: u64| Stamp::from_packed(start + 2 * round + n);
        let dead = Entry::builder("dead", stamp(0)).expires_at(clock.now()).build();
        let new = Entry::builder("new", stamp(1)).build();
        assert_eq!(tier.put_now(&a, &dead), PutOutcome::Stored);
        let together = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                together.wait();
                tier.get_now(a.as_str(), clock.now());
            });
            together.wait();
            assert_eq!(tier.put_now(&a, &new), PutOutcome::Stored);
        });
        let found = tier.get_now(a.as_str(), clock.now()).map(|entry| entry.value().clone());
        assert_eq!(found.as_deref(), Some(&b"new"[..]), "round {round}");
    }
}

#[tokio::test]
async fn a_damaged_row_is_removed_only_if_it_was_not_rewritten_meanwhile() {
    let (bench, a) = (Bench::new(), key("a:1"));
    set(&bench.sqlite_only(), &a, "old").await;
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    other.execute("UPDATE entries SET value = x'00'", ()).unwrap();
    let tier = bench.sqlite();
    // While another process writes, this one's writes wait in their order: the new value, then the
    // removal of what a read found damaged.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    bench.advance(1);
    let new = Entry::builder("new", Stamp::at(bench.clock.now())).build();
    let mut putting = Box::pin(tier.put(&a, &new));
    assert!(poll_fn(|context| Poll::Ready(putting.as_mut().poll(context).is_pending())).await);
    assert_eq!(within(tier.get(&a)).await.unwrap(), None);
    assert_eq!(tier.corrupt_rows(), 1);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(within(putting).await.unwrap(), PutOutcome::Stored);
    within(tier.remove(&key("none:1"))).await.unwrap();
    assert_eq!(within(tier.get(&a)).await.unwrap().unwrap().value(), "new");
}

// "`INSERT OR REPLACE` deletes the row first; use `ON CONFLICT DO UPDATE ... WHERE`."

#[tokio::test]
async fn a_value_that_replaces_another_is_in_the_same_row_and_an_older_one_touches_nothing() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let tier = bench.sqlite();
    let looker = rusqlite::Connection::open(bench.path()).unwrap();
    let row = || -> (i64, Vec<u8>, i64) {
        let select =
            "SELECT id, value, (SELECT entries FROM totals WHERE source = 'a') FROM entries";
        looker.query_row(select, (), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
    };
    let now = Stamp::at(bench.clock.now()).packed();
    let entry = |n: u64| Entry::builder(n.to_string(), Stamp::from_packed(now + n)).build();
    within(tier.put(&a, &entry(1))).await.unwrap();
    let (first, ..) = row();
    within(tier.put(&a, &entry(3))).await.unwrap();
    assert_eq!(row(), (first, b"3".to_vec(), 1));
    within(tier.put(&a, &entry(2))).await.unwrap();
    assert_eq!(row(), (first, b"3".to_vec(), 1));
}

// "A read transaction upgraded to a write fails with BUSY at once: `BEGIN IMMEDIATE`."

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_write_to_one_file_at_once_wait_for_each_other_and_none_fails() {
    const EACH: u64 = 40;
    let bench = Bench::new();
    set(&bench.sqlite_only(), &key("a:0"), "v").await;
    let mut tasks = JoinSet::new();
    for process in 0..3 {
        let clock = Arc::clone(&bench.clock) as Arc<dyn Clock>;
        // However slow the machine: it is not about time.
        let options = SqliteOptions::new(bench.path()).clock(clock).busy_timeout(LONG);
        let mut limits = TierOptions::default();
        (limits.read_timeout, limits.write_timeout) = (LONG, LONG);
        let tier = SqliteTier::new(options).unwrap();
        let cache = bench.bare().tier_with(tier, limits).build().unwrap();
        // Each reads, and judges by what it reads, before it writes.
        tasks.spawn(async move {
            for n in 0..EACH {
                let key = key(&format!("a:{}", (process + n) % 5));
                set(&cache, &key, "v").await;
                within(cache.invalidate(&key)).await.unwrap();
            }
            tier_stats(&cache, "sqlite")
        });
    }
    while let Some(task) = within(tasks.join_next()).await {
        let stats = task.unwrap();
        assert_eq!((stats.errors, stats.skipped), (0, 0));
        assert_eq!(stats.stored + stats.superseded + stats.barred, EACH);
    }
}

#[tokio::test]
async fn a_write_waits_for_the_lock_of_another_process_within_its_limit() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let tier: SqliteTier = bench.sqlite();
    within(tier.remove(&a)).await.unwrap();
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let entry = Entry::builder("v", Stamp::at(bench.clock.now())).build();
    let mut putting = Box::pin(tier.put(&a, &entry));
    assert!(poll_fn(|context| Poll::Ready(putting.as_mut().poll(context).is_pending())).await);
    assert_eq!(within(tier.get(&a)).await.unwrap(), None, "readers do not wait");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(within(putting).await.unwrap(), PutOutcome::Stored);
}

// "Of two entries for one key the one with the later `as_of` wins, in whatever order they arrive."

#[tokio::test]
async fn who_has_seen_a_set_in_memory_does_not_join_a_load_from_before_it() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    let (gate, older) = load_gated(&cache, &a);
    let older_load = gate.begun().await;
    below.hangs(Call::Put);
    let setting = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.set(&a, "set", SetOptions::default()).await }
    });
    until(|| below.chaos.hanging() == 1).await;
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("set"), "the set has not returned yet");
    let refreshed = cache.get_or_load_with(&a, ReadOptions::refresh(), bring("newer"));
    assert_eq!(within(refreshed).await.unwrap().value(), "newer");
    older_load.bring("older");
    below.chaos.heal();
    assert_eq!(joined(older).await.unwrap().value(), "older");
    joined(setting).await.unwrap();
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("newer"));
}

#[tokio::test]
async fn a_failed_load_falls_back_on_what_memory_was_given_meanwhile() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let policy = Policy::ttl(Duration::from_secs(1)).stale_if_error(Duration::from_secs(100));
    let other = below.alone(&bench);
    within(other.set(&a, "old", SetOptions::ttl(Duration::from_secs(1)).stale_for(LONG)))
        .await
        .unwrap();
    bench.advance(1_000);
    let cache = below.builder(&bench).policy("a", policy).build().unwrap();
    // It was offered the old one.
    let (gate, waiting) = load_gated(&cache, &a);
    let load = gate.begun().await;
    assert_eq!(load.context.stored.as_ref().unwrap().value(), "old");
    // Another process loads it, and a reader of this one brings that into memory.
    set(&other, &a, "newer").await;
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("newer"));
    load.end(Err(failure("down")));
    assert_eq!(joined(waiting).await.unwrap().value(), "newer");
}

#[tokio::test]
async fn a_value_that_a_reader_promotes_while_it_is_being_stored_is_kept() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (one, two) = (Below::named("one", &bench), Below::named("two", &bench));
    let cache = bench.bare().shared_tier(one.tier()).shared_tier(two.tier()).build().unwrap();
    one.chaos.next(Call::Put, Fault::Hang);
    let loading = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get_or_load(&a, bring("v")).await }
    });
    until(|| one.chaos.hanging() == 1 && cache.stats().tier("two").unwrap().stored == 1).await;
    // The slower tier has it already, and gives it to the one above before the load does.
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
    until(|| cache.stats().promotions == 1).await;
    one.chaos.heal();
    assert_eq!(joined(loading).await.unwrap().value(), "v");
    assert_eq!(tier_stats(&cache, "one").superseded, 1);
    for tier in [&one, &two] {
        assert_eq!(tier.inside(&a).await.unwrap().value(), "v");
    }
}
