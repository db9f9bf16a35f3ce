//! What counts as a change, for any documents.

use std::collections::BTreeMap;

use cache_warmer::changes::{ChangeRule, Comparison, compare};
use proptest::{collection, prelude::*, sample::Index};
use serde_json::Value;

/// Few names, numbers and texts: documents are to have much in common.
fn document() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..3_i64).prop_map(Value::from),
        prop_oneof![Just(0.5), Just(1.0), Just(1e300)].prop_map(Value::from),
        "[ab/~0\"]{0,2}".prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 40, 5, |inner| {
        let name = prop_oneof!["[ab/~]{0,2}", "[012]"];
        prop_oneof![
            collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            collection::btree_map(name, inner, 0..5).prop_map(|members: BTreeMap<_, _>| {
                Value::Object(members.into_iter().collect())
            }),
        ]
    })
}

/// The document in another way of writing: members in another order, spaces, numbers as floats.
fn rewritten(value: &Value, seed: usize) -> String {
    match value {
        Value::Object(members) => {
            let mut texts: Vec<_> = members
                .iter()
                .map(|(name, value)| {
                    format!("\t{} : {}", Value::from(name.as_str()), rewritten(value, seed / 3))
                })
                .collect();
            if !texts.is_empty() {
                let by = seed % texts.len();
                texts.rotate_left(by);
                if seed.is_multiple_of(2) {
                    texts.reverse();
                }
            }
            format!("{{{}}}", texts.join(" ,"))
        }
        Value::Array(items) => {
            let texts: Vec<_> = items.iter().map(|item| rewritten(item, seed / 2)).collect();
            format!("[ {}\n]", texts.join(", "))
        }
        Value::Number(number) if number.is_i64() && seed.is_multiple_of(2) => {
            format!("{number}.00")
        }
        scalar => scalar.to_string(),
    }
}

/// Pointers to everything in a document, but for itself.
fn pointers(value: &Value) -> Vec<String> {
    let below = |step: String, value: &Value| {
        let step = format!("/{}", step.replace('~', "~0").replace('/', "~1"));
        let mut found: Vec<_> =
            pointers(value).into_iter().map(|rest| format!("{step}{rest}")).collect();
        found.push(step);
        found
    };
    match value {
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(at, item)| below(at.to_string(), item)).collect()
        }
        Value::Object(members) => {
            members.iter().flat_map(|(name, member)| below(name.clone(), member)).collect()
        }
        _ => Vec::new(),
    }
}

