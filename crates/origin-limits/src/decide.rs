//! Whether a call may be made now: the arithmetic, without any store.

use std::time::Duration;

use crate::{Limits, Urgency};

/// Longest that a source is paused.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_hours(24);
/// Share of a quota past which people are warned.
pub(crate) const WARN_AT: f64 = 0.8;

/// What a ledger knows of a source. Times are microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Until when the API wants to be left alone.
    pub(crate) paused_until: i64,
    /// When the next call would be due if calls came evenly.
    pub(crate) due: i64,
    /// Calls within the quota's window.
    pub(crate) used: u32,
    /// When the oldest call was that must leave the window before there may be another one; `None`
    /// if the quota has room.
    pub(crate) blocking: Option<i64>,
    /// When people were last warned that the quota is nearly used up.
    pub(crate) warned: i64,
}

/// What is to be done about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It may be made now.
    Go {
        /// What [`Seen::due`] is then.
        due: i64,
        /// Whether people are to be warned.
        warns: bool,
    },
    /// Not for this long; nothing has been taken.
    Wait(Duration),
    /// The quota is used up, for this long.
    Full(Duration),
    /// The API wants to be left alone, for this long.
    Paused(Duration),
}

pub(crate) fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

impl Seen {
    /// What lies further in the future than it can is a trace of a clock that has been set back since:
    /// it counts from now on, so that it blocks for one interval or pause at most, if whoever keeps it
    /// keeps what it is now. Whether anything was.
    pub(crate) fn settle(&mut self, limits: &Limits, now: i64) -> bool {
        let before = *self;
        self.paused_until = self.paused_until.min(now.saturating_add(micros(LONGEST_PAUSE)));
        if let Some((_, ahead)) = spacing(limits) {
            self.due = self.due.min(now.saturating_add(ahead));
        }
        *self != before
    }
}

/// Between two calls, and how far ahead of an even row of calls bursts may be.
fn spacing(limits: &Limits) -> Option<(i64, i64)> {
    let rate = limits.rate?;
    let interval = micros(rate.per) / i64::from(rate.count);
    Some((interval, interval.saturating_mul(i64::from(limits.burst))))
}

/// Decides about one call, when what was seen has been settled.
pub(crate) fn decide(limits: &Limits, now: i64, seen: &Seen) -> Decision {
    let paused = seen.paused_until.saturating_sub(now);
    if paused > 0 {
        return Decision::Paused(span(paused));
    }
    if let (Some(quota), Some(blocking)) = (limits.quota, seen.blocking) {
        let resets = blocking.min(now).saturating_add(micros(quota.per)).saturating_sub(now);
        return Decision::Full(span(resets.max(1)));
    }
    let due = match spacing(limits) {
        None => seen.due,
        Some((interval, ahead)) => {
            let due = seen.due.max(now);
            let early = due - now - (ahead - interval);
            if early > 0 {
                return Decision::Wait(span(early));
            }
            due + interval
        }
    };
    let warns = limits.quota.is_some_and(|quota| {
        let used = f64::from(seen.used) + 1.0;
        used >= f64::from(quota.count) * WARN_AT
            && seen.warned <= now.saturating_sub(micros(quota.per))
    });
    Decision::Go { due, warns }
}

/// The end of the quota's window before now, and how many calls fill it.
pub(crate) fn window(limits: &Limits, urgency: Urgency, now: i64) -> Option<(i64, u32)> {
    let quota = limits.quota?;
    Some((now.saturating_sub(micros(quota.per)), limits.allowance(urgency)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rate;

    const SECOND: i64 = 1_000_000;

    fn rate(count: u32, burst: u32) -> Limits {
        let rate = Some(Rate { count, per: Duration::from_secs(1) });
        Limits { rate, burst, ..Limits::default() }
    }

    #[test]
    fn calls_are_spaced_evenly_and_idle_time_saves_up_a_burst_only() {
        let mut seen = Seen::default();
        let mut go = |limits: &Limits, now: i64| match decide(limits, now, &seen) {
            Decision::Go { due, .. } => {
                seen.due = due;
                Duration::ZERO
            }
            Decision::Wait(wait) => wait,
            other => panic!("{other:?}"),
        };
        let limits = rate(50, 1);
        let start = 1_000 * SECOND;
        assert_eq!(go(&limits, start), Duration::ZERO);
        assert_eq!(go(&limits, start), Duration::from_millis(20));
        assert_eq!(go(&limits, start + 20_000), Duration::ZERO);
        let burst = rate(50, 3);
        let later = start + 60 * SECOND;
        for _ in 0..3 {
            assert_eq!(go(&burst, later), Duration::ZERO);
        }
        assert_eq!(go(&burst, later), Duration::from_millis(20));
    }

    #[test]
    fn a_clock_that_was_set_back_blocks_for_one_interval_and_one_window_at_most() {
        let limits = rate(1, 1);
        let mut seen = Seen { due: 9_000 * SECOND, ..Seen::default() };
        assert!(seen.settle(&limits, SECOND));
        assert_eq!(decide(&limits, SECOND, &seen), Decision::Wait(Duration::from_secs(1)));
        assert!(!seen.settle(&limits, 2 * SECOND), "it is as it was left");
        assert!(matches!(decide(&limits, 2 * SECOND, &seen), Decision::Go { .. }));
        let quota = Some(Rate { count: 1, per: Duration::from_secs(10) });
        let limits = Limits { quota, ..Limits::default() };
        let seen = Seen { blocking: Some(9_000 * SECOND), used: 1, ..Seen::default() };
        assert_eq!(decide(&limits, SECOND, &seen), Decision::Full(Duration::from_secs(10)));
        let mut seen = Seen { paused_until: i64::MAX, ..Seen::default() };
        seen.settle(&limits, SECOND);
        assert_eq!(decide(&limits, SECOND, &seen), Decision::Paused(LONGEST_PAUSE));
    }

    #[test]
    fn people_are_warned_once_a_window_from_four_fifths_on() {
        let quota = Some(Rate { count: 10, per: Duration::from_secs(10) });
        let limits = Limits { quota, ..Limits::default() };
        let warns = |used, warned, now| {
            let seen = Seen { used, warned, ..Seen::default() };
            matches!(decide(&limits, now, &seen), Decision::Go { warns: true, .. })
        };
        assert!(!warns(6, 0, 100 * SECOND));
        assert!(warns(7, 0, 100 * SECOND), "the eighth of ten");
        assert!(!warns(8, 95 * SECOND, 100 * SECOND), "told already");
        assert!(warns(8, 90 * SECOND, 100 * SECOND), "a window ago");
    }
}
