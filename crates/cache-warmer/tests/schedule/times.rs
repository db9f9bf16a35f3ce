//! When things are due.

use cache_warmer::{Job, Schedule, ScheduleError};
use larder::Timestamp;
use proptest::prelude::*;

use crate::world::{at, schedule, shown};

/// The next `count` occurrences after an instant.
fn next(schedule: &Schedule, after: &str, count: usize) -> Vec<String> {
    let after = schedule.next_after(at(after));
    let all = std::iter::successors(after, |due| schedule.next_after(*due));
    all.take(count).map(shown).collect()
}

/// The latest `count` occurrences until an instant, the latest first.
fn latest(schedule: &Schedule, until: &str, count: usize) -> Vec<String> {
    let until = schedule.latest_until(at(until));
    let before = |due: &Timestamp| Timestamp::from_millis(due.as_millis() - 1);
    let all = std::iter::successors(until, |due| schedule.latest_until(before(due)));
    all.take(count).map(shown).collect()
}

#[test]
fn weekly_and_monthly_in_the_time_of_their_zone() {
    let weekly = schedule("0 3 * * SUN", "Europe/Berlin");
    assert_eq!(
        next(&weekly, "2026-10-14T00:00:00Z", 3),
        // Summer time ends on the 25th, at 3:00.
        ["2026-10-18T01:00:00Z", "2026-10-25T02:00:00Z", "2026-11-01T02:00:00Z"]
    );
    let monthly = schedule("30 4 1 * *", "America/New_York");
    assert_eq!(
        next(&monthly, "2026-02-28T00:00:00Z", 2),
        ["2026-03-01T09:30:00Z", "2026-04-01T08:30:00Z"]
    );
    let last_day = schedule("0 0 L FEB *", "UTC");
    assert_eq!(
        next(&last_day, "2027-01-01T00:00:00Z", 2),
        ["2027-02-28T00:00:00Z", "2028-02-29T00:00:00Z"]
    );
}

#[test]
fn without_a_zone_it_is_utc() {
    let daily = Schedule::parse(" @daily ", None).unwrap();
    assert_eq!(daily.time_zone(), "UTC");
    assert_eq!(next(&daily, "2026-01-01T00:00:00Z", 1), ["2026-01-02T00:00:00Z"]);
    assert_eq!(latest(&daily, "2026-01-01T00:00:00Z", 1), ["2026-01-01T00:00:00Z"]);
    assert_eq!(latest(&daily, "2025-12-31T23:59:59.999Z", 1), ["2025-12-31T00:00:00Z"]);
}

#[test]
fn nicknames_and_names_are_known() {
    let from = "2026-01-01T00:00:00Z";
    for (nickname, due) in [
        ("@hourly", "2026-01-01T01:00:00Z"),
        ("@DAILY", "2026-01-02T00:00:00Z"),
        ("@weekly", "2026-01-04T00:00:00Z"),
        ("@monthly", "2026-02-01T00:00:00Z"),
        ("@yearly", "2027-01-01T00:00:00Z"),
        ("@annually", "2027-01-01T00:00:00Z"),
        ("0 6 * mar-may mon", "2026-03-02T06:00:00Z"),
        ("0 6 * * 7", "2026-01-04T06:00:00Z"),
        ("0 6 * * FRI#2", "2026-01-09T06:00:00Z"),
    ] {
        assert_eq!(next(&Schedule::parse(nickname, None).unwrap(), from, 1), [due], "{nickname}");
    }
}

