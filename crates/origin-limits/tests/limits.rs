//! What a limiter lets through, by each kind of ledger.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use origin_limits::{Denied, Ledger, Limiter, Limits, Refusal, Urgency};
use proptest::prelude::*;

const SECOND: i64 = 1_000_000;

/// A clock that tests move.
#[derive(Clone)]
struct Hands(Arc<AtomicI64>);

impl Hands {
    fn at(seconds: i64) -> Self {
        Self(Arc::new(AtomicI64::new(seconds * SECOND)))
    }

    fn of(&self, ledger: Ledger) -> Arc<Ledger> {
        let hands = Arc::clone(&self.0);
        Arc::new(ledger.with_clock(move || hands.load(Ordering::SeqCst)))
    }

    fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

fn quota(count: u32, seconds: u64) -> Limits {
    Limits::default().quota(count, Duration::from_secs(seconds))
}

fn limiter(limits: &Limits, ledger: &Arc<Ledger>) -> Limiter {
    Limiter::new("census", limits.clone(), Arc::clone(ledger)).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// In memory, and in a file through two handles in turn, as two processes have them.
fn ledgers(hands: &Hands, dir: &tempfile::TempDir) -> Vec<Vec<Arc<Ledger>>> {
    let filed = || hands.of(Ledger::at(dir.path().join("calls.db")));
    vec![vec![hands.of(Ledger::in_memory())], vec![filed(), filed()]]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_quota_is_an_exact_sliding_window(
        count in 1..12_u32,
        gaps in prop::collection::vec(0..4 * SECOND, 1..60),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let hands = Hands::at(1_000);
        let limits = quota(count, 10);
        for ledgers in ledgers(&hands, &dir) {
            let limiters: Vec<Limiter> = ledgers.iter().map(|one| limiter(&limits, one)).collect();
            let mut made: VecDeque<i64> = VecDeque::new();
            for (turn, gap) in gaps.iter().enumerate() {
                hands.advance(*gap);
                let now = hands.0.load(Ordering::SeqCst);
                while made.front().is_some_and(|at| *at <= now - 10 * SECOND) {
                    made.pop_front();
                }
                let asked = limiters[turn % limiters.len()].acquire(Urgency::Foreground);
                match runtime().block_on(asked) {
                    Ok(_permit) => {
                        prop_assert!(made.len() < count as usize, "one too many");
                        made.push_back(now);
                    }
                    Err(Refusal::Quota { resets_in }) => {
                        prop_assert_eq!(made.len(), count as usize, "one too few");
                        let until = i64::try_from(resets_in.as_micros()).unwrap();
                        prop_assert_eq!(now + until, made[0] + 10 * SECOND);
                    }
                    Err(other) => prop_assert!(false, "{other:?}"),
                }
            }
            hands.advance(100 * SECOND);
        }
    }
}

#[test]
fn a_day_lets_no_more_through_than_its_quota_however_the_calls_fall() {
    // A bucket of 500 that refills through the day would have let 979 through here.
    let hands = Hands::at(0);
    let one = limiter(&quota(500, 86_400), &hands.of(Ledger::in_memory()));
    let mut through = 0;
    for _ in 0..86_400 / 60 {
        let asked = runtime().block_on(one.acquire(Urgency::Foreground));
        through += u32::from(asked.is_ok());
        hands.advance(60 * SECOND);
    }
    assert_eq!(through, 500);
}

#[test]
fn a_restart_forgets_neither_calls_nor_pauses() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("below/calls.db");
    let hands = Hands::at(1_000);
    let limits = quota(2, 60);
    for _ in 0..2 {
        let one = limiter(&limits, &hands.of(Ledger::at(&path)));
        assert!(runtime().block_on(one.acquire(Urgency::Foreground)).is_ok());
    }
    let one = limiter(&limits, &hands.of(Ledger::at(&path)));
    let refused = Refusal::Quota { resets_in: Duration::from_mins(1) };
    assert_eq!(runtime().block_on(one.acquire(Urgency::Foreground)).unwrap_err(), refused);
    let usage = runtime().block_on(one.usage()).unwrap();
    assert_eq!((usage.used, usage.allowed, usage.resets_in), (2, 2, Some(Duration::from_mins(1))));
    hands.advance(60 * SECOND);
    runtime().block_on(one.pause(Duration::from_secs(30)));
    let other = limiter(&limits, &hands.of(Ledger::at(&path)));
    let paused = Refusal::Paused { ends_in: Duration::from_secs(30) };
    assert_eq!(runtime().block_on(other.acquire(Urgency::Foreground)).unwrap_err(), paused);
    hands.advance(30 * SECOND);
    assert!(runtime().block_on(other.acquire(Urgency::Foreground)).is_ok());
}

#[test]
fn a_reserve_is_for_the_foreground() {
    let hands = Hands::at(1_000);
    let limits = quota(10, 60).reserve(0.2);
    let dir = tempfile::tempdir().unwrap();
    for ledgers in ledgers(&hands, &dir) {
        let one = limiter(&limits, &ledgers[0]);
        let through = |urgency| runtime().block_on(one.acquire(urgency)).is_ok();
        assert_eq!((0..20).filter(|_| through(Urgency::Background)).count(), 8);
        assert_eq!((0..20).filter(|_| through(Urgency::Foreground)).count(), 2);
    }
}

#[test]
fn a_file_that_cannot_be_used_stops_nobody_and_is_gone_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("place");
    std::fs::write(&place, "no directory").unwrap();
    let hands = Hands::at(1_000);
    let one = limiter(&quota(2, 60), &hands.of(Ledger::at(place.join("calls.db"))));
    let through = || runtime().block_on(one.acquire(Urgency::Foreground)).is_ok();
    assert!(through());
    std::fs::remove_file(&place).unwrap();
    assert!(through());
    assert!(place.join("calls.db").exists(), "it works again");
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::write(&place, "no directory").unwrap();
    assert!(!through(), "what this process has called it knows without the file");
}

