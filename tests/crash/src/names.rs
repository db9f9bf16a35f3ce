//! What the writers write about: keys, tags and sources, and values that tell who wrote them.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use larder::{Filter, Key, Selector, Tag};

use tier_testkit::Dice;

use crate::Result;

/// Most writers at a time.
pub(crate) const WRITERS: usize = 3;

/// Sources: one of each writer, and one of all.
const SOURCES: [&str; WRITERS + 1] = ["w0", "w1", "w2", "all"];
/// The one of all.
pub(crate) const SHARED: usize = WRITERS;
/// Keys of a source.
pub(crate) const KEYS: usize = 40;
/// Groups of a source, each with a tag of its own.
pub(crate) const GROUPS: usize = 4;
/// Tags that change from one value of a key to the next.
const KINDS: u32 = 3;
/// Largest value.
const LARGEST: usize = 60_000;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) source: usize,
    pub(crate) number: usize,
}

impl Name {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let of = |source| (0..KEYS).map(move |number| Self { source, number });
        (0..SOURCES.len()).flat_map(of)
    }

    pub(crate) fn key(self) -> Key {
        Key::new(self.to_string())
    }

    /// It never changes, so that what a purge by tag covers is known without knowing the value.
    pub(crate) fn group(self) -> Scope {
        Scope::Group(self.source, self.number % GROUPS)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:k{}", SOURCES[self.source], self.number)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(":k").and_then(|(source, number)| {
            let source = SOURCES.iter().position(|known| *known == source)?;
            let number = number.parse().ok().filter(|number| *number < KEYS)?;
            Some(Self { source, number })
        });
        parts.ok_or_else(|| format!("`{text}` is no key"))
    }
}

/// What an invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Key(Name),
    Group(usize, usize),
    Source(usize),
}

impl Scope {
    pub(crate) fn covers(self, name: Name) -> bool {
        match self {
            Self::Key(key) => key == name,
            Self::Group(..) => name.group() == self,
            Self::Source(source) => name.source == source,
        }
    }

    /// Two filters select a group; which it is must make no difference.
    pub(crate) fn selector(self, narrow: bool) -> Result<Selector> {
        Ok(match self {
            Self::Key(name) => Selector::Key(name.key()),
            Self::Group(source, _) if narrow => {
                Selector::from(&Filter::source(SOURCES[source]).and_tag(self.tag()?))
            }
            Self::Group(..) => Selector::from(&Filter::tag(self.tag()?)),
            Self::Source(source) => Selector::from(&Filter::source(SOURCES[source])),
        })
    }

    fn tag(self) -> Result<Tag> {
        Ok(Tag::new(self.to_string())?)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(name) => name.fmt(f),
            Self::Group(source, group) => write!(f, "{}/{group}", SOURCES[*source]),
            Self::Source(source) => f.write_str(SOURCES[*source]),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let source = |name| SOURCES.iter().position(|known| *known == name);
        let scope = if text.contains(':') {
            Some(Self::Key(text.parse()?))
        } else if let Some((name, group)) = text.split_once('/') {
            source(name).zip(group.parse().ok()).map(|(source, group)| Self::Group(source, group))
        } else {
            source(text).map(Self::Source)
        };
        scope.ok_or_else(|| format!("`{text}` covers nothing"))
    }
}

/// Names of the sources.
pub(crate) fn sources() -> impl Iterator<Item = &'static str> {
    SOURCES.into_iter()
}

/// All tags that there are.
pub(crate) fn tags() -> Result<Vec<Tag>> {
    let groups = (0..SOURCES.len())
        .flat_map(|source| (0..GROUPS).map(move |group| Scope::Group(source, group).to_string()));
    let kinds = (0..KINDS).map(|kind| format!("kind-{kind}"));
    groups.chain(kinds).map(|text| Ok(Tag::new(text)?)).collect()
}

/// An operation: the process that does it, and its number there. Of a value: the one that set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) life: u32,
    pub(crate) number: u32,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.life, self.number)
    }
}

impl Id {
    /// The tags of the value that it sets, sorted.
    pub(crate) fn tags(self, name: Name) -> Result<Vec<Tag>> {
        let kind = Tag::new(format!("kind-{}", self.number % KINDS))?;
        let mut tags = vec![name.group().tag()?, kind];
        tags.sort_unstable();
        Ok(tags)
    }

    /// The value that it sets: who, what, and a filler of any size, so that no part of another value
    /// can be taken for a part of this one.
    pub(crate) fn value(self, seed: u64, name: Name) -> Bytes {
        let operation = u64::from(self.life) << 32 | u64::from(self.number);
        let key = (name.source * KEYS + name.number) as u64;
        let mut dice = Dice::stream(Dice::stream(seed, operation).throw(), key);
        let least = 10 << dice.below(13);
        let size = (least + dice.below(least)).min(LARGEST);
        let mut value = format!("{} {} {name}\n", self.life, self.number).into_bytes();
        while value.len() < size {
            value.extend(dice.throw().to_le_bytes());
        }
        value.into()
    }

    /// Who set this value of the key, which is what was set as a whole.
    pub(crate) fn of(seed: u64, name: Name, value: &[u8]) -> Result<Self, String> {
        let head = value.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let head = String::from_utf8_lossy(head.get(..40).unwrap_or(head));
        let mut parts = head.split(' ');
        let mut number = || parts.next()?.parse().ok();
        let (Some(life), Some(number)) = (number(), number()) else {
            return Err(format!("{name} has a value that nobody wrote: {head:?}"));
        };
        let id = Self { life, number };
        if id.value(seed, name) == value {
            Ok(id)
        } else {
            let len = value.len();
            Err(format!("{name} has {len} bytes that begin as {head:?} and are not what {id} set"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_scopes_are_read_as_they_are_written() {
        for name in Name::all() {
            assert_eq!(name.to_string().parse(), Ok(name));
            for scope in [Scope::Key(name), name.group(), Scope::Source(name.source)] {
                assert_eq!(scope.to_string().parse(), Ok(scope));
                assert!(scope.covers(name));
                assert!(scope.selector(true).unwrap().may_select(&name.key()));
            }
        }
        assert!("w3:k1".parse::<Name>().is_err() && "w0:k99".parse::<Name>().is_err());
    }

    #[test]
    fn a_value_that_is_not_whole_is_told() {
        let (name, id) = (Name { source: 1, number: 7 }, Id { life: 3, number: 9 });
        let value = id.value(5, name);
        assert_eq!(Id::of(5, name, &value), Ok(id));
        assert!(Id::of(5, name, &value[..value.len() - 1]).is_err());
        assert!(Id::of(5, Name { source: 1, number: 8 }, &value).is_err());
        assert!(Id::of(6, name, &value).is_err() || value.len() < 20);
        assert!(Id::of(5, name, b"").is_err());
    }
}
