//! Sizes in bytes as people write them: `256MiB`, `64KB`, `512`.

use super::error::ValueError;

const HINT: &str = "write for example 64MiB, 512KB or 1048576";

/// The first of equal sizes is the one printed.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a size such as `256MiB`, `10 MB`, `1.5GiB` or `512` (bytes), in either case.
pub fn parse_size(text: &str) -> Result<u64, ValueError> {
    let fail = |reason: String| ValueError::new(text, reason);
    let unreadable = || fail(format!("cannot read the value as a size; {HINT}"));
    let trimmed = text.trim();
    if trimmed.starts_with('-') {
        return Err(fail(format!("the value is negative; {HINT}")));
    }
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let unit = unit.trim_start();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') || number.ends_with('.') {
        return Err(unreadable());
    }
    let scale = if unit.is_empty() {
        1
    } else {
        let found = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        found.ok_or_else(unreadable)?.1
    };
    let too_big = || fail("the value is too big".to_owned());
    let Ok(whole) = whole.parse::<u64>() else { return Err(too_big()) };
    let bytes = whole.checked_mul(scale).ok_or_else(too_big)?;
    bytes.checked_add(fraction_of(fraction, scale).ok_or_else(unreadable)?).ok_or_else(too_big)
}

/// Prints a size in the largest unit that is exact: `64MiB`, `64KB`, `513B`.
pub fn format_size(bytes: u64) -> String {
    let exact = UNITS.iter().find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale));
    let (unit, scale) = exact.copied().unwrap_or(("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// Exact, unless the fraction names less than a byte, which is dropped.
fn fraction_of(digits: &str, scale: u64) -> Option<u64> {
    if digits.is_empty() {
        return Some(0);
    }
    let digits = digits.trim_end_matches('0');
    if digits.len() > 15 {
        return None;
    }
    let value: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let divisor = 10_u128.pow(u32::try_from(digits.len()).ok()?);
    u64::try_from(value * u128::from(scale) / divisor).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, bytes) in [
            ("256MiB", 256 << 20),
            ("64KB", 64_000),
            ("64kb", 64_000),
            ("1GiB", 1 << 30),
            ("512", 512),
            ("512B", 512),
            ("10 MB", 10_000_000),
            ("1.5GiB", 3 << 29),
            ("0", 0),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_with_a_reason() {
        for (text, part) in [
            ("-1", "`-1` is negative"),
            ("64 M", "cannot read `64 M` as a size"),
            ("lots", "cannot read"),
            ("", "cannot read"),
            (".5MB", "cannot read"),
            ("5.MB", "cannot read"),
            ("1.2.3MB", "cannot read"),
            ("18446744073709551616", "too big"),
            ("99999999TiB", "too big"),
            ("1e3", "cannot read"),
        ] {
            let error = parse_size(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn prints_exactly() {
        assert_eq!(format_size(64 << 20), "64MiB");
        assert_eq!(format_size(64_000), "64KB");
        assert_eq!(format_size(513), "513B");
        assert_eq!(format_size(0), "0B");
    }

    proptest! {
        #[test]
        fn reading_inverts_printing(bytes: u64, shift in 0..64_u32) {
            let bytes = bytes >> shift;
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn round_sizes_survive_too(count in 0..1_000_000_u64, power in 0..4_u32, ten: bool) {
            let bytes = count * if ten { 1000_u64.pow(power) } else { 1024_u64.pow(power) };
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn never_panics(text in "[0-9.]{0,22} ?\\PC{0,4}") {
            prop_assert!(parse_size(&text).is_ok() || parse_size(&text).is_err());
        }
    }
}
