//! Tables and figures for people.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets::NOTHING};
use larder::config::format_duration;

/// Lines up rows under headings; columns whose heading starts with `>` are set to the right.
pub(crate) fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    let right = |heading: &str| heading.starts_with('>');
    let cell = |text: &str, heading: &str| {
        let side = if right(heading) { CellAlignment::Right } else { CellAlignment::Left };
        Cell::new(text).set_alignment(side)
    };
    table.set_header(headings.iter().map(|heading| cell(heading.trim_start_matches('>'), heading)));
    for row in rows {
        table.add_row(row.iter().zip(headings).map(|(text, heading)| cell(text, heading)));
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect();
    lines.join("\n") + "\n"
}

/// A latency with three figures at most: `850 ns`, `12.3 µs`, `412 ms`, `1.20 s`.
pub(crate) fn latency(span: Duration) -> String {
    let nanos = span.as_nanos() as f64;
    let (value, unit) = match nanos {
        n if n < 1e3 => return format!("{n:.0} ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{value:.*} {unit}", decimals(value))
}

/// An age in its two largest units: `3d 4h`, `5m 30s`, `12s`, `250ms`.
pub(crate) fn age(span: Duration) -> String {
    let step = match span.as_secs() {
        86_400.. => Duration::from_hours(1),
        3_600.. => Duration::from_mins(1),
        1.. => Duration::from_secs(1),
        0 => Duration::from_millis(1),
    };
    let nanos = span.as_nanos();
    format_duration(span.saturating_sub(Duration::from_nanos_u128(nanos % step.as_nanos())))
}

/// A number of bytes with three figures at most: `512 B`, `9.10 KiB`, `412 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = 0;
    // What would be shown as 1024 is one of the next unit.
    while value >= 1_023.5 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.*} {}", decimals(value), UNITS[unit])
}

/// Decimals that make three figures.
fn decimals(value: f64) -> usize {
    match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    }
}

/// A count with its digits in groups of three.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_three_figures() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_996, "10.0 µs"),
            (12_345, "12.3 µs"),
            (412_000_000, "412 ms"),
            (1_200_000_000, "1.20 s"),
        ];
        for (nanos, expected) in cases {
            assert_eq!(latency(Duration::from_nanos(nanos)), expected);
        }
    }

    #[test]
    fn ages_have_two_units() {
        let cases = [
            (0, "0s"),
            (250, "250ms"),
            (12_999, "12s"),
            (330_000, "5m 30s"),
            (7_200_000 + 59_000, "2h"),
            (3 * 86_400_000 + 4 * 3_600_000 + 59 * 60_000, "3d 4h"),
        ];
        for (millis, expected) in cases {
            assert_eq!(age(Duration::from_millis(millis)), expected);
        }
    }

    #[test]
    fn sizes_have_three_figures() {
        let cases = [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.00 KiB"),
            (639_884, "625 KiB"),
            (1_048_575, "1.00 MiB"),
            (1_621_334, "1.55 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn counts_are_grouped() {
        let grouped = [0, 999, 1_000, 1_234_567].map(count);
        assert_eq!(grouped, ["0", "999", "1 000", "1 234 567"]);
    }

    #[test]
    fn tables_have_no_lines_and_no_spaces_at_their_ends() {
        let rows =
            vec![vec!["a".to_owned(), "1".to_owned()], vec!["bcd".to_owned(), "20".to_owned()]];
        assert_eq!(render(&["NAME", ">N"], &rows), "NAME   N\na      1\nbcd   20\n");
    }
}
