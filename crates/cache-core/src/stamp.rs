//! Hybrid logical time: the order of loads and invalidations, whatever wall clocks do.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{Clock, Timestamp};

const COUNTER_BITS: u32 = 16;

/// Farthest ahead that another clock is believed to be.
const BELIEVABLE: Duration = Duration::from_hours(366 * 24);

/// An instant of the hybrid logical clock: 48 bits of Unix milliseconds and a 16-bit counter.
///
/// Stamps order loads and invalidations between threads, processes and machines (Kulkarni et al.,
/// "Logical Physical Clocks", 2014). They are not for measuring time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(u64);

impl Stamp {
    /// Before every stamp a clock issues.
    pub const ZERO: Self = Self(0);

    /// The first stamp of a millisecond; instants before 1970 give [`Stamp::ZERO`].
    pub fn at(instant: Timestamp) -> Self {
        let millis = u64::try_from(instant.as_millis()).unwrap_or(0);
        Self(millis.min(u64::MAX >> COUNTER_BITS) << COUNTER_BITS)
    }

    /// Whether a sound clock may have issued it, seen from `now`: it is at most a year ahead.
    ///
    /// What is farther ahead is damage or a clock that was set wrong. Believing it could not be
    /// undone: everything that happens in the meantime would count as earlier.
    pub fn is_believable(self, now: Timestamp) -> bool {
        self <= Self::latest_believable(now)
    }

    /// The last stamp that is believed at `now`.
    pub fn latest_believable(now: Timestamp) -> Self {
        Self::at(now.saturating_add(BELIEVABLE))
    }

    /// The stamp whose packed form is `packed`.
    pub const fn from_packed(packed: u64) -> Self {
        Self(packed)
    }

    /// The packed form: milliseconds in the upper 48 bits.
    pub const fn packed(self) -> u64 {
        self.0
    }

    /// The wall time this stamp was issued at, as its clock saw it.
    pub const fn instant(self) -> Timestamp {
        Timestamp::from_millis((self.0 >> COUNTER_BITS).cast_signed())
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> COUNTER_BITS, self.0 & ((1 << COUNTER_BITS) - 1))
    }
}

/// Issues stamps that only ever grow.
#[derive(Debug)]
pub struct StampClock {
    clock: Arc<dyn Clock>,
    last: AtomicU64,
}

impl StampClock {
    /// A stamp clock that follows `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, last: AtomicU64::new(0) }
    }

    /// The stamp clock that follows `clock`, the same for all of this process that do: two of them
    /// would issue the same stamp twice.
    pub fn following(clock: &Arc<dyn Clock>) -> Arc<Self> {
        static ALL: Mutex<Vec<Weak<StampClock>>> = Mutex::new(Vec::new());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        let same = |one: &Arc<Self>| Arc::ptr_eq(&one.clock, clock);
        if let Some(found) = all.iter().filter_map(Weak::upgrade).find(same) {
            return found;
        }
        let new = Arc::new(Self::new(Arc::clone(clock)));
        all.push(Arc::downgrade(&new));
        new
    }

    /// Issues a stamp greater than every stamp issued or observed before.
    pub fn issue(&self) -> Stamp {
        let wall = Stamp::at(self.clock.now()).0;
        let mut last = self.last.load(Ordering::Relaxed);
        loop {
            let next = wall.max(last.saturating_add(1));
            match self.last.compare_exchange_weak(last, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Stamp(next),
                Err(seen) => last = seen,
            }
        }
    }

    /// Moves the clock past a stamp received from a tier or another process, unless it is not
    /// believable.
    pub fn observe(&self, seen: Stamp) {
        if seen.is_believable(self.clock.now()) {
            self.last.fetch_max(seen.0, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[derive(Debug)]
    struct Fixed(Mutex<i64>);

    impl Clock for Fixed {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(*self.0.lock().unwrap())
        }
    }

    #[test]
    fn stamps_grow_when_the_wall_clock_stands_or_steps_back() {
        let wall = Arc::new(Fixed(Mutex::new(1_000)));
        let clock = StampClock::new(Arc::<Fixed>::clone(&wall));
        let first = clock.issue();
        let second = clock.issue();
        *wall.0.lock().unwrap() = 10;
        let third = clock.issue();
        assert!(first < second && second < third, "{first:?} {second:?} {third:?}");
        assert_eq!(first.instant().as_millis(), 1_000);
    }

    #[test]
    fn a_stamp_issued_after_an_observed_one_is_later() {
        let clock = StampClock::new(Arc::new(Fixed(Mutex::new(5))));
        let foreign = Stamp::at(Timestamp::from_millis(90_000));
        clock.observe(foreign);
        assert!(clock.issue() > foreign);
        clock.observe(Stamp::ZERO);
        assert!(clock.issue() > foreign, "an older stamp does not move the clock back");
    }

    #[test]
    fn a_stamp_from_beyond_belief_is_ignored() {
        let clock = StampClock::new(Arc::new(Fixed(Mutex::new(5))));
        for damaged in [u64::MAX, Stamp::at(Timestamp::NEVER).packed()] {
            clock.observe(Stamp::from_packed(damaged));
        }
        assert_eq!(clock.issue().instant().as_millis(), 5);
    }

    #[test]
    fn those_who_follow_one_clock_share_its_stamps() {
        let clock: Arc<dyn Clock> = Arc::new(Fixed(Mutex::new(7)));
        let (one, other) = (StampClock::following(&clock), StampClock::following(&clock));
        assert!(one.issue() < other.issue());
        let another: Arc<dyn Clock> = Arc::new(Fixed(Mutex::new(7)));
        assert!(!Arc::ptr_eq(&one, &StampClock::following(&another)));
    }

    #[test]
    fn no_stamp_is_issued_twice_across_threads() {
        let clock = StampClock::new(Arc::new(Fixed(Mutex::new(7))));
        let mut all: Vec<Stamp> = thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..5_000).map(|_| clock.issue()).collect::<Vec<_>>()))
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20_000);
    }
}
