//! `larder warm`: which markets, what of them, and what it would take.

use crate::harness::{Api, Place};

/// The API with these further settings of its source `a`.
async fn place(settings: &str) -> (Place, Api) {
    let (place, api) = (Place::new(), Api::open().await);
    let at = api.address;
    place.write(
        "larder.yaml",
        &format!(
            "cache:\n  prefetch: {{nearby_radius_miles: 60}}\n  sources:\n    a: {{allow_private: true, \
             url: \"http://{at}/a/{{cbsa}}\"{settings}}}\n    b: {{allow_private: true, url: \
             \"http://{at}/b/{{cbsa}}\"}}\n"
        ),
    );
    (place, api)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_calls_time_quota_and_cost_and_fetches_nothing() {
    let (place, api) =
        place(", rate_limit: 2/s, quota: 10/day, cost_per_call: 0.25, timeout: 5s").await;
    place.larder(&["warm", "-m", "boulder-co", "-m", "denver-co", "-s", "a"]).expect(0);
    assert_eq!(api.answered(), 2);
    let args = ["warm", "-m", "boulder-co", "--nearby=150", "-s", "a,b", "--dry-run"];
    let told = place.larder(&[&args[..], &["-F", "json"]].concat()).expect(0).json();
    let of = |name: &str| {
        let sources = told["sources"].as_array().unwrap();
        sources.iter().find(|it| it["source"] == name).unwrap().clone()
    };
    let (a, planned) = (of("a"), of("b")["planned"].as_u64().unwrap());
    assert!(planned > 9, "{told}");
    let calls = planned - 2;
    assert_eq!((a["fresh"].as_u64(), a["calls"].as_u64()), (Some(2), Some(calls)));
    assert_eq!(a["cost"].as_f64(), Some(calls as f64 * 0.25));
    assert_eq!(a["seconds"].as_f64(), Some((calls - 1) as f64 / 2.0));
    assert_eq!((&a["quota"]["used"], &a["quota"]["allowed"]), (&2.into(), &10.into()));
    assert_eq!(a["quota"]["beyond"].as_u64(), Some(calls.saturating_sub(8)));
    assert_eq!(told["calls"].as_u64(), Some(calls + planned));
    let run = place.larder(&args).expect(0);
    assert!(run.stdout().contains("nothing was fetched"), "{}", run.said());
    assert!(run.stdout().contains("at a cost of"), "{}", run.said());
    assert_eq!(api.answered(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_quota_does_not_allow_is_left_and_told() {
    let (place, api) = place(", quota: 3/day").await;
    let args = ["warm", "-m", "boulder-co", "--nearby", "-s", "a", "-F", "json", "-q"];
    let did = place.larder(&args).expect(6).json();
    assert_eq!((&did["fetched"], &did["sources"]["a"]["failed"]), (&3.into(), &0.into()));
    assert!(did["left"].as_u64().unwrap() > 0, "{did}");
    let because = did["sources"]["a"]["left_because"].as_str().unwrap();
    assert!(because.contains("quota of 3 calls in 1 d"), "{because}");
    assert_eq!(api.answered(), 3);
    let run = place.larder(&["warm", "-m", "boulder-co", "--nearby", "-s", "a"]).expect(6);
    assert!(run.stderr().contains("left: a · "), "{}", run.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn markets_near_those_that_are_named_are_fetched_too() {
    let (place, _api) = place("").await;
    let json = |args: &[&str]| {
        let base = ["warm", "-m", "boulder-co", "-s", "a", "-F", "json"];
        place.larder(&[&base[..], args].concat()).expect(0).json_lines()
    };
    let markets: Vec<String> = json(&["--nearby"])
        .iter()
        .filter_map(|line| Some(line["market"].as_str()?.to_owned()))
        .collect();
    for near in ["boulder-co", "denver-co", "fort-collins-co", "greeley-co"] {
        assert!(markets.iter().any(|market| market == near), "{near}: {markets:?}");
    }
    let wider = json(&["--nearby=200"]).pop().unwrap();
    assert!(wider["planned"].as_u64().unwrap() > markets.len() as u64);
    assert_eq!(json(&["--nearby=0"]).pop().unwrap()["planned"], 1);
    for wrong in ["--nearby=-1", "--nearby=far"] {
        let run = place.larder(&["warm", "-m", "boulder-co", "-s", "a", wrong]).expect(2);
        assert!(run.stderr().contains("number of miles"), "{}", run.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_markets_are_an_error_if_they_are_to_be() {
    let (place, api) = place("").await;
    place.write("markets.csv", "market\nboulder-co\nBolder\nnowhere\n");
    let args = ["warm", "--markets", "markets.csv", "-s", "a", "--strict"];
    let run = place.larder(&args).expect(2);
    assert!(run.stderr().contains("line 3: unknown market `Bolder`"), "{}", run.stderr());
    assert!(run.stderr().contains("1 more") && run.stderr().contains("Boulder, CO"));
    assert_eq!(api.answered(), 0, "nothing is fetched");
    place.write("markets.csv", "market,lat,lon\nboulder-co,40,\n");
    let args = ["warm", "--markets", "markets.csv", "-s", "a", "--nearby"];
    let run = place.larder(&args).expect(2);
    assert!(run.stderr().contains("line 2: the row has no `lon`"), "{}", run.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_metropolitan_areas_are_planned() {
    let (place, _api) = place("").await;
    let args = ["warm", "--all-metros", "-s", "a", "--dry-run", "-F", "json"];
    let told = place.larder(&args).expect(0).json();
    let planned = told["calls"].as_u64().unwrap();
    assert!((380..400).contains(&planned), "{planned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_fresh_is_fetched_again_if_asked_or_if_it_is_too_old() {
    let (place, api) = place("").await;
    let warm = |args: &[&str]| {
        let base = ["warm", "-m", "boulder-co", "-m", "denver-co", "-s", "a", "-F", "json", "-q"];
        place.larder(&[&base[..], args].concat()).expect(0).json()
    };
    warm(&[]);
    assert_eq!(warm(&["--max-age", "1h"])["fresh"], 2);
    assert_eq!(warm(&["--max-age", "0s"])["fetched"], 2);
    assert_eq!(warm(&["--refresh"])["fetched"], 2);
    assert_eq!(api.answered(), 6);
    let both = ["warm", "-m", "boulder-co", "-s", "a", "--refresh", "--max-age", "1h"];
    place.larder(&both).expect(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_failure_ends_the_run_if_it_is_to() {
    let (place, api) = (Place::new(), Api::open().await);
    let at = api.address;
    place.write(
        "larder.yaml",
        &format!(
            "cache:\n  sources:\n    lost: {{allow_private: true, url: \"http://{at}/nowhere/at/all/{{cbsa}}\"}}\n"
        ),
    );
    let args =
        ["warm", "--all-metros", "-s", "lost", "--fail-fast", "--parallel", "1", "-F", "json"];
    let did = place.larder(&args).expect(1).json_lines().pop().unwrap();
    assert!(did["left"].as_u64().unwrap() > 300, "{did}");
}
