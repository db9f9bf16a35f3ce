//! More in the Python cache than the tier's file has room for.

use std::{sync::Arc, time::Duration};

use cache_core::{Barrier, Clock as _, Inspect as _, Key, Selector, Stamp, Tier};
use rusqlite::Connection;
use tier_sqlite::{SqliteOptions, SqliteTier};
use tokio::task::JoinSet;

use crate::support::{DAY, Place, ended, rows, value};

const ALL: usize = 100;
/// Too small for all.
const SMALL: u64 = 1 << 20;

fn key(n: usize) -> String {
    format!("s:{n:02}")
}

/// Rows of a year ago that become some 27 kB each.
fn filled() -> Place {
    let place = Place::empty();
    let file = Connection::open(place.path()).unwrap();
    // A bytes object of 20 000 zeros, which becomes base64 of them.
    let pickle = [&b"B\x20\x4e\0\0"[..], &vec![0; 20_000], b"."].concat();
    for n in 0..ALL {
        let row = (key(n), &pickle);
        file.execute("INSERT INTO cache VALUES (?1, ?2, '2025-01-01T00:00:00', NULL)", row)
            .unwrap();
    }
    place
}

fn forget(place: &Place, selector: Selector) -> Barrier {
    Barrier::forget(selector, Stamp::at(place.clock.now()))
}

fn barriers(place: &Place) -> u64 {
    let store = Connection::open(place.store()).unwrap();
    let count = "SELECT count(*) FROM barriers WHERE kind <> 32";
    store.query_row(count, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn no_more_is_imported_than_fits() {
    let place = filled();
    let tier = place.open_with(place.options().max_bytes(SMALL)).await;
    let kept = rows(&place.store());
    assert!((10..40).contains(&kept.len()), "{kept:?}");
    tier.close().await.unwrap();
    let tier = place.open_with(place.options().max_bytes(SMALL)).await;
    assert_eq!(rows(&place.store()), kept);
    assert!(tier.validate(false).await.unwrap().is_sound());
    tier.close().await.unwrap();
}

#[tokio::test]
async fn the_rest_is_imported_once_there_is_room_and_what_had_gone_is_not() {
    let place = filled();
    let tier = place.open_with(place.options().max_bytes(SMALL)).await;
    let kept = rows(&place.store()).len();
    assert!(kept < ALL - 2);
    place.clock.advance(Duration::from_secs(1));
    // One that was imported is removed, another invalidated, as are two that were not imported yet.
    assert!(tier.remove(&Key::new(key(3))).await.unwrap());
    for (n, gone) in [(5, 1), (ALL - 1, 0), (kept + 1, 0)] {
        let barrier = forget(&place, Selector::Key(Key::new(key(n))));
        assert_eq!(tier.bar(&barrier).await.unwrap(), gone, "{n}");
    }
    // Longer than barriers are kept otherwise, which go when another is set.
    place.clock.advance(3 * DAY);
    tier.bar(&forget(&place, Selector::source("other"))).await.unwrap();
    tier.close().await.unwrap();
    // Nor do they take the room that others have left.
    let tier = place.open_with(place.options().max_bytes(SMALL)).await;
    tier.close().await.unwrap();
    let gone = [3, 5, kept + 1, ALL - 1].map(key);
    assert!(rows(&place.store()).iter().all(|key| !gone.contains(key)));
    assert!(rows(&place.store()).len() < ALL - gone.len());

    let tier = place.open().await;
    let all: Vec<_> = (0..ALL).map(key).filter(|key| !gone.contains(key)).collect();
    assert_eq!(rows(&place.store()), all);
    // From here on as if it had been imported at once.
    assert!(tier.remove(&Key::new(key(ALL - 2))).await.unwrap());
    tier.close().await.unwrap();
    place.clock.advance(3 * DAY);
    let tier = place.open().await;
    assert_eq!(rows(&place.store()), all[..all.len() - 1]);
    assert!(tier.validate(false).await.unwrap().is_sound());
    tier.close().await.unwrap();
}

#[tokio::test]
async fn a_purge_makes_room_for_the_rest() {
    let place = filled();
    let tier = place.open_with(place.options().max_bytes(SMALL)).await;
    let kept = rows(&place.store()).len();
    for n in 0..kept - 5 {
        assert!(tier.remove(&Key::new(key(n))).await.unwrap());
    }
    tier.close().await.unwrap();
    let tier = place.open_with(place.options().max_bytes(SMALL)).await;
    let now = rows(&place.store());
    assert!(now.len() > kept - 5, "{now:?}");
    let expected: Vec<_> = (kept - 5..kept - 5 + now.len()).map(key).collect();
    assert_eq!(now, expected);
    tier.close().await.unwrap();
}

#[tokio::test]
async fn what_the_old_program_changes_is_picked_up_on_both_sides_of_where_it_stopped() {
    let place = filled();
    let tier = place.open_with(place.options().max_bytes(SMALL)).await;
    assert!(tier.remove(&Key::new(key(3))).await.unwrap());
    tier.close().await.unwrap();
    place.clock.advance(2 * DAY);
    place.python_sets(&key(3), 3);
    place.python_sets("a:0", 1);
    place.python_sets("z:0", 2);
    let tier = place.open().await;
    assert_eq!(value(&tier, &key(3)).await.as_deref(), Some("3"));
    assert_eq!(value(&tier, "a:0").await.as_deref(), Some("1"));
    assert_eq!(value(&tier, "z:0").await.as_deref(), Some("2"));
    assert_eq!(rows(&place.store()).len(), ALL + 2);
    tier.close().await.unwrap();
}

#[tokio::test]
async fn invalidations_are_not_kept_for_the_rest_without_end() {
    let place = filled();
    let tier = place.open_with(place.options().max_bytes(SMALL)).await;
    place.clock.advance(Duration::from_secs(1));
    let tier = Arc::new(tier);
    let mut bars = JoinSet::new();
    for n in 0..10_001 {
        let (tier, key) = (Arc::clone(&tier), Key::new(format!("other:{n}")));
        let barrier = forget(&place, Selector::Key(key));
        bars.spawn(async move { tier.bar(&barrier).await.unwrap() });
    }
    bars.join_all().await;
    assert_eq!(barriers(&place), 10_001);
    place.clock.advance(3 * DAY);
    tier.bar(&forget(&place, Selector::source("other"))).await.unwrap();
    assert_eq!(barriers(&place), 1);
    tier.close().await.unwrap();
    // They took some of the room.
    let kept = rows(&place.store());
    assert!((1..ALL).contains(&kept.len()), "{kept:?}");
    // What they may have covered is not imported any more.
    let tier = place.open().await;
    assert_eq!(rows(&place.store()), kept);
    tier.close().await.unwrap();
}

#[tokio::test]
async fn marks_that_the_systems_clock_has_set_are_sound() {
    let place = Place::empty();
    place.python_sets("a:1", 1);
    for _ in 0..2 {
        let tier = SqliteTier::new(SqliteOptions::new(place.path())).unwrap();
        tier.get(&Key::new("no:such")).await.unwrap();
        while ended(&place.store()).is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let found = tier.validate(false).await.unwrap();
        assert!(found.is_sound(), "{found:?}");
        tier.close().await.unwrap();
    }
}
