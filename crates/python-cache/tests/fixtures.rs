//! Pickles that Python made become the JSON that Python says they are, or stay as they are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use proptest::prelude::*;
use python_cache::{Decoded, Limits, decode};

/// A line of a file that `make.py` wrote.
struct Fixture {
    name: String,
    protocol: String,
    pickle: Vec<u8>,
    expected: String,
}

fn fixtures(file: &str) -> Vec<Fixture> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
    let mut last = String::new();
    let read = |line: &str| {
        let parts: Vec<_> = line.split('\t').collect();
        let [name, protocol, pickle, expected] = parts[..] else { panic!("{file}: {line}") };
        if !expected.is_empty() {
            expected.clone_into(&mut last);
        }
        Fixture {
            name: name.into(),
            protocol: protocol.into(),
            pickle: STANDARD.decode(pickle).unwrap(),
            expected: last.clone(),
        }
    };
    // Not `lines()`: a text may hold `\r`.
    fs::read_to_string(path).unwrap().trim_end_matches('\n').split('\n').map(read).collect()
}

fn json(pickle: &[u8]) -> Result<String, String> {
    match decode(pickle, &Limits::default()) {
        Decoded::Json(json) => Ok(String::from_utf8(json).unwrap()),
        Decoded::Opaque { reason } => Err(reason),
    }
}

/// That all pickles of a file become what they should; how many there are by protocol.
fn check(file: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut wrong = Vec::new();
    for fixture in fixtures(file) {
        let found = json(&fixture.pickle);
        if found.as_deref() != Ok(&fixture.expected) {
            let Fixture { name, protocol, expected, .. } = &fixture;
            wrong.push(format!("{name}/{protocol}: {found:?}\n    wanted {expected}"));
        }
        *counts.entry(fixture.protocol).or_default() += 1;
    }
    assert!(wrong.is_empty(), "{file}:\n{}", wrong.join("\n"));
    counts
}

#[test]
fn values_of_all_protocols_become_json() {
    let counts = check("values.txt");
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5"]);
    assert!(counts.values().all(|count| *count >= 30), "{counts:?}");
}

#[test]
fn numpy_and_pandas_3_become_json() {
    let counts = check("pandas3.txt");
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["0", "2", "4", "5"]);
}

#[test]
fn numpy_and_pandas_2_become_json() {
    check("pandas2.txt");
}

#[test]
fn numpy_1_and_pandas_1_become_json() {
    check("pandas1.txt");
}

#[test]
fn what_is_hostile_or_unknown_stays_as_it_is() {
    let fixtures = fixtures("opaque.txt");
    assert!(fixtures.len() > 90, "{}", fixtures.len());
    for Fixture { name, protocol, pickle, expected } in fixtures {
        let reason: String = serde_json::from_str(&expected).unwrap();
        assert_eq!(json(&pickle), Err(reason), "{name}/{protocol}");
    }
}

#[test]
fn a_pickle_that_is_cut_short_is_never_json() {
    for Fixture { name, protocol, pickle, .. } in fixtures("values.txt") {
        for len in (0..pickle.len()).step_by(1 + pickle.len() / 50) {
            assert!(json(&pickle[..len]).is_err(), "{name}/{protocol} cut to {len}");
        }
    }
}

/// Pickles to be damaged: one of each value.
fn originals() -> Vec<Vec<u8>> {
    let files = ["values.txt", "pandas3.txt", "pandas1.txt", "opaque.txt"];
    let all = files.into_iter().flat_map(fixtures);
    all.map(|fixture| fixture.pickle).filter(|pickle| pickle.len() < 4_000).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_pickles_end_within_their_limits(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        thread_local! {
            static ORIGINALS: Vec<Vec<u8>> = originals();
        }
        let mut pickle = ORIGINALS.with(|originals| which.get(originals).clone());
        for (at, byte, edit) in edits {
            if pickle.is_empty() {
                break;
            }
            let at = at.index(pickle.len());
            match edit {
                0 => pickle[at] = byte,
                1 => pickle.insert(at, byte),
                _ => drop(pickle.remove(at)),
            }
        }
        let limits = Limits { max_json_bytes: 100_000, max_nodes: 10_000, max_depth: 32 };
        match decode(&pickle, &limits) {
            Decoded::Json(json) => {
                prop_assert!(json.len() <= limits.max_json_bytes);
                prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(&json).is_ok(),
                    "not JSON: {}", String::from_utf8_lossy(&json));
            }
            Decoded::Opaque { reason } => prop_assert!(reason.len() < 500, "{reason}"),
        }
    }
}
