//! Series: a range of time answered from cached chunks, of which only missing ones are loaded.
//!
//! A range is cut into chunks of whole steps, always at the same places. Each chunk is an ordinary
//! entry: its key is that of the request with the chunk's bounds as parameters, it is loaded in single
//! flight, expires, is invalidated and refreshed by itself. The answer is made of the chunks' rows.
//!
//! ```
//! use larder::{Cache, Loaded, Request, series::{DateRange, Run, Series, Step}};
//!
//! # #[cfg(feature = "memory")]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! let cache = Cache::builder().tier(larder::tiers::MemoryTier::new(64 << 20)).build()?;
//! let jobs = Request::new("bls_ces").param("cbsa", 14500);
//! // Chunks of a year; rows are in an array at `/data` and have their month at `/month`.
//! let series = Series::new(Step::Month).chunk(12).rows("/data").date("/month");
//!
//! let load = |run: Run| async move {
//!     // Asks for `run.request`, which has `from` and `to`; here there is one row a chunk.
//!     let from = run.request.value("from").unwrap_or_default();
//!     Ok(Loaded::new(format!(r#"{{"data": [{{"month": "{from}", "jobs": 1}}]}}"#)))
//! };
//! let answer = cache.series(&series, &jobs, DateRange::parse("2010", "2020")?, load).await?;
//! assert_eq!(answer.loaded(), 11);
//!
//! // Only what is missing is asked for.
//! let answer = cache.series(&series, &jobs, DateRange::parse("2015", "2022-06")?, load).await?;
//! assert_eq!(answer.parts().len(), 8);
//! assert_eq!(answer.loaded(), 2);
//! # Ok(())
//! # })
//! # }
//! # #[cfg(not(feature = "memory"))]
//! # fn main() {}
//! ```

mod calendar;
mod join;
mod plan;
mod read;
mod request;

use std::time::Duration;

use cache_core::Request;

pub use jiff::civil::Date;

use crate::{Hit, LoadContext};

pub use self::calendar::Step;

/// The most chunks that one call may ask for.
pub const MOST_CHUNKS: u32 = 10_000;

/// How a source's data is cut into chunks, and put together again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    step: Step,
    chunk: u32,
    per_call: u32,
    from: String,
    to: String,
    format: Option<String>,
    open_ttl: Option<Duration>,
    rows: String,
    date: Vec<String>,
    key: Vec<String>,
}

impl Series {
    /// A series that counts in steps, in chunks of one step each.
    pub fn new(step: Step) -> Self {
        Self {
            step,
            chunk: 1,
            per_call: 1,
            from: "from".to_owned(),
            to: "to".to_owned(),
            format: None,
            open_ttl: None,
            rows: String::new(),
            date: Vec::new(),
            key: Vec::new(),
        }
    }

    /// Steps in a chunk, at least one. Chunks of 12 months are calendar years, those of 7 days
    /// weeks that begin on Monday. Another number makes other keys: what is stored under the old
    /// ones is not used any more.
    #[must_use]
    pub fn chunk(mut self, steps: u32) -> Self {
        self.chunk = steps;
        self
    }

    /// Most neighbouring chunks that are asked for by one call, at least one. More than one need
    /// [`Series::date`]. Default: 1.
    #[must_use]
    pub fn chunks_per_call(mut self, chunks: u32) -> Self {
        self.per_call = chunks;
        self
    }

    /// Names of the parameters that hold the first and the last step, both included. Default: `from`
    /// and `to`.
    #[must_use]
    pub fn params(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        (self.from, self.to) = (from.into(), to.into());
        self
    }

    /// How bounds are written, as `strftime` has it: the first day of the first step, and the last
    /// day of the last one. Default: `%Y`, `%Y-%m` or `%Y-%m-%d`, as the step says.
    #[must_use]
    pub fn format(mut self, format: impl Into<String>) -> Self {
        self.format = Some(format.into());
        self
    }

