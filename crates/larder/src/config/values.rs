//! The types of single settings: `Ttl`, `Secret`, `RateLimit`, `TierKind`, `Algorithm`,
//! `Eviction`.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    duration::{format_duration, parse_days_or_duration, parse_duration},
    error::ValueError,
    text::{self, FromText},
};

/// How long an entry is fresh: for a time, or without end. Written `30d` or `never`.
///
/// A duration of zero means "do not store".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// Fresh until it is invalidated.
    Never,
    /// Fresh for this long after its load.
    After(Duration),
}

impl Ttl {
    /// A TTL of that many days of 24 hours.
    pub const fn days(days: u64) -> Self {
        Self::After(Duration::from_secs(days.saturating_mul(24 * 60 * 60)))
    }

    /// The duration; `None` for [`Ttl::Never`].
    pub const fn duration(self) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::After(duration) => Some(duration),
        }
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::After(duration) => f.write_str(&format_duration(*duration)),
        }
    }
}

impl FromText for Ttl {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        if text.trim().eq_ignore_ascii_case("never") {
            return Ok(Self::Never);
        }
        parse_duration(text).map(Self::After)
    }
}

/// A TTL under `ttl_policies`, where a bare number has always meant days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PolicyTtl(pub(super) Ttl);

impl FromText for PolicyTtl {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        if text.trim().eq_ignore_ascii_case("never") {
            return Ok(Self(Ttl::Never));
        }
        parse_days_or_duration(text).map(|duration| Self(Ttl::After(duration)))
    }
}

/// A password or key. Prints as `***` everywhere; [`expose`](Secret::expose) is the only way to it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl FromText for Secret {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        Ok(Self(text.to_owned()))
    }
}

/// What stands in place of a secret.
pub(super) const MASK: &str = "***";

/// At most `count` requests in any window of `per`. Written `50/s`, `500/m`, `1000/h`, `500/day`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RateLimit {
    /// Requests, at least 1.
    pub count: u32,
    /// The window, longer than zero.
    pub per: Duration,
}

impl RateLimit {
    /// At most `count` requests in any window of `per`; both must be above zero to be useful.
    pub const fn new(count: u32, per: Duration) -> Self {
        Self { count, per }
    }
}

/// The first name of a unit is the one printed.
const RATE_UNITS: [(&[&str], u64); 4] = [
    (&["s", "sec", "second"], 1),
    (&["m", "min", "minute"], 60),
    (&["h", "hour"], 60 * 60),
    (&["day", "d"], 24 * 60 * 60),
];

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, per } = self;
        match RATE_UNITS.iter().find(|(_, secs)| *per == Duration::from_secs(*secs)) {
            Some((names, _)) => write!(f, "{count}/{}", names[0]),
            None => write!(f, "{count}/{}", format_duration(*per)),
        }
    }
}

impl FromText for RateLimit {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        let hint = "write for example 50/s, 500/m, 1000/h or 500/day";
        let unreadable =
            || ValueError::new(text, format!("cannot read the value as a rate; {hint}"));
        let (count, unit) = text.split_once('/').ok_or_else(unreadable)?;
        let (count, unit) = (count.trim(), unit.trim().to_ascii_lowercase());
        let Ok(count) = count.parse::<u32>() else { return Err(unreadable()) };
        let named = RATE_UNITS.iter().find(|(names, _)| names.contains(&unit.as_str()));
        let per = match (named, parse_duration(&unit)) {
            (Some((_, secs)), _) => Duration::from_secs(*secs),
            (None, Ok(per)) => per,
            (None, Err(_)) => return Err(unreadable()),
        };
        if count == 0 || per.is_zero() {
            return Err(ValueError::new(text, format!("the value lets nothing through; {hint}")));
        }
        Ok(Self { count, per })
    }
}

/// A kind of tier that the chain can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TierKind {
    /// In the process.
    Memory,
    /// In one SQLite file.
    Sqlite,
    /// On a Redis server.
    Redis,
}

impl TierKind {
    /// All kinds, fastest first.
    pub const ALL: [Self; 3] = [Self::Memory, Self::Sqlite, Self::Redis];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Redis => "redis",
        }
    }
}

impl fmt::Display for TierKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromText for TierKind {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        let found =
            Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(text.trim()));
        found.ok_or_else(|| {
            ValueError::new(text, "the value is not a tier; write memory, sqlite or redis")
        })
    }
}

