//! Times as Python's `isoformat()` writes them.

use cache_core::Escaped;
use jiff::{civil::Time, fmt::temporal::Pieces, tz::Offset};

/// No time in use is longer; nothing longer is shown.
pub(crate) const MAX_LEN: u8 = 64;

/// Milliseconds since 1970, in UTC when the text has no offset; why not, if it is no time.
pub(crate) fn unix_millis(text: &str) -> Result<i64, String> {
    let unreadable = || format!("`{}` is not an ISO 8601 time", Escaped(text));
    if text.len() > usize::from(MAX_LEN) {
        return Err(format!("a text of {} bytes is not an ISO 8601 time", text.len()));
    }
    let pieces = Pieces::parse(text).map_err(|_error| unreadable())?;
    // `2022-01-02T03:04[Asia/Kolkata]` would need a database of time zones, and Python writes none.
    if pieces.time_zone_annotation().is_some() {
        return Err(unreadable());
    }
    let offset = pieces.to_numeric_offset().unwrap_or(Offset::UTC);
    let time = pieces.time().unwrap_or(Time::midnight());
    let time = pieces.date().to_datetime(time);
    offset
        .to_timestamp(time)
        .map(|timestamp| timestamp.as_nanosecond().div_euclid(1_000_000) as i64)
        .map_err(|_error| unreadable())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_isoformat_writes() {
        for (text, millis) in [
            ("1970-01-01T00:00:00", 0),
            ("1970-01-01", 0),
            ("1969-12-31T23:59:59.999999", -1),
            ("2022-01-02T03:04:05", 1_641_092_645_000),
            ("2022-01-02 03:04:05", 1_641_092_645_000),
            ("2022-01-02T03:04", 1_641_092_640_000),
            ("2022-01-02T03:04:05.123456", 1_641_092_645_123),
            ("2022-01-02T03:04:05.123456+00:00", 1_641_092_645_123),
            ("2022-01-02T03:04:05Z", 1_641_092_645_000),
            ("2022-01-02T03:04:05.5+05:30", 1_641_072_845_500),
            ("2022-01-02T03:04:05-07:00", 1_641_117_845_000),
        ] {
            assert_eq!(unix_millis(text), Ok(millis), "{text}");
        }
    }

    #[test]
    fn says_what_it_cannot_read() {
        for text in
            ["", "yesterday", "2022-13-01", "2022-01-02T03:04:05[Asia/Kolkata]", "1641092645"]
        {
            let reason = format!("`{text}` is not an ISO 8601 time");
            assert_eq!(unix_millis(text), Err(reason));
        }
        assert_eq!(unix_millis("a\u{1b}"), Err("`a\\u{1b}` is not an ISO 8601 time".into()));
        let long = "2".repeat(1_000);
        assert_eq!(unix_millis(&long), Err("a text of 1000 bytes is not an ISO 8601 time".into()));
    }
}