    /// How long a chunk stays fresh at most that had not ended (in UTC) when it was loaded. Default:
    /// as long as any.
    #[must_use]
    pub fn open_ttl(mut self, ttl: Duration) -> Self {
        self.open_ttl = Some(ttl);
        self
    }

    /// JSON pointer to the array of rows in an answer. Default: the answer is the array.
    #[must_use]
    pub fn rows(mut self, pointer: impl Into<String>) -> Self {
        self.rows = pointer.into();
        self
    }

    /// JSON pointer to the date of a row, in the row; several calls give its parts, such as `/year`
    /// and `/month`. Rows outside of their chunk, or of the range that was asked for, are left out;
    /// those whose date cannot be read stay, and come first. Default: what [`Series::key`] says;
    /// without either, rows are taken as they come.
    #[must_use]
    pub fn date(mut self, pointer: impl Into<String>) -> Self {
        self.date.push(pointer.into());
        self
    }

    /// JSON pointer to what tells a row from others of its date; several calls give its parts. Of
    /// rows with one key and date the one loaded last stays. Default: the whole row.
    #[must_use]
    pub fn key(mut self, pointer: impl Into<String>) -> Self {
        self.key.push(pointer.into());
        self
    }
}

/// Days, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DateRange {
    from: Date,
    to: Date,
}

/// The texts are no range of dates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RangeError(String);

impl DateRange {
    /// From one day to another.
    ///
    /// # Errors
    /// When it ends before it begins.
    pub fn new(from: Date, to: Date) -> Result<Self, RangeError> {
        if to < from {
            return Err(RangeError(format!("the range ends ({to}) before it begins ({from})")));
        }
        Ok(Self { from, to })
    }

    /// From the first day that one text means to the last that another does: of a year, a month or a
    /// day, such as `2015`, `2015-03` or `2015-03-31`.
    ///
    /// # Errors
    /// When a text is no date, or the range ends before it begins.
    pub fn parse(from: &str, to: &str) -> Result<Self, RangeError> {
        let days = |text: &str| {
            let unreadable = || {
                let text = cache_core::Escaped(text);
                RangeError(format!(
                    "`{text}` is no date; write for example 2015, 2015-03 or 2015-03-31"
                ))
            };
            calendar::days(text).ok_or_else(unreadable)
        };
        Self::new(days(from)?.0, days(to)?.1)
    }

    /// The first day.
    pub fn from(&self) -> Date {
        self.from
    }

    /// The last day.
    pub fn to(&self) -> Date {
        self.to
    }
}

/// What a loader of a series is asked for: one or several neighbouring chunks.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run {
    /// The question, with the bounds of the run.
    pub request: Request,
    /// The days of the run.
    pub range: DateRange,
    /// The chunks it is made of, in order.
    pub chunks: Vec<LoadContext>,
}

/// The answer to a range.
#[derive(Clone, Debug)]
pub struct SeriesHit {
    joined: Hit,
    parts: Vec<Part>,
}

/// One chunk of an answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Part {
    /// Its days, also those that were not asked for.
    pub range: DateRange,
    /// The whole chunk.
    pub hit: Hit,
}

impl SeriesHit {
    /// The answer as one: the newest chunk's document with the rows of all, as fresh as the oldest
    /// of them, and stale if one of them is. It was served by the farthest tier that was needed, or
    /// by the origin if one of them was loaded. It has no value if no chunk has.
    pub const fn hit(&self) -> &Hit {
        &self.joined
    }

    /// The same, alone.
    pub fn into_hit(self) -> Hit {
        self.joined
    }

    /// The document.
    pub fn value(&self) -> &bytes::Bytes {
        self.joined.value()
    }

    /// The chunks, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// How many chunks the origin gave.
    pub fn loaded(&self) -> usize {
        self.parts.iter().filter(|part| part.hit.served_by() == crate::ServedBy::Origin).count()
    }
}
