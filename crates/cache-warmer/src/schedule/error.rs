//! Why there is no such schedule.

use crate::names::Printable;

/// Why a schedule, a job or a scheduler cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// It cannot be read.
    #[error(
        "`{}` is no cron expression: {problem}; it has five fields, minute, hour, day of month, \
         month and day of week, for example `0 3 * * SUN` for Sundays at 3:00",
        Printable(cron)
    )]
    Cron {
        /// The text.
        cron: String,
        /// What is wrong with it.
        problem: String,
    },
    /// It can be read, but no day is one of its days.
    #[error(
        "`{}` never comes: no such month has such a day; for example `0 3 L * *` is the last day of \
         each month at 3:00",
        Printable(cron)
    )]
    Never {
        /// The text.
        cron: String,
    },
    /// No time zone has this name.
    #[error(
        "there is no time zone `{}`{hint}; time zones are named like `Europe/Berlin`, `UTC`, or \
         `local` for that of the machine",
        Printable(name)
    )]
    TimeZone {
        /// The name.
        name: String,
        /// A name like it, for people; else empty.
        hint: String,
    },
    /// The machine does not say in which time zone it is.
    #[error(
        "the time zone of this machine is not known: {problem}; name one, for example \
         `Europe/Berlin`, or set the environment variable TZ"
    )]
    LocalTimeZone {
        /// What is wrong.
        problem: String,
    },
    /// A job cannot be named so.
    #[error(
        "`{}` cannot be a job's name, which has 1 to 64 letters a to z, digits, `-` and `_`, for \
         example `weekly-census`",
        Printable(name)
    )]
    JobName {
        /// The name.
        name: String,
    },
    /// Two jobs have one name.
    #[error("two jobs are named `{name}`; give one of them another name")]
    DuplicateJob {
        /// The name.
        name: String,
    },
}
