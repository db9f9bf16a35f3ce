//! Requests: what a caller wants of a source, before it becomes a key.

use std::{collections::BTreeMap, fmt::Display};

use crate::{Key, Tag};

/// A question to a source: its parameters, and the tags its answer will carry.
///
/// The same source and parameters always give the same key. Secrets are no parameters: they belong
/// to the source's configuration and never enter a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    source: String,
    params: BTreeMap<String, String>,
    context: BTreeMap<String, String>,
    tags: Vec<Tag>,
}

impl Request {
    /// A question to `source` without parameters.
    pub fn new(source: impl Into<String>) -> Self {
        Self {
            source: source.into(),
            params: BTreeMap::new(),
            context: BTreeMap::new(),
            tags: Vec::new(),
        }
    }

    /// Adds a parameter; one of the same name is replaced.
    #[must_use]
    pub fn param(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.params.insert(name.into(), value.to_string());
        self
    }

    /// Adds a value that URL templates may use but that does not tell answers apart, such as the
    /// spelling of a market whose code is a parameter already.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.context.insert(name.into(), value.to_string());
        self
    }

    /// Adds a tag that the answer will be stored with.
    #[must_use]
    pub fn tag(mut self, tag: Tag) -> Self {
        self.tags.push(tag);
        self
    }

    /// The source asked.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Parameters that are part of the key.
    pub fn params(&self) -> &BTreeMap<String, String> {
        &self.params
    }

    /// The value of a parameter or, failing that, of the context.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.params.get(name).or_else(|| self.context.get(name)).map(String::as_str)
    }

    /// Tags of the answer.
    pub fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// The key of the answer.
    pub fn key(&self) -> Key {
        self.params
            .iter()
            .fold(Key::builder(&self.source), |key, (name, value)| key.param(name, value))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_parameters_reach_the_key() {
        let request = Request::new("census")
            .param("cbsa", 14500)
            .context("name", "Boulder, CO")
            .param("year", 2022);
        assert_eq!(request.key().as_str(), "census:cbsa=14500&year=2022");
        assert_eq!(request.value("name"), Some("Boulder, CO"));
        assert_eq!(request.value("cbsa"), Some("14500"));
        assert_eq!(request.value("county"), None);
    }
}