#[test]
fn a_damaged_file_is_set_aside_and_another_programs_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calls.db");
    let hands = Hands::at(1_000);
    std::fs::write(&path, "this is no data base, but long enough to look at".repeat(100)).unwrap();
    let one = limiter(&quota(1, 60), &hands.of(Ledger::at(&path)));
    assert!(runtime().block_on(one.acquire(Urgency::Foreground)).is_ok());
    assert!(dir.path().join("calls.db.damaged").exists());
    let again = limiter(&quota(1, 60), &hands.of(Ledger::at(&path)));
    assert!(runtime().block_on(again.acquire(Urgency::Foreground)).is_err(), "made anew");

    let foreign = dir.path().join("other.db");
    rusqlite::Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
    let before = std::fs::read(&foreign).unwrap();
    let one = limiter(&quota(1, 60), &hands.of(Ledger::at(&foreign)));
    assert!(runtime().block_on(one.acquire(Urgency::Foreground)).is_ok(), "by memory");
    assert!(runtime().block_on(one.acquire(Urgency::Foreground)).is_err(), "by memory");
    assert_eq!(std::fs::read(&foreign).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calls.db");
    let one = limiter(&quota(1, 60), &Arc::new(Ledger::at(&path)));
    assert!(runtime().block_on(one.acquire(Urgency::Foreground)).is_ok());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn senseless_limits_are_refused() {
    let ledger = Arc::new(Ledger::in_memory());
    let refused =
        |limits: Limits| Limiter::new("a", limits, Arc::clone(&ledger)).unwrap_err().to_string();
    let limits = Limits::default;
    let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
    assert!(refused(limits().burst(0)).contains("nothing"));
    assert!(refused(limits().concurrency(0)).contains("nothing"));
    assert!(refused(limits().rate(0, second)).contains("nothing"));
    assert!(refused(limits().quota(1, Duration::ZERO)).contains("nothing"));
    assert!(refused(limits().rate(500, day)).contains("quota"));
    assert!(refused(limits().rate(9, Duration::from_micros(8))).contains("microsecond"));
    assert!(refused(limits().quota(9, Duration::MAX)).contains("366"));
    assert!(refused(limits().reserve(1.0)).contains("share"));
    assert!(refused(limits().reserve(f64::NAN)).contains("share"));
}

#[test]
fn a_clock_that_was_set_back_blocks_for_an_interval_or_a_pause_and_not_until_it_has_caught_up() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::default().rate(1, Duration::from_millis(400));
    for name in ["", "calls.db"] {
        let hands = Hands::at(10_000_000);
        let ledger = || match name {
            "" => Ledger::in_memory(),
            file => Ledger::at(dir.path().join(file)),
        };
        let one = limiter(&limits, &hands.of(ledger()));
        let go = || runtime().block_on(one.acquire(Urgency::Foreground));
        assert!(go().is_ok());
        hands.advance(-5_000_000 * SECOND);
        // Time stands still until the call has been found to be too early.
        let moved = hands.clone();
        let later = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            moved.advance(SECOND);
        });
        let began = std::time::Instant::now();
        let waited = runtime().block_on(async {
            tokio::time::timeout(Duration::from_secs(30), one.acquire(Urgency::Foreground)).await
        });
        assert!(waited.unwrap().is_ok(), "{name}: {:?}", began.elapsed());
        later.join().unwrap();

        hands.advance(20_000_000 * SECOND);
        runtime().block_on(one.pause(Duration::from_hours(24)));
        hands.advance(-5_000_000 * SECOND);
        assert!(matches!(go(), Err(Refusal::Paused { .. })));
        hands.advance(24 * 3_600 * SECOND);
        assert!(go().is_ok(), "{name}");
    }
}

