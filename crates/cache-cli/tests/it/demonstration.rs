//! `larder demo`.

use serde_json::Value;

use crate::harness::Place;

fn phase<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["phases"].as_array().unwrap().iter().find(|phase| phase["name"] == name).unwrap()
}

#[test]
fn fetches_once_and_serves_from_each_tier_also_in_the_next_run_and_without_the_api() {
    let place = Place::new();
    let first = place.larder(&["demo", "--format", "json"]).expect(0).json();
    assert_eq!(first["schema"], "larder.demo/1");
    let names: Vec<_> =
        first["phases"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["warm", "memory", "sqlite", "origin_down"]);
    let expected = [("warm", 30, 0, 0), ("memory", 0, 30, 0), ("sqlite", 0, 0, 30)];
    for (name, calls, memory, sqlite) in expected {
        let phase = phase(&first, name);
        assert_eq!(phase["origin_calls"], calls, "{phase}");
        assert_eq!(phase["origin_refused"], 0, "{phase}");
        assert_eq!(phase["hits"]["memory"], memory, "{phase}");
        assert_eq!(phase["hits"]["sqlite"], sqlite, "{phase}");
        let latency = |name: &str| phase["latency_ms"][name].as_f64().unwrap();
        assert!(latency("p50") <= latency("p95") && latency("p95") <= latency("p99"), "{phase}");
        assert!(phase["seconds"].as_f64().unwrap() > 0.0, "{phase}");
    }
    assert!(phase(&first, "warm")["latency_ms"]["p50"].as_f64().unwrap() >= 200.0);
    let down = phase(&first, "origin_down");
    let hits = |tier: &str| down["hits"][tier].as_u64().unwrap();
    assert_eq!((&down["origin_calls"], hits("memory") + hits("sqlite")), (&Value::from(0), 30));
    let (raw, stored) = (&first["raw_bytes"], &first["stored_bytes"]);
    assert!(raw.as_u64().unwrap() > 1_000_000, "ten of about 1, 15 and 150 KB: {raw}");
    assert!(stored.as_u64() < raw.as_u64(), "{stored} of {raw}");

    let second = place.larder(&["demo", "--format", "json"]).expect(0).json();
    let calls = second["phases"].as_array().unwrap().iter().map(|one| &one["origin_calls"]);
    assert!(calls.clone().all(|calls| *calls == 0), "{:?}", calls.collect::<Vec<_>>());
    assert_eq!(phase(&second, "warm")["hits"]["sqlite"], 30);

    // What the demo leaves behind works with the other commands, without its API.
    let config = "larder-demo/larder.yaml";
    let get = ["--config", config, "get", "profile", "--market", "Boulder, CO", "-F", "json"];
    let got = place.larder(&get).expect(0).json();
    assert_eq!((&got["served_by"], &got["value"]["cbsa"]), (&"sqlite".into(), &14500.into()));
    let stats = place.larder(&["--config", config, "stats", "-F", "json"]).expect(0).json();
    assert_eq!(stats["tiers"][0]["entries"], 30);

    let table = place.larder(&["demo"]).expect(0);
    for text in ["MEMORY", "SQLITE", "ORIGIN", "P99", "larder-demo/larder.yaml stats", "--fresh"] {
        assert!(table.stdout().contains(text), "{text}: {}", table.said());
    }
}

#[test]
fn fresh_starts_over_and_removes_only_what_is_the_demos() {
    let place = Place::new();
    let mine = place.write("demo/mine.txt", "keep me");
    place.write("demo/cache.db", "garbage from another time");
    place.write("demo/larder.yaml", "# Written by `larder demo`. cut short\ncache: {memory: [}");
    let broken = place.larder(&["demo", "--dir", "demo"]).expect(3);
    assert!(broken.stderr().contains("larder.yaml:2:"), "{}", broken.said());
    assert!(broken.stderr().contains("--fresh"), "{}", broken.said());
    let report = place.larder(&["demo", "--dir", "demo", "--fresh", "-F", "json"]).expect(0).json();
    assert_eq!(phase(&report, "warm")["origin_calls"], 30);
    assert_eq!(std::fs::read_to_string(mine).unwrap(), "keep me");
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    for name in ["larder.yaml", "cache.db"] {
        let place = Place::new();
        let mine = place.write(&format!("own/{name}"), "cache: {sqlite: {path: mine.db}}\n");
        for args in [&["demo", "--dir", "own"][..], &["demo", "--dir", "own", "--fresh"]] {
            let run = place.larder(args).expect(1);
            assert!(run.stderr().contains("did not write"), "{}", run.said());
            assert!(run.stderr().contains("--dir"), "{}", run.said());
        }
        assert_eq!(std::fs::read_to_string(mine).unwrap(), "cache: {sqlite: {path: mine.db}}\n");
        assert_eq!(std::fs::read_dir(place.path("own")).unwrap().count(), 1);
    }
}

#[test]
fn a_proxy_of_the_environment_is_not_asked_for_the_way_to_this_machine() {
    let place = Place::new();
    let mut demo = place.command(&["demo", "-F", "json", "-q"]);
    let run = demo.env("HTTP_PROXY", "http://127.0.0.1:1").env("http_proxy", "http://127.0.0.1:1");
    let report = crate::harness::Run(run.output().unwrap()).expect(0).json();
    assert_eq!(phase(&report, "warm")["origin_calls"], 30);
}
