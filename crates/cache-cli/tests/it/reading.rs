//! How `larder get` goes about it: offline, from the cache only, again, with what is stale.

use serde_json::Value;

use crate::harness::{Api, Place, Run};

const GET: [&str; 4] = ["get", "a", "--market", "boulder-co"];
const VALUE: &str = "{\"source\": \"a\", \"cbsa\": 14500}";

fn get(place: &Place, flags: &[&str]) -> Run {
    place.larder(&[&GET[..], flags].concat())
}

/// A source `a` at the address, whose values are stale after a millisecond.
fn configure_stale(place: &Place, address: &str, policy: &str) {
    place.write(
        "larder.yaml",
        &format!(
            "cache:\n  sqlite: {{path: cache.db}}\n  sources:\n    \
             a: {{allow_private: true, url: \"http://{address}/a/{{cbsa}}\", ttl: 1ms, {policy}}}\n"
        ),
    );
}

/// An address at which nobody answers.
fn nowhere() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_to_be_loaded_is_answered_from_the_cache_or_not_at_all() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    for (flag, why) in [("--cached-only", "not to load it"), ("--offline", "offline")] {
        let missing = get(&place, &[flag]).expect(1);
        let said = missing.stderr();
        assert!(said.starts_with("error: nothing usable is stored under `a:cbsa=14500`"), "{said}");
        assert!(said.contains(why) && said.contains("hint: "), "{said}");
        assert_eq!((missing.stdout().as_str(), api.answered()), ("", 0));
    }
    get(&place, &[]).expect(0);
    for flags in [&["--cached-only"][..], &["--offline"], &["--offline", "--cached-only"]] {
        let found = get(&place, flags).expect(0);
        assert_eq!(found.stdout(), VALUE);
        assert!(found.stderr().contains("from tier sqlite"), "{}", found.stderr());
    }
    assert_eq!(api.answered(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_is_a_setting_too_and_says_what_is_missing() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    get(&place, &[]).expect(0);
    let warm = ["warm", "-m", "boulder-co", "-m", "denver-co", "-s", "a"];
    let told = place.larder(&[&warm[..], &["--offline"]].concat()).expect(6);
    assert!(told.stdout().contains("1 of 2"), "{}", told.said());
    assert!(
        told.stderr().contains("nothing usable is stored under `a:cbsa=19740`"),
        "{}",
        told.said()
    );
    let mut command = place.command(&["get", "b", "-m", "boulder-co"]);
    let run = Run(command.env("LARDER_CACHE__OFFLINE", "true").output().unwrap()).expect(1);
    assert!(run.stderr().contains("the cache is offline"), "{}", run.stderr());
    assert_eq!(api.answered(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_loads_what_is_stored_and_stores_it() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    get(&place, &[]).expect(0);
    let again = get(&place, &["--refresh"]).expect(0);
    assert_eq!(again.stdout(), VALUE);
    assert!(again.stderr().contains("from the origin"), "{}", again.stderr());
    assert_eq!(api.answered(), 2);
    let stored = get(&place, &["-F", "json"]).expect(0).json();
    assert_eq!((&stored["served_by"], api.answered()), (&Value::from("sqlite"), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_contradicts_itself_is_a_usage_error() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    let both = get(&place, &["--refresh", "--cached-only"]).expect(2);
    assert!(both.stderr().contains("cannot be used with"), "{}", both.stderr());
    let offline = "error: `--refresh` loads, and the cache is offline";
    let after = get(&place, &["--refresh", "--offline"]).expect(2);
    assert!(after.stderr().starts_with(&format!("{offline} (command line)")), "{}", after.stderr());
    let before = [&["--offline"], &GET[..], &["--refresh"]].concat();
    let before = place.larder(&before).expect(2);
    assert_eq!(before.stderr(), after.stderr());
    place.write(
        "larder.yaml",
        "cache:\n  offline: true\n  sources: {a: {allow_private: true, url: \"http://127.0.0.1:1/{cbsa}\"}}\n",
    );
    let set = get(&place, &["--refresh"]).expect(2);
    assert!(set.stderr().starts_with(&format!("{offline} (larder.yaml:2)")), "{}", set.stderr());
    assert_eq!(api.answered(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_answer_says_so() {
    let (place, api) = (Place::new(), Api::open().await);
    place.configure(&api);
    get(&place, &[]).expect(0);
    let hit = get(&place, &["-F", "json"]).expect(0);
    let json = hit.json();
    assert!(json["age_ms"].as_u64().is_some(), "{json}");
    assert_eq!(
        [&json["stale"], &json["absent"], &json["revalidated"], &json["stale_reason"]],
        [&Value::from(false), &Value::from(false), &Value::from(false), &Value::Null]
    );
    assert!(!hit.stderr().contains("stale"), "{}", hit.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_answer_says_that_it_is_and_why() {
    let (place, api) = (Place::new(), Api::open().await);
    configure_stale(&place, &api.address.to_string(), "stale_if_error: 1d");
    get(&place, &[]).expect(0);

    let asked = get(&place, &["--cached-only", "--allow-stale", "-F", "json"]).expect(0);
    let json = asked.json();
    assert_eq!((&json["served_by"], &json["stale"]), (&"sqlite".into(), &true.into()));
    assert_eq!(json["stale_reason"], "stale values were asked for");
    assert!(json["age_ms"].as_u64() > Some(0), "{json}");
    assert!(asked.stderr().contains(" old: stale values were asked for"), "{}", asked.stderr());
    assert_eq!(api.answered(), 1);

    configure_stale(&place, &nowhere(), "stale_if_error: 1d");
    let failed = get(&place, &[]).expect(0);
    assert_eq!(failed.stdout(), VALUE);
    let said = failed.stderr();
    assert!(said.contains(" · from tier sqlite in ") && said.contains(" · stale, "), "{said}");
    assert!(said.contains(" old: its load failed\nwarning: source `a`: "), "{said}");
    let quiet = get(&place, &["--quiet"]).expect(0);
    assert_eq!((quiet.stdout().as_str(), quiet.stderr().as_str()), (VALUE, ""));
    let json = get(&place, &["-F", "json"]).expect(0).json();
    assert_eq!((&json["stale"], &json["stale_reason"]), (&true.into(), &"its load failed".into()));
    let offline = get(&place, &["--offline", "-F", "json"]).expect(0).json();
    assert_eq!(offline["stale_reason"], "the cache is offline");
    let forced = get(&place, &["--refresh", "--allow-stale", "-F", "json"]).expect(0).json();
    assert_eq!(forced["stale"], true, "{forced}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_stale_window_there_is_no_stale_answer() {
    let (place, api) = (Place::new(), Api::open().await);
    configure_stale(&place, &api.address.to_string(), "stale_if_error: 0s");
    get(&place, &[]).expect(0);
    configure_stale(&place, &nowhere(), "stale_if_error: 0s");
    let run = get(&place, &["--allow-stale"]).expect(1);
    assert!(run.stderr().starts_with("error: source `a`: "), "{}", run.stderr());
}
