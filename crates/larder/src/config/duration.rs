//! Durations as people write them: `365d`, `1h30m`, `500ms`.

use std::time::Duration;

use jiff::{SpanRelativeTo, Unit, fmt::friendly::SpanParser};

use super::error::ValueError;

const DAY_SECS: u64 = 24 * 60 * 60;

/// Days beyond which a duration is refused, about 19,998 years: jiff's own limit.
const MAX_DAYS: f64 = 7_304_484.0;

const HINT: &str = "write for example 30d, 12h or 90s";

/// Reads a duration such as `365d`, `2.5h`, `500ms`, `1h30m` or `1w`, in either case.
///
/// A day is 24 hours. A number without a unit, a negative duration, months and years are refused.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let fail = |reason: String| ValueError::new(text, reason);
    let unreadable = || fail(format!("cannot read the value as a duration; {HINT}"));
    let trimmed = text.trim().to_ascii_lowercase();
    if trimmed.is_empty() {
        return Err(fail(format!("a duration is missing here; {HINT}")));
    }
    if trimmed.starts_with('-') || trimmed.ends_with("ago") {
        return Err(fail(format!("the value is negative; {HINT}")));
    }
    if let Ok(number) = trimmed.parse::<f64>()
        && number.is_finite()
    {
        let days =
            if number.fract() == 0.0 { format!(", such as {trimmed}d") } else { String::new() };
        return Err(fail(format!("the value has no unit; add one{days} (ms, s, m, h, d or w)")));
    }
    // jiff takes fractions only down from hours, because its days may have another length.
    if let Some(days) = decimal_days(&trimmed) {
        return from_days(days)
            .ok_or_else(|| fail("the value is too long; write never if it should not end".into()));
    }
    let span = match SpanParser::new().parse_span(&trimmed) {
        Ok(span) => span,
        Err(_) if is_number_then_unit(&trimmed) => {
            return Err(fail("the value is too long; write never if it should not end".into()));
        }
        Err(_) => return Err(unreadable()),
    };
    if span.get_years() != 0 || span.get_months() != 0 || names_calendar_unit(&trimmed) {
        return Err(fail("the value: months and years are not fixed lengths; write 365d".into()));
    }
    let relative = SpanRelativeTo::days_are_24_hours();
    let Ok(signed) = span.to_duration(relative) else {
        return Err(fail("the value is too long; write never if it should not end".into()));
    };
    // Whether jiff can express the sum is also whether the rest of the program can.
    if span.total((Unit::Day, relative)).is_ok_and(|days| days > MAX_DAYS) {
        return Err(fail("the value is too long; write never if it should not end".into()));
    }
    Duration::try_from(signed).map_or_else(|_| Err(unreadable()), Ok)
}

/// Reads a bare number as days, which is what old `ttl_policies` hold; anything else has a unit.
pub(super) fn parse_days_or_duration(text: &str) -> Result<Duration, ValueError> {
    match text.trim().parse::<f64>() {
        Ok(days) if days < 0.0 => {
            Err(ValueError::new(text, format!("the value is negative; {HINT}")))
        }
        Ok(days) if days.is_finite() => from_days(days)
            .ok_or_else(|| ValueError::new(text, "the value is too long; write never")),
        _ => parse_duration(text),
    }
}

/// Prints a duration in the largest units that fit: `365d`, `12d 5h`, `1m 30s`, `500ms`.
pub fn format_duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    let nanos = u64::from(duration.subsec_nanos());
    let parts = [
        (secs / DAY_SECS, "d"),
        (secs / 3600 % 24, "h"),
        (secs / 60 % 60, "m"),
        (secs % 60, "s"),
        (nanos / 1_000_000, "ms"),
        (nanos / 1_000 % 1_000, "us"),
        (nanos % 1_000, "ns"),
    ];
    let shown: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

/// `1.5d` and `0.5w`, in days.
fn decimal_days(text: &str) -> Option<f64> {
    let (number, days) = match text.strip_suffix('d') {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('w')?, 7.0),
    };
    let number = number.trim_end();
    let plain = number.contains('.')
        && number.starts_with(|c: char| c.is_ascii_digit())
        && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    if plain { number.parse::<f64>().ok().map(|number| number * days) } else { None }
}