#[test]
fn what_clocks_leave_out_comes_right_after_and_once() {
    // New York: on 2026-03-08, 2:00 to 3:00 is left out, at 7:00 UTC.
    for cron in ["30 2 * * *", "0,20,40 2 * * *", "0 2 * * *"] {
        let due = next(&schedule(cron, "America/New_York"), "2026-03-08T06:00:00Z", 2);
        assert_eq!(due.first().unwrap(), "2026-03-08T07:00:00Z", "{cron}");
        assert!(due.last().unwrap().starts_with("2026-03-09T06:"), "{cron}: {due:?}");
    }
    // With what is due at that instant anyway, it is one.
    let both = schedule("0 2,3 * * *", "Europe/Berlin");
    assert_eq!(
        next(&both, "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]
    );
    let early = schedule("30 2 * * SUN", "Europe/Berlin");
    assert_eq!(
        latest(&early, "2026-03-29T01:00:00Z", 2),
        ["2026-03-29T01:00:00Z", "2026-03-22T01:30:00Z"]
    );
    assert_eq!(latest(&early, "2026-03-29T00:59:59Z", 1), ["2026-03-22T01:30:00Z"]);
}

#[test]
fn what_clocks_show_twice_comes_once() {
    // New York: on 2026-11-01, 1:00 to 2:00 is shown twice, from 5:00 UTC.
    let daily = schedule("30 1 * * *", "America/New_York");
    assert_eq!(
        next(&daily, "2026-11-01T00:00:00Z", 2),
        ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
    );
    for now in ["2026-11-01T05:30:00Z", "2026-11-01T06:10:00Z", "2026-11-01T06:30:00Z"] {
        assert_eq!(latest(&daily, now, 1), ["2026-11-01T05:30:00Z"], "at {now}");
        assert_eq!(next(&daily, now, 1), ["2026-11-02T06:30:00Z"], "at {now}");
    }
    // Berlin: on 2026-10-25, 2:00 to 3:00 is shown twice, from 0:00 UTC.
    let thrice = schedule("0,20,40 2 * * *", "Europe/Berlin");
    assert_eq!(
        next(&thrice, "2026-10-24T12:00:00Z", 4),
        [
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:20:00Z",
            "2026-10-25T00:40:00Z",
            "2026-10-26T01:00:00Z"
        ]
    );
    assert_eq!(
        latest(&thrice, "2026-10-25T01:10:00Z", 2),
        ["2026-10-25T00:40:00Z", "2026-10-25T00:20:00Z"]
    );
}

#[test]
fn what_is_due_at_all_hours_goes_on_as_time_passes() {
    let often = schedule("*/30 * * * *", "America/New_York");
    assert_eq!(
        next(&often, "2026-11-01T05:00:00Z", 4),
        [
            "2026-11-01T05:30:00Z",
            "2026-11-01T06:00:00Z",
            "2026-11-01T06:30:00Z",
            "2026-11-01T07:00:00Z"
        ]
    );
    assert_eq!(
        next(&often, "2026-03-08T06:30:00Z", 2),
        ["2026-03-08T07:00:00Z", "2026-03-08T07:30:00Z"]
    );
    assert_eq!(
        latest(&often, "2026-11-01T06:10:00Z", 3),
        ["2026-11-01T06:00:00Z", "2026-11-01T05:30:00Z", "2026-11-01T05:00:00Z"]
    );
}

#[test]
fn bad_expressions_are_refused_with_an_example() {
    for (cron, says) in [
        ("", "it has only 0 fields"),
        ("0 3 * *", "it has only 4 fields"),
        ("0 0 3 * * SUN", "it has 6 fields"),
        ("0 25 * * *", "25"),
        ("0 3 * * FUN", "'F'"),
        ("@fortnightly", "@weekly"),
        ("5-1 3 * * *", "5-1"),
        ("*/0 * * * *", "`*/0 * * * *` is no cron expression"),
        ("\u{1b}[2J", "\\u{1b}[2J"),
    ] {
        let error = Schedule::parse(cron, None).unwrap_err();
        assert!(matches!(error, ScheduleError::Cron { .. }), "{cron}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(says), "{cron}: {text}");
        assert!(text.contains("for example `0 3 * * SUN`"), "{cron}: {text}");
        assert!(!text.contains("omponent") && !text.contains("CronPattern"), "{cron}: {text}");
    }
    for cron in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        let error = Schedule::parse(cron, None).unwrap_err();
        assert!(matches!(error, ScheduleError::Never { .. }), "{cron}: {error:?}");
        assert!(error.to_string().contains("never comes"), "{error}");
    }
}

#[test]
fn unknown_zones_are_refused_with_one_that_is_like_it() {
    let error = Schedule::parse("0 3 * * *", Some("Europe/Berln")).unwrap_err();
    assert!(matches!(error, ScheduleError::TimeZone { .. }));
    assert!(error.to_string().contains("is it `Europe/Berlin`?"), "{error}");
    let error = Schedule::parse("0 3 * * *", Some("")).unwrap_err();
    assert!(error.to_string().contains("`UTC`"), "{error}");
    // Names are found as people write them.
    assert_eq!(schedule("0 3 * * *", "europe/berlin").time_zone(), "Europe/Berlin");
}

#[test]
fn the_local_zone_is_known_or_its_lack_explained() {
    match Schedule::parse("0 3 * * *", Some("local")) {
        Ok(schedule) => assert!(!schedule.time_zone().is_empty()),
        Err(error) => assert!(error.to_string().contains("variable TZ"), "{error}"),
    }
}

#[test]
fn jobs_have_plain_names() {
    let daily = || Schedule::parse("@daily", None).unwrap();
    for name in ["", "a b", "näher", "a/b", &"x".repeat(65)] {
        let error = Job::new(name, daily()).unwrap_err();
        assert!(error.to_string().contains("for example `weekly-census`"), "{error}");
    }
    assert_eq!(Job::new("Weekly_census-2", daily()).unwrap().name(), "Weekly_census-2");
}

const ZONES: [&str; 6] = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    // By half an hour.
    "Australia/Lord_Howe",
    // At midnight.
    "America/Santiago",
    // It left out 2011-12-30.
    "Pacific/Apia",
];

