//! What a read found.

use std::fmt;

use bytes::Bytes;
use cache_core::Entry;

/// Who answered a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServedBy {
    /// The tier of this name.
    Tier(&'static str),
    /// The origin.
    Origin,
}

impl fmt::Display for ServedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tier(name) => name,
            Self::Origin => "origin",
        })
    }
}

/// An entry, and who had it.
#[derive(Clone, Debug)]
pub struct Hit {
    entry: Entry,
    served_by: ServedBy,
}

impl Hit {
    pub(crate) const fn new(entry: Entry, served_by: ServedBy) -> Self {
        Self { entry, served_by }
    }

    /// The value.
    pub fn value(&self) -> &Bytes {
        self.entry.value()
    }

    /// The entry: value and metadata.
    pub const fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The entry alone.
    pub fn into_entry(self) -> Entry {
        self.entry
    }

    /// Who had it.
    pub const fn served_by(&self) -> ServedBy {
        self.served_by
    }
}
