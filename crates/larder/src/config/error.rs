//! What can be wrong with a configuration, said once and without its secrets.

use std::fmt;

use cache_core::Escaped;

use super::place::Place;

/// The phrase in a [`ValueError`]'s reason that stands for the value itself.
const VALUE: &str = "the value";

/// Longest value an error repeats, in characters.
const SHOWN: usize = 80;

/// A configuration that cannot be used: where, which setting, what is wrong and what to write.
///
/// Its text never holds the value of a secret setting or one that came from `${VAR}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", Prefix(self))]
pub struct ConfigError {
    place: Place,
    setting: Option<String>,
    message: String,
}

impl ConfigError {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, setting: None, message: message.into() }
    }

    /// The error is about a setting, which its text names.
    pub(super) fn about(mut self, setting: impl Into<String>) -> Self {
        self.setting = Some(setting.into());
        self
    }

    /// The file, or the name given with the text, the error is in.
    pub fn file(&self) -> Option<&str> {
        match &self.place {
            Place::File { name, .. } => Some(name),
            _ => None,
        }
    }

    /// The line in the file, from 1.
    pub fn line(&self) -> Option<u64> {
        match &self.place {
            Place::File { line, .. } if *line > 0 => Some(*line),
            _ => None,
        }
    }

    /// The column in the line, in characters, from 1.
    pub fn column(&self) -> Option<u64> {
        match &self.place {
            Place::File { line, column, .. } if *line > 0 => Some(*column),
            _ => None,
        }
    }

    /// The environment variable the error is in.
    pub fn variable(&self) -> Option<&str> {
        match &self.place {
            Place::Env { variable } => Some(variable),
            _ => None,
        }
    }

    /// The setting the error is about, such as `cache.memory.size_mb`.
    pub fn setting(&self) -> Option<&str> {
        self.setting.as_deref()
    }
}

struct Prefix<'a>(&'a ConfigError);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConfigError { place, setting, message } = self.0;
        match place {
            Place::File { name, line: 0, .. } => write!(f, "{}: ", clean(name))?,
            Place::File { name, line, column } => write!(f, "{}:{line}:{column}: ", clean(name))?,
            Place::Env { variable } => write!(f, "environment variable {}: ", clean(variable))?,
            Place::Code | Place::Nowhere => {}
        }
        match setting {
            // A message that opens with the setting's own name needs no second one.
            Some(setting) if !message.contains(&format!("`{}`", clean(setting))) => {
                write!(f, "`{}`: ", clean(setting))
            }
            _ => Ok(()),
        }
    }
}

/// A text that is not a duration, a size, a rate or another typed value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.with_value(Some(input)))]
pub struct ValueError {
    input: String,
    reason: String,
}

impl ValueError {
    /// `reason` says "the value" where the value may be put.
    pub(super) fn new(input: &str, reason: impl Into<String>) -> Self {
        Self { input: input.to_owned(), reason: reason.into() }
    }

    /// What is wrong, with "the value" in place of the text that was given.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    fn with_value(&self, value: Option<&str>) -> String {
        name_value(&self.reason, value)
    }
}

/// Puts a value, if it may be shown, in place of "the value".
pub(super) fn name_value(reason: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => reason.replacen(VALUE, &format!("`{}`", clean(value)), 1),
        None => reason.to_owned(),
    }
}

/// Text made safe for a terminal, and not endless.
pub(super) fn clean(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", Escaped(&text[..end])),
        None => Escaped(text).to_string(),
    }
}
