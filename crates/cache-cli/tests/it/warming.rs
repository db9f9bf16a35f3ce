//! `larder warm` and `larder get`.

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use crate::harness::{Api, Place, Run, signal};

const MARKETS: &str = "market\n\"Boulder, CO\"\n19740\nfort-collins-co\n\"Austin, TX\"\nseattle-wa\n\"Boise City, ID\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn fetches_what_is_missing_and_nothing_twice() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    place.write("markets.csv", MARKETS);
    let args = ["warm", "--markets", "markets.csv", "--sources", "a,b", "-F", "json"];
    let mut lines = place.larder(&args).expect(0).json_lines();
    let first = lines.pop().unwrap();
    assert_eq!((&first["planned"], &first["fetched"]), (&12.into(), &12.into()));
    assert_eq!(first["sources"]["b"]["fetched"], 6);
    assert_eq!(lines.len(), 12, "an event for each");
    assert!(lines.iter().all(|line| line["outcome"] == "fetched"), "{lines:?}");
    let args = [&args[..], &["--quiet"]].concat();
    let second = place.larder(&args).expect(0).json();
    assert_eq!((&second["fresh"], &second["fetched"]), (&12.into(), &0.into()));
    assert_eq!(api.answered(), 12);

    let got = place.larder(&["get", "a", "--market", "14500"]).expect(0);
    assert_eq!(got.stdout(), "{\"source\": \"a\", \"cbsa\": 14500}", "the value, and nothing else");
    assert!(got.stderr().contains("from tier sqlite"), "{}", got.stderr());
    for name in ["Boulder, CO", "boulder-co", "14500"] {
        place.larder(&["get", "a", "--market", name]).expect(0);
    }
    assert_eq!(api.answered(), 12, "three names of one market");
    let stats = place.larder(&["stats"]).expect(0);
    assert!(stats.stdout().contains("12 entries"), "{}", stats.stdout());
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_the_middle_the_next_run_fetches_only_what_was_not_stored() {
    let (place, api) = (Place::new(), Api::start(5).await);
    place.configure(&api);
    place.write("markets.csv", MARKETS);
    let args = ["warm", "--markets", "markets.csv", "--sources", "a,b", "--parallel", "2"];
    let mut child = place.spawn(&args);
    // Five have been answered, and the answers taken: two more are under way.
    api.reached(7).await;
    // They are stored behind the answer: how many, when it is killed, is a matter of luck.
    place.stored_something().await;
    child.kill().unwrap();
    child.wait().unwrap();
    let (stored, answered) = (place.stored(), api.answered());
    assert_eq!(answered, 5);
    assert!((1..=5).contains(&stored), "{stored}");

    api.permit(1_000);
    let again = place.larder(&args).expect(0);
    let refetched = api.answered() - answered;
    // The two requests of the killed process may still hold permits.
    assert!((12 - stored..=14 - stored).contains(&refetched), "{refetched}: {}", again.said());
    assert!(again.stdout().contains(&format!("{stored} already fresh")), "{}", again.stdout());
    assert!(again.stdout().contains(&format!("{} fetched", 12 - stored)), "{}", again.stdout());
    assert_eq!(place.stored(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_it_finishes_what_is_under_way_and_tells_what_is_left() {
    let (place, api) = (Place::new(), Api::start(3).await);
    place.configure(&api);
    place.write("markets.csv", MARKETS);
    let args = ["warm", "--markets", "markets.csv", "--sources", "a,b", "--parallel", "1"];
    let mut child = place.spawn(&args);
    api.reached(4).await;
    signal(&child, "INT");
    // The fourth is under way, and is answered only after the signal has been taken.
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let taken = tokio::task::spawn_blocking(move || {
        stderr.lines().any(|line| line.unwrap().starts_with("stopping"))
    });
    assert!(taken.await.unwrap());
    api.permit(1);
    let run = tokio::task::spawn_blocking(move || Run(child.wait_with_output().unwrap()));
    let run = run.await.unwrap().expect(130);
    assert!(run.stdout().contains("8 left: run the same command again"), "{}", run.said());
    assert_eq!(place.stored(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_markets_from_standard_input_and_names_what_it_does_not_know() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    let mut child = place
        .command(&["warm", "--markets", "-", "--sources", "a"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"market\nboulder-co\nBolder\n").unwrap();
    let run = Run(child.wait_with_output().unwrap()).expect(6);
    assert!(run.stderr().contains("line 3: unknown market `Bolder`"), "{}", run.stderr());
    assert!(run.stderr().contains("Boulder, CO"), "{}", run.stderr());
    assert!(run.stdout().contains("1 of 1"), "{}", run.stdout());
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_told_and_counted_and_the_rest_is_done() {
    let (place, api) = (Place::new(), Api::open().await);
    let at = api.address;
    place.write(
        "larder.yaml",
        &format!(
            "cache:\n  sources:\n    a: {{allow_private: true, url: \"http://{at}/a/{{cbsa}}\"}}\n    \
             lost: {{allow_private: true, url: \"http://{at}/nowhere/at/all/{{cbsa}}?key=hunter2\"}}\n"
        ),
    );
    let args = ["warm", "-m", "boulder-co", "-m", "denver-co", "-s", "a,lost"];
    let run = place.larder(&args).expect(6);
    assert!(run.stdout().contains("2 of 4"), "{}", run.stdout());
    assert!(
        run.stderr().contains("failed: lost · boulder-co, denver-co: source `lost`: "),
        "{}",
        run.stderr()
    );
    assert!(run.stderr().contains("HTTP 404"), "{}", run.stderr());
    assert!(!run.said().contains("hunter2"), "{}", run.said());
    let none = place.larder(&["warm", "-m", "boulder-co", "-s", "lost"]).expect(1);
    assert!(none.stdout().contains("0 of 1"), "{}", none.stdout());
    place.larder(&["get", "lost", "-m", "boulder-co"]).expect(1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interrupt_does_not_wait() {
    let (place, api) = (Place::new(), Api::start(0).await);
    place.configure(&api);
    let mut child = place.spawn(&["warm", "-m", "boulder-co", "-s", "a"]);
    api.reached(1).await;
    signal(&child, "INT");
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines();
    assert!(lines.any(|line| line.unwrap().starts_with("stopping")));
    // Whenever the first is taken, a later one is the second.
    let code = loop {
        signal(&child, "INT");
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(code, Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_given_by_hand_go_before_those_of_the_source_and_unknown_ones_are_refused() {
    let (place, api) = (Place::new(), Api::open().await);
    let at = api.address;
    place.write(
        "larder.yaml",
        &format!("cache: {{sources: {{a: {{allow_private: true, url: \"http://{at}/a/{{cbsa}}\", params: {{year: 2022}}}}}}}}\n"),
    );
    let key = |args: &[&str]| {
        let got = place.larder(&[&["get", "a", "-m", "boulder-co", "-F", "json"], args].concat());
        got.expect(0).json()["key"].as_str().unwrap().to_owned()
    };
    assert_eq!(key(&[]), "a:cbsa=14500&year=2022");
    assert_eq!(key(&["--param", "year=1999"]), "a:cbsa=14500&year=1999");
    let typo = place.larder(&["get", "a", "-m", "boulder-co", "--param", "yaer=1"]).expect(2);
    assert!(typo.stderr().contains("it has: cbsa, year"), "{}", typo.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_printed_digit_for_digit() {
    let place = Place::new();
    let router = axum::Router::new().route(
        "/a/{cbsa}",
        axum::routing::get(async || "{\"z\":12345678901234567890123,\"a\":1.50}"),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let config = format!(
        "cache: {{sources: {{a: {{allow_private: true, url: \"http://{at}/a/{{cbsa}}\"}}}}}}\n"
    );
    place.write("larder.yaml", &config);
    let got = place.larder(&["get", "a", "-m", "boulder-co", "-F", "json"]).expect(0);
    let expected = "\"value\":{\"z\":12345678901234567890123,\"a\":1.50}}";
    assert!(got.stdout().trim_end().ends_with(expected), "{}", got.stdout());
}