fn field(most: u32) -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("*".to_owned()),
        3 => (0..=most).prop_map(|one| one.to_string()),
        1 => (0..=most, 0..=most).prop_map(|(a, b)| format!("{},{}", a.min(b), a.max(b))),
        1 => (0..=most / 2, 0..=most / 2).prop_map(|(a, more)| format!("{a}-{}", a + more)),
        1 => (2..=most).prop_map(|step| format!("*/{step}")),
    ]
}

fn cron() -> impl Strategy<Value = String> {
    let days = prop_oneof![4 => Just("* * *"), 1 => Just("* * SUN"), 1 => Just("1,15 * *")];
    (field(59), field(23), days).prop_map(|(minute, hour, days)| format!("{minute} {hour} {days}"))
}

/// Any instant from 2005 to 2030, often near a change of clocks.
fn instant() -> impl Strategy<Value = Timestamp> {
    let changes = [
        "2026-03-08T07:00:00Z",
        "2026-11-01T06:00:00Z",
        "2026-03-29T01:00:00Z",
        "2026-10-25T01:00:00Z",
        "2026-04-04T15:00:00Z",
        "2026-10-03T15:30:00Z",
        "2026-04-05T03:00:00Z",
        "2026-09-06T04:00:00Z",
        "2011-12-30T10:00:00Z",
    ];
    let near = (prop::sample::select(changes.to_vec()), -9_000_000_i64..9_000_000);
    prop_oneof![
        1 => (1_104_537_600_000_i64..1_893_456_000_000).prop_map(Timestamp::from_millis),
        2 => near.prop_map(|(change, by)| Timestamp::from_millis(at(change).as_millis() + by)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn before_and_after_agree(
        cron in cron(),
        zone in prop::sample::select(ZONES.to_vec()),
        now in instant(),
    ) {
        let schedule = schedule(&cron, zone);
        let next = schedule.next_after(now).unwrap();
        let latest = schedule.latest_until(now).unwrap();
        prop_assert!(next > now, "{} is not after {}", shown(next), shown(now));
        prop_assert!(latest <= now, "{} is after {}", shown(latest), shown(now));
        prop_assert_eq!(schedule.latest_until(next), Some(next));
        prop_assert_eq!(schedule.latest_until(latest), Some(latest));
        // There is nothing between them.
        prop_assert_eq!(schedule.next_after(latest), Some(next), "{} {}", shown(latest), shown(next));
        let before = Timestamp::from_millis(next.as_millis() - 1);
        prop_assert_eq!(schedule.latest_until(before), Some(latest), "{}", shown(next));
    }
}
