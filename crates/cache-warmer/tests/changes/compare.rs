//! What counts as a change, by examples.

use cache_warmer::changes::{
    ChangeRule, Comparison, MAX_COMPARED_BYTES, MAX_DELTAS, compare as compare_bytes,
};
use serde_json::json;

fn rule(pointers: &[&str], ignore: &[&str]) -> ChangeRule {
    ChangeRule::new(pointers.iter().copied(), ignore.iter().copied()).unwrap()
}

fn compare(old: &str, new: &str, rule: &ChangeRule) -> Option<Comparison> {
    compare_bytes(old.as_bytes(), new.as_bytes(), rule)
}

/// The differences as `pointer: old -> new`.
fn deltas(old: &str, new: &str, rule: &ChangeRule) -> Vec<String> {
    let Some(found) = compare(old, new, rule) else { return Vec::new() };
    let text = |value: &Option<String>| value.clone().unwrap_or("nothing".into());
    let told = found.deltas.iter();
    told.map(|it| format!("{}: {} -> {}", it.pointer, text(&it.old), text(&it.new))).collect()
}

#[test]
fn each_kind_of_difference_has_its_place() {
    let old = r#"{"a": 1, "b": [1, 2, {"c": null}], "d": {"e~/f": true}, "g": [], "h": "x"}"#;
    let new = r#"{"a": 2, "b": [1, 3], "d": {"e~/f": false}, "g": {}, "i": {"j": [1.50, "\n"]}}"#;
    let wanted = [
        "/a: 1 -> 2",
        "/b/1: 2 -> 3",
        r#"/b/2: {"c":null} -> nothing"#,
        "/d/e~0~1f: true -> false",
        "/g: [] -> {}",
        r#"/h: "x" -> nothing"#,
        r#"/i: nothing -> {"j":[1.5,"\n"]}"#,
    ];
    assert_eq!(deltas(old, new, &ChangeRule::default()), wanted);
    assert_eq!(compare(old, new, &ChangeRule::default()).unwrap().changed, 7);
    assert_eq!(deltas("1", "null", &ChangeRule::default()), [": 1 -> null"]);
}

