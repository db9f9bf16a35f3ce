//! Builds keys from named parts so that different inputs never give the same key.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write},
};

use sha2::{Digest, Sha256};

use crate::Key;

/// Parameters that join to more characters than this are replaced by a digest.
const MAX_PARAM_CHARS: usize = 200;
/// Hexadecimal digits of the digest.
const DIGEST_HEX: usize = 16;
/// Stands for a named segment that was not given, when a later one was.
const ABSENT: &str = "-";

/// Kinds of place a data set can be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Geography {
    /// Core-based statistical area (metropolitan or micropolitan).
    Cbsa,
    /// County or county equivalent, by FIPS code.
    County,
    /// Incorporated place or census-designated place.
    Place,
    /// State or territory.
    State,
    /// Census tract.
    Tract,
    /// ZIP code tabulation area.
    Zcta,
}

impl Geography {
    /// The word used in keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cbsa => "cbsa",
            Self::County => "county",
            Self::Place => "place",
            Self::State => "state",
            Self::Tract => "tract",
            Self::Zcta => "zcta",
        }
    }
}

/// Builds a [`Key`] from named segments and parameters.
///
/// Segments appear in one fixed order, whatever the order of calls; parameters are sorted by name.
/// `:`, `&`, `=`, `%` and control characters inside values are percent-encoded, so no value can
/// imitate a separator:
///
/// ```
/// use cache_core::Key;
///
/// let key = Key::builder("census").param("year", 2022).param("cbsa", 14500).build();
/// assert_eq!(key.as_str(), "census:cbsa=14500&year=2022");
///
/// let key = Key::builder("census")
///     .dataset("acs").period("5yr").year(2022).cbsa(14500).table("B01001")
///     .build();
/// assert_eq!(key.as_str(), "census:acs:5yr:2022:cbsa:14500:B01001");
/// ```
///
/// Parameters that join to more than 200 characters become the first 16 hexadecimal digits of
/// their SHA-256.
#[derive(Clone, Debug)]
#[must_use]
pub struct KeyBuilder {
    source: String,
    dataset: Option<String>,
    period: Option<String>,
    when: Option<String>,
    geography: Option<(&'static str, String)>,
    table: Option<String>,
    params: BTreeMap<String, String>,
}

impl KeyBuilder {
    pub(crate) fn new(source: impl Display) -> Self {
        Self {
            source: encode(&source.to_string()),
            dataset: None,
            period: None,
            when: None,
            geography: None,
            table: None,
            params: BTreeMap::new(),
        }
    }

    /// The data set within the source, such as `acs`.
    pub fn dataset(mut self, dataset: impl Display) -> Self {
        self.dataset = Some(segment(&dataset.to_string()));
        self
    }

    /// The length or frequency of the series, such as `5yr` or `monthly`.
    pub fn period(mut self, period: impl Display) -> Self {
        self.period = Some(segment(&period.to_string()));
        self
    }

    /// The year; replaces a range given before.
    pub fn year(mut self, year: i32) -> Self {
        self.when = Some(year.to_string());
        self
    }

    /// A range of dates, `start..end`; replaces a year given before.
    pub fn range(mut self, start: impl Display, end: impl Display) -> Self {
        let bound = |date: String| encode(&date).replace('.', "%2E");
        self.when = Some(format!("{}..{}", bound(start.to_string()), bound(end.to_string())));
        self
    }

    /// The place the data is about: its kind and its identifier.
    pub fn geography(mut self, kind: Geography, id: impl Display) -> Self {
        self.geography = Some((kind.as_str(), segment(&id.to_string())));
        self
    }

    /// Short for [`KeyBuilder::geography`] with [`Geography::Cbsa`].
    pub fn cbsa(self, id: impl Display) -> Self {
        self.geography(Geography::Cbsa, id)
    }

    /// Short for [`KeyBuilder::geography`] with [`Geography::County`].
    pub fn county(self, id: impl Display) -> Self {
        self.geography(Geography::County, id)
    }

    /// The table or variable, such as `B01001`.
    pub fn table(mut self, table: impl Display) -> Self {
        self.table = Some(segment(&table.to_string()));
        self
    }

    /// A parameter; a second one of the same name replaces the first.
    pub fn param(mut self, name: impl Display, value: impl Display) -> Self {
        self.params.insert(encode(&name.to_string()), encode(&value.to_string()));
        self
    }

    /// The key.
    pub fn build(self) -> Key {
        let (kind, place) = self.geography.unzip();
        let segments =
            [self.dataset, self.period, self.when, kind.map(Into::into), place, self.table];
        let given = segments.iter().rposition(Option::is_some).map_or(0, |last| last + 1);

        let mut text = self.source;
        for part in segments.into_iter().take(given) {
            text.push(':');
            text.push_str(part.as_deref().unwrap_or(ABSENT));
        }
        if !self.params.is_empty() || given == 0 {
            text.push(':');
            text.push_str(&join(&self.params));
        }
        Key::new(text)
    }
}

fn join(params: &BTreeMap<String, String>) -> String {
    let joined =
        params.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&");
    if joined.chars().count() <= MAX_PARAM_CHARS {
        return joined;
    }
    Sha256::digest(joined.as_bytes()).iter().take(DIGEST_HEX / 2).fold(
        String::with_capacity(DIGEST_HEX),
        |mut hex, byte| {
            // Writing to a String cannot fail.
            _ = write!(hex, "{byte:02x}");
            hex
        },
    )
}

/// Encodes a segment so that it is never empty, never the absent mark and never like a digest.
fn segment(value: &str) -> String {
    let looks_like_digest = value.len() == DIGEST_HEX
        && value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match value.as_bytes() {
        [] => "%".to_owned(),
        [first, ..] if looks_like_digest || value == ABSENT => {
            format!("%{first:02X}{}", value.get(1..).unwrap_or_default())
        }
        _ => encode(value),
    }
}

fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, ':' | '&' | '=' | '%') || c.is_control() {
            let mut buffer = [0; 4];
            for byte in c.encode_utf8(&mut buffer).bytes() {
                // Writing to a String cannot fail.
                _ = write!(encoded, "%{byte:02X}");
            }
        } else {
            encoded.push(c);
        }
    }
    encoded
}

impl Display for Geography {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
