//! Cron expressions.

use std::fmt;

use croner::{
    Cron,
    errors::CronError,
    parser::{CronParser, Seconds, Year},
};
use jiff::tz::TimeZone;
use larder::Timestamp;

use crate::schedule::{
    ScheduleError,
    zone::{latest_on_the_wall, next_on_the_wall, ours, second_of, time_zone},
};

/// What may stand in place of the five fields.
const NICKNAMES: [&str; 6] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly"];

/// When something is due: a cron expression and the time zone that it is meant in.
///
/// The five fields are minute, hour, day of month, month (1 to 12, or `JAN` to `DEC`) and day of week
/// (0 to 7 from Sunday to Sunday, or `SUN` to `SAT`). Each is `*`, a value, a range `1-5`, either with
/// a step `*/15`, or a list of these. If both days are given, one of them suffices; with `+` before
/// the day of week both must be right. `L` is a month's last day, `FRI#2` its second Friday, `15W`
/// the working day nearest to its 15th. `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily` and
/// `@hourly` stand for the first minute of these.
///
/// When clocks are set forward or back, what is due at certain hours (`30 2 * * *`) is due once: at
/// the first instant after the times that are left out, or the first time that the clock shows it.
/// What is due at all hours (the hour begins with `*`) goes on as time passes: nothing is due in
/// place of times that are left out, and times that come twice count twice.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
    zone: TimeZone,
}

impl Schedule {
    /// The schedule of a cron expression in a time zone: a name such as `Europe/Berlin`, or `local`
    /// for that of the machine; `None` is UTC.
    ///
    /// # Errors
    /// [`ScheduleError::Cron`], [`ScheduleError::Never`], [`ScheduleError::TimeZone`],
    /// [`ScheduleError::LocalTimeZone`].
    pub fn parse(cron: &str, zone: Option<&str>) -> Result<Self, ScheduleError> {
        let text = cron.trim();
        let refused = |problem: String| ScheduleError::Cron { cron: text.to_owned(), problem };
        let fields = text.split_whitespace().count();
        if text.contains('@') {
            if !NICKNAMES.iter().any(|known| known.eq_ignore_ascii_case(text)) {
                return Err(refused(format!("the nicknames are {}", NICKNAMES.join(", "))));
            }
        } else if fields != 5 {
            let only = if fields < 5 { "only " } else { "" };
            return Err(refused(format!("it has {only}{fields} fields")));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let cron = parser.build().parse(text).map_err(|error| refused(problem(error)))?;
        let zone = zone.map_or(Ok(TimeZone::UTC), |name| time_zone(name.trim()))?;
        let schedule = Self { text: text.to_owned(), cron, zone };
        if schedule.next_after(Timestamp::from_millis(0)).is_none() {
            return Err(ScheduleError::Never { cron: schedule.text });
        }
        Ok(schedule)
    }

    /// The first instant after `after` at which it is due; `None` only near the end of time.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after = second_of(after)?;
        let next = if self.is_for_all_hours() {
            let from = after.to_zoned(self.zone.clone());
            self.cron.find_next_occurrence(&from, false).ok()?.timestamp()
        } else {
            next_on_the_wall(&self.cron, &self.zone, after)?
        };
        Some(ours(next))
    }

    /// The last instant until `until`, that one included, at which it was due; `None` only near the
    /// beginning of time.
    pub fn latest_until(&self, until: Timestamp) -> Option<Timestamp> {
        let until = second_of(until)?;
        let latest = if self.is_for_all_hours() {
            let from = until.to_zoned(self.zone.clone());
            self.cron.find_previous_occurrence(&from, true).ok()?.timestamp()
        } else {
            latest_on_the_wall(&self.cron, &self.zone, until)?
        };
        Some(ours(latest))
    }

    /// The name of the time zone.
    pub fn time_zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("local")
    }

    /// The cron expression, as it was given.
    pub fn cron(&self) -> &str {
        &self.text
    }

    fn is_for_all_hours(&self) -> bool {
        self.cron.pattern.hours.from_wildcard
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schedule").field(&self.to_string()).finish()
    }
}

/// The expression and the time zone.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.text, self.time_zone())
    }
}

/// What is wrong, without the names of the parser's types.
fn problem(error: CronError) -> String {
    match error {
        CronError::InvalidPattern(problem)
        | CronError::IllegalCharacters(problem)
        | CronError::ComponentError(problem) => {
            problem.trim_end_matches('.').replace("CronPattern", "it")
        }
        other => other.to_string(),
    }
}