/// Whole milliseconds, so that a fraction of a day prints without dust.
fn from_days(days: f64) -> Option<Duration> {
    if !(0.0..=MAX_DAYS).contains(&days) {
        return None;
    }
    let exact = Duration::try_from_secs_f64(days * 86_400.0).ok()?;
    u64::try_from((exact.as_nanos() + 500_000) / 1_000_000).ok().map(Duration::from_millis)
}

/// jiff refuses a count it cannot hold with the same error as nonsense.
fn is_number_then_unit(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    text.starts_with(|c: char| c.is_ascii_digit())
        && ["ns", "us", "ms", "s", "m", "h", "d", "w"].contains(&unit)
}

/// `0y` is zero of something that still has no length.
fn names_calendar_unit(text: &str) -> bool {
    text.split(|c: char| !c.is_ascii_alphabetic())
        .any(|word| word.starts_with("mo") || word.starts_with('y'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, millis: u64) {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }

    fn refused(text: &str, part: &str) {
        let error = parse_duration(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }

    #[test]
    fn reads_what_people_write() {
        let hour = 3_600_000;
        let day = 24 * hour;
        check("365d", 365 * day);
        check("7d", 7 * day);
        check("1h", hour);
        check("90s", 90_000);
        check("2.5h", 2 * hour + hour / 2);
        check("500ms", 500);
        check("1h30m", hour + hour / 2);
        check("12d 5h", 12 * day + 5 * hour);
        check("1w", 7 * day);
        check("1.5d", day + day / 2);
        check("0.1d", 8_640_000);
        check("30D", 30 * day);
        check("1H30M", hour + hour / 2);
        check(" 5 minutes ", 300_000);
        check("0s", 0);
        check("1234567ms", 1_234_567);
    }

    #[test]
    fn refuses_with_a_reason() {
        refused("30 dayz", "cannot read `30 dayz` as a duration; write for example 30d");
        refused("", "missing");
        refused("30", "`30` has no unit; add one, such as 30d");
        refused("0", "has no unit");
        refused("-5d", "`-5d` is negative");
        refused("5d ago", "negative");
        refused("1y", "months and years are not fixed lengths; write 365d");
        refused("2 months", "months and years");
        refused("0mo", "months and years");
        refused("99999999999999999999d", "too long");
        refused("9999999d", "too long");
        refused("99999999.5d", "too long");
        refused("nan", "cannot read");
        refused("1e9", "no unit");
        refused("never", "cannot read");
        refused("1d\u{1b}[2J", "\\u{1b}");
    }

    #[test]
    fn a_bare_number_can_mean_days() {
        let days = |text: &str| parse_days_or_duration(text).map(format_duration);
        assert_eq!(days("30"), Ok("30d".into()));
        assert_eq!(days("0.5"), Ok("12h".into()));
        assert_eq!(days("1h"), Ok("1h".into()));
        assert!(days("-1").is_err());
        assert!(days("1e300").is_err());
        assert!(days("inf").is_err());
    }

    #[test]
    fn prints_compactly() {
        let shown = |secs| format_duration(Duration::from_secs(secs));
        assert_eq!(shown(365 * DAY_SECS), "365d");
        assert_eq!(shown(12 * DAY_SECS + 5 * 3600), "12d 5h");
        assert_eq!(shown(90), "1m 30s");
        assert_eq!(shown(0), "0s");
        assert_eq!(format_duration(Duration::from_millis(500)), "500ms");
    }

    proptest! {
        #[test]
        fn reading_inverts_printing(secs in 0..600_000_000_000_u64, nanos in 0..1_000_000_000_u32) {
            let duration = Duration::new(secs, nanos);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn never_panics(text in "\\PC{0,24}", digits in "[0-9.]{0,22} ?[a-z]{0,3}") {
            prop_assert!(parse_duration(&text).is_ok() || parse_duration(&text).is_err());
            prop_assert!(parse_duration(&digits).is_ok() || parse_duration(&digits).is_err());
        }
    }
}
