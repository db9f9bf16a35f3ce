//! Times of Python, numpy and pandas as ISO 8601.

use std::fmt::Write as _;

use jiff::{Timestamp, civil, tz::Offset};

use crate::{
    class::Class,
    graph::{Graph, Id, Object, Refusal, Result, refuse},
};

/// What numpy's `NaT` is stored as.
const NOT_A_TIME: i64 = i64::MIN;

const NANOS: i128 = 1_000_000_000;

/// A unit of numpy's times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// None: of `NaT` only.
    Generic,
    Years,
    Months,
    Days(i64),
    /// In nanoseconds.
    Nanos(i64),
}

impl Unit {
    pub(crate) fn named(name: &[u8], count: i64) -> Result<Self> {
        let unit = match name {
            b"generic" => return Ok(Self::Generic),
            b"Y" if count == 1 => return Ok(Self::Years),
            b"M" if count == 1 => return Ok(Self::Months),
            b"W" | b"D" => count.checked_mul(if name == b"W" { 7 } else { 1 }).map(Self::Days),
            b"h" => count.checked_mul(3_600_000_000_000).map(Self::Nanos),
            b"m" => count.checked_mul(60_000_000_000).map(Self::Nanos),
            b"s" => count.checked_mul(1_000_000_000).map(Self::Nanos),
            b"ms" => count.checked_mul(1_000_000).map(Self::Nanos),
            b"us" => count.checked_mul(1_000).map(Self::Nanos),
            b"ns" => Some(Self::Nanos(count)),
            _ => None,
        };
        unit.ok_or_else(|| Refusal("a unit of time is not one that is read".into()))
    }

    /// The resolution of a `Timestamp` or `Timedelta`; nanoseconds before pandas 2.
    fn resolution(graph: &Graph<'_>, id: Option<&Id>) -> Result<Self> {
        match id.map(|id| graph.int(*id)).transpose()? {
            None | Some(10) => Ok(Self::Nanos(1)),
            Some(9) => Ok(Self::Nanos(1_000)),
            Some(8) => Ok(Self::Nanos(1_000_000)),
            Some(7) => Ok(Self::Nanos(1_000_000_000)),
            Some(_) => refuse("the resolution of a time is not one that is read"),
        }
    }
}

/// A `datetime64`: a date if its unit is days or longer; `None` for `NaT`.
pub(crate) fn since_1970(value: i64, unit: Unit, utc: bool) -> Result<Option<String>> {
    if value == NOT_A_TIME {
        return Ok(None);
    }
    let out_of_range = || Refusal("a time is out of the years 1 to 9999".into());
    let time = match unit {
        Unit::Generic => return refuse("a time has no unit"),
        Unit::Years | Unit::Months => {
            let months = if unit == Unit::Years { value.checked_mul(12) } else { Some(value) };
            let months = months.and_then(|months| months.checked_add(1970 * 12));
            let months = months.ok_or_else(out_of_range)?;
            let year = i16::try_from(months.div_euclid(12)).map_err(|_error| out_of_range())?;
            civil::DateTime::new(year, (months.rem_euclid(12) + 1) as i8, 1, 0, 0, 0, 0)
                .map_err(|_error| out_of_range())?
        }
        Unit::Days(_) | Unit::Nanos(_) => {
            let nanos = match unit {
                Unit::Days(days) => i128::from(days) * 86_400 * NANOS,
                Unit::Nanos(nanos) => nanos.into(),
                _ => 0,
            };
            let nanos = nanos.checked_mul(value.into()).ok_or_else(out_of_range)?;
            let time = Timestamp::from_nanosecond(nanos).map_err(|_error| out_of_range())?;
            Offset::UTC.to_datetime(time)
        }
    };
    if !(1..=9999).contains(&time.year()) {
        return Err(out_of_range());
    }
    Ok(Some(match unit {
        Unit::Nanos(_) => iso(time, if utc { "+00:00" } else { "" }),
        _ => time.date().to_string(),
    }))
}

/// A `timedelta64` in seconds; `None` for `NaT`.
pub(crate) fn seconds(value: i64, unit: Unit) -> Result<Option<String>> {
    if value == NOT_A_TIME {
        return Ok(None);
    }
    let nanos = match unit {
        Unit::Generic | Unit::Years | Unit::Months => {
            return refuse("a span of months has no length");
        }
        Unit::Days(days) => i128::from(days) * 86_400 * NANOS,
        Unit::Nanos(nanos) => nanos.into(),
    };
    match nanos.checked_mul(value.into()) {
        Some(nanos) => Ok(Some(decimal(nanos))),
        None => refuse("a span of time is too long"),
    }
}

