//! Which chunks a range is made of.

use std::{collections::HashSet, fmt, time::Duration};

use cache_core::{Key, Request, Timestamp};

use super::{Date, DateRange, MOST_CHUNKS, RangeError, Series, Step, join::Join};

const DAY_MILLIS: i64 = 24 * 60 * 60 * 1000;

/// A series and the chunks of one range of it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) join: Join,
    pub(super) chunks: Vec<Chunk>,
    pub(super) per_call: usize,
    bounds: Bounds,
    base: Request,
    open_ttl: Option<Duration>,
}

#[derive(Debug)]
pub(super) struct Chunk {
    /// First and last step.
    pub(super) steps: (i64, i64),
    pub(super) range: DateRange,
    pub(super) key: Key,
}

/// How the bounds of a chunk become parameters.
#[derive(Debug)]
struct Bounds {
    step: Step,
    from: String,
    to: String,
    format: String,
}

impl Series {
    /// What is wrong with it, whatever it is asked for.
    pub(crate) fn check(&self) -> Result<(), String> {
        let day = Date::constant(2000, 1, 1);
        let range = DateRange { from: day, to: day };
        Plan::new(self, &Request::new("a"), range).map(drop)
    }

    /// The range that a request asks for, if it has both bounds.
    pub(crate) fn range_of(&self, request: &Request) -> Result<Option<DateRange>, RangeError> {
        match (request.value(&self.from), request.value(&self.to)) {
            (Some(from), Some(to)) => DateRange::parse(from, to).map(Some),
            _ => Ok(None),
        }
    }
}

impl Plan {
    /// An error says what is wrong with the series, or with the range.
    pub(super) fn new(series: &Series, base: &Request, range: DateRange) -> Result<Self, String> {
        let Series { step, chunk, per_call, from, to, .. } = series;
        if *chunk == 0 || *per_call == 0 {
            return Err("a chunk has at least one step, and a call one chunk".to_owned());
        }
        if from == to {
            return Err(format!("`{from}` cannot hold both bounds of a range"));
        }
        let join = Join::new(series)?;
        if *per_call > 1 && !join.is_dated() {
            return Err(
                "several chunks are asked for at once, and nothing says where the date of \
                        a row is, which tells them apart; name it, or ask for one chunk at a time"
                    .to_owned(),
            );
        }
        let format = series.format.clone().unwrap_or_else(|| step.format().to_owned());
        let bounds = Bounds { step: *step, from: from.clone(), to: to.clone(), format };
        let length = i64::from(*chunk);
        let asked = (step.at(range.from), step.at(range.to));
        let (first, last) = (asked.0.div_euclid(length), asked.1.div_euclid(length));
        if last - first >= i64::from(MOST_CHUNKS) {
            return Err(format!(
                "the range has more than {MOST_CHUNKS} chunks; ask for less at a time"
            ));
        }
        let join = join.trimmed_to(asked);
        let chunks = (first..=last).map(|at| {
            let steps = (at * length, (at + 1) * length - 1);
            let (range, request) = bounds.request(base, steps)?;
            Ok(Chunk { steps, range, key: request.key() })
        });
        let chunks = chunks.collect::<Result<Vec<_>, String>>()?;
        let mut keys = HashSet::with_capacity(chunks.len());
        if let Some(twice) = chunks.iter().find(|chunk| !keys.insert(&chunk.key)) {
            return Err(format!(
                "bounds written as `{}` do not tell chunks apart: two have the key `{}`",
                bounds.format, twice.key
            ));
        }
        let (base, open_ttl, per_call) = (base.clone(), series.open_ttl, *per_call as usize);
        Ok(Self { join, chunks, per_call, bounds, base, open_ttl })
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.chunks.iter().map(|chunk| chunk.key.clone()).collect()
    }

    /// The question for neighbouring chunks; they have been asked for one by one before.
    pub(super) fn request(
        &self,
        first: &Chunk,
        last: &Chunk,
    ) -> Result<(DateRange, Request), String> {
        self.bounds.request(&self.base, (first.steps.0, last.steps.1))
    }

    /// How long the chunk of a key stays fresh at most, if it has not ended.
    pub(super) fn limit(&self, key: &Key, now: Timestamp) -> Option<Duration> {
        let limit = self.open_ttl?;
        let days = now.as_millis().div_euclid(DAY_MILLIS);
        let days = jiff::Span::new().try_days(days).ok()?;
        let today = Date::constant(1970, 1, 1).checked_add(days).ok()?;
        // They are in order, so that those that have not ended are the last.
        let mut open = self.chunks.iter().rev().take_while(|chunk| chunk.range.to >= today);
        open.any(|chunk| chunk.key == *key).then_some(limit)
    }
}

impl Bounds {
    fn request(&self, base: &Request, steps: (i64, i64)) -> Result<(DateRange, Request), String> {
        let beyond = || "the range leaves the calendar, which has the years up to 9999".to_owned();
        let from = self.step.first_day(steps.0).ok_or_else(beyond)?;
        let to = self.step.last_day(steps.1).ok_or_else(beyond)?;
        let text = |day: Date| {
            jiff::fmt::strtime::format(&self.format, day)
                .map_err(|error| unwritable(&self.format, &error))
        };
        let request = base.clone().param(&self.from, text(from)?).param(&self.to, text(to)?);
        Ok((DateRange { from, to }, request))
    }
}

fn unwritable(format: &str, error: &dyn fmt::Display) -> String {
    format!("a date cannot be written as `{format}`: {error}; write for example %Y-%m-%d")
}
