//! Change notices through their public interface: real files, processes and servers.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

#[cfg(unix)]
mod command;
mod compare;
mod compare_any;
mod log;
mod webhook;

use cache_warmer::changes::{Change, ChangeRule, compare};
use larder::Timestamp;

/// A change of the entry with this key, found at so many milliseconds.
fn change(at: i64, key: &str) -> Change {
    let found = compare(br#"{"rent": 1}"#, br#"{"rent": 2}"#, &ChangeRule::default()).unwrap();
    Change::new(Timestamp::from_millis(at), "rents", key, found)
}

/// A change of which every field has a value.
fn full_change() -> Change {
    let mut change = change(1_700_000_000_123, "rents:boulder-co");
    change.market = Some("boulder-co".into());
    change.critical = true;
    change.old_version = Some("2023".into());
    change.new_version = Some("2024".into());
    change
}

#[test]
fn a_change_is_json_that_other_programs_can_read() {
    let change = full_change();
    let json = serde_json::to_value(&change).unwrap();
    let wanted = serde_json::json!({
        "schema": "larder.change/1",
        "at": "2023-11-14T22:13:20.123Z",
        "source": "rents",
        "market": "boulder-co",
        "key": "rents:boulder-co",
        "critical": true,
        "old_version": "2023",
        "new_version": "2024",
        "old_hash": change.old_hash,
        "new_hash": change.new_hash,
        "changed": 1,
        "deltas": [{"pointer": "/rent", "old": "1", "new": "2"}],
    });
    assert_eq!(json, wanted);
    assert_eq!(serde_json::from_value::<Change>(json).unwrap(), change);
}

#[test]
fn a_change_of_another_schema_is_refused() {
    let mut json = serde_json::to_value(full_change()).unwrap();
    json["schema"] = "larder.change/2".into();
    let refusal = serde_json::from_value::<Change>(json).unwrap_err().to_string();
    assert!(refusal.contains("larder.change/1"), "{refusal}");
}

#[test]
fn an_instant_beyond_the_calendar_is_written_as_its_end() {
    let json = serde_json::to_value(change(i64::MAX, "k")).unwrap();
    assert!(json["at"].as_str().unwrap().starts_with("9999-12-3"), "{json}");
}
