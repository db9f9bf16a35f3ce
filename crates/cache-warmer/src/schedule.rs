//! Jobs that run at times of day, in a process that stays.
//!
//! A [`Schedule`] says when, a [`Job`] has a name and a schedule, a [`Scheduler`] runs jobs and
//! remembers in a [`larder::Cache`] which occurrences have been run. Nodes whose caches share a tier
//! that can lease, such as one SQLite file, run each occurrence once among them.

mod cron;
mod error;
mod job;
mod records;
mod scheduler;
mod turn;
mod zone;

pub use self::{
    cron::Schedule,
    error::ScheduleError,
    job::Job,
    records::LastRun,
    scheduler::{NextRun, Round, Scheduler},
    zone::WallClock,
};
