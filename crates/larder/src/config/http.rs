//! How a source is asked over HTTP, and what counts as its answer.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    error::ValueError,
    redact,
    text::{self, FromText},
    values::Secret,
};

/// An HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(u16);

impl Status {
    /// The status with this number; 100 to 599.
    pub const fn new(code: u16) -> Self {
        Self(code)
    }

    /// Its number.
    pub const fn code(self) -> u16 {
        self.0
    }
}

impl FromText for Status {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        let code = text.trim().parse().ok().filter(|code| (100..600).contains(code));
        code.map(Self).ok_or_else(|| {
            ValueError::new(text, "the value is no HTTP status; write for example 404")
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::text(deserializer)
    }
}

/// `cache.sources.NAME.auth`: the key that the API wants, and where: in a header, in the query, or in a
/// field of the JSON or form that is posted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct AuthConfig {
    /// The header.
    #[serde(deserialize_with = "text::text")]
    pub header: Option<String>,
    /// The parameter of the query.
    #[serde(deserialize_with = "text::text")]
    pub query: Option<String>,
    /// The field.
    #[serde(deserialize_with = "text::text")]
    pub field: Option<String>,
    /// The key; in a header all that it holds, such as `Bearer abc`.
    #[serde(deserialize_with = "text::text")]
    pub value: Option<Secret>,
}

/// `cache.sources.NAME.response`: which responses are answers; others are errors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ResponseConfig {
    /// Default: 200 and 203.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub statuses: Vec<Status>,
    /// Media types, `text/*` for all of a kind. Default: any but HTML's.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub content_types: Vec<String>,
    /// JSON pointers to what must be there.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub must_exist: Vec<String>,
    /// JSON pointers to what must not be there.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub must_not_exist: Vec<String>,
    /// JSON pointers to what must have this value.
    pub must_equal: BTreeMap<String, String>,
    /// JSON pointer; an answer with nothing there says that there is nothing. `""`: the whole answer.
    #[serde(deserialize_with = "text::text")]
    pub empty_is_absent: Option<String>,
    /// JSON pointers to what is left out of what is stored, such as the request, with its key, that an
    /// API repeats; `null` is there instead.
    #[serde(deserialize_with = "text::list", serialize_with = "write_list")]
    pub drop: Vec<String>,
}

impl Default for ResponseConfig {
    fn default() -> Self {
        Self {
            statuses: vec![Status(200), Status(203)],
            content_types: Vec::new(),
            must_exist: Vec::new(),
            must_not_exist: Vec::new(),
            must_equal: BTreeMap::new(),
            empty_is_absent: None,
            drop: Vec::new(),
        }
    }
}

/// `cache.sources.NAME.version_from`: where answers say which version of the data they are from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct VersionFromConfig {
    /// A header.
    #[serde(deserialize_with = "text::text")]
    pub header: Option<String>,
    /// A JSON pointer.
    #[serde(deserialize_with = "text::text")]
    pub pointer: Option<String>,
}

/// `cache.sources.NAME.probe`: what tells the version of the data without asking for any.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ProbeConfig {
    /// What is asked.
    #[serde(deserialize_with = "text::text", serialize_with = "redact::write_url")]
    pub url: Option<String>,
    /// The header of a HEAD that has it. Default: `ETag`, else `Last-Modified`.
    #[serde(deserialize_with = "text::text")]
    pub header: Option<String>,
    /// The JSON pointer to it in the answer to a GET.
    #[serde(deserialize_with = "text::text")]
    pub pointer: Option<String>,
    /// How often it is asked. Default: 6 hours.
    #[serde(deserialize_with = "text::text", serialize_with = "text::write_duration")]
    pub check_every: Duration,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self { url: None, header: None, pointer: None, check_every: Duration::from_hours(6) }
    }
}

impl fmt::Debug for ProbeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeConfig")
            .field("url", &self.url.as_deref().map(redact::redact_url))
            .field("header", &self.header)
            .field("pointer", &self.pointer)
            .field("check_every", &self.check_every)
            .finish()
    }
}

/// `cache.sources.NAME.batch`: how one request asks for several members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct BatchConfig {
    /// The placeholder, or parameter, that may name several at once.
    #[serde(deserialize_with = "text::text")]
    pub param: Option<String>,
    /// Most members in one request, at least 2. Default: 50.
    #[serde(deserialize_with = "text::text")]
    pub max: u32,
    /// What stands between two. Default: a comma.
    #[serde(deserialize_with = "text::text")]
    pub separator: String,
    /// JSON pointer to the array of rows in an answer. Default: the answer is that array.
    #[serde(deserialize_with = "text::text")]
    pub rows: String,
    /// Where a row names its member: a column, a field, or a JSON pointer. Default: as `param`.
    #[serde(deserialize_with = "text::text")]
    pub member: Option<String>,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { param: None, max: 50, separator: ",".to_owned(), rows: String::new(), member: None }
    }
}

pub(super) fn write_list<S: Serializer, T: fmt::Display>(
    items: &[T],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    serializer.collect_str(&items.join(", "))
}
