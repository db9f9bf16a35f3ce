//! The rows of a JSON document: found by a pointer, and taken out or put in as they were written,
//! digit for digit.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// A JSON pointer (RFC 6901), such as `/data/rows`; the empty one is the whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

impl Pointer {
    /// An error says what is wrong with the text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let Some(steps) = text.strip_prefix('/') else {
            return Err(format!(
                "a JSON pointer begins with `/`, such as /data/rows; not `{text}`"
            ));
        };
        // In this order: `~01` is `~1`, not `/`.
        Ok(Self(steps.split('/').map(|it| it.replace("~1", "/").replace("~0", "~")).collect()))
    }

    /// What it leads to.
    pub(crate) fn find<'a>(&self, document: &'a RawValue) -> Option<&'a RawValue> {
        self.0.iter().try_fold(document, |value, step| child(value, step))
    }

    /// The document with another value where it leads to, which must be there.
    pub(crate) fn replace(&self, document: &RawValue, value: &str) -> Option<String> {
        replace(&self.0, document, value)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.0 {
            write!(f, "/{}", step.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

/// A whole document.
pub(crate) fn parse(value: &[u8]) -> Result<&RawValue, String> {
    // Not the decoder's own text, which may hold some of the value.
    serde_json::from_slice(value).map_err(|error| {
        format!("it is no JSON at line {}, column {}", error.line(), error.column())
    })
}

/// The members of an object, in their order.
pub(crate) fn members(object: &RawValue) -> Option<Vec<(String, &RawValue)>> {
    serde_json::from_str::<Members<'_>>(object.get()).ok().map(|members| members.0)
}

/// The items of an array.
pub(crate) fn items(array: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(array.get()).ok()
}

/// An array of these.
pub(crate) fn array<'a>(items: impl IntoIterator<Item = &'a RawValue>) -> String {
    let items: Vec<&str> = items.into_iter().map(RawValue::get).collect();
    format!("[{}]", items.join(","))
}

/// An object of these.
pub(crate) fn object<'a>(members: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let member = |(name, value): (&str, &str)| format!("{}:{value}", quoted(name));
    format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
}

/// A text, or a number or switch as it is written; `None` for anything else.
pub(crate) fn text(value: &RawValue) -> Option<String> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str(value.get()).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(value.get().to_owned()),
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn child<'a>(value: &'a RawValue, step: &str) -> Option<&'a RawValue> {
    match value.get().as_bytes().first()? {
        b'{' => members(value)?.into_iter().rev().find(|(name, _)| name == step).map(|it| it.1),
        b'[' => items(value)?.get(step.parse::<usize>().ok()?).copied(),
        _ => None,
    }
}

fn replace(steps: &[String], document: &RawValue, value: &str) -> Option<String> {
    let Some((step, rest)) = steps.split_first() else { return Some(value.to_owned()) };
    let changed = replace(rest, child(document, step)?, value)?;
    if let Some(members) = members(document) {
        let other = |(name, old): &(String, &RawValue)| {
            (name.clone(), if name == step { changed.clone() } else { old.get().to_owned() })
        };
        let members: Vec<(String, String)> = members.iter().map(other).collect();
        return Some(object(members.iter().map(|(name, value)| (&**name, &**value))));
    }
    let at = step.parse::<usize>().ok()?;
    let items = items(document)?.into_iter().enumerate();
    let items: Vec<&str> =
        items.map(|(place, old)| if place == at { &*changed } else { old.get() }).collect();
    Some(format!("[{}]", items.join(",")))
}

struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(document: &str, pointer: &str) -> Option<String> {
        let document = parse(document.as_bytes()).unwrap();
        Some(Pointer::parse(pointer).unwrap().find(document)?.get().to_owned())
    }

    #[test]
    fn pointers_lead_as_rfc_6901_says() {
        let document = r#"{"a": [1.50, {"b/c": 2}], "m~n": 3, "": 4}"#;
        for (pointer, value) in
            [("/a/0", "1.50"), ("/a/1/b~1c", "2"), ("/m~0n", "3"), ("/", "4"), ("", document)]
        {
            assert_eq!(found(document, pointer).as_deref(), Some(value), "{pointer}");
            assert_eq!(Pointer::parse(pointer).unwrap().to_string(), pointer);
        }
        for pointer in ["/a/2", "/a/x", "/b", "/a/0/0"] {
            assert_eq!(found(document, pointer), None, "{pointer}");
        }
        assert!(Pointer::parse("a").is_err());
    }

    #[test]
    fn what_is_not_replaced_stays_as_it_was_written() {
        let document = r#"{"z": 1e2, "a": {"rows": [1], "n": 0.10}, "y": [true, [2]]}"#;
        let replaced = |pointer: &str| {
            Pointer::parse(pointer).unwrap().replace(parse(document.as_bytes()).unwrap(), "[]")
        };
        let one = r#"{"z":1e2,"a":{"rows":[],"n":0.10},"y":[true, [2]]}"#;
        assert_eq!(replaced("/a/rows").as_deref(), Some(one));
        let other = r#"{"z":1e2,"a":{"rows": [1], "n": 0.10},"y":[true,[]]}"#;
        assert_eq!(replaced("/y/1").as_deref(), Some(other));
        assert_eq!(replaced("/nowhere"), None);
    }

    #[test]
    fn scalars_have_a_text() {
        let text_of = |json: &str| text(parse(json.as_bytes()).unwrap());
        assert_eq!(text_of(r#""a\"b""#).as_deref(), Some("a\"b"));
        assert_eq!(text_of("14500").as_deref(), Some("14500"));
        for json in ["null", "[]", "{}"] {
            assert_eq!(text_of(json), None, "{json}");
        }
    }
}
