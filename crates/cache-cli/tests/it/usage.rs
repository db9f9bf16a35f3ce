//! Habits: exit codes, help, pipes.

use std::{io::Read, process::Stdio};

use crate::harness::{Api, Place};

#[test]
fn what_is_typed_wrong_ends_with_code_2_and_says_what_is_right() {
    let place = Place::new();
    let cases: [(&[&str], &str); 9] = [
        (&["stat"], "stats"),
        (&["get", "a", "--markt", "x"], "--market"),
        (&["get", "a"], "--market"),
        (&["get", "a", "--market", "Bolder, CO"], "Boulder, CO (boulder-co)"),
        (&["get", "a", "--market", "boulder-co", "--param", "year"], "NAME=VALUE"),
        (&["get", "a", "--market", "boulder-co"], "cache.sources"),
        (&["warm", "--sources", "a"], "--markets"),
        (&["warm", "--sources", ",", "--market", "boulder-co"], "nothing to warm"),
        (&["warm", "--markets", "nowhere.csv", "--sources", "a"], "cache.sources"),
    ];
    for (args, expected) in cases {
        let run = place.larder(args).expect(2);
        assert!(run.stderr().contains(expected), "{args:?}: {}", run.stderr());
        assert_eq!(run.stdout(), "", "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_markets_file_that_is_none_is_refused_with_its_line() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    let cases = [
        ("city\nBoulder\n", "market"),
        ("market\nBoulder, CO\n", "line 2"),
        ("market\n\"Boulder, CO\nAustin\n", "line 2"),
    ];
    for (text, expected) in cases {
        place.write("markets.csv", text);
        let run = place.larder(&["warm", "--markets", "markets.csv", "-s", "a"]).expect(2);
        assert!(run.stderr().contains("markets.csv: "), "{}", run.stderr());
        assert!(run.stderr().contains(expected), "{text:?}: {}", run.stderr());
    }
    assert_eq!(api.answered(), 0);
}

#[test]
fn help_has_examples_and_the_exit_codes() {
    let place = Place::new();
    assert!(place.larder(&["--help"]).expect(0).stdout().contains("Exit codes: 0 done"));
    assert!(place.larder(&["get", "--help"]).expect(0).stdout().contains("larder get census_acs"));
    assert!(place.larder(&["warm", "--help"]).expect(0).stdout().contains("markets.csv"));
    assert!(place.larder(&["--version"]).expect(0).stdout().starts_with("larder "));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let mut child = place
        .command(&["config", "show"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn an_empty_cache_is_told_and_not_created() {
    let place = Place::new();
    let run = place.larder(&["stats"]).expect(0);
    assert!(run.stdout().contains("Nothing is stored yet"), "{}", run.stdout());
    assert!(!place.path(".cache").exists());
    let run = place.larder(&["stats", "-F", "json"]).expect(0);
    assert_eq!(run.json()["tiers"], serde_json::json!([]));
}
