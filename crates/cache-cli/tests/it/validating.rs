//! `larder validate`, and what `larder stats` says of the file.

use crate::harness::{Api, Place};

/// A place where three answers are stored.
async fn filled() -> Place {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    for market in ["boulder-co", "denver-co", "austin-tx"] {
        place.larder(&["get", "a", "--market", market]).expect(0);
    }
    place
}

fn damage(place: &Place, sql: &str) {
    let connection = rusqlite::Connection::open(place.path("cache.db")).unwrap();
    assert!(connection.execute(sql, []).unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_file_has_no_problems() {
    let place = filled().await;
    let run = place.larder(&["validate"]).expect(0);
    assert_eq!(run.stdout(), "sqlite: 3 entries checked, no problems\n");
    let json = place.larder(&["validate", "--format", "json"]).expect(0).json();
    assert_eq!(json["schema"], "larder.validate/1");
    assert_eq!(json["tiers"][0]["sound"], true);
    assert_eq!(json["tiers"][0]["entries"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_are_told_then_repaired() {
    let place = filled().await;
    damage(&place, "UPDATE entries SET value = x'00' WHERE id = 1");
    damage(&place, "UPDATE totals SET entries = 7");
    let run = place.larder(&["validate"]).expect(5);
    assert!(run.stdout().contains("its checksum differs"), "{}", run.said());
    assert!(run.stdout().contains("larder validate --repair"), "{}", run.said());
    let json = place.larder(&["validate", "--format", "json"]).expect(5).json();
    let kinds = json["tiers"][0]["problems"].as_array().unwrap().iter();
    let kinds: Vec<_> = kinds.map(|one| (one["kind"].clone(), one["repaired"].clone())).collect();
    assert_eq!(kinds, [("entry".into(), 0.into()), ("counters".into(), 0.into())]);
    place.larder(&["validate", "--repair"]).expect(0);
    let run = place.larder(&["validate"]).expect(0);
    assert_eq!(run.stdout(), "sqlite: 2 entries checked, no problems\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_made_where_nothing_is() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    let run = place.larder(&["validate", "--repair"]).expect(0);
    assert!(run.stdout().contains("does not exist"), "{}", run.said());
    assert!(!place.path("cache.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_tell_what_the_file_holds_and_may_hold() {
    let place = filled().await;
    let run = place.larder(&["stats"]).expect(0);
    assert!(run.stdout().contains("in its log") && run.stdout().contains("at most 1.00 GiB"));
    let tier = place.larder(&["stats", "--format", "json"]).expect(0).json()["tiers"][0].clone();
    assert_eq!(tier["capacity_bytes"], 1_u64 << 30);
    assert!(tier["occupied_bytes"].as_u64() > tier["log_bytes"].as_u64());
}