fn is_within(pointer: &str, outer: &str) -> bool {
    pointer.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn rule(pointers: &[&str], ignore: &[&str]) -> ChangeRule {
    ChangeRule::new(pointers.iter().copied(), ignore.iter().copied()).unwrap()
}

/// The document with something else at `pointer`.
fn changed_at(document: &Value, pointer: &str) -> Value {
    let mut changed = document.clone();
    *changed.pointer_mut(pointer).unwrap() = "something else".into();
    changed
}

fn places(found: Option<Comparison>) -> Vec<String> {
    found.map_or_else(Vec::new, |it| it.deltas.into_iter().map(|it| it.pointer).collect())
}

/// The pointers among `all` that a pattern with `*` stands for, or one that leads nowhere.
fn expanded(pattern: &str, all: &[String]) -> Vec<String> {
    let stands_for = |pointer: &&String| {
        let (steps, wanted): (Vec<_>, Vec<_>) =
            (pointer.split('/').collect(), pattern.split('/').collect());
        steps.len() == wanted.len()
            && steps.iter().zip(wanted).all(|(step, wanted)| wanted == "*" || wanted == *step)
    };
    let mut found: Vec<_> = all.iter().filter(stands_for).cloned().collect();
    found.push("/nowhere".into());
    found
}

/// The pointer with some of its steps made `*`.
fn starred(pointer: &str, which: u8) -> String {
    let star = |(at, step)| if at > 0 && which >> (at % 8) & 1 == 1 { "*" } else { step };
    pointer.split('/').enumerate().map(star).collect::<Vec<_>>().join("/")
}

/// Two documents that have much in common, and a pointer into one of them.
fn related() -> impl Strategy<Value = (Value, Value, String)> {
    (document(), document(), any::<[Index; 2]>(), any::<bool>()).prop_map(
        |(old, other, [at, whither], is_related)| {
            let places = pointers(&old);
            if places.is_empty() {
                return (old, other, "/a".into());
            }
            let mut new = if is_related { old.clone() } else { other.clone() };
            if is_related {
                let at: &String = at.get(&places);
                *new.pointer_mut(at).unwrap() = other;
            }
            let pointer = whither.get(&places).clone();
            (old, new, pointer)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn another_way_of_writing_is_no_change(document in document(), seed in any::<usize>()) {
        let (old, new) = (document.to_string(), rewritten(&document, seed));
        let whole = ChangeRule::default();
        prop_assert_eq!(compare(old.as_bytes(), new.as_bytes(), &whole), None, "{}", new);
        let hash = |text: &str| Comparison::unchanged(text.as_bytes(), &whole).new_hash;
        prop_assert_eq!(hash(&old), hash(&new));
    }

    #[test]
    fn a_change_is_told_where_it_is_and_hidden_by_its_pointer_alone(
        document in document(),
        at in any::<[Index; 2]>(),
    ) {
        let all = pointers(&document);
        if all.is_empty() {
            return Ok(());
        }
        let [one, other] = at.map(|at| at.get(&all).as_str());
        let changed = changed_at(&document, one);
        let (old, new) = (bytes(&document), bytes(&changed));
        prop_assert_eq!(places(compare(&old, &new, &ChangeRule::default())), [one]);
        prop_assert_eq!(places(compare(&old, &new, &rule(&[one], &[]))), [one]);
        prop_assert_eq!(compare(&old, &new, &rule(&[], &[one])), None);
        if is_within(one, other) || is_within(other, one) {
            return Ok(());
        }
        let new = bytes(&changed_at(&changed, other));
        prop_assert_eq!(places(compare(&old, &new, &rule(&[], &[one]))), [other]);
        prop_assert_eq!(places(compare(&old, &new, &rule(&[one], &[]))), [one]);
        prop_assert_eq!(places(compare(&old, &new, &ChangeRule::default())).len(), 2);
    }

    #[test]
    fn differences_are_those_of_the_documents((old, new, _) in related()) {
        let found = compare(&bytes(&old), &bytes(&new), &ChangeRule::default());
        let Some(found) = found else {
            prop_assert_eq!(old.to_string().replace(".0", ""), new.to_string().replace(".0", ""));
            return Ok(());
        };
        prop_assume!(found.changed == found.deltas.len() as u64);
        for delta in &found.deltas {
            prop_assert_ne!(&delta.old, &delta.new);
            for (document, text) in [(&old, &delta.old), (&new, &delta.new)] {
                // The same by value.
                let there = document.pointer(&delta.pointer);
                let there = there.map(|there| there.to_string().replace(".0", ""));
                let is_cut = text.as_ref().is_some_and(|text| text.ends_with('…'));
                prop_assert!(is_cut || there == *text, "{:?} {:?}", there, delta);
            }
        }
    }

    #[test]
    fn hashes_differ_if_and_only_if_there_is_a_change(
        (old, new, pointer) in related(),
        which in any::<u8>(),
        is_ignored in any::<bool>(),
    ) {
        let pattern = starred(&pointer, which);
        let rule = if is_ignored { rule(&[], &[&pattern]) } else { rule(&[&pattern], &[]) };
        let (old, new) = (bytes(&old), bytes(&new));
        let hash = |document: &[u8]| Comparison::unchanged(document, &rule).new_hash;
        match compare(&old, &new, &rule) {
            None => prop_assert_eq!(hash(&old), hash(&new)),
            Some(found) => {
                prop_assert_ne!(&found.old_hash, &found.new_hash);
                prop_assert_eq!((found.old_hash, found.new_hash), (hash(&old), hash(&new)));
            }
        }
    }

    #[test]
    fn a_star_stands_for_every_member_and_item(
        (old, new, pointer) in related(),
        which in any::<u8>(),
    ) {
        let pattern = starred(&pointer, which);
        let mut all = pointers(&old);
        all.extend(pointers(&new));
        let expanded = expanded(&pattern, &all);
        let expanded: Vec<_> = expanded.iter().map(String::as_str).collect();
        let (old, new) = (bytes(&old), bytes(&new));
        let found = |rule: &ChangeRule| places(compare(&old, &new, rule));
        prop_assert_eq!(found(&rule(&[], &[&pattern])), found(&rule(&[], &expanded)));
        prop_assert_eq!(found(&rule(&[&pattern], &[])), found(&rule(&expanded, &[])));
    }
}
