//! Where a setting was written.

use std::{fmt, sync::Arc};

use super::error::clean;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Line 0 is the file as a whole.
    File {
        name: Arc<str>,
        line: u64,
        column: u64,
    },
    Env {
        variable: String,
    },
    Code,
    Nowhere,
}

impl Place {
    pub(super) fn whole_file(name: &str) -> Self {
        Self::File { name: name.into(), line: 0, column: 0 }
    }
}

/// The layer an effective value came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Provenance {
    /// No layer gave it.
    Default,
    /// A file, or a text given in its place.
    File {
        /// The path, or the name given with the text.
        name: String,
        /// From 1.
        line: u64,
    },
    /// An environment variable.
    Env {
        /// The variable, as it is spelled in the environment.
        variable: String,
    },
    /// [`Loader::set`](super::Loader::set).
    Code,
}

impl From<&Place> for Provenance {
    fn from(place: &Place) -> Self {
        match place {
            Place::File { name, line, .. } => Self::File { name: name.to_string(), line: *line },
            Place::Env { variable } => Self::Env { variable: variable.clone() },
            Place::Code => Self::Code,
            Place::Nowhere => Self::Default,
        }
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{}:{line}", clean(name)),
            Self::Env { variable } => f.write_str(&clean(variable)),
            Self::Code => f.write_str("code"),
        }
    }
}
