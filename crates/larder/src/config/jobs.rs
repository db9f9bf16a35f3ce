//! `cache.jobs` and `cache.notify`: what is warmed when, and who is told what has changed.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{forms, http::write_list, redact, text, values::Secret};

/// `cache.jobs.NAME`, or an item of the list `cache.jobs`: what is warmed by a schedule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct JobConfig {
    /// When: five fields of a cron expression, such as `0 3 * * SUN`.
    #[serde(deserialize_with = "text::text")]
    pub cron: Option<String>,
    /// The time zone that it is meant in, such as `America/Denver`; `local` is the machine's. Default:
    /// UTC.
    #[serde(deserialize_with = "text::text")]
    pub time_zone: Option<String>,
    /// A run begins later by up to this, the same on all nodes. Default: 0.
    #[serde(deserialize_with = "text::text", serialize_with = "text::write_duration")]
    pub jitter: Duration,
    /// CSV file of markets.
    pub markets: Option<PathBuf>,
    /// Markets by name.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub market: Vec<String>,
    /// Whether all metropolitan areas are meant. Default: no.
    #[serde(deserialize_with = "text::text")]
    pub all_metros: bool,
    /// Markets within so many miles of those, too. Default: none.
    #[serde(deserialize_with = "text::text")]
    pub nearby_miles: Option<f64>,
    /// The sources.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub sources: Vec<String>,
    /// Whether what is fresh is asked for, too. Default: no.
    #[serde(deserialize_with = "text::text")]
    pub refresh: bool,
    /// What was loaded longer ago is asked for although it is fresh. Default: nothing is.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub max_age: Option<Duration>,
}

/// `cache.notify`: who is told when the data of a `critical` source have changed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NotifyConfig {
    /// Where the change is posted, as JSON.
    #[serde(deserialize_with = "text::text", serialize_with = "redact::write_url")]
    pub webhook: Option<String>,
    /// What the posts are signed with.
    #[serde(deserialize_with = "text::text")]
    pub secret: Option<Secret>,
    /// A program and its arguments, which is given the change, as JSON, on standard input.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub command: Vec<String>,
}

impl fmt::Debug for NotifyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotifyConfig")
            .field("webhook", &self.webhook.as_deref().map(redact::redact_url))
            .field("secret", &self.secret)
            .field("command", &self.command)
            .finish()
    }
}

/// `cache.sources.NAME.changes`: what counts as a change of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ChangesConfig {
    /// JSON pointers to what is compared; `*` is any step. Default: the whole answer.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub pointers: Vec<String>,
    /// JSON pointers to what changes all the time, and does not count.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub ignore: Vec<String>,
}
