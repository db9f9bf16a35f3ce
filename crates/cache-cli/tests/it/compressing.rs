//! `larder dictionary`, `larder benchmark --compression`, and what `larder stats` says of codecs.

use larder::{Cache, Key, SetOptions, config::CacheConfig};

use crate::harness::Place;

const CONFIG: &str = "cache:
  sqlite: {path: cache.db}
  compression: {dictionaries: manual}
";

/// A small table, unlike those of other numbers in its figures only.
fn table(n: u32) -> String {
    let row = |at: u32| {
        let figure = u64::from(n * 7 + at).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        format!(r#"{{"NAME":"Metro Area {figure}","B01001_001E":"{figure}","B19013_001E":{at}}}"#)
    };
    let rows: Vec<String> = (0..10).map(row).collect();
    format!("[{}]", rows.join(","))
}

/// Stores small documents of `acs`, as a program that embeds the library does.
async fn store(place: &Place, range: std::ops::Range<u32>) {
    let loaded = CacheConfig::loader().yaml(CONFIG, "larder.yaml");
    let loaded = loaded.set("cache.sqlite.path", place.path("cache.db").display().to_string());
    let cache = Cache::from_config(&loaded.load().unwrap().config).unwrap();
    for n in range {
        let key = Key::new(format!("acs:cbsa={n}"));
        cache.set(&key, table(n), SetOptions::default()).await.unwrap();
    }
    let large = Key::new("large:1");
    cache.set(&large, table(1).repeat(100), SetOptions::default()).await.unwrap();
    assert!(cache.close(std::time::Duration::from_secs(20)).await.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dictionary_is_trained_and_stats_show_what_it_is_worth() {
    let place = Place::new();
    place.write("larder.yaml", CONFIG);
    let run = place.larder(&["dictionary", "list"]).expect(0);
    assert!(run.stdout().contains("No dictionary is stored"), "{}", run.said());
    let run = place.larder(&["dictionary", "train", "--source", "acs"]).expect(1);
    assert!(run.stderr().contains("does not exist"), "{}", run.said());
    assert!(!place.path("cache.db").exists(), "looking makes no file");

    store(&place, 0..1_000).await;
    let run = place.larder(&["dictionary", "train", "--source", "other"]).expect(1);
    assert!(run.stderr().contains("`other` has 0 values of 256 to 16384 bytes"), "{}", run.said());
    let run = place.larder(&["dictionary", "train", "--source", "acs"]).expect(0);
    assert!(run.stdout().starts_with("acs: version 1 ("), "{}", run.said());
    store(&place, 1_000..2_000).await;

    let json = place.larder(&["stats", "--format", "json"]).expect(0).json();
    let codecs = json["tiers"][0]["codecs"].as_array().unwrap();
    let of = |source: &str, codec: &str| {
        let found = codecs.iter().find(|one| one["source"] == source && one["codec"] == codec);
        found.unwrap_or_else(|| panic!("{json}"))
    };
    let (raw, small) = (of("acs", "raw"), of("acs", "zstd"));
    assert_eq!((&raw["entries"], &raw["dictionary"]), (&1_000.into(), &serde_json::Value::Null));
    assert_eq!(raw["raw_bytes"], raw["stored_bytes"]);
    assert_eq!(small["entries"], 1_000);
    let bytes = |name: &str| small[name].as_u64().unwrap();
    assert!(bytes("stored_bytes") * 2 < bytes("raw_bytes"), "{small}");
    assert!(bytes("compressed") >= 1_000 && small["compress_s"].as_f64().unwrap() > 0.0, "{small}");
    assert_eq!(of("large", "zstd")["dictionary"], serde_json::Value::Null);

    let list = place.larder(&["dictionary", "list", "--format", "json"]).expect(0).json();
    let one = &list["dictionaries"][0];
    assert_eq!(
        (&one["source"], &one["version"], &one["entries"]),
        (&"acs".into(), &1.into(), &1_000.into())
    );
    assert_eq!(one["dictionary"], small["dictionary"]);
    let run = place.larder(&["stats"]).expect(0);
    let with = format!("zstd with {}", one["dictionary"].as_str().unwrap());
    assert!(run.stdout().contains(&with), "{}", run.said());
    let run = place.larder(&["dictionary", "list"]).expect(0);
    assert!(run.stdout().contains(one["dictionary"].as_str().unwrap()), "{}", run.said());
    assert_eq!(
        place.larder(&["validate"]).expect(0).stdout(),
        "sqlite: 2 001 entries checked, no problems\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_benchmark_tries_the_codecs_on_what_is_stored() {
    let place = Place::new();
    place.write("larder.yaml", CONFIG);
    let run = place.larder(&["benchmark", "--compression"]).expect(1);
    assert!(run.stderr().contains("no values are stored"), "{}", run.said());
    place.larder(&["benchmark"]).expect(2);
    store(&place, 0..300).await;
    let args = ["benchmark", "--compression", "--source", "acs", "--format", "json"];
    let json = place.larder(&args).expect(0).json();
    assert_eq!((&json["values"], &json["sources"]), (&66.into(), &serde_json::json!(["acs"])));
    let trials = json["trials"].as_array().unwrap();
    let stored = |algorithm: &str, level: u32, dictionaries: bool| {
        let found = trials.iter().find(|one| {
            one["algorithm"] == algorithm
                && one["level"] == level
                && one["dictionaries"] == dictionaries
        });
        found.unwrap_or_else(|| panic!("{json}"))["stored_bytes"].as_u64().unwrap()
    };
    let raw = json["raw_bytes"].as_u64().unwrap();
    assert_eq!(stored("zlib", 6, false), raw, "below the threshold nothing is compressed");
    assert!(stored("zstd", 1, true) * 2 < raw);
    assert_eq!(json["recommended"]["dictionaries"], true);
    assert_eq!(json["document_of_100_kb"], serde_json::Value::Null);

    let run = place.larder(&["benchmark", "--compression"]).expect(0);
    assert!(
        run.stdout().contains("\nRecommended:\n  cache:\n    compression:\n"),
        "{}",
        run.said()
    );
}