/// How persistent tiers compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// Zstandard, levels 1 to 19.
    Zstd,
    /// zlib, levels 0 to 9.
    Zlib,
    /// Not at all.
    None,
}

impl Algorithm {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Zlib => "zlib",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromText for Algorithm {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        let all = [Self::Zstd, Self::Zlib, Self::None];
        let found = all.into_iter().find(|one| one.name().eq_ignore_ascii_case(text.trim()));
        found.ok_or_else(|| {
            ValueError::new(text, "the value is not an algorithm; write zstd, zlib or none")
        })
    }
}

/// Whether dictionaries are trained and used for a source's small values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DictionaryUse {
    /// One is trained once a source has 500 small values.
    #[default]
    Auto,
    /// Those that `larder dictionary train` has made are used.
    Manual,
    /// New values use none.
    Off,
}

impl DictionaryUse {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for DictionaryUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromText for DictionaryUse {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        let all = [Self::Auto, Self::Manual, Self::Off];
        let found = all.into_iter().find(|one| one.name().eq_ignore_ascii_case(text.trim()));
        found.ok_or_else(|| {
            ValueError::new(text, "the value is no use of dictionaries; write auto, manual or off")
        })
    }
}

/// What memory gives up when it is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Eviction {
    /// What has not proved that it is used again.
    #[default]
    ClockPro,
    /// What was used longest ago.
    Lru,
}

impl Eviction {
    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClockPro => "clock_pro",
            Self::Lru => "lru",
        }
    }
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromText for Eviction {
    fn from_text(text: &str) -> Result<Self, ValueError> {
        let all = [Self::ClockPro, Self::Lru];
        let found = all.into_iter().find(|one| one.name().eq_ignore_ascii_case(text.trim()));
        found.ok_or_else(|| {
            ValueError::new(text, "the value is not a policy of memory; write clock_pro or lru")
        })
    }
}

/// serde and `FromStr` by way of [`FromText`], so that there is one reading of each type.
macro_rules! textual {
    ($($type:ty),*) => {$(
        impl FromStr for $type {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                Self::from_text(text)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text::text(deserializer)
            }
        }
    )*};
}

textual!(Ttl, RateLimit, TierKind, Algorithm, DictionaryUse, Eviction);

impl<'de> Deserialize<'de> for PolicyTtl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::text(deserializer)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::text(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_and_print() {
        for (text, count, secs, shown) in [
            ("50/s", 50, 1, "50/s"),
            ("500/m", 500, 60, "500/m"),
            ("1000/h", 1000, 3600, "1000/h"),
            ("500/day", 500, 86_400, "500/day"),
            ("500 / D", 500, 86_400, "500/day"),
            ("1/2s", 1, 2, "1/2s"),
        ] {
            let rate: RateLimit = text.parse().expect(text);
            assert_eq!(rate, RateLimit::new(count, Duration::from_secs(secs)), "{text}");
            assert_eq!(rate.to_string(), shown);
        }
        for text in
            ["0/s", "5", "5/", "/s", "-5/s", "5/fortnight", "5/0s", "4294967296/s", "5/month"]
        {
            let error = text.parse::<RateLimit>().expect_err(text).to_string();
            assert!(error.contains("50/s"), "{text}: {error}");
        }
    }

    #[test]
    fn a_ttl_is_a_duration_or_never() {
        assert_eq!("never".parse(), Ok(Ttl::Never));
        assert_eq!("NEVER".parse(), Ok(Ttl::Never));
        assert_eq!("30d".parse(), Ok(Ttl::days(30)));
        assert!("30".parse::<Ttl>().is_err());
        assert_eq!(Ttl::Never.to_string(), "never");
        assert_eq!(Ttl::Never.duration(), None);
        assert_eq!(Ttl::days(1).duration(), Some(Duration::from_hours(24)));
    }

    #[test]
    fn a_secret_prints_as_stars() {
        let secret = Secret::new("hunter2");
        assert_eq!(
            format!("{secret} {secret:?} {:?}", serde_json::to_string(&secret)),
            "*** *** Ok(\"\\\"***\\\"\")"
        );
        assert_eq!(secret.expose(), "hunter2");
    }
}
