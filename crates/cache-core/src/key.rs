//! Keys: what an entry is stored under, the same on every platform, run and version.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::{Escaped, KeyBuilder};

/// Longest key, in bytes, that a tier stores.
pub const MAX_KEY_BYTES: usize = 1_024;

/// The name of an entry: `source:rest`.
///
/// Cloning is a reference count. A key hashes and compares like its text, so maps keyed by `Key`
/// can be asked with a `&str`.
#[derive(Clone)]
pub struct Key {
    text: Arc<str>,
}

/// What can be asked for: a [`Key`], or its text, of which a key is made only if it is not found in
/// memory.
pub trait AsKey {
    /// The text of the key.
    fn key_text(&self) -> &str;

    /// The key.
    fn to_key(&self) -> Key;
}

impl AsKey for Key {
    fn key_text(&self) -> &str {
        &self.text
    }

    fn to_key(&self) -> Key {
        self.clone()
    }
}

impl AsKey for str {
    fn key_text(&self) -> &str {
        self
    }

    fn to_key(&self) -> Key {
        Key::new(self)
    }
}

impl AsKey for String {
    fn key_text(&self) -> &str {
        self
    }

    fn to_key(&self) -> Key {
        Key::new(self)
    }
}

/// What leads to something that can be asked for can be asked for.
macro_rules! through {
    ($($pointer:ty),*) => {$(
        impl<Q: AsKey + ?Sized> AsKey for $pointer {
            fn key_text(&self) -> &str {
                (**self).key_text()
            }

            fn to_key(&self) -> Key {
                (**self).to_key()
            }
        }
    )*};
}

through!(&Q, Box<Q>, Arc<Q>);

impl AsKey for Cow<'_, str> {
    fn key_text(&self) -> &str {
        self
    }

    fn to_key(&self) -> Key {
        Key::new(self)
    }
}

impl Key {
    /// The key with exactly this text; use [`Key::builder`] to make one from parts.
    ///
    /// Every text is accepted; [`Key::is_storable`] tells whether tiers will store it.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: Arc::from(text.as_ref()) }
    }

    /// Starts a key of `source` from named parts that cannot be mistaken for one another.
    pub fn builder(source: impl fmt::Display) -> KeyBuilder {
        KeyBuilder::new(source)
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Everything before the first `:`.
    pub fn source(&self) -> &str {
        source(&self.text)
    }

    /// Whether its first segments are those of `prefix`, whole segments only: `census:acs` is below
    /// `census`, `census_acs` is not.
    pub fn is_below(&self, prefix: &str) -> bool {
        let rest = self.text.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    /// Every prefix of whole segments, from the source to the whole text.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        prefixes(&self.text)
    }

    /// Whether tiers store values under this key: not empty, no control characters, at most
    /// [`MAX_KEY_BYTES`] bytes. Values of other keys are loaded and returned, never stored.
    pub fn is_storable(&self) -> bool {
        // Most keys are plain, which is found out faster than what each character is.
        let is_plain = || self.text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        !self.text.is_empty()
            && self.text.len() <= MAX_KEY_BYTES
            && (is_plain() || !self.text.chars().any(char::is_control))
    }
}

/// The source that the key with this text is of.
pub(crate) fn source(text: &str) -> &str {
    text.split_once(':').map_or(text, |(source, _)| source)
}

/// Every prefix of whole segments, from the source to the whole text.
pub(crate) fn prefixes(text: &str) -> impl Iterator<Item = &str> {
    let ends = text.match_indices(':').map(|(at, _)| at);
    ends.chain([text.len()]).filter_map(|end| text.get(..end))
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&Key> for Key {
    fn from(key: &Key) -> Self {
        key.clone()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(&self.text).fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_everything_before_the_first_colon() {
        assert_eq!(Key::new("census:acs:2022").source(), "census");
        assert_eq!(Key::new("census").source(), "census");
        assert_eq!(Key::new(":x").source(), "");
    }

    #[test]
    fn keys_with_controls_empty_or_too_long_are_not_storable() {
        assert!(Key::new("a:b").is_storable());
        assert!(Key::new("x".repeat(MAX_KEY_BYTES)).is_storable());
        for text in [String::new(), "a\nb".into(), "a\u{85}b".into(), "x".repeat(1_025)] {
            assert!(!Key::new(&text).is_storable(), "{text:?}");
        }
    }

    #[test]
    fn a_key_prints_without_control_characters() {
        assert_eq!(Key::new("a:\u{1b}[31m").to_string(), "a:\\u{1b}[31m");
    }
}
