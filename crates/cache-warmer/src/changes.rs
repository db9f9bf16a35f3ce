//! Change notices: what a refresh has changed in a source's answers, kept in a file and told to others.
//!
//! [`compare`] finds the differences, as a [`ChangeRule`] says which parts count. A [`Change`] says
//! when and where; a [`ChangeLog`] keeps it, and a [`Notifier`] tells it by webhook and by command.
//!
//! ```
//! use cache_warmer::changes::{Change, ChangeRule, compare};
//! use larder::Timestamp;
//!
//! let rule = ChangeRule::new(["/data"], ["/data/*/fetched_at"])?;
//! let old = br#"{"data": [{"rent": 1450, "fetched_at": 1}], "took_ms": 3}"#;
//! let same = br#"{"took_ms": 9, "data": [{"fetched_at": 2, "rent": 1450.0}]}"#;
//! let new = br#"{"data": [{"rent": 1475, "fetched_at": 3}], "took_ms": 4}"#;
//! assert!(compare(old, same, &rule).is_none());
//!
//! let found = compare(old, new, &rule).ok_or("the rent has risen")?;
//! assert_eq!(found.deltas[0].pointer, "/data/0/rent");
//! let mut change = Change::new(Timestamp::from_millis(0), "rents", "rents:a1", found);
//! change.market = Some("boulder-co".into());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod compare;
mod content_hash;
mod log;
mod node;
mod notify;
mod rule;
mod text;
mod walk;

use std::fmt::Write as _;

use larder::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use self::{
    compare::{Comparison, Delta, MAX_COMPARED_BYTES, MAX_DELTAS, compare},
    log::{ChangeList, ChangeLog, ChangeLogError},
    notify::{Command, Notifier, NotifierError, NotifyError, NotifyLimits, Webhook},
    rule::{ChangeRule, InvalidPointer},
};

/// The version of the form that a change has as JSON.
const SCHEMA: &str = "larder.change/1";

/// A change of what a source answers.
///
/// As JSON it has the field `schema`, which is `larder.change/1`, and `at` in RFC 3339; what has
/// another schema cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Change {
    schema: Schema,
    /// When it was found. As text it is kept within the years that RFC 3339 has.
    #[serde(with = "rfc3339")]
    pub at: Timestamp,
    /// The source.
    pub source: String,
    /// The market's slug, if the answer is about one.
    pub market: Option<String>,
    /// The key of the entry.
    pub key: String,
    /// Whether somebody is to be told.
    pub critical: bool,
    /// The version that the source's data had before, if it tells one.
    pub old_version: Option<String>,
    /// The version that it has now, if it tells one.
    pub new_version: Option<String>,
    /// Hash of the content before; see [`Comparison::old_hash`].
    pub old_hash: String,
    /// Hash of the content now.
    pub new_hash: String,
    /// How many parts of the content differ, zero if only the version does.
    pub changed: u64,
    /// The first of the parts that differ.
    pub deltas: Vec<Delta>,
}

impl Change {
    /// A change of the entry with this key, which is not critical, of no market, and without
    /// versions: set these fields where they are known.
    pub fn new(
        at: Timestamp,
        source: impl Into<String>,
        key: impl Into<String>,
        comparison: Comparison,
    ) -> Self {
        let Comparison { deltas, changed, old_hash, new_hash } = comparison;
        Self {
            schema: Schema,
            at,
            source: source.into(),
            market: None,
            key: key.into(),
            critical: false,
            old_version: None,
            new_version: None,
            old_hash,
            new_hash,
            changed,
            deltas,
        }
    }
}

/// Stands for [`SCHEMA`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schema;

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(SCHEMA)
    }
}

impl<'de> Deserialize<'de> for Schema {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = String::deserialize(deserializer)?;
        if found == SCHEMA {
            return Ok(Self);
        }
        Err(de::Error::invalid_value(de::Unexpected::Str(&found), &SCHEMA))
    }
}

/// Instants as text that people and other programs read.
mod rfc3339 {
    use super::{Deserialize, Deserializer, Serializer, Timestamp, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        let millis = at.as_millis();
        let end = if millis < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        let at = jiff::Timestamp::from_millisecond(millis).unwrap_or(end);
        // All of one length: as texts they sort as instants do.
        to.collect_str(&format_args!("{at:.3}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        let at: jiff::Timestamp = text.parse().map_err(de::Error::custom)?;
        Ok(Timestamp::from_millis(at.as_millisecond()))
    }
}

/// Two lower-case digits for each byte.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a text cannot fail.
        _ = write!(text, "{byte:02x}");
        text
    })
}
