//! Spacing of calls, so that a source's rate limit is kept.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::Rate;

/// Longest time that a rate may be about.
const LONGEST_WINDOW: Duration = Duration::from_mins(1);

/// Lets calls start at equal distances: of any `count + 1` calls in a row, the first and the last
/// are at least `per` apart, without bursts.
#[derive(Debug)]
pub(crate) struct Pacer {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pacer {
    /// `None` if the rate lets nothing through, or is so slow that it is a quota: those who wait
    /// for their turn would wait for minutes.
    pub(crate) fn new(rate: Rate) -> Option<Self> {
        let sound = rate.count > 0 && !rate.per.is_zero() && rate.per <= LONGEST_WINDOW;
        sound.then(|| Self { interval: rate.per / rate.count, next: Mutex::new(None) })
    }

    /// Waits for this call's turn. A turn that is not taken, because the future was dropped, is
    /// lost.
    pub(crate) async fn wait(&self) {
        sleep_until(self.turn(Instant::now())).await;
    }

    fn turn(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + self.interval);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_keep_their_distance_and_idle_time_is_not_saved_up() {
        let pacer = Pacer::new(Rate { count: 50, per: Duration::from_secs(1) }).unwrap();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(pacer.turn(start), start);
        assert_eq!(pacer.turn(start), at(20));
        assert_eq!(pacer.turn(at(5)), at(40));
        assert_eq!(pacer.turn(at(500)), at(500));
        assert_eq!(pacer.turn(at(500)), at(520));
    }

    #[test]
    fn quotas_and_rates_of_nothing_are_no_pace() {
        for (count, seconds) in [(0, 1), (1, 0), (500, 61)] {
            assert!(Pacer::new(Rate { count, per: Duration::from_secs(seconds) }).is_none());
        }
        assert!(Pacer::new(Rate { count: 1, per: Duration::from_mins(1) }).is_some());
    }
}
