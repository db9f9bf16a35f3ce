//! JSON documents in the form in which they are compared.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

use super::rule::{Place, Scope};

/// A part of a document. `serde_json::Value` takes several times the memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Node<'d> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'d, str>),
    Array(Vec<Self>),
    /// Sorted by name, without names that are there twice.
    Object(Vec<(Cow<'d, str>, Self)>),
}

/// A number by its value: each has one form only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Integer(i64),
    /// Larger than that.
    Large(u64),
    /// The bits of a float that is neither.
    Float(u64),
}

impl From<u64> for Number {
    fn from(integer: u64) -> Self {
        i64::try_from(integer).map_or(Self::Large(integer), Self::Integer)
    }
}

impl From<f64> for Number {
    fn from(float: f64) -> Self {
        if float.fract() == 0.0 && float.abs() < 2_f64.powi(64) {
            let integer = float as i128;
            if let Ok(integer) = i64::try_from(integer) {
                return Self::Integer(integer);
            }
            if let Ok(integer) = u64::try_from(integer) {
                return Self::Large(integer);
            }
        }
        Self::Float(float.to_bits())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Integer(integer) => integer.fmt(f),
            Self::Large(integer) => integer.fmt(f),
            Self::Float(bits) => serde_json::Value::from(f64::from_bits(bits)).fmt(f),
        }
    }
}

impl Node<'_> {
    /// Visits what is directly below and in scope.
    pub(super) fn each<'n>(
        &'n self,
        scope: &Scope<'_>,
        mut visit: impl FnMut(Place<'n>, &'n Self, &Scope<'_>),
    ) {
        let mut step = |place, part| {
            if let Some(scope) = scope.below(place) {
                visit(place, part, &scope);
            }
        };
        match self {
            Self::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    step(Place::Item(at), item);
                }
            }
            Self::Object(members) => {
                for (name, member) in members {
                    step(Place::Member(name), member);
                }
            }
            _ => {}
        }
    }
}

impl<'de> Deserialize<'de> for Node<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Nodes)
    }
}

struct Nodes;

impl<'de> Visitor<'de> for Nodes {
    type Value = Node<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Node<'de>, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node<'de>, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node<'de>, E> {
        Ok(Node::Number(Number::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node<'de>, E> {
        Ok(Node::Number(value.into()))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node<'de>, E> {
        Ok(Node::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Node<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = array.next_element()? {
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(Node::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Node<'de>)> = Vec::new();
        while let Some((Name(name), member)) = object.next_entry()? {
            members.push((name, member));
        }
        // The last of several counts: in a stable order it is the first.
        members.reverse();
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        members.dedup_by(|(one, _), (other, _)| one == other);
        members.shrink_to_fit();
        Ok(Node::Object(members))
    }
}

/// The name of a member, borrowed from the document where it has no escapes.
struct Name<'d>(Cow<'d, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(Name(Cow::Owned(name.to_owned())))
    }
}
