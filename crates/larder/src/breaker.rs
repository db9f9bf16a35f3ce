//! A breaker: skips a failing tier for a while, then probes it.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cache_core::Timestamp;

use crate::BreakerOptions;

/// Operations within a window below which their share of failures says nothing.
const SAMPLE: u32 = 20;

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
    options: BreakerOptions,
    /// Whether nothing has failed lately; lets the usual case pass without the lock.
    calm: AtomicBool,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        /// In a row.
        failures: u32,
        window: Window,
    },
    Open {
        until: Timestamp,
        cooldown: Duration,
    },
    /// One probe is under way.
    HalfOpen {
        cooldown: Duration,
        since: Timestamp,
    },
}

/// What happened since the first failure of a while.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Timestamp,
    operations: u32,
    failures: u32,
}

impl Window {
    const fn new(began: Timestamp) -> Self {
        Self { began, operations: 0, failures: 0 }
    }
}

impl State {
    const CALM: Self = Self::Closed { failures: 0, window: Window::new(Timestamp::from_millis(0)) };
}

impl Breaker {
    pub(crate) fn new(options: BreakerOptions) -> Self {
        Self { options, calm: AtomicBool::new(true), state: Mutex::new(State::CALM) }
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
                *state = State::HalfOpen { cooldown, since: now };
                Some(Ticket::Probe)
            }
            // Its caller may never poll it again.
            State::HalfOpen { cooldown, since }
                if now.saturating_since(since) >= self.options.max_cooldown =>
            {
                *state = State::HalfOpen { cooldown, since: now };
                Some(Ticket::Probe)
            }
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    pub(crate) fn succeeded(&self, ticket: Ticket, now: Timestamp) -> Change {
        if self.calm.load(Ordering::Acquire) {
            return Change::None;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let change = match (&mut *state, ticket) {
            (State::Closed { failures, window }, _) => {
                *failures = 0;
                window.operations += 1;
                // Calm again only when nothing of the window counts any more.
                if now.saturating_since(window.began) < self.options.window {
                    return Change::None;
                }
                Change::None
            }
            (State::HalfOpen { .. }, Ticket::Probe) => Change::Closed,
            (State::Open { .. } | State::HalfOpen { .. }, _) => return Change::Ignored,
        };
        *state = State::CALM;
        self.calm.store(true, Ordering::Release);
        change
    }

    pub(crate) fn failed(&self, ticket: Ticket, now: Timestamp) -> Change {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let calm = self.calm.swap(false, Ordering::AcqRel);
        let cooldown = match (&mut *state, ticket) {
            (State::Closed { failures, window }, _) => {
                if calm || now.saturating_since(window.began) >= self.options.window {
                    *window = Window::new(now);
                }
                *failures += 1;
                window.operations += 1;
                window.failures += 1;
                let share = f64::from(window.failures) / f64::from(window.operations);
                let often = window.operations >= SAMPLE && share >= self.options.error_share;
                if *failures < self.options.failures && !often {
                    return Change::None;
                }
                self.options.cooldown
            }
            (State::HalfOpen { cooldown, .. }, Ticket::Probe) => {
                cooldown.saturating_mul(2).min(self.options.max_cooldown)
            }
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
        if let State::HalfOpen { cooldown, .. } = *state {
            *state = State::Open { until: now, cooldown };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILURES: u32 = 5;
    const COOLDOWN: Duration = Duration::from_secs(5);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn open() -> Breaker {
        let breaker = Breaker::new(BreakerOptions::default());
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
        assert_eq!(breaker.succeeded(Ticket::Probe, at(5)), Change::Closed);
        assert_eq!(breaker.admit(at(5)), Some(Ticket::Normal));
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let breaker = Breaker::new(BreakerOptions::default());
        for n in 0..3 {
            for _ in 1..FAILURES {
                assert_eq!(breaker.failed(Ticket::Normal, at(10 * n)), Change::None);
            }
            assert_eq!(breaker.succeeded(Ticket::Normal, at(10 * n)), Change::None);
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
        assert_eq!(breaker.succeeded(Ticket::Normal, at(0)), Change::Ignored);
        assert_eq!(breaker.admit(at(1)), None);
        assert_eq!(breaker.admit(at(5)), Some(Ticket::Probe));
        assert_eq!(breaker.failed(Ticket::Normal, at(5)), Change::Ignored);
        assert_eq!(breaker.succeeded(Ticket::Normal, at(0)), Change::Ignored);
        breaker.undecided(Ticket::Normal, at(5));
        assert_eq!(breaker.admit(at(5)), None, "the probe is still under way");
        assert_eq!(breaker.succeeded(Ticket::Probe, at(5)), Change::Closed);
    }

    #[test]
    fn a_probe_that_never_ends_makes_way_for_another() {
        let breaker = open();
        assert_eq!(breaker.admit(at(5)), Some(Ticket::Probe));
        assert_eq!(breaker.admit(at(64)), None);
        assert_eq!(breaker.admit(at(65)), Some(Ticket::Probe));
        assert_eq!(breaker.admit(at(65)), None);
        assert_eq!(breaker.succeeded(Ticket::Probe, at(65)), Change::Closed);
    }

    #[test]
    fn opens_at_a_share_of_failures_within_the_window() {
        let breaker = Breaker::new(BreakerOptions::default());
        // Every second operation fails: never five in a row.
        for n in 0..9 {
            assert_eq!(breaker.failed(Ticket::Normal, at(n / 2)), Change::None);
            assert_eq!(breaker.succeeded(Ticket::Normal, at(n / 2)), Change::None);
        }
        assert_eq!(breaker.failed(Ticket::Normal, at(5)), Change::None, "19 operations");
        assert_eq!(breaker.failed(Ticket::Normal, at(5)), Change::Opened(COOLDOWN));
    }

    #[test]
    fn failures_of_another_window_do_not_count() {
        let breaker = Breaker::new(BreakerOptions::default());
        for n in 0..100 {
            assert_eq!(breaker.failed(Ticket::Normal, at(n)), Change::None);
            assert_eq!(breaker.succeeded(Ticket::Normal, at(n)), Change::None);
        }
    }
}
