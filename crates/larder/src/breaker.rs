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

/// Leave to do an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ticket {
    /// One among others.
    Normal,
    /// The one that tells whether the breaker may close.
    Probe,
}

/// What a result did to the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing worth telling.
    None,
    /// It opened, or stays open after a failed probe, for this long.
    Opened(Duration),
    /// It closed.
    Closed,
    /// It is open, and the result of what began before says nothing about now.
    Ignored,
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

    /// Whether nothing keeps operations from going through.
    pub(crate) fn is_closed(&self) -> bool {
        self.calm.load(Ordering::Acquire) || {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            matches!(*state, State::Closed { .. })
        }
    }

    /// Leave for an operation, if it may go through; while it is open, one probe after the
    /// cool-down.
    pub(crate) fn admit(&self, now: Timestamp) -> Option<Ticket> {
        if self.calm.load(Ordering::Acquire) {
            return Some(Ticket::Normal);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Closed { .. } => Some(Ticket::Normal),
            State::Open { until, cooldown } if now >= until => {
                *state = State::HalfOpen { cooldown };
                Some(Ticket::Probe)
            }
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    pub(crate) fn succeeded(&self, ticket: Ticket) -> Change {
        if self.calm.load(Ordering::Acquire) {
            return Change::None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let change = match (*state, ticket) {
            (State::Closed { .. }, _) => Change::None,
            (State::HalfOpen { .. }, Ticket::Probe) => Change::Closed,
            (State::Open { .. } | State::HalfOpen { .. }, _) => return Change::Ignored,
        };
        *state = State::Closed { failures: 0 };
        self.calm.store(true, Ordering::Release);
        change
    }

    pub(crate) fn failed(&self, ticket: Ticket, now: Timestamp) -> Change {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.calm.store(false, Ordering::Release);
        let cooldown = match (*state, ticket) {
            (State::Closed { failures }, _) if failures + 1 < FAILURES => {
                *state = State::Closed { failures: failures + 1 };
                return Change::None;
            }
            (State::Closed { .. }, _) => COOLDOWN,
            (State::HalfOpen { cooldown }, Ticket::Probe) => (cooldown * 2).min(MAX_COOLDOWN),
            (State::Open { .. } | State::HalfOpen { .. }, _) => return Change::Ignored,
        };
        *state = State::Open { until: now.saturating_add(cooldown), cooldown };
        Change::Opened(cooldown)
    }

    /// An operation ended without saying anything about the tier: a probe makes way for another.
    pub(crate) fn undecided(&self, ticket: Ticket, now: Timestamp) {
        if ticket != Ticket::Probe {
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
            assert_eq!(breaker.failed(Ticket::Normal, at(0)), Change::None);
            assert_eq!(breaker.admit(at(0)), Some(Ticket::Normal));
        }
        assert_eq!(breaker.failed(Ticket::Normal, at(0)), Change::Opened(COOLDOWN));
        breaker
    }

    #[test]
    fn opens_after_failures_in_a_row_and_admits_one_probe_after_the_cool_down() {
        let breaker = open();
        assert_eq!(breaker.admit(at(4)), None);
        assert_eq!(breaker.admit(at(5)), Some(Ticket::Probe));
        assert_eq!(breaker.admit(at(5)), None, "one at a time");
        assert_eq!(breaker.succeeded(Ticket::Probe), Change::Closed);
        assert_eq!(breaker.admit(at(5)), Some(Ticket::Normal));
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let breaker = Breaker::new();
        for _ in 0..3 * FAILURES {
            assert_eq!(breaker.failed(Ticket::Normal, at(0)), Change::None);
            assert_eq!(breaker.succeeded(Ticket::Normal), Change::None);
        }
    }

    #[test]
    fn the_cool_down_doubles_up_to_its_limit_while_probes_fail() {
        let breaker = open();
        let mut now = 5;
        for expected in [10, 20, 40, 60, 60] {
            assert_eq!(breaker.admit(at(now)), Some(Ticket::Probe));
            let opened = Change::Opened(Duration::from_secs(expected));
            assert_eq!(breaker.failed(Ticket::Probe, at(now)), opened);
            now += expected.cast_signed();
            assert_eq!(breaker.admit(at(now - 1)), None);
        }
    }

    #[test]
    fn a_probe_that_was_dropped_makes_way_for_the_next() {
        let breaker = open();
        assert_eq!(breaker.admit(at(5)), Some(Ticket::Probe));
        breaker.undecided(Ticket::Probe, at(5));
        assert_eq!(breaker.admit(at(5)), Some(Ticket::Probe));
    }

    #[test]
    fn what_began_before_it_opened_decides_nothing() {
        let breaker = open();
        assert_eq!(breaker.succeeded(Ticket::Normal), Change::Ignored);
        assert_eq!(breaker.admit(at(1)), None);
        assert_eq!(breaker.admit(at(5)), Some(Ticket::Probe));
        assert_eq!(breaker.failed(Ticket::Normal, at(5)), Change::Ignored);
        assert_eq!(breaker.succeeded(Ticket::Normal), Change::Ignored);
        breaker.undecided(Ticket::Normal, at(5));
        assert_eq!(breaker.admit(at(5)), None, "the probe is still under way");
        assert_eq!(breaker.succeeded(Ticket::Probe), Change::Closed);
    }
}
