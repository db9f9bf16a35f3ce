//! Steps of the calendar as numbers, and back.

use jiff::civil::Date;

/// What a range counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Days.
    Day,
    /// Calendar months.
    Month,
    /// Calendar years.
    Year,
}

/// Day 0 is a Monday, so that chunks of seven days are weeks.
const DAY_ZERO: Date = Date::constant(1, 1, 1);

impl Step {
    /// How a bound is written if a series does not say: `2022`, `2022-03`, `2022-03-15`.
    pub(super) const fn format(self) -> &'static str {
        match self {
            Self::Day => "%Y-%m-%d",
            Self::Month => "%Y-%m",
            Self::Year => "%Y",
        }
    }

    /// The number of the step that has this day.
    pub(super) fn at(self, day: Date) -> i64 {
        let year = i64::from(day.year());
        match self {
            Self::Year => year,
            Self::Month => year * 12 + i64::from(day.month()) - 1,
            Self::Day => DAY_ZERO.duration_until(day).as_hours() / 24,
        }
    }

    /// The first day of a step; `None` beyond the calendar.
    pub(super) fn first_day(self, at: i64) -> Option<Date> {
        match self {
            Self::Year => Date::new(i16::try_from(at).ok()?, 1, 1).ok(),
            Self::Month => {
                let year = i16::try_from(at.div_euclid(12)).ok()?;
                Date::new(year, at.rem_euclid(12) as i8 + 1, 1).ok()
            }
            Self::Day => DAY_ZERO.checked_add(jiff::Span::new().try_days(at).ok()?).ok(),
        }
    }

    /// The last day of a step; `None` beyond the calendar.
    pub(super) fn last_day(self, at: i64) -> Option<Date> {
        let first = self.first_day(at)?;
        match self {
            Self::Day => Some(first),
            Self::Month => Some(first.last_of_month()),
            Self::Year => Some(first.last_of_year()),
        }
    }
}

/// The first and the last day that a text means: a year, a month, or a day, as APIs write them:
/// `2022`, `2022-03`, `2022M03`, `2022-M03`, `202203`, `2022-03-15`, `20220315`, all with whatever
/// a time adds behind `T` or a space.
pub(super) fn days(text: &str) -> Option<(Date, Date)> {
    let text = text.trim();
    let date = text.split(['T', ' ']).next().unwrap_or_default();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (year, rest) = date.split_at_checked(4).filter(|(year, _)| digits(year))?;
    let year: i16 = year.parse().ok()?;
    let first = Date::new(year, 1, 1).ok()?;
    if rest.is_empty() {
        return Some((first, first.last_of_year()));
    }
    let rest = rest.strip_prefix(['-', '/']).unwrap_or(rest);
    let rest = rest.strip_prefix(['M', 'm']).unwrap_or(rest);
    let (month, rest) = rest.split_at_checked(2).filter(|(month, _)| digits(month))?;
    let first = Date::new(year, month.parse().ok()?, 1).ok()?;
    if rest.is_empty() {
        return Some((first, first.last_of_month()));
    }
    let day = rest.strip_prefix(['-', '/']).unwrap_or(rest);
    let day = Some(day).filter(|day| day.len() == 2 && digits(day))?;
    let day = Date::new(year, first.month(), day.parse().ok()?).ok()?;
    Some((day, day))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_mean_years_months_and_days() {
        let day = Date::constant;
        for text in ["2022-03", "2022M03", "2022-M03", "202203", "2022/03"] {
            assert_eq!(days(text), Some((day(2022, 3, 1), day(2022, 3, 31))), "{text}");
        }
        for text in ["2024-02-29", "20240229", "2024-02-29T00:00:00Z", "2024-02-29 12:00"] {
            assert_eq!(days(text), Some((day(2024, 2, 29), day(2024, 2, 29))), "{text}");
        }
        assert_eq!(days(" 2022 "), Some((day(2022, 1, 1), day(2022, 12, 31))));
        for text in
            ["", "22", "2022-", "2022-13", "2022-M13", "2023-02-29", "date", "2022-03-1x", "20220"]
        {
            assert_eq!(days(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_day_is_in_the_step_that_has_it(year in 1_i16..9999, month in 1_i8..=12, day in 1_i8..=28) {
            let date = Date::new(year, month, day).unwrap();
            for step in [Step::Day, Step::Month, Step::Year] {
                let at = step.at(date);
                let (first, last) = (step.first_day(at).unwrap(), step.last_day(at).unwrap());
                prop_assert!(first <= date && date <= last);
                prop_assert_eq!(step.first_day(at + 1), last.tomorrow().ok());
            }
        }

        #[test]
        fn reading_a_text_never_panics(text in "[0-9M/-]{0,12}\\PC{0,4}") {
            if let Some((first, last)) = days(&text) {
                prop_assert!(first <= last);
            }
        }
    }
}
