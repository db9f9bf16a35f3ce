//! A breaker: skips a failing tier for a while, then probes it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cache_core::Timestamp;

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// How long it stays open at first; doubled after each failed probe.
const COOLDOWN: Duration = Duration::from_secs(5);
const MAX_COOLDOWN: Duration = Duration::from_mins(1);

/// What a failure did to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing worth telling.
    None,
    /// It opened, or stays open after a failed probe, for this long.
    Opened(Duration),
    /// It closed.
    Closed,
}

#[derive(Debug)]
pub(crate) struct Breaker {
    /// Whether nothing has failed lately; lets the usual case pass without the lock.
    calm: AtomicBool,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Timestamp,
        cooldown: Duration,
    },
    /// One probe is under way.
    HalfOpen {
        cooldown: Duration,
    },
}

impl Breaker {
    pub(crate) fn new() -> Self {
        Self { calm: AtomicBool::new(true), state: Mutex::new(State::Closed { failures: 0 }) }
    }

    /// Whether an operation may go through; while it is open, one probe after the cool-down.
    pub(crate) fn admits(&self, now: Timestamp) -> bool {
        if self.calm.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed { .. } => true,
            State::Open { until, cooldown } if now >= until => {
                *state = State::HalfOpen { cooldown };
                true
            }
            State::Open { .. } | State::HalfOpen { .. } => false,
        }
    }

    pub(crate) fn succeeded(&self) -> Change {
        if self.calm.load(Ordering::Acquire) {
            return Change::None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            // A straggler that started before it opened says nothing about now.
            State::Open { .. } => Change::None,
            State::Closed { .. } | State::HalfOpen { .. } => {
                let closed = matches!(*state, State::HalfOpen { .. });
                *state = State::Closed { failures: 0 };
                self.calm.store(true, Ordering::Release);
                if closed { Change::Closed } else { Change::None }
            }
        }
    }

    pub(crate) fn failed(&self, now: Timestamp) -> Change {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.calm.store(false, Ordering::Release);
        let cooldown = match *state {
            State::Closed { failures } if failures + 1 < FAILURES => {
                *state = State::Closed { failures: failures + 1 };
                return Change::None;
            }
            State::Closed { .. } => COOLDOWN,
            State::HalfOpen { cooldown } => (cooldown * 2).min(MAX_COOLDOWN),
            State::Open { .. } => return Change::None,
        };
        *state = State::Open { until: now.saturating_add(cooldown), cooldown };
        Change::Opened(cooldown)
    }

    /// An operation ended without saying anything about the tier: a probe makes way for another.
    pub(crate) fn undecided(&self, now: Timestamp) {
        if self.calm.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::HalfOpen { cooldown } = *state {
            *state = State::Open { until: now, cooldown };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn open() -> Breaker {
        let breaker = Breaker::new();
        for _ in 1..FAILURES {
            assert_eq!(breaker.failed(at(0)), Change::None);
            assert!(breaker.admits(at(0)));
        }
        assert_eq!(breaker.failed(at(0)), Change::Opened(COOLDOWN));
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row_and_admits_one_probe_after_the_cool_down() {
        let breaker = open();
        assert!(!breaker.admits(at(4)));
        assert!(breaker.admits(at(5)), "the probe");
        assert!(!breaker.admits(at(5)), "one at a time");
        assert_eq!(breaker.succeeded(), Change::Closed);
        assert!(breaker.admits(at(5)));
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let breaker = Breaker::new();
        for _ in 0..3 * FAILURES {
            assert_eq!(breaker.failed(at(0)), Change::None);
            assert_eq!(breaker.succeeded(), Change::None);
        }
    }

    #[test]
    fn the_cool_down_doubles_up_to_its_limit_while_probes_fail() {
        let breaker = open();
        let mut now = 5;
        for expected in [10, 20, 40, 60, 60] {
            assert!(breaker.admits(at(now)));
            assert_eq!(breaker.failed(at(now)), Change::Opened(Duration::from_secs(expected)));
            now += expected.cast_signed();
            assert!(!breaker.admits(at(now - 1)));
        }
    }

    #[test]
    fn a_probe_that_was_dropped_makes_way_for_the_next() {
        let breaker = open();
        assert!(breaker.admits(at(5)));
        breaker.undecided(at(5));
        assert!(breaker.admits(at(5)));
    }

    #[test]
    fn stragglers_do_not_close_an_open_breaker() {
        let breaker = open();
        assert_eq!(breaker.succeeded(), Change::None);
        assert!(!breaker.admits(at(1)));
    }
}
