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
/// Stepping the wall clock while the process runs neither revives nor expires entries. On Linux the
/// time that the machine sleeps counts; elsewhere it counts as far as `std::time::Instant` does.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    wall: Timestamp,
    since: Since,
}

impl SystemClock {
    /// A clock anchored to the present wall time.
    pub fn new() -> Self {
        // A wall clock before 1970 reads as 1970: entries then look older than they are, never younger.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            wall: Timestamp(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
            since: Since::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.wall.saturating_add(self.since.elapsed())
    }
}

/// An instant of a clock that nobody sets.
#[cfg(any(target_os = "linux", target_os = "android"))]
#[derive(Clone, Copy, Debug)]
struct Since(Duration);

#[cfg(any(target_os = "linux", target_os = "android"))]
impl Since {
    fn now() -> Self {
        // Not `Instant`, which stands still while the machine sleeps.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let part = |n: i64| u64::try_from(n).unwrap_or(0);
        Self(Duration::from_secs(part(now.tv_sec)) + Duration::from_nanos(part(now.tv_nsec)))
    }

    fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
use std::time::Instant as Since;

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
}