#[test]
fn a_file_that_another_has_put_in_its_place_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("calls.db");
    let hands = Hands::at(1_000);
    let limits = quota(3, 60);
    let through = |one: &Limiter| runtime().block_on(one.acquire(Urgency::Foreground)).is_ok();
    let one = limiter(&limits, &hands.of(Ledger::at(&path)));
    assert!(through(&one));
    for name in ["calls.db", "calls.db-wal", "calls.db-shm"] {
        std::fs::rename(dir.path().join(name), dir.path().join(format!("{name}.old"))).unwrap();
    }
    let other = limiter(&limits, &hands.of(Ledger::at(&path)));
    assert!(through(&other) && through(&other), "in the new file");
    assert!(through(&one), "the last");
    assert!(!through(&one) && !through(&other));
}

#[test]
fn calls_that_were_made_without_the_file_count_when_it_works_again() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("place");
    std::fs::write(&place, "no directory").unwrap();
    let hands = Hands::at(1_000);
    let one = limiter(&quota(2, 60), &hands.of(Ledger::at(place.join("calls.db"))));
    let through = || runtime().block_on(one.acquire(Urgency::Foreground)).is_ok();
    assert!(through() && through());
    std::fs::remove_file(&place).unwrap();
    assert!(!through(), "the file knows of none");
    let usage = runtime().block_on(one.usage()).unwrap();
    assert_eq!((usage.used, usage.resets_in), (2, Some(Duration::from_mins(1))));
    hands.advance(60 * SECOND);
    assert!(through() && place.join("calls.db").exists());
}

#[test]
fn what_is_not_wanted_when_its_turn_comes_does_not_count() {
    let hands = Hands::at(1_000);
    let one = limiter(&quota(1, 60), &hands.of(Ledger::in_memory()));
    let ask = |wanted: Result<&'static str, &'static str>| {
        let given = runtime().block_on(one.acquire_if(Urgency::Foreground, None, || wanted));
        given.map(|(_permit, given)| given)
    };
    assert_eq!(ask(Err("no more")), Err(Denied::Unwanted("no more")));
    assert_eq!(ask(Ok("yes")), Ok("yes"));
    assert!(matches!(ask(Ok("yes")), Err(Denied::Refused(Refusal::Quota { .. }))));
}
