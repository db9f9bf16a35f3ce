//! `cache.sources.NAME.range`: a source whose answers are about a range of time.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::series::{Series, Step};

use super::{
    error::ValueError,
    forms,
    http::write_list,
    text::{self, FromText},
};

/// What a range counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeStep(Step);

impl RangeStep {
    /// The step as series have it.
    pub const fn step(self) -> Step {
        self.0
    }
}

impl FromText for RangeStep {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        match &*text.trim().to_ascii_lowercase() {
            "day" => Ok(Self(Step::Day)),
            "month" => Ok(Self(Step::Month)),
            "year" => Ok(Self(Step::Year)),
            _ => Err(ValueError::new(text, "the value is no step; write day, month or year")),
        }
    }
}

impl fmt::Display for RangeStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Step::Day => "day",
            Step::Month => "month",
            Step::Year => "year",
        })
    }
}

impl Serialize for RangeStep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RangeStep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::text(deserializer)
    }
}

/// `cache.sources.NAME.range`: how a range of time is cut into chunks, each of them an entry, of which
/// only missing ones are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RangeConfig {
    /// The value that holds the first step. Default: `from`.
    #[serde(deserialize_with = "text::text")]
    pub from: String,
    /// The value that holds the last one, which is part of the range. Default: `to`.
    #[serde(deserialize_with = "text::text")]
    pub to: String,
    /// What it counts in. Default: the source has no ranges.
    #[serde(deserialize_with = "text::text")]
    pub step: Option<RangeStep>,
    /// Steps in a chunk. Default: 1.
    #[serde(deserialize_with = "text::text")]
    pub chunk: u32,
    /// Most neighbouring chunks in one request; more than 1 need `date`. Default: 1.
    #[serde(deserialize_with = "text::text")]
    pub chunks_per_call: u32,
    /// How bounds are written, as `strftime` has it. Default: as the step says.
    #[serde(deserialize_with = "text::text")]
    pub format: Option<String>,
    /// How long a chunk stays fresh at most that had not ended when it was loaded. Default: as any.
    #[serde(deserialize_with = "forms::read", serialize_with = "forms::write")]
    pub open_ttl: Option<Duration>,
    /// JSON pointer to the array of rows in an answer. Default: the answer is that array.
    #[serde(deserialize_with = "text::text")]
    pub rows: String,
    /// JSON pointers to the parts of a row's date, in the row. Default: as `key`.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub date: Vec<String>,
    /// JSON pointers to what tells a row from others of its date. Default: the whole row.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub key: Vec<String>,
}

impl RangeConfig {
    /// The series that it describes, if it describes one.
    pub fn series(&self) -> Option<Series> {
        let mut series = Series::new(self.step?.step())
            .params(&self.from, &self.to)
            .chunk(self.chunk)
            .chunks_per_call(self.chunks_per_call)
            .rows(&self.rows);
        if let Some(format) = &self.format {
            series = series.format(format);
        }
        if let Some(ttl) = self.open_ttl {
            series = series.open_ttl(ttl);
        }
        series = self.date.iter().fold(series, Series::date);
        Some(self.key.iter().fold(series, Series::key))
    }
}

impl Default for RangeConfig {
    fn default() -> Self {
        Self {
            from: "from".to_owned(),
            to: "to".to_owned(),
            step: None,
            chunk: 1,
            chunks_per_call: 1,
            format: None,
            open_ttl: None,
            rows: String::new(),
            date: Vec::new(),
            key: Vec::new(),
        }
    }
}
