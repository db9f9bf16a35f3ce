//! Rows as entries of Larder.

use cache_core::{Entry, Key, Stamp, Timestamp};

use crate::{Decoded, Limits, PICKLE_CONTENT_TYPE, Row, decode};

const JSON: &str = "application/json";
/// Before all that happens; `Stamp::ZERO` counts as covered by "no invalidation".
const EARLIEST: Stamp = Stamp::from_packed(1);

/// What a row will be in Larder, without its value, which need not be read to know whether it is
/// wanted.
///
/// It was loaded when the row was created, lives as long as the row does whatever policies say, and
/// has no tags. A row that does not say when it was created counts as older than every invalidation.
#[derive(Clone, Debug)]
pub struct Outline {
    key: Key,
    entry: Entry,
}

/// Why a row is not imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It has expired.
    Expired,
    /// What it is cannot be known, or not be stored.
    Unreadable(String),
}

/// An entry made of a row.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The entry.
    pub entry: Entry,
    /// Why its value is still a pickle, if it is.
    pub opaque: Option<String>,
}

impl Row {
    /// What the row will be in Larder at the instant `now`.
    ///
    /// A time of creation after `now` says nothing: the clock of who wrote it is ahead, or it was
    /// local time without an offset. Such a row counts as loaded at `undated`.
    ///
    /// # Errors
    /// When it is not to be imported.
    pub fn outline(&self, now: Timestamp, undated: Stamp) -> Result<Outline, Unfit> {
        let key = Key::new(&self.key);
        if !key.is_storable() {
            let why = "its key is empty, too long or has control characters";
            return Err(Unfit::Unreadable(why.to_owned()));
        }
        let expires_at = match &self.expires_at {
            Ok(None) => Timestamp::NEVER,
            Ok(Some(millis)) if *millis <= now.as_millis() => return Err(Unfit::Expired),
            Ok(Some(millis)) => Timestamp::from_millis(*millis),
            Err(reason) => return Err(Unfit::Unreadable(format!("its expires_at: {reason}"))),
        };
        if let Err(reason) = &self.value_len {
            return Err(Unfit::Unreadable(reason.clone()));
        }
        let (as_of, loaded_at) = match self.created_at {
            Ok(millis) if millis <= now.as_millis() => {
                let created_at = Timestamp::from_millis(millis);
                (Stamp::at(created_at).max(EARLIEST), created_at)
            }
            Ok(_) => (undated, undated.instant()),
            Err(_) => (EARLIEST, EARLIEST.instant()),
        };
        let entry = Entry::builder(Vec::new(), as_of)
            .loaded_at(loaded_at)
            .expires_at(expires_at)
            .own_lifetime(true)
            .build();
        Ok(Outline { key, entry })
    }
}

impl Outline {
    /// Its key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The entry, with an empty value.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// When it was loaded.
    pub fn as_of(&self) -> Stamp {
        self.entry.as_of()
    }

    /// The entry with the value of its row, as JSON if it can be.
    pub fn with_value(&self, pickle: Vec<u8>, limits: &Limits) -> Imported {
        let (value, content_type, opaque) = match decode(&pickle, limits) {
            Decoded::Json(json) => (json, JSON, None),
            Decoded::Opaque { reason } => (pickle, PICKLE_CONTENT_TYPE, Some(reason)),
        };
        let outline = &self.entry;
        let entry = Entry::builder(value, outline.as_of())
            .loaded_at(outline.loaded_at())
            .expires_at(outline.expires_at())
            .own_lifetime(true)
            .content_type(Some(content_type))
            .build();
        Imported { entry, opaque }
    }
}
