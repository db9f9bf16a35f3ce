//! Rows of several chunks as one array, and rows of one answer as those of its chunks.

use std::collections::BTreeMap;

use cache_core::{Answer, Entry, Key, Loaded, Stamp};
use serde_json::value::RawValue;

use super::{Series, Step, calendar, plan::Chunk};
use crate::rows::{self, Pointer};

/// Where rows are, and what they say of themselves.
#[derive(Debug)]
pub(super) struct Join {
    step: Step,
    rows: Pointer,
    date: Vec<Pointer>,
    key: Vec<Pointer>,
    /// First and last step that was asked for.
    asked: (i64, i64),
}

/// The order of rows, and which of them are the same: step, and key.
type Place = (Option<i64>, Vec<String>);

impl Join {
    pub(super) fn new(series: &Series) -> Result<Self, String> {
        let all = |texts: &[String]| -> Result<Vec<Pointer>, String> {
            texts.iter().map(|text| Pointer::parse(text)).collect()
        };
        let (key, date) = (all(&series.key)?, all(&series.date)?);
        let date = if date.is_empty() { key.clone() } else { date };
        let rows = Pointer::parse(&series.rows)?;
        Ok(Self { step: series.step, rows, date, key, asked: (i64::MIN, i64::MAX) })
    }

    pub(super) fn trimmed_to(mut self, asked: (i64, i64)) -> Self {
        self.asked = asked;
        self
    }

    pub(super) fn is_dated(&self) -> bool {
        !self.date.is_empty()
    }

    /// One document with the rows of all chunks: that of the chunk loaded last, with other rows. An
    /// error says which chunk is of another form.
    pub(super) fn join(&self, parts: &[(&Chunk, &Entry)]) -> Result<String, String> {
        let mut union: BTreeMap<Place, (Stamp, &RawValue)> = BTreeMap::new();
        let mut newest: Option<(Stamp, &RawValue)> = None;
        for (at, (chunk, entry)) in parts.iter().enumerate() {
            let document = rows::parse(entry.value()).map_err(|why| of(&chunk.key, why))?;
            let as_of = entry.as_of();
            if newest.is_none_or(|(newest, _)| newest <= as_of) {
                newest = Some((as_of, document));
            }
            let rows = self.rows_of(document).map_err(|why| of(&chunk.key, why))?;
            for (place, row) in rows.into_iter().enumerate() {
                let step = self.step_of(row);
                let wanted = |step: i64| {
                    (chunk.steps.0.max(self.asked.0)..=chunk.steps.1.min(self.asked.1))
                        .contains(&step)
                };
                if step.is_some_and(|step| !wanted(step)) {
                    continue;
                }
                let key = if self.is_dated() {
                    self.key_of(row)
                        .map_err(|why| of(&chunk.key, format!("{why} in row {place}")))?
                } else {
                    vec![format!("{at:08} {place:016}")]
                };
                let slot = union.entry((step, key)).or_insert((as_of, row));
                if slot.0 <= as_of {
                    *slot = (as_of, row);
                }
            }
        }
        let rows = rows::array(union.into_values().map(|(_, row)| row));
        let joined = newest.and_then(|(_, document)| self.rows.replace(document, &rows));
        Ok(joined.unwrap_or(rows))
    }

    /// An answer for several chunks as one for each.
    pub(super) fn split(&self, loaded: &Loaded, chunks: &[&Chunk]) -> Result<Vec<Loaded>, String> {
        let [_, _, ..] = chunks else { return Ok(vec![loaded.clone()]) };
        let Answer::Value(value) = &loaded.answer else {
            return Ok(chunks.iter().map(|_| loaded.clone()).collect());
        };
        let document = rows::parse(value)?;
        let mut by_chunk: Vec<Vec<&RawValue>> = chunks.iter().map(|_| Vec::new()).collect();
        for (place, row) in self.rows_of(document)?.into_iter().enumerate() {
            let step = self.step_of(row);
            let Some(step) = step else {
                return Err(format!(
                    "the date of row {place} cannot be read, so that nothing says to which chunk it \
                     belongs; ask for one chunk at a time"
                ));
            };
            let at = chunks.iter().position(|it| (it.steps.0..=it.steps.1).contains(&step));
            if let Some(rows) = at.and_then(|at| by_chunk.get_mut(at)) {
                rows.push(row);
            }
        }
        let one = |rows: Vec<&RawValue>| {
            let rows = rows::array(rows);
            let value = self.rows.replace(document, &rows).unwrap_or(rows);
            let mut one = loaded.clone();
            one.answer = Answer::Value(value.into());
            // It is that of the whole answer.
            one.etag = None;
            one
        };
        Ok(by_chunk.into_iter().map(one).collect())
    }

    fn rows_of<'a>(&self, document: &'a RawValue) -> Result<Vec<&'a RawValue>, String> {
        self.rows.find(document).and_then(rows::items).ok_or_else(|| {
            format!("there is no array of rows at `{}`; check where rows are", self.rows)
        })
    }

    fn step_of(&self, row: &RawValue) -> Option<i64> {
        let parts: Option<Vec<String>> =
            self.date.iter().map(|part| part.find(row).and_then(rows::text)).collect();
        let parts = parts.filter(|parts| !parts.is_empty())?;
        // Parts of a date may be single digits.
        let padded = parts
            .iter()
            .map(|part| if part.len() == 1 { format!("0{part}") } else { part.clone() });
        let text = padded.collect::<Vec<_>>().join("-");
        calendar::days(&text).map(|(first, _)| self.step.at(first))
    }

    fn key_of(&self, row: &RawValue) -> Result<Vec<String>, String> {
        if self.key.is_empty() {
            return Ok(vec![row.get().to_owned()]);
        }
        let parts: Vec<Option<String>> =
            self.key.iter().map(|part| part.find(row).and_then(rows::text)).collect();
        if parts.iter().all(Option::is_none) {
            let pointers: Vec<String> = self.key.iter().map(|key| format!("`{key}`")).collect();
            return Err(format!("there is nothing at {}", pointers.join(", ")));
        }
        // Told apart from an empty text.
        Ok(parts
            .into_iter()
            .map(|part| part.map_or_else(String::new, |it| format!("={it}")))
            .collect())
    }
}

fn of(key: &Key, why: impl std::fmt::Display) -> String {
    format!("the chunk `{key}` cannot be joined with others: {why}")
}
