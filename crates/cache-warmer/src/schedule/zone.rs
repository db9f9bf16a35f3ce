//! Instants, and what clocks on the wall show then.

use std::time::{SystemTime, UNIX_EPOCH};

use croner::Cron;
use jiff::{
    ToSpan,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use larder::{Clock, Timestamp};

use crate::schedule::ScheduleError;

/// The machine's clock, read anew each time.
///
/// Unlike [`larder::SystemClock`] it follows when the machine's time is set, backwards too: it is for
/// a [`Scheduler`](crate::Scheduler), which must see that, and not for a cache, which must not.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock;

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// An instant as people write it, in UTC.
pub(super) fn rfc3339(at: Timestamp) -> String {
    match jiff::Timestamp::from_millisecond(at.as_millis()) {
        Ok(at) => at.to_string(),
        // Beyond the year 9999.
        Err(_too_late) => format!("{} ms", at.as_millis()),
    }
}

/// The instant that [`rfc3339`] has written.
pub(super) fn from_rfc3339(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(ours)
}

/// Their instant, as ours.
pub(super) fn ours(at: jiff::Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millisecond())
}

/// The whole second that our instant is in; `None` beyond the years that there are.
pub(super) fn second_of(at: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(at.as_millis().div_euclid(1_000)).ok()
}

/// The time zone of this name.
pub(super) fn time_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    if name.eq_ignore_ascii_case("local") {
        return TimeZone::try_system()
            .map_err(|error| ScheduleError::LocalTimeZone { problem: error.to_string() });
    }
    TimeZone::get(name).map_err(|_unknown| {
        // Not the whole database's own text: where its files are is of no help.
        let known = jiff::tz::db().available();
        let near = known.map(|known| (strsim::jaro_winkler(name, known.as_str()), known));
        let near = near.filter(|(likeness, _)| *likeness > 0.85);
        let near = near.max_by(|(a, _), (b, _)| a.total_cmp(b));
        let hint = near.map(|(_, known)| format!("; is it `{}`?", known.as_str()));
        ScheduleError::TimeZone { name: name.to_owned(), hint: hint.unwrap_or_default() }
    })
}

/// The first instant after `after` at which a clock on the wall shows a time of the expression.
pub(super) fn next_on_the_wall(
    cron: &Cron,
    zone: &TimeZone,
    after: jiff::Timestamp,
) -> Option<jiff::Timestamp> {
    let mut wall = zone.to_datetime(after);
    loop {
        wall = cron.find_next_occurrence(&wall, false).ok()?;
        // What is shown twice has been the first time.
        let instant = instant_of(zone, wall)?;
        if instant > after {
            return Some(instant);
        }
    }
}

/// The last instant until `until` at which a clock on the wall showed a time of the expression.
pub(super) fn latest_on_the_wall(
    cron: &Cron,
    zone: &TimeZone,
    until: jiff::Timestamp,
) -> Option<jiff::Timestamp> {
    let now = zone.to_datetime(until);
    let twice = zone.to_ambiguous_timestamp(now).offset();
    // Where clocks have been set back, later times than they show now have been.
    let from = if matches!(twice, AmbiguousOffset::Fold { .. }) {
        now.checked_add(1.day()).ok()?
    } else {
        now
    };
    let mut wall = cron.find_previous_occurrence(&from, true).ok()?;
    loop {
        let instant = instant_of(zone, wall)?;
        if instant <= until {
            return Some(instant);
        }
        wall = cron.find_previous_occurrence(&wall, false).ok()?;
    }
}

/// When clocks show a time: of two instants the first; if they leave it out, when they have done so.
fn instant_of(zone: &TimeZone, wall: DateTime) -> Option<jiff::Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(wall);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => {
            let before = ambiguous.earlier().ok()?;
            zone.following(before).next().map(|set| set.timestamp())
        }
        _ => ambiguous.earlier().ok(),
    }
}
