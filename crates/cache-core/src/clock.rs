//! Wall time for expiry, behind a trait so that tests can move it by hand.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// An instant of wall time in milliseconds since the Unix epoch.
///
/// [`Timestamp::NEVER`] is later than every other instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Later than every instant a clock returns.
    pub const NEVER: Self = Self(i64::MAX);

    /// The instant `millis` milliseconds after the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// This instant plus `span`; saturates at [`Timestamp::NEVER`].
    #[must_use]
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Time from `earlier` to this instant, zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Tells the time.
///
/// Implementations must be cheap (a read sits on the hit path) and must not run backwards within
/// one process.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The machine's clock: wall time at creation plus monotonic time since.
///
/// Stepping the wall clock while the process runs neither revives nor expires entries.
///
/// On Linux and Android a reading costs a few nanoseconds and is late by up to a tick of the kernel's
/// timer, 1 to 10 ms; time that the machine sleeps counts, from 8 ms after it wakes at the latest.
/// Elsewhere it is `std::time::Instant`'s, and what that counts.
#[derive(Debug)]
pub struct SystemClock {
    source: source::Source,
}

impl SystemClock {
    /// A clock anchored to the present wall time.
    pub fn new() -> Self {
        // A wall clock before 1970 reads as 1970: entries then look older than they are, never younger.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = i64::try_from(wall.as_millis()).unwrap_or(i64::MAX);
        Self { source: source::Source::anchored(wall) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[inline]
    fn now(&self) -> Timestamp {
        Timestamp(self.source.now())
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod source {
    use std::sync::atomic::{AtomicI64, Ordering};

    use rustix::time::{ClockId, clock_gettime};

    /// How often, in milliseconds, it is looked whether the machine has slept.
    const LOOK_EVERY: i64 = 8;

    /// The kernel's coarse monotonic clock, which is read without asking the hardware, but stands
    /// still while the machine sleeps.
    #[derive(Debug)]
    pub(super) struct Source {
        /// Wall time less monotonic time at the start.
        start: i64,
        /// Milliseconds that the machine had slept before the start.
        slept_before: i64,
        /// What is to be added to monotonic time: `start`, and what the machine has slept since.
        offset: AtomicI64,
        /// Monotonic time from which on it is to be looked again.
        look_at: AtomicI64,
    }

    impl Source {
        pub(super) fn anchored(wall: i64) -> Self {
            // The exact one: a coarse reading is never ahead of it.
            let start = wall.saturating_sub(millis(ClockId::Monotonic));
            Self {
                start,
                // The best of several: one may have been interrupted.
                slept_before: (0..5).map(|_| slept()).fold(0, i64::max),
                offset: AtomicI64::new(start),
                look_at: AtomicI64::new(i64::MIN),
            }
        }

        #[inline]
        pub(super) fn now(&self) -> i64 {
            let monotonic = millis(ClockId::MonotonicCoarse);
            if monotonic >= self.look_at.load(Ordering::Relaxed) {
                self.look(monotonic);
            }
            monotonic.saturating_add(self.offset.load(Ordering::Relaxed))
        }

        #[cold]
        fn look(&self, monotonic: i64) {
            let offset = self.start.saturating_add(slept() - self.slept_before);
            self.offset.fetch_max(offset, Ordering::Relaxed);
            self.look_at.store(monotonic + LOOK_EVERY, Ordering::Relaxed);
        }
    }

    fn millis(id: ClockId) -> i64 {
        let now = clock_gettime(id);
        now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
    }

    /// How long the machine has slept since it started, or less: what passes between the two readings
    /// is never taken for sleep.
    fn slept() -> i64 {
        let boottime = millis(ClockId::Boottime);
        boottime - millis(ClockId::Monotonic)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod source {
    use std::time::Instant;

    #[derive(Debug)]
    pub(super) struct Source {
        wall: i64,
        since: Instant,
    }

    impl Source {
        pub(super) fn anchored(wall: i64) -> Self {
            Self { wall, since: Instant::now() }
        }

        pub(super) fn now(&self) -> i64 {
            let passed = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
            self.wall.saturating_add(passed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let late = Timestamp::from_millis(i64::MAX - 1);
        assert_eq!(late.saturating_add(Duration::from_secs(1)), Timestamp::NEVER);
        assert_eq!(Timestamp::NEVER.saturating_add(Duration::MAX), Timestamp::NEVER);
        assert_eq!(Timestamp::from_millis(5).saturating_since(late), Duration::ZERO);
    }

    #[test]
    fn the_system_clock_never_runs_backwards() {
        let clock = SystemClock::new();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_system_clock_is_not_ahead_of_wall_time() {
        let wall = || {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            Timestamp(i64::try_from(wall.as_millis()).unwrap())
        };
        let clock = SystemClock::new();
        let began = wall();
        for _ in 0..1_000 {
            let now = clock.now();
            // Both are rounded down, from readings that follow each other.
            assert!(now <= wall().saturating_add(Duration::from_millis(1)), "{now:?}");
            assert!(now.saturating_add(Duration::from_secs(5)) >= began, "{now:?}");
        }
    }
}
