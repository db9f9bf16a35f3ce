//! Parts of a JSON document, found without reading numbers: they stay as they were written.

use std::{borrow::Cow, cmp::Reverse, fmt, ops::Range};

use serde::{
    Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// A JSON pointer (RFC 6901); the empty one is the whole document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

impl Pointer {
    /// `None` if it is neither empty nor begins with `/`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        // In this order: `~01` is `~1`, not `/`.
        let step = |step: &str| step.replace("~1", "/").replace("~0", "~");
        Some(Self(text.strip_prefix('/')?.split('/').map(step).collect()))
    }

    /// That to the field `name`.
    pub(crate) fn field(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// What it leads to.
    pub(crate) fn find<'a>(&self, document: &'a RawValue) -> Option<&'a RawValue> {
        self.0.iter().try_fold(document, |value, step| child(value, step))
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

/// The items of an array.
pub(crate) fn items(array: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(array.get()).ok()
}

/// A text, or a number or switch as it is written; `None` for anything else.
pub(crate) fn text(value: &RawValue) -> Option<String> {
    match value.get().as_bytes().first()? {
        b'"' => serde_json::from_str(value.get()).ok(),
        b'{' | b'[' | b'n' => None,
        _ => Some(value.get().to_owned()),
    }
}

/// What stands before and after `part` of `document`.
pub(crate) fn around<'a>(document: &'a RawValue, part: &RawValue) -> Option<(&'a str, &'a str)> {
    let (document, part) = (document.get(), part.get());
    let start = part.as_ptr().addr().checked_sub(document.as_ptr().addr())?;
    Some((document.get(..start)?, document.get(start + part.len()..)?))
}

/// The document with `null` for what the pointers lead to; `None` if that is nothing.
pub(crate) fn without(document: &RawValue, pointers: &[Pointer]) -> Option<String> {
    let place = |at: &Pointer| {
        let part = at.find(document)?;
        let before = around(document, part)?.0.len();
        Some(before..before + part.get().len())
    };
    let mut places: Vec<Range<usize>> = pointers.iter().filter_map(place).collect();
    if places.is_empty() {
        return None;
    }
    // The outer one first of those that begin at one place.
    places.sort_by_key(|place| (place.start, Reverse(place.end)));
    let (text, mut kept, mut end) = (document.get(), String::new(), 0);
    for place in places {
        // What is in one that has gone has gone with it.
        if place.start < end {
            continue;
        }
        kept.push_str(text.get(end..place.start)?);
        kept.push_str("null");
        end = place.end;
    }
    kept.push_str(text.get(end..)?);
    Some(kept)
}

/// Whether it is this value, however it is written.
pub(crate) fn is_equal(value: &RawValue, wanted: &Value) -> bool {
    let is_scalar = !wanted.is_array() && !wanted.is_object();
    // What is large need not be read to know that.
    if is_scalar && value.get().starts_with(['[', '{']) {
        return false;
    }
    serde_json::from_str::<Value>(value.get()).is_ok_and(|value| value == *wanted)
}

fn child<'a>(value: &'a RawValue, step: &str) -> Option<&'a RawValue> {
    let mut reader = serde_json::Deserializer::from_str(value.get());
    match value.get().as_bytes().first()? {
        b'{' => reader.deserialize_map(Step(step)).ok()?,
        b'[' => reader.deserialize_seq(Step(step)).ok()?,
        _ => None,
    }
}

/// Reads past all but one member, so that large documents take no memory.
struct Step<'s>(&'s str);

impl<'de> Visitor<'de> for Step<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        // The last of several counts.
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let wanted = self.0.parse::<usize>().ok();
        let (mut found, mut place) = (None, 0);
        loop {
            if wanted == Some(place) {
                found = array.next_element()?;
                if found.is_none() {
                    return Ok(None);
                }
            } else if array.next_element::<IgnoredAny>()?.is_none() {
                return Ok(found);
            }
            place += 1;
        }
    }
}

/// Whether there is nothing in it: `null`, or an array, object or text without anything.
pub(crate) fn is_empty(value: &RawValue) -> bool {
    let text = value.get();
    let inside = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    match text.as_bytes().first() {
        Some(b'n') => true,
        Some(b'"') => inside.is_empty(),
        Some(b'[' | b'{') => inside.trim_ascii().is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn pointers_lead_as_rfc_6901_says() {
        let document = r#"{"a": [1.50, {"b/c": 2}], "m~n": 3, "": 4, "d": 5, "d": 6}"#;
        let found = |pointer: &str| Pointer::parse(pointer).unwrap().find(raw(document));
        for (pointer, value) in
            [("/a/0", "1.50"), ("/a/1/b~1c", "2"), ("/m~0n", "3"), ("/", "4"), ("", document)]
        {
            assert_eq!(found(pointer).map(RawValue::get), Some(value), "{pointer}");
            assert_eq!(Pointer::parse(pointer).unwrap().to_string(), pointer);
        }
        assert_eq!(found("/d").map(RawValue::get), Some("6"), "the last one counts");
        for pointer in ["/a/2", "/a/x", "/b", "/a/0/0"] {
            assert!(found(pointer).is_none(), "{pointer}");
        }
        assert_eq!(Pointer::parse("a"), None);
    }

    #[test]
    fn scalars_have_a_text() {
        assert_eq!(text(raw(r#""a\"b""#)).as_deref(), Some("a\"b"));
        assert_eq!(text(raw("14500")).as_deref(), Some("14500"));
        assert_eq!(text(raw("1.50")).as_deref(), Some("1.50"));
        for json in ["null", "[]", "{}"] {
            assert_eq!(text(raw(json)), None, "{json}");
        }
    }

    #[test]
    fn parts_are_left_out_and_the_rest_stays_as_it_was_written() {
        let document = raw(r#"{"a": {"key": "x", "b": [1.50, 2]}, "c":1e3}"#);
        let without = |texts: &[&str]| {
            let pointers: Vec<_> = texts.iter().map(|it| Pointer::parse(it).unwrap()).collect();
            without(document, &pointers)
        };
        let kept = r#"{"a": {"key": null, "b": [1.50, null]}, "c":1e3}"#;
        assert_eq!(without(&["/a/b/1", "/a/key", "/none"]).as_deref(), Some(kept));
        let kept = r#"{"a": null, "c":1e3}"#;
        assert_eq!(without(&["/a/b", "/a", "/a/key"]).as_deref(), Some(kept));
        assert_eq!(without(&["", "/c"]).as_deref(), Some("null"));
        assert_eq!(without(&["/none"]), None);
    }

    #[test]
    fn a_part_has_its_surroundings() {
        let document = raw(r#" {"é": [ 1 ], "b": 2} "#);
        let part = Pointer::field("é").find(document).unwrap();
        assert_eq!(around(document, part), Some((r#"{"é": "#, r#", "b": 2}"#)));
        assert_eq!(around(document, document), Some(("", "")));
    }
}