/// Nanoseconds as an exact decimal number of seconds.
fn decimal(nanos: i128) -> String {
    let (whole, rest) =
        (nanos.unsigned_abs() / NANOS as u128, nanos.unsigned_abs() % NANOS as u128);
    let mut text = format!("{}{whole}", if nanos < 0 { "-" } else { "" });
    if rest != 0 {
        let digits = format!("{rest:09}");
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    text
}

/// As `isoformat()` writes it: no fraction, or microseconds, or nanoseconds.
fn iso(time: civil::DateTime, offset: &str) -> String {
    format!("{}T{}{offset}", time.date(), clock(time.time()))
}

fn clock(time: civil::Time) -> String {
    let mut text = format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
    let nanos = time.subsec_nanosecond();
    let fraction = match nanos {
        0 => String::new(),
        nanos if nanos % 1_000 == 0 => format!(".{:06}", nanos / 1_000),
        nanos => format!(".{nanos:09}"),
    };
    text.push_str(&fraction);
    text
}

/// The text of a `datetime.datetime`, `date` or `time`.
pub(crate) fn text(graph: &Graph<'_>, object: &Object) -> Result<String> {
    let unreadable = || Refusal(format!("{} has data that is not read", object.class));
    let (packed, zone) = match *graph.args(object)? {
        [packed] => (packed, None),
        [packed, zone] => (packed, Some(zone)),
        _ => return Err(unreadable()),
    };
    let packed = graph.bytes(packed)?;
    let offset = zone.map(|zone| offset(graph, zone)).transpose()?.unwrap_or_default();
    let date = |year: [u8; 2], month: u8, day: u8| {
        let year = i16::from_be_bytes(year);
        // The highest bit of the month says which of two equal local times is meant.
        civil::Date::new(year, (month & 0x7f).cast_signed(), day.min(100).cast_signed())
            .ok()
            .filter(|date| (1..=9999).contains(&date.year()))
            .ok_or_else(unreadable)
    };
    let clock_of = |hour: u8, minute: u8, second: u8, micros: [u8; 3]| {
        let [high, middle, low] = micros;
        let micros = u32::from_be_bytes([0, high, middle, low]).min(1_000_000);
        let [hour, minute, second] =
            [hour & 0x7f, minute, second].map(|part| part.min(100).cast_signed());
        civil::Time::new(hour, minute, second, (micros * 1_000).cast_signed())
            .map_err(|_error| unreadable())
    };
    match (object.class, packed) {
        (Class::DateTime, &[y1, y2, month, day, hour, minute, second, u1, u2, u3]) => {
            let time = clock_of(hour, minute, second, [u1, u2, u3])?;
            Ok(iso(date([y1, y2], month, day)?.to_datetime(time), &offset))
        }
        (Class::Date, &[y1, y2, month, day]) if zone.is_none() => {
            Ok(date([y1, y2], month, day)?.to_string())
        }
        (Class::Time, &[hour, minute, second, u1, u2, u3]) => {
            Ok(clock(clock_of(hour, minute, second, [u1, u2, u3])?) + &offset)
        }
        _ => Err(unreadable()),
    }
}

/// A time zone as the offset it is, where that is in the pickle.
fn offset(graph: &Graph<'_>, zone: Id) -> Result<String> {
    let by_name = || refuse("a time zone is known by its name only, without its offset");
    let Some(object) = graph.object(zone) else {
        return if graph.is_none(zone) { Ok(String::new()) } else { by_name() };
    };
    let args = graph.args(object)?;
    let micros = match (object.class, args) {
        (Class::Utc, _) => 0,
        (Class::FixedOffset, [minutes]) => i128::from(graph.int(*minutes)?) * 60_000_000,
        (Class::TimeZone, [delta] | [delta, _]) => match graph.object(*delta) {
            Some(delta) if delta.class == Class::TimeDelta => micros(graph, delta)?,
            _ => return by_name(),
        },
        (Class::NamedZone, [name, ..]) if matches!(graph.str(*name)?, "UTC" | "Etc/UTC") => 0,
        // pytz writes the offset at that time beside the name.
        (Class::NamedZone, [_, seconds, _, _]) => i128::from(graph.int(*seconds)?) * 1_000_000,
        _ => return by_name(),
    };
    if micros.unsigned_abs() >= 86_400_000_000 {
        return refuse("a time zone is more than a day away");
    }
    let (sign, micros) = (if micros < 0 { '-' } else { '+' }, micros.unsigned_abs());
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let mut text = format!("{sign}{:02}:{:02}", seconds / 3_600, seconds / 60 % 60);
    let written = match (seconds % 60, micros) {
        (0, 0) => Ok(()),
        (seconds, 0) => write!(text, ":{seconds:02}"),
        (seconds, micros) => write!(text, ":{seconds:02}.{micros:06}"),
    };
    written.or_else(|_error| refuse("a time zone cannot be written"))?;
    Ok(text)
}

/// The length of a `datetime.timedelta`.
fn micros(graph: &Graph<'_>, object: &Object) -> Result<i128> {
    let [days, seconds, micros] = *graph.args(object)? else {
        return refuse("a timedelta is not of days, seconds and microseconds");
    };
    let seconds = i128::from(graph.int(days)?) * 86_400 + i128::from(graph.int(seconds)?);
    Ok(seconds * 1_000_000 + i128::from(graph.int(micros)?))
}

/// A `datetime.timedelta` in seconds.
pub(crate) fn delta(graph: &Graph<'_>, object: &Object) -> Result<String> {
    Ok(decimal(micros(graph, object)? * 1_000))
}

/// A pandas `Timestamp`; with a time zone, in UTC.
pub(crate) fn timestamp(graph: &Graph<'_>, object: &Object) -> Result<Option<String>> {
    let args @ [value, _, zone, ..] = graph.args(object)? else {
        return refuse("a Timestamp has data that is not read");
    };
    let unit = Unit::resolution(graph, args.get(3))?;
    since_1970(graph.int(*value)?, unit, !graph.is_none(*zone))
}

/// A pandas `Timedelta` in seconds.
pub(crate) fn timedelta(graph: &Graph<'_>, object: &Object) -> Result<Option<String>> {
    let args @ [value, ..] = graph.args(object)? else {
        return refuse("a Timedelta has data that is not read");
    };
    seconds(graph.int(*value)?, Unit::resolution(graph, args.get(1))?)
}
