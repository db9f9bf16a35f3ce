//! Rows become entries with their times and a value that says what it is.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;

use cache_core::{Stamp, Timestamp};
use python_cache::{Limits, Outline, PICKLE_CONTENT_TYPE, PythonCache, Unfit};

const MADE: Timestamp = Timestamp::from_millis(1_641_092_645_123);
/// In 2026.
const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

fn legacy() -> PythonCache {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/legacy.db");
    PythonCache::open(&file).unwrap()
}

fn outline(cache: &PythonCache, key: &str, now: Timestamp) -> Result<Outline, Unfit> {
    cache.row(key).unwrap().unwrap().outline(now, Stamp::from_packed(7))
}

#[test]
fn an_entry_is_as_old_as_its_row_and_lives_as_long() {
    let cache = legacy();
    let made = outline(&cache, "census:acs:2020", NOW).unwrap();
    let pickle = cache.value(&cache.row("census:acs:2020").unwrap().unwrap()).unwrap().unwrap();
    let imported = made.with_value(pickle, &Limits::default());
    let entry = imported.entry;
    assert_eq!((entry.as_of(), entry.loaded_at()), (Stamp::at(MADE), MADE));
    assert_eq!(entry.expires_at().as_millis(), 4_071_006_245_123);
    assert_eq!(entry.stale_until(), entry.expires_at());
    assert!(entry.has_own_lifetime() && entry.tags().is_empty());
    assert_eq!((entry.content_type(), imported.opaque), (Some("application/json"), None));
    serde_json::from_slice::<serde_json::Value>(entry.value()).unwrap();
    assert_eq!(outline(&cache, "never", NOW).unwrap().entry().expires_at(), Timestamp::NEVER);
}

#[test]
fn a_hostile_pickle_is_kept_as_it_is() {
    let cache = legacy();
    let row = cache.row("hostile:os.system").unwrap().unwrap();
    let pickle = cache.value(&row).unwrap().unwrap();
    let made = row.outline(NOW, Stamp::ZERO).unwrap();
    let imported = made.with_value(pickle.clone(), &Limits::default());
    assert_eq!(imported.entry.value(), &pickle);
    assert_eq!(imported.entry.content_type(), Some(PICKLE_CONTENT_TYPE));
    assert!(imported.opaque.unwrap().contains("posix.system"));
}

#[test]
fn what_is_expired_or_cannot_be_read_is_not_imported() {
    let cache = legacy();
    assert_eq!(outline(&cache, "expired", NOW).unwrap_err(), Unfit::Expired);
    for key in ["", "null-value", "text-value", "odd-expires"] {
        let unfit = outline(&cache, key, NOW).unwrap_err();
        assert!(matches!(unfit, Unfit::Unreadable(_)), "{key}: {unfit:?}");
    }
}

#[test]
fn a_row_without_a_usable_time_of_creation_is_old() {
    let cache = legacy();
    for key in ["no-created", "odd-created"] {
        assert_eq!(outline(&cache, key, NOW).unwrap().as_of(), Stamp::from_packed(1), "{key}");
    }
    let before = Timestamp::from_millis(MADE.as_millis() - 1);
    let undated = outline(&cache, "census:acs:2020", before).unwrap();
    assert_eq!(undated.as_of(), Stamp::from_packed(7), "written in the future");
}
