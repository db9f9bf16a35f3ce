//! How the settings of policies and tiers are written: shares, limits that may be off, classes of
//! failures.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{Failure, Failures};

use super::{
    duration::parse_duration,
    error::ValueError,
    text::{self, FromText},
    values::Ttl,
};

/// A value as it is written in the configuration, whatever serde makes of its type elsewhere.
pub(super) trait Form: Sized {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;
}

/// For `deserialize_with` of a field that has a value.
pub(super) fn read<'de, D: Deserializer<'de>, T: Form>(deserializer: D) -> Result<T, D::Error> {
    T::read(deserializer)
}

pub(super) fn write<S: Serializer, T: Form>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    value.write(serializer)
}

/// For `deserialize_with` of a field that may be missing.
pub(super) fn read_given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Form,
{
    T::read(deserializer).map(Some)
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
pub(super) fn write_given<S: Serializer, T: Form>(
    value: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => value.write(serializer),
        None => serializer.serialize_none(),
    }
}

impl Form for Ttl {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.serialize(serializer)
    }
}

impl Form for Duration {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::text(deserializer)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        text::write_duration(self, serializer)
    }
}

impl Form for bool {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::text(deserializer)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*self)
    }
}

/// A share: `0.1` or `10%`. Its bounds are those of the setting.
impl Form for f64 {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer, parse_share)
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(*self)
    }
}

/// What may be off, which zero means too.
impl Form for Option<f64> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let share = text::parsed(deserializer, |text| unless_off(text, parse_share))?;
        Ok(share.filter(|share| *share != 0.0))
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(share) => share.write(serializer),
            None => serializer.serialize_str(OFF),
        }
    }
}

impl Form for Option<Duration> {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let limit = text::parsed(deserializer, |text| unless_off(text, parse_duration))?;
        Ok(limit.filter(|limit| !limit.is_zero()))
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Some(limit) => limit.write(serializer),
            None => serializer.serialize_str(OFF),
        }
    }
}

const OFF: &str = "off";

fn unless_off<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, ValueError>,
) -> Result<Option<T>, ValueError> {
    if text.trim().eq_ignore_ascii_case(OFF) { Ok(None) } else { parse(text).map(Some) }
}

fn parse_share(text: &str) -> Result<f64, ValueError> {
    let trimmed = text.trim();
    let (number, scale) =
        trimmed.strip_suffix('%').map_or((trimmed, 1.0), |number| (number.trim_end(), 100.0));
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number / scale),
        _ => Err(ValueError::new(
            text,
            "cannot read the value as a share; write for example 0.1 or 10%",
        )),
    }
}

/// What an item of a list of failures names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Class(Failure),
    All,
    None,
}

const NAMES: [(&str, Named); 8] = [
    ("network", Named::Class(Failure::Network)),
    ("timeout", Named::Class(Failure::Timeout)),
    ("rate_limited", Named::Class(Failure::RateLimited)),
    ("server_error", Named::Class(Failure::ServerError)),
    ("client_error", Named::Class(Failure::ClientError)),
    ("other", Named::Class(Failure::Other)),
    ("all", Named::All),
    ("none", Named::None),
];

impl FromText for Named {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        let found = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
        found.map(|(_, named)| *named).ok_or_else(|| {
            ValueError::new(
                text,
                "the value is no class of failures; write network, timeout, rate_limited, \
                 server_error, client_error, other, all or none",
            )
        })
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::text(deserializer)
    }
}

/// A list of classes, or `all` or `none`, which an empty list means too.
impl Form for Failures {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items: Vec<Named> = text::list(deserializer)?;
        match items[..] {
            [Named::All] => return Ok(Self::ALL),
            [Named::None] => return Ok(Self::NONE),
            _ => {}
        }
        items.into_iter().try_fold(Self::NONE, |failures, named| match named {
            Named::Class(failure) => Ok(failures.with(failure)),
            Named::All | Named::None => Err(D::Error::custom(
                "the value has other classes beside all or none; write one or the other",
            )),
        })
    }

    fn write<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Classes(*self))
    }
}

struct Classes(Failures);

impl fmt::Display for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Failures::ALL => return f.write_str("all"),
            Failures::NONE => return f.write_str("none"),
            _ => {}
        }
        let classes = NAMES.iter().filter_map(|(name, named)| match named {
            Named::Class(failure) if self.0.contains(*failure) => Some(*name),
            _ => None,
        });
        for (position, name) in classes.enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read_text<T: Form>(text: &str) -> Result<T, String> {
        T::read(serde_json::Value::from(text)).map_err(|error| error.to_string())
    }

    fn written<T: Form>(value: &T) -> serde_json::Value {
        value.write(serde_json::value::Serializer).expect("a plain value")
    }

    #[test]
    fn shares_are_numbers_or_percents() {
        for (text, share) in [
            ("0.1", 0.1),
            ("10%", 0.1),
            (" 10 % ", 0.1),
            ("0", 0.0),
            ("12.5%", 0.125),
            ("-5%", -0.05),
            ("150%", 1.5),
        ] {
            assert_eq!(read_text(text), Ok(share), "{text}");
        }
        for text in ["", "%", "ten", "nan", "inf", "10%%", "1/10", "off"] {
            let error = read_text::<f64>(text).expect_err(text);
            assert!(error.contains("write for example 0.1 or 10%"), "{text}: {error}");
        }
    }

    #[test]
    fn zero_is_off() {
        for text in ["off", "OFF", "0", "0%", "0.0"] {
            assert_eq!(read_text::<Option<f64>>(text), Ok(None), "{text}");
        }
        assert_eq!(read_text("80%"), Ok(Some(0.8)));
        for text in ["off", "Off", "0s", "0ms"] {
            assert_eq!(read_text::<Option<Duration>>(text), Ok(None), "{text}");
        }
        assert_eq!(read_text("2s"), Ok(Some(Duration::from_secs(2))));
        assert_eq!(written(&None::<Duration>), json!("off"));
        assert_eq!(written(&Some(0.8)), json!(0.8));
    }

    #[test]
    fn failures_print_as_they_are_written() {
        for text in ["all", "none", "network", "network, timeout, rate_limited, server_error"] {
            let failures: Failures = read_text(text).expect(text);
            assert_eq!(written(&failures), json!(text));
        }
        assert_eq!(read_text(""), Ok(Failures::NONE));
        assert_eq!(read_text("Network,network"), Ok(Failures::NONE.with(Failure::Network)));
        for text in ["all, network", "none, all", "network, none"] {
            assert!(read_text::<Failures>(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn reading_shares_never_panics(text in "[0-9.e-]{0,8} ?%?\\PC{0,4}") {
            prop_assert!(parse_share(&text).is_ok() || parse_share(&text).is_err());
        }

        #[test]
        fn reading_failures_inverts_printing(bits in 0..64_u32) {
            let classes = NAMES.iter().enumerate().filter_map(|(at, (_, named))| match named {
                Named::Class(failure) if bits >> at & 1 == 1 => Some(*failure),
                _ => None,
            });
            let failures = classes.fold(Failures::NONE, Failures::with);
            prop_assert_eq!(read_text(&Classes(failures).to_string()), Ok(failures));
        }
    }
}