#[test]
fn the_way_of_writing_does_not_count() {
    let whole = ChangeRule::default();
    for (old, new) in [
        (r#"{"a": 1, "b": 2}"#, "{\"b\":2,\n\t\"a\":1}"),
        ("[1, 1.0, 1e0, 10, -0.0]", "[1.00, 1, 1, 1.0E1, 0]"),
        (
            "[1e18, 1e19, -1e19, 1e300]",
            "[1000000000000000000, 10000000000000000000, -10e18, 10e299]",
        ),
        (r#"["\u00e9\/"]"#, r#"["é/"]"#),
        (r#"{"a": 1, "a": 2}"#, r#"{"a": 2}"#),
    ] {
        assert_eq!(compare(old, new, &whole), None, "{old} {new}");
    }
    for (old, new) in [
        ("[1, 1, 2]", "[1, 2, 2]"),
        ("1", "1.0000001"),
        ("9007199254740993", "9007199254740992"),
        ("18446744073709551615", "18446744073709551614"),
        ("1", "\"1\""),
        ("0", "false"),
        ("null", "{}"),
        (r#"{"a": null}"#, "{}"),
        ("[]", "[null]"),
    ] {
        assert_eq!(compare(old, new, &whole).map(|found| found.changed), Some(1), "{old} {new}");
    }
}

#[test]
fn only_what_pointers_lead_to_counts() {
    let old = r#"{"data": [{"rent": 1, "at": 1}, {"rent": 2, "at": 1}], "meta": {"v": 1}, "n": 1}"#;
    let new = r#"{"data": [{"rent": 1, "at": 2}, {"rent": 3, "at": 2}], "meta": {"v": 2}, "n": 2}"#;
    let found = |pointers: &[&str]| deltas(old, new, &rule(pointers, &[]));
    assert_eq!(found(&["/data/*/rent"]), ["/data/1/rent: 2 -> 3"]);
    assert_eq!(found(&["/data/0/rent"]), [""; 0]);
    assert_eq!(found(&["/data/0"]), ["/data/0/at: 1 -> 2"]);
    assert_eq!(found(&["/meta", "/n", "/meta/v"]), ["/meta/v: 1 -> 2", "/n: 1 -> 2"]);
    assert_eq!(found(&["/*/v", "/*/0/rent"]), ["/meta/v: 1 -> 2"]);
    assert_eq!(found(&["/nowhere", "/data/9", "/data/01", "/data/-", "/n/x"]), [""; 0]);
    assert_eq!(found(&[""]).len(), 5);
}

#[test]
fn what_is_ignored_is_left_out_of_texts_too() {
    let rule = rule(&[], &["/*/took", "/at"]);
    let (old, new) = (r#"{"at": 1}"#, r#"{"at": 2, "a": {"took": 3, "n": [1]}}"#);
    assert_eq!(deltas(old, new, &rule), [r#"/a: nothing -> {"n":[1]}"#]);
    let (old, new) = (r#"{"a": {"took": 1}}"#, r#"{"a": {}, "at": 1}"#);
    assert_eq!(compare(old, new, &rule), None);
}

#[test]
fn parts_below_what_comes_or_changes_its_kind_count() {
    let rule = rule(&["/a/*/b", "/a/0"], &["/a/0/c"]);
    let found = |old, new| deltas(old, new, &rule);
    assert_eq!(found("{}", r#"{"a": {"x": {"b": 1, "c": 2}}}"#), ["/a/x/b: nothing -> 1"]);
    assert_eq!(found(r#"{"a": {"x": {"c": 2}}}"#, r#"{"a": 5}"#), [""; 0]);
    assert_eq!(
        found(r#"{"a": [{"c": 1, "d": 2}]}"#, r#"{"a": {"0": {"c": 1, "d": 2}}}"#),
        [r#"/a/0: {"d":2} -> nothing"#, r#"/a/0: nothing -> {"d":2}"#],
        "an item is not a member"
    );
}

#[test]
fn texts_that_are_no_pointers_are_refused_with_advice() {
    let refusal = |pointers: &[&str], ignore: &[&str]| {
        let refused = ChangeRule::new(pointers.iter().copied(), ignore.iter().copied());
        refused.unwrap_err().to_string()
    };
    for (text, meant) in [
        ("data/rent", "`/data/rent`"),
        ("$.data[0].rent", "`/data/0/rent`"),
        ("#/data", "`/data`"),
        ("\u{1b}[2J", "`\\u{1b}[2J` in `pointers`"),
    ] {
        let refusal = refusal(&[text], &[]);
        assert!(refusal.contains(meant) && refusal.contains("begins with `/`"), "{refusal}");
    }
    assert!(refusal(&[], &["/a~"]).starts_with("`/a~` in `ignore` is no JSON pointer"));
    assert!(refusal(&[], &["/a~2b"]).contains("`~0`"));
    assert!(refusal(&["/a"], &["/b", ""]).contains("in `ignore` is the whole document"));
    let rule = rule(&["", "/a~1b/~0/*"], &["/"]);
    assert_eq!(rule.pointers().collect::<Vec<_>>(), ["", "/a~1b/~0/*"]);
    assert_eq!(rule.ignore().collect::<Vec<_>>(), ["/"]);
}

#[test]
fn what_is_told_is_bounded_and_all_is_counted() {
    let long = "é\"".repeat(500);
    let items =
        |first: &str| json!((0..500).map(|at| format!("{first}{at}{long}")).collect::<Vec<_>>());
    let (old, new) =
        (json!({ &long: items("a") }).to_string(), json!({ &long: items("b") }).to_string());
    let found = compare(&old, &new, &ChangeRule::default()).unwrap();
    assert_eq!((found.changed, found.deltas.len()), (500, MAX_DELTAS));
    for delta in &found.deltas {
        for (text, most) in [
            (&delta.pointer, 500),
            (delta.old.as_ref().unwrap(), 200),
            (delta.new.as_ref().unwrap(), 200),
        ] {
            assert_eq!(text.chars().count(), most, "{text}");
            assert!(text.ends_with('…'), "{text}");
        }
    }
    // Just short enough.
    let (old, new) = (json!("a".repeat(198)).to_string(), json!("b".repeat(199)).to_string());
    let found = compare(&old, &new, &ChangeRule::default()).unwrap();
    assert_eq!(found.deltas[0].old.as_deref(), Some(old.as_str()));
    assert!(found.deltas[0].new.as_ref().unwrap().ends_with("b…"), "{found:?}");
}

#[test]
fn what_is_no_json_is_compared_as_bytes() {
    let rule = rule(&["/a"], &["/b"]);
    let found = compare("a,b\n1,2\n", "a,b\n1,3\n", &rule).unwrap();
    assert_eq!((found.changed, found.deltas.len()), (1, 0));
    // `printf 'a,b\n1,2\n' | sha256sum`
    assert_eq!(found.old_hash, "492d5ea496056f1a6a6592241032fab7");
    assert_ne!(found.old_hash, found.new_hash);
    assert_eq!(compare("a,b\n1,2\n", "a,b\n1,2\n", &rule), None);
    let found = compare(r#"{"a": 1}"#, r#"{"a": 1"#, &rule).unwrap();
    assert_eq!((found.changed, found.deltas.len()), (1, 0), "it is JSON no longer");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(compare(&deep, &format!("{deep} "), &rule).unwrap().changed, 1);
}

#[test]
fn large_documents_are_compared_as_bytes() {
    let whole = ChangeRule::default();
    let document = |length: usize| format!("[1{}]", " ".repeat(length - 3));
    let most = document(MAX_COMPARED_BYTES);
    assert_eq!(compare("[1]", &most, &whole), None);
    let found = compare("[1]", &document(MAX_COMPARED_BYTES + 1), &whole).unwrap();
    assert_eq!((found.changed, found.deltas.len()), (1, 0));
}

#[test]
fn hashes_follow_from_the_document_and_the_rule() {
    let rule = rule(&[], &["/at"]);
    let first = compare(r#"{"n": 1, "at": 1}"#, r#"{"n": 2, "at": 2}"#, &rule).unwrap();
    let second = compare(r#"{"at": 3, "n": 2.0}"#, "no JSON", &rule).unwrap();
    assert_eq!(first.new_hash, second.old_hash, "one change leads to the next");
    assert!([&first.old_hash, &first.new_hash].iter().all(|hash| hash.len() == 32));
    let same = Comparison::unchanged(br#"{"n": 1}"#, &rule);
    assert_eq!(
        (same.changed, &same.old_hash, &same.new_hash),
        (0, &first.old_hash, &first.old_hash)
    );
}

#[test]
fn arrays_are_ordered() {
    let found = deltas("[1, 2, 3]", "[0, 1, 2, 3]", &ChangeRule::default());
    assert_eq!(found, ["/0: 1 -> 0", "/1: 2 -> 1", "/2: 3 -> 2", "/3: nothing -> 3"]);
}

#[test]
fn a_text_that_looks_like_what_is_hashed_is_no_other_document() {
    let forged = json!([format!("x@\u{1}{}sy", "\0".repeat(7))]).to_string();
    let found = compare(r#"["x", "y"]"#, &forged, &ChangeRule::default()).unwrap();
    assert_ne!(found.old_hash, found.new_hash);
}
