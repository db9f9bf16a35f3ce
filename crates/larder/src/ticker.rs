//! The machine's time for hits in memory: while there are many, a thread notes it every few
//! milliseconds, so that a hit reads a number instead of a clock.
//!
//! Reading the kernel's coarse clock takes an eighth of a hit (measured). A noted time is late by up
//! to two ticks, the kernel's and the thread's, and by what the thread waits for its turn; every 64th
//! read of a thread looks whether that is much, and then hits read the clock. So after a fork the
//! child's threads may each serve 63 hits by the time of the fork.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use cache_core::{Clock, SystemClock, Timestamp};

/// As exact as the kernel's coarse clock, which usually ticks 250 times a second.
const TICK: Duration = Duration::from_millis(4);
/// A noted time that is older is not believed.
const LATE: Duration = Duration::from_millis(20);
/// The thread ends after so many ticks in which nobody has asked for it: half a second.
const IDLE_TICKS: u32 = 125;
/// What is noted while nobody notes.
const NOT_NOTED: i64 = i64::MIN;

/// The machine's time.
#[derive(Debug)]
pub(crate) struct Ticker {
    clock: SystemClock,
    noted: AtomicI64,
    /// Whether there is a thread that notes.
    runs: AtomicBool,
    /// The number of that thread: one that is given up ends when it sees another.
    turn: AtomicU64,
    /// Whether somebody has asked for it since the last tick.
    wanted: AtomicBool,
}

impl Ticker {
    pub(crate) fn new() -> Self {
        Self {
            clock: SystemClock::new(),
            noted: AtomicI64::new(NOT_NOTED),
            runs: AtomicBool::new(false),
            turn: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
        }
    }

    /// The time, late by a tick at most as long as [`Ticker::want`] is called now and then.
    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        match self.noted.load(Ordering::Relaxed) {
            NOT_NOTED => self.clock.now(),
            noted => Timestamp::from_millis(noted),
        }
    }

    /// Says that many hits ask for the time: one in some of them calls this.
    pub(crate) fn want(&'static self) {
        self.wanted.store(true, Ordering::Relaxed);
        let noted = self.noted.load(Ordering::Relaxed);
        if noted == NOT_NOTED {
            if !self.runs.swap(true, Ordering::Relaxed) {
                let turn = self.turn.load(Ordering::Relaxed);
                let thread = thread::Builder::new().name("larder-clock".to_owned());
                if thread.spawn(move || self.run(turn)).is_err() {
                    self.runs.store(false, Ordering::Relaxed);
                }
            }
        } else if self.clock.now() > Timestamp::from_millis(noted).saturating_add(LATE) {
            // There is no thread, as after a fork, or the machine is too busy to let it run.
            self.turn.fetch_add(1, Ordering::Relaxed);
            // Released: a thread that notes after this sees that its turn is over.
            self.noted.store(NOT_NOTED, Ordering::Release);
            self.runs.store(false, Ordering::Relaxed);
        }
    }

    fn run(&self, turn: u64) {
        let mut idle = 0;
        while idle < IDLE_TICKS {
            // Never an earlier one: this thread may have waited since it read the clock.
            self.noted.fetch_max(self.clock.now().as_millis(), Ordering::AcqRel);
            if self.turn.load(Ordering::Relaxed) != turn {
                // Given up: what it has just noted may be noted by nobody from now on.
                self.noted.store(NOT_NOTED, Ordering::Relaxed);
                return;
            }
            thread::park_timeout(TICK);
            idle = if self.wanted.swap(false, Ordering::Relaxed) { 0 } else { idle + 1 };
        }
        self.noted.store(NOT_NOTED, Ordering::Relaxed);
        // If it was given up meanwhile, another one runs.
        if self.turn.load(Ordering::Relaxed) == turn {
            self.runs.store(false, Ordering::Relaxed);
        }
    }
}

impl Clock for Ticker {
    /// The clock itself: what is not a hit in memory has the time to read it.
    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::LazyLock, time::Instant};

    use super::*;

    static TICKER: LazyLock<Ticker> = LazyLock::new(Ticker::new);

    /// Whether it comes true before a machine, however busy, would have had the time.
    fn soon(mut done: impl FnMut() -> bool) -> bool {
        let began = Instant::now();
        while !done() {
            if began.elapsed() > Duration::from_secs(30) {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    #[test]
    fn noted_time_goes_on_while_it_is_wanted_and_the_thread_ends_when_it_is_not() {
        let noted = || TICKER.noted.load(Ordering::Relaxed);
        assert_eq!(noted(), NOT_NOTED);
        let began = Ticker::now(&TICKER);
        assert!(soon(|| {
            TICKER.want();
            noted() > began.as_millis() + 50
        }));
        assert!(Ticker::now(&TICKER) <= Clock::now(&*TICKER));
        assert!(soon(|| noted() == NOT_NOTED && !TICKER.runs.load(Ordering::Relaxed)));
        assert!(Ticker::now(&TICKER) > began);
        // A time that nobody notes any more is not believed.
        TICKER.noted.store(began.as_millis(), Ordering::Relaxed);
        assert_eq!(Ticker::now(&TICKER), began);
        assert!(soon(|| Clock::now(&*TICKER) > began.saturating_add(LATE)));
        TICKER.want();
        assert_eq!(noted(), NOT_NOTED);
        // And another thread is started for those who go on asking.
        TICKER.want();
        assert!(soon(|| noted() != NOT_NOTED));
        // One whose turn is over leaves no time behind that nobody notes.
        let turn = TICKER.turn.fetch_add(1, Ordering::Relaxed);
        TICKER.run(turn);
        assert!(soon(|| noted() == NOT_NOTED));
    }
}
