//! The chaos tier: each fault does what it says, and the same seed does the same.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use cache_core::{
    Barrier, Capability, Entry, ErrorKind, Filter, Key, Op, PutOutcome, Selector, Stamp, Tier,
};
use tier_memory::MemoryTier;
use tier_testkit::{Call, Chaos, ChaosTier, Fault, Faults, conformance};

fn chaotic(seed: u64) -> (ChaosTier<MemoryTier>, Chaos) {
    let tier = ChaosTier::new("chaos", MemoryTier::new(1 << 20), seed);
    let chaos = tier.chaos();
    (tier, chaos)
}

fn key(n: u64) -> Key {
    Key::new(format!("a:{n}"))
}

fn entry(n: u64) -> Entry {
    Entry::builder(n.to_string(), Stamp::from_packed(n)).build()
}

fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// The key whose value the tier inside has, as text.
async fn inside(chaos: &Chaos, n: u64) -> Option<Entry> {
    chaos.inner().get(&key(n)).await.unwrap()
}

#[tokio::test]
async fn without_faults_it_keeps_every_promise() {
    conformance(async |clock| ChaosTier::new("calm", MemoryTier::with_clock(16 << 20, clock), 7))
        .await;
}

#[tokio::test]
async fn delays_alone_break_no_promise() {
    conformance(async |clock| {
        let tier = ChaosTier::new("slow", MemoryTier::with_clock(16 << 20, clock), 7);
        tier.chaos().set(Faults::none().everywhere(Fault::Delay, 0.5).delay_yields(3));
        tier
    })
    .await;
}

#[tokio::test]
async fn it_has_its_own_name_the_inner_capability_and_no_synchronous_side() {
    let (tier, _) = chaotic(1);
    assert_eq!((tier.name(), tier.capability()), ("chaos", Capability::LOCAL));
    assert!(tier.as_sync().is_none() && tier.inner().as_sync().is_some());
    assert!(tier.as_inspect().is_some() && tier.as_stamped().is_none());
}

#[tokio::test]
async fn down_fails_every_call_and_says_so() {
    let (tier, chaos) = chaotic(1);
    tier.put(&key(1), &entry(1)).await.unwrap();
    chaos.down(true);
    let error = tier.get(&key(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.op()), (ErrorKind::Unavailable, Op::Get));
    assert_eq!((error.tier(), error.key()), ("chaos", Some(&key(1))));
    assert!(tier.put(&key(2), &entry(2)).await.is_err());
    assert!(tier.remove(&key(1)).await.is_err());
    assert!(tier.bar(&Barrier::forget(Selector::All, Stamp::from_packed(9))).await.is_err());
    assert!(tier.get_many(&[key(1)]).await.is_err());
    assert!(tier.put_many(&[]).await.is_err());
    assert!(tier.remove_many(&[]).await.is_err());
    let inspect = tier.as_inspect().unwrap();
    assert!(inspect.scan(&Filter::all(), None, 9).await.is_err());
    assert!(inspect.usage().await.is_err());
    assert!(inspect.remove_dead(cache_core::Timestamp::from_millis(0), None).await.is_err());
    assert!(tier.close().await.is_err());
    assert_eq!(chaos.faults(Fault::Error), 11);
    assert_eq!((chaos.calls(Call::Get), chaos.calls(Call::Inspect)), (2, 3));
    chaos.down(false);
    assert_eq!(tier.get(&key(1)).await.unwrap(), Some(entry(1)), "nothing was done meanwhile");
    assert_eq!(inside(&chaos, 2).await, None);
}

