//! Keys are the same on every platform, run and version, and never collide.

use std::collections::{BTreeMap, HashMap};

use cache_core::{Geography, Key, KeyBuilder};
use proptest::prelude::*;

fn key(source: &str) -> KeyBuilder {
    Key::builder(source)
}

/// Joined parameters of exactly `chars` characters: `v=xxx...`.
fn long(chars: usize) -> KeyBuilder {
    key("census").param("v", "x".repeat(chars - 2))
}

#[test]
fn keys_match_their_vectors() {
    let acs = || key("census").dataset("acs").period("5yr").year(2022);
    // The digests were computed with Python's hashlib over the joined parameters.
    let vectors = [
        (key("census").param("cbsa", 14500).param("year", 2022), "census:cbsa=14500&year=2022"),
        (key("census").param("year", 2022).param("cbsa", 14500), "census:cbsa=14500&year=2022"),
        (key("census"), "census:"),
        (key("osm").param("q", ""), "osm:q="),
        (key("osm").param("q", "Boulder, CO"), "osm:q=Boulder, CO"),
        (key("osm").param("q", "a&b=c"), "osm:q=a%26b%3Dc"),
        (key("osm").param("q", "a:b"), "osm:q=a%3Ab"),
        (key("osm").param("q", "100%"), "osm:q=100%25"),
        (key("osm").param("q", "Zürich"), "osm:q=Zürich"),
        (key("osm").param("q", "a\nb"), "osm:q=a%0Ab"),
        (key("osm").param("q", "\u{85}"), "osm:q=%C2%85"),
        (key("a:b").param("k", 1), "a%3Ab:k=1"),
        (key("osm").param("q", 1).param("q", 2), "osm:q=2"),
        (key("bls").param("B", 1).param("a", 2), "bls:B=1&a=2"),
        (acs().cbsa(14500).table("B01001"), "census:acs:5yr:2022:cbsa:14500:B01001"),
        (acs().county(14500).table("B01001"), "census:acs:5yr:2022:county:14500:B01001"),
        (acs().geography(Geography::Tract, "08013012101"), "census:acs:5yr:2022:tract:08013012101"),
        (acs().table("B01001"), "census:acs:5yr:2022:-:-:B01001"),
        (key("bls").dataset("ces").range("2023-01", "2024-01"), "bls:ces:-:2023-01..2024-01"),
        (key("bls").dataset("ces").param("s", 1), "bls:ces:s=1"),
        (key("bls").dataset("-"), "bls:%2D"),
        (key("bls").dataset(""), "bls:%"),
        (key("bls").dataset("a:b"), "bls:a%3Ab"),
        (key("bls").dataset("0123456789abcdef"), "bls:%30123456789abcdef"),
        (long(200), ""),
        (long(201), "census:71368f6572f741bf"),
        (long(201).param("w", 1), "census:d5f8ce355d71fefe"),
    ];
    for (builder, expected) in vectors {
        let key = builder.build();
        match expected {
            "" => assert_eq!(key.as_str().len(), "census:".len() + 200),
            expected => assert_eq!(key.as_str(), expected),
        }
        assert!(key.is_storable(), "{key}");
    }
}

#[test]
fn the_limit_counts_characters_not_bytes() {
    let key = key("census").param("v", "é".repeat(198)).build();
    assert!(key.as_str().contains("v=é"), "200 characters, 398 bytes: {key}");
}

#[test]
fn a_key_can_be_looked_up_by_its_text() {
    let map = HashMap::from([(Key::new("a:b"), 1)]);
    assert_eq!(map.get("a:b"), Some(&1));
}

/// What a builder was told, in a form that can be compared.
type Parts = (
    String,
    Option<String>,
    Option<String>,
    Option<Result<i32, (String, String)>>,
    Option<(u8, String)>,
    Option<String>,
    BTreeMap<String, String>,
);

fn build(parts: &Parts) -> Key {
    let (source, dataset, period, when, place, table, params) = parts;
    let mut builder = key(source);
    if let Some(dataset) = dataset {
        builder = builder.dataset(dataset);
    }
    if let Some(period) = period {
        builder = builder.period(period);
    }
    match when {
        Some(Ok(year)) => builder = builder.year(*year),
        Some(Err((start, end))) => builder = builder.range(start, end),
        None => {}
    }
    if let Some((kind, id)) = place {
        let kind = if *kind == 0 { Geography::Cbsa } else { Geography::County };
        builder = builder.geography(kind, id);
    }
    if let Some(table) = table {
        builder = builder.table(table);
    }
    params.iter().fold(builder, |builder, (name, value)| builder.param(name, value)).build()
}

/// Short texts over an alphabet of everything that has a meaning in keys.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab:&=%\\-.\n]{0,3}",
        Just("cbsa".to_owned()),
        Just("2022".to_owned()),
        Just("0123456789abcdef".to_owned()),
        Just("%2D".to_owned()),
    ]
}

fn parts() -> impl Strategy<Value = Parts> {
    let when = prop_oneof![(0..3).prop_map(Ok), (text(), text()).prop_map(Err)];
    (
        text(),
        proptest::option::of(text()),
        proptest::option::of(text()),
        proptest::option::of(when),
        proptest::option::of((0_u8..2, text())),
        proptest::option::of(text()),
        proptest::collection::btree_map(text(), text(), 0..3),
    )
}

/// Alters one part, so that near misses are tried and not only unrelated pairs.
fn neighbour(mut parts: Parts, part: u8, with: String) -> Parts {
    match part {
        0 => parts.0 = with,
        1 => parts.1 = Some(with),
        2 => parts.2 = Some(with),
        3 => std::mem::swap(&mut parts.1, &mut parts.2),
        4 => std::mem::swap(&mut parts.2, &mut parts.5),
        5 => parts.4 = parts.4.map(|(kind, id)| (1 - kind, id)),
        6 => parts.3 = Some(Err((with, String::new()))),
        _ => _ = parts.6.insert(with, String::new()),
    }
    parts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn different_parts_give_different_keys(a in parts(), b in parts(), part in 0_u8..8, with in text()) {
        prop_assert_eq!(a == b, build(&a) == build(&b), "{} {}", build(&a), build(&b));
        let c = neighbour(a.clone(), part, with);
        prop_assert_eq!(a == c, build(&a) == build(&c), "{} {}", build(&a), build(&c));
    }

    #[test]
    fn built_keys_are_storable_and_keep_their_source(parts in parts()) {
        let key = build(&parts);
        prop_assert!(key.is_storable());
        prop_assert!(!key.source().contains(':'));
    }
}
