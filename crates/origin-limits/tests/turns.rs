//! Who is let through first, and when.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use origin_limits::{Ledger, Limiter, Limits, Urgency};

fn limiter(limits: Limits) -> Arc<Limiter> {
    Arc::new(Limiter::new("census", limits, Arc::new(Ledger::in_memory())).unwrap())
}

#[tokio::test]
async fn foreground_calls_go_before_all_background_ones_that_wait() {
    let limiter = limiter(Limits::default().concurrency(1));
    let first = limiter.acquire(Urgency::Background).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let ask = |name: &'static str, urgency| {
        let (limiter, order) = (Arc::clone(&limiter), Arc::clone(&order));
        tokio::spawn(async move {
            let permit = limiter.acquire(urgency).await.unwrap();
            order.lock().unwrap().push(name);
            drop(permit);
        })
    };
    let mut tasks = Vec::new();
    for name in ["b1", "b2", "b3"] {
        tasks.push(ask(name, Urgency::Background));
        tokio::task::yield_now().await;
    }
    for name in ["f1", "f2"] {
        tasks.push(ask(name, Urgency::Foreground));
        tokio::task::yield_now().await;
    }
    // One whose caller goes away is passed over.
    let gone = ask("gone", Urgency::Foreground);
    tokio::task::yield_now().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    drop(first);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), ["f1", "f2", "b1", "b2", "b3"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept_while_many_wait() {
    let limits = Limits::default().rate(10, Duration::from_secs(1)).burst(3);
    let start = tokio::time::Instant::now();
    // The ledger's clock goes with the runtime's.
    let ledger = Ledger::in_memory()
        .with_clock(move || i64::try_from(start.elapsed().as_micros()).unwrap() + 1_000_000);
    let limiter = Arc::new(Limiter::new("census", limits, Arc::new(ledger)).unwrap());
    let calls = (0..43).map(|at| {
        let limiter = Arc::clone(&limiter);
        let urgency = if at % 2 == 0 { Urgency::Foreground } else { Urgency::Background };
        tokio::spawn(async move {
            let _permit = limiter.acquire(urgency).await.unwrap();
            start.elapsed()
        })
    });
    let calls: Vec<_> = calls.collect();
    let mut at = Vec::new();
    for call in calls {
        at.push(call.await.unwrap());
    }
    at.sort_unstable();
    for window in at.windows(14) {
        assert!(
            window[13] >= window[0] + Duration::from_secs(1),
            "10 and a burst of 3: {window:?}"
        );
    }
    let end = at[at.len() - 1];
    assert!(end <= Duration::from_millis(4_100), "no time is lost: {end:?}");
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_takes_nothing() {
    let limits = Limits::default().rate(1, Duration::from_secs(10)).concurrency(1);
    let start = tokio::time::Instant::now();
    let ledger = Ledger::in_memory()
        .with_clock(move || i64::try_from(start.elapsed().as_micros()).unwrap() + 1_000_000);
    let limiter = Limiter::new("census", limits, Arc::new(ledger)).unwrap();
    drop(limiter.acquire(Urgency::Foreground).await.unwrap());
    for urgency in [Urgency::Foreground, Urgency::Background] {
        let waiting = limiter.acquire(urgency);
        assert!(tokio::time::timeout(Duration::from_secs(3), waiting).await.is_err());
    }
    drop(limiter.acquire(Urgency::Background).await.unwrap());
    assert_eq!(start.elapsed().as_secs(), 10, "as if nobody had waited before");
}