#[tokio::test]
async fn an_error_does_nothing_and_has_the_kind_that_was_asked_for() {
    let (tier, chaos) = chaotic(1);
    let full = Faults::none().on(Call::Put, Fault::Error, 1.0).error_kind(ErrorKind::Refused);
    chaos.set(full);
    let error = tier.put(&key(1), &entry(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.op()), (ErrorKind::Refused, Op::Put));
    assert_eq!(tier.get(&key(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_barrier_is_lost_with_an_error_or_applied_with_one() {
    let (tier, chaos) = chaotic(1);
    tier.put(&key(1), &entry(1)).await.unwrap();
    let barrier = Barrier::forget(Selector::All, Stamp::from_packed(5));
    chaos.next(Call::Bar, Fault::Error);
    chaos.next(Call::Bar, Fault::Unconfirmed);
    assert!(tier.bar(&barrier).await.is_err());
    assert_eq!(tier.get(&key(1)).await.unwrap(), Some(entry(1)));
    assert!(tier.bar(&barrier).await.is_err());
    assert_eq!(tier.get(&key(1)).await.unwrap(), None);
    assert_eq!(tier.bar(&barrier).await.unwrap(), 0, "only the next two were to fail");
}

#[tokio::test]
async fn unconfirmed_writes_happen() {
    let (tier, chaos) = chaotic(1);
    chaos.set(Faults::none().everywhere(Fault::Unconfirmed, 1.0));
    assert!(tier.put(&key(1), &entry(1)).await.is_err());
    assert_eq!(inside(&chaos, 1).await, Some(entry(1)));
    assert!(tier.remove(&key(1)).await.is_err());
    assert_eq!(inside(&chaos, 1).await, None);
    for _ in 0..20 {
        let batch: Vec<_> = (0..5).map(|n| (key(n), entry(n + 1))).collect();
        assert!(tier.put_many(&batch).await.is_err());
        let keys: Vec<_> = (0..5).map(key).collect();
        let found = chaos.inner().get_many(&keys).await.unwrap();
        let done = found.iter().take_while(|found| found.is_some()).count();
        assert!(done > 0 && found[done..].iter().all(Option::is_none), "the first ones: {found:?}");
        chaos.inner().remove_many(&keys).await.unwrap();
    }
    assert_eq!(tier.get(&key(1)).await.unwrap(), None, "reads cannot be unconfirmed");
}

#[tokio::test]
async fn lost_puts_are_acknowledged_and_lost_gets_miss() {
    let (tier, chaos) = chaotic(1);
    chaos.next(Call::Put, Fault::Lost);
    chaos.next(Call::Put, Fault::Lost);
    assert_eq!(tier.put(&key(1), &entry(1)).await.unwrap(), PutOutcome::Stored);
    let batch = [(key(1), entry(1)), (key(2), entry(2))];
    assert_eq!(tier.put_many(&batch).await.unwrap(), [PutOutcome::Stored, PutOutcome::Stored]);
    assert_eq!((inside(&chaos, 1).await, inside(&chaos, 2).await), (None, None));
    tier.put(&key(1), &entry(1)).await.unwrap();
    chaos.next(Call::Get, Fault::Lost);
    assert_eq!(tier.get(&key(1)).await.unwrap(), None);
    assert_eq!(tier.get(&key(1)).await.unwrap(), Some(entry(1)));
    assert_eq!(chaos.faults(Fault::Lost), 3);
}

#[tokio::test]
async fn late_puts_come_after_others_and_lose_to_them() {
    let (tier, chaos) = chaotic(1);
    chaos.set(Faults::none().late_by(1));
    chaos.next(Call::Put, Fault::Late);
    assert_eq!(tier.put(&key(1), &entry(1)).await.unwrap(), PutOutcome::Stored);
    assert_eq!(tier.get(&key(1)).await.unwrap(), None, "not yet");
    tier.put(&key(2), &entry(2)).await.unwrap();
    assert_eq!(tier.get(&key(1)).await.unwrap(), Some(entry(1)), "after one other write");

    chaos.next(Call::Put, Fault::Late);
    tier.put(&key(1), &entry(3)).await.unwrap();
    tier.bar(&Barrier::forget(Selector::All, Stamp::from_packed(3))).await.unwrap();
    assert_eq!(tier.get(&key(1)).await.unwrap(), None, "a barrier that overtook it stops it");
}

#[tokio::test]
async fn late_puts_are_carried_out_when_healed_settled_or_closed() {
    let (tier, chaos) = chaotic(1);
    let late = Faults::none().on(Call::Put, Fault::Late, 1.0).late_by(1_000);
    chaos.set(late.clone());
    tier.put(&key(1), &entry(1)).await.unwrap();
    chaos.heal();
    assert_eq!(tier.get(&key(1)).await.unwrap(), Some(entry(1)));
    chaos.set(late);
    tier.put(&key(1), &entry(2)).await.unwrap();
    assert_eq!(inside(&chaos, 1).await, Some(entry(1)));
    chaos.settle().await;
    assert_eq!(inside(&chaos, 1).await, Some(entry(2)));
}

#[tokio::test]
async fn a_call_that_hangs_goes_on_when_healed() {
    let (tier, chaos) = chaotic(1);
    let tier = Arc::new(tier);
    chaos.set(Faults::none().everywhere(Fault::Hang, 1.0));
    let task = tokio::spawn({
        let tier = Arc::clone(&tier);
        async move { tier.put(&key(1), &entry(1)).await }
    });
    while chaos.hanging() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(inside(&chaos, 1).await, None);
    chaos.heal();
    assert_eq!(task.await.unwrap().unwrap(), PutOutcome::Stored);
    assert_eq!((inside(&chaos, 1).await, chaos.hanging()), (Some(entry(1)), 0));
}

#[test]
fn a_call_that_hangs_and_is_dropped_did_nothing() {
    let (tier, chaos) = chaotic(1);
    chaos.next(Call::Put, Fault::Hang);
    let (key, entry) = (key(1), entry(1));
    let mut put = tier.put(&key, &entry);
    for _ in 0..3 {
        assert!(poll(&mut put).is_pending());
    }
    assert_eq!(chaos.hanging(), 1);
    drop(put);
    assert_eq!((chaos.hanging(), chaos.faults(Fault::Hang)), (0, 1));
    assert_eq!(poll(&mut tier.get(&key)).map(Result::unwrap), Poll::Ready(None));
}

#[test]
fn a_delay_yields_up_to_so_many_times() {
    let (tier, chaos) = chaotic(1);
    chaos.set(Faults::none().on(Call::Get, Fault::Delay, 1.0).delay_yields(5));
    let key = key(1);
    let yields: Vec<usize> = (0..50)
        .map(|_| {
            let mut get = tier.get(&key);
            (0..100).find(|_| poll(&mut get).is_ready()).unwrap()
        })
        .collect();
    assert_eq!((yields.iter().min(), yields.iter().max()), (Some(&1), Some(&5)), "{yields:?}");
}

/// Which of many calls failed, with another kind of call after every `other`th.
async fn fates(seed: u64, other: usize) -> Vec<bool> {
    let (tier, chaos) = chaotic(seed);
    chaos.set(Faults::none().on(Call::Get, Fault::Error, 0.3).on(Call::Put, Fault::Error, 0.5));
    let mut failed = Vec::new();
    for n in 0..400 {
        failed.push(tier.get(&key(1)).await.is_err());
        if n % other == 0 {
            drop(tier.put(&key(1), &entry(1)).await);
        }
    }
    failed
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults_and_another_gives_others() {
    let first = fates(7, 3).await;
    assert_eq!(first, fates(7, 3).await);
    assert_eq!(first, fates(7, 50).await, "whatever else is called meanwhile");
    assert_ne!(first, fates(8, 3).await);
    let share = first.iter().filter(|failed| **failed).count();
    assert!((80..160).contains(&share), "{share} of 400 at 0.3");
}

#[tokio::test]
async fn one_probability_leaves_the_other_faults_where_they_were() {
    let lost = async |faults: Faults| {
        let (tier, chaos) = chaotic(7);
        chaos.set(faults.on(Call::Put, Fault::Lost, 0.3));
        for n in 0..200 {
            tier.put(&key(n), &entry(n + 1)).await.unwrap();
        }
        let keys: Vec<_> = (0..200).map(key).collect();
        let found = chaos.inner().get_many(&keys).await.unwrap();
        found.iter().map(Option::is_none).collect::<Vec<_>>()
    };
    let delayed = Faults::none().everywhere(Fault::Delay, 0.9);
    assert_eq!(lost(Faults::none()).await, lost(delayed).await);
}

#[test]
#[should_panic(expected = "Lost is no fault of Bar")]
fn a_barrier_cannot_be_lost_silently() {
    drop(Faults::none().on(Call::Bar, Fault::Lost, 0.1));
}

#[test]
#[should_panic(expected = "1.5 is no probability")]
fn a_probability_is_checked() {
    drop(Faults::none().everywhere(Fault::Error, 1.5));
}

#[tokio::test]
async fn several_calls_at_once_are_counted_each() {
    let (tier, chaos) = chaotic(3);
    chaos.set(Faults::none().everywhere(Fault::Delay, 1.0));
    let keys: Vec<_> = (0..20).map(key).collect();
    let mut gets: Vec<_> = keys.iter().map(|key| tier.get(key)).collect();
    poll_fn(|context| {
        gets.retain_mut(|get| get.as_mut().poll(context).is_pending());
        if gets.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    assert_eq!((chaos.calls(Call::Get), chaos.faults(Fault::Delay)), (20, 20));
}
