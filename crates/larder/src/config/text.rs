//! Typed values from text: every layer hands over text, and the field decides what it means.

use std::{fmt, marker::PhantomData, path::PathBuf, time::Duration};

use serde::{
    Deserialize, Deserializer, Serializer,
    de::{self, SeqAccess, Visitor},
};

use super::{
    duration::{format_duration, parse_duration},
    error::ValueError,
    size::{format_size, parse_size},
    values::TierKind,
};

/// Reads one field's text. The error's reason never holds the text itself.
pub(super) trait FromText: Sized {
    fn from_text(text: &str) -> Result<Self, ValueError>;
}

impl FromText for String {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        Ok(text.to_owned())
    }
}

impl FromText for PathBuf {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        Ok(text.into())
    }
}

impl FromText for bool {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        match text.trim() {
            "true" | "True" | "TRUE" => Ok(true),
            "false" | "False" | "FALSE" => Ok(false),
            _ => {
                Err(ValueError::new(text, "cannot read the value as a switch; write true or false"))
            }
        }
    }
}

impl FromText for f64 {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        let number = text.trim().parse::<Self>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| {
            ValueError::new(text, "cannot read the value as a number; write for example 0.5 or 20")
        })
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl FromText for $type {
            fn from_text(text: &str) -> Result<Self, ValueError> {
                text.trim().parse::<Self>().or_else(|_| {
                    Err(ValueError::new(
                        text,
                        "cannot read the value as a whole number; write for example 5",
                    ))
                })
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64);

impl FromText for Duration {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        parse_duration(text)
    }
}

impl<T: FromText> FromText for Option<T> {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        T::from_text(text).map(Some)
    }
}

/// Hands a scalar of any type to [`FromText`] as the text that was written.
pub(super) fn text<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromText,
{
    parsed(deserializer, T::from_text)
}

/// The same with a reading of the field's own.
pub(super) fn parsed<'de, D, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, ValueError>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    let text = deserializer.deserialize_any(Scalar)?;
    parse(&text).map_err(|error| de::Error::custom(error.reason()))
}

pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    parsed(deserializer, parse_size)
}

/// A list, or one text with commas between its items.
pub(super) fn list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromText + Deserialize<'de>,
{
    deserializer.deserialize_any(List(PhantomData))
}

pub(super) fn chain<'de, D>(deserializer: D) -> Result<Option<Vec<TierKind>>, D::Error>
where
    D: Deserializer<'de>,
{
    list(deserializer).map(Some)
}

pub(super) fn write_duration<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_duration(*duration))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn write_size<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_size(*bytes))
}

/// Any scalar, as text.
struct Scalar;

impl Visitor<'_> for Scalar {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a single value")
    }

    fn visit_str<E>(self, value: &str) -> Result<String, E> {
        Ok(value.to_owned())
    }

    fn visit_bool<E>(self, value: bool) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<String, E> {
        Ok(value.to_string())
    }

    fn visit_f64<E>(self, value: f64) -> Result<String, E> {
        Ok(value.to_string())
    }
}

struct List<T>(PhantomData<T>);

impl<'de, T: FromText + Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
        let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| T::from_text(part).map_err(|error| E::custom(error.reason()))).collect()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}
