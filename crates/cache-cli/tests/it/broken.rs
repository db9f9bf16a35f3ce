//! When the SQLite file cannot be used: answers still come, and standard error says why slower.

use std::fs;

use crate::harness::{Api, Place, contents};

#[tokio::test(flavor = "multi_thread")]
async fn garbage_in_place_of_the_file_is_left_alone_and_told() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    let file = place.write("cache.db", &"garbage ".repeat(2_000));
    for calls in 1..=2 {
        let run = place.larder(&["get", "a", "--market", "boulder-co"]).expect(0);
        assert_eq!(run.stdout(), "{\"source\": \"a\", \"cbsa\": 14500}");
        assert!(run.stderr().contains("slower"), "{}", run.stderr());
        assert!(run.stderr().contains("cache.db is not a SQLite database"), "{}", run.stderr());
        assert!(run.stderr().contains("from the origin"), "{}", run.stderr());
        assert_eq!(api.answered(), calls);
    }
    assert_eq!(contents(&file), "garbage ".repeat(2_000).into_bytes());
    let stats = place.larder(&["stats"]).expect(1);
    assert!(stats.stderr().contains("is not a SQLite database"), "{}", stats.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_place_of_the_file_is_told() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    fs::create_dir(place.path("cache.db")).unwrap();
    let run = place.larder(&["get", "a", "--market", "boulder-co"]).expect(0);
    assert_eq!(run.stdout(), "{\"source\": \"a\", \"cbsa\": 14500}");
    assert!(run.stderr().contains("cache.db is a directory"), "{}", run.stderr());
    let warm = place.larder(&["warm", "-m", "boulder-co", "-s", "a,b"]).expect(0);
    assert!(warm.stderr().contains("is a directory"), "{}", warm.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_strict_mode_it_is_an_error() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    fs::create_dir(place.path("cache.db")).unwrap();
    let mut strict = place.command(&["get", "a", "--market", "boulder-co"]);
    let run = strict.env("LARDER_CACHE__GRACEFUL_MODE", "false").output().unwrap();
    assert_eq!(run.status.code(), Some(1));
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(said.contains("get failed on tier `sqlite`"), "{said}");
    assert_eq!(api.answered(), 0);
}
