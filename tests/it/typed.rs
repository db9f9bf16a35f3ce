//! Values as types, and keys that cannot be stored.

use std::{collections::BTreeMap, sync::Arc};

use larder::{Error, Key, PutOutcome, PutReport, ServedBy, SetOptions};
use serde_json::{Value, json};

use crate::harness::{Bench, Loads, bring, close, key, within};

type Figures = BTreeMap<String, u64>;

#[tokio::test]
async fn a_value_is_decoded_once_and_shared() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, r#"{"population": 330758}"#, SetOptions::default())).await.unwrap();
    let first = within(cache.get_as::<Figures>(&key)).await.unwrap().unwrap();
    let second = within(cache.get_as::<Figures>(&key)).await.unwrap().unwrap();
    assert_eq!(first["population"], 330_758);
    assert!(Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn a_value_decoded_when_sqlite_served_it_is_shared_by_the_copy_in_memory() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let below = bench.sqlite_only();
    within(below.set(&key, "[1, 2]", SetOptions::default())).await.unwrap();
    close(below).await;
    let cache = bench.cache();
    let first = within(cache.get_as::<Vec<u8>>(&key)).await.unwrap().unwrap();
    let second = within(cache.get_as::<Vec<u8>>(&key)).await.unwrap().unwrap();
    assert_eq!(*first, [1, 2]);
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(cache.stats().tier("memory").unwrap().served, 1);
}

#[tokio::test]
async fn all_who_decode_at_once_share_one_object() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, r#"{"a": 1}"#, SetOptions::default())).await.unwrap();
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let (cache, key) = (cache.clone(), key.clone());
            tokio::spawn(async move { cache.get_as::<Value>(&key).await.unwrap().unwrap() })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.push(within(task).await.unwrap());
    }
    assert!(all.iter().all(|one| Arc::ptr_eq(one, &all[0])));
}

#[tokio::test]
async fn a_new_value_is_decoded_anew() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, "1", SetOptions::default())).await.unwrap();
    assert_eq!(*within(cache.get_as::<u64>(&key)).await.unwrap().unwrap(), 1);
    within(cache.set(&key, r#""one""#, SetOptions::default())).await.unwrap();
    assert_eq!(*within(cache.get_as::<String>(&key)).await.unwrap().unwrap(), "one");
}

#[tokio::test]
async fn another_type_is_a_mismatch_that_names_both() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, "17", SetOptions::default())).await.unwrap();
    within(cache.get_as::<u64>(&key)).await.unwrap();
    let error = within(cache.get_as::<u32>(&key)).await.unwrap_err();
    match &error {
        Error::TypeMismatch { key: named, stored, asked } => {
            assert_eq!((named, *stored, *asked), (&key, "u64", "u32"));
        }
        other => panic!("{other:?}"),
    }
    let text = error.to_string();
    assert!(["census:a", "u64", "u32"].iter().all(|part| text.contains(part)), "{text}");
    assert_eq!(*within(cache.get_as::<u64>(&key)).await.unwrap().unwrap(), 17, "as before");
}

#[tokio::test]
async fn bad_json_is_a_decode_error_that_names_key_and_type() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, r#"{"a": tru"#, SetOptions::default())).await.unwrap();
    let error = within(cache.get_as::<Figures>(&key)).await.unwrap_err();
    match &error {
        Error::Decode { key: named, type_name, reason } => {
            assert_eq!(named, &key);
            assert_eq!(*type_name, std::any::type_name::<Figures>());
            assert!(reason.contains("line 1"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let text = error.to_string();
    assert!(text.contains("census:a") && text.contains("BTreeMap"), "{text}");
}

#[tokio::test]
async fn a_value_of_another_shape_is_a_decode_error_and_is_not_remembered() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, r#"{"a": 1}"#, SetOptions::default())).await.unwrap();
    let wrong = within(cache.get_as::<Vec<u64>>(&key)).await.unwrap_err();
    assert!(matches!(wrong, Error::Decode { .. }), "{wrong:?}");
    // A failed decode does not fix the type.
    assert_eq!(*within(cache.get_as::<Value>(&key)).await.unwrap().unwrap(), json!({"a": 1}));
}

#[tokio::test]
async fn bytes_that_are_no_utf_8_are_a_decode_error() {
    let (bench, key) = (Bench::new(), key("census:a"));
    let cache = bench.cache();
    within(cache.set(&key, vec![b'"', 0xff, b'"'], SetOptions::default())).await.unwrap();
    let error = within(cache.get_as::<String>(&key)).await.unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error:?}");
    let hit = within(cache.get(&key)).await.unwrap().unwrap();
    assert_eq!(hit.value().as_ref(), [b'"', 0xff, b'"']);
}

#[tokio::test]
async fn what_is_missing_is_none_of_any_type() {
    let bench = Bench::new();
    assert!(within(bench.cache().get_as::<u64>(&key("census:a"))).await.unwrap().is_none());
}

/// Keys that no tier stores.
fn unstorable() -> [Key; 4] {
    [key(""), key("census:a\nb"), key("census:\u{7f}"), Key::new("x".repeat(1_025))]
}

#[tokio::test]
async fn values_of_keys_that_cannot_be_stored_are_loaded_returned_counted_and_not_stored() {
    let bench = Bench::new();
    for key in unstorable() {
        let (cache, loads) = (bench.cache(), Loads::default());
        for n in 1..=2 {
            let counted = loads.clone();
            let load = move |_| async move {
                counted.add();
                Ok("v".into())
            };
            let hit = within(cache.get_or_load(&key, load)).await.unwrap();
            assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Origin));
            assert_eq!((cache.stats().not_stored, loads.count()), (n, n), "{key:?}");
        }
        assert!(within(cache.get(&key)).await.unwrap().is_none());
        assert!(within(cache.list_keys(9)).await.unwrap().is_empty());
        let errors: u64 = cache.stats().tiers.iter().map(|tier| tier.errors).sum();
        assert_eq!(errors, 0, "a key is not a tier's failure");
    }
}

#[tokio::test]
async fn a_set_of_a_key_that_cannot_be_stored_is_refused_by_each_tier() {
    let bench = Bench::new();
    let cache = bench.cache();
    for key in unstorable() {
        let outcome = within(cache.set(&key, "v", SetOptions::default())).await.unwrap();
        assert_eq!(outcome.tiers.len(), 2);
        for (name, report) in &outcome.tiers {
            let refused = matches!(report, PutReport::Done(PutOutcome::Refused { .. }));
            assert!(refused, "{name}: {report:?}");
        }
        assert!(within(cache.get(&key)).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn the_longest_key_is_stored() {
    let (bench, key) = (Bench::new(), Key::new("x".repeat(1_024)));
    let cache = bench.cache();
    within(cache.get_or_load(&key, bring("v"))).await.unwrap();
    close(cache).await;
    let hit = within(bench.cache().get(&key)).await.unwrap().unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Tier("sqlite")));
}
