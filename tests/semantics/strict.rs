//! Tiers failing: in strict mode a tier's error is the caller's, in graceful mode never.
//!
//! Of `design.md`, "Reading": "A tier's error never is the caller's error in graceful mode (the
//! default); strict mode surfaces it." `semantics.md` counts on it in "Tiers failing" ("default none
//! are required in graceful mode").

use larder::{Cache, Error, ErrorKind, Filter, Key, ReadOptions, ServedBy, SetOptions};
use tier_testkit::{Call, Fault, Faults};

use crate::{
    harness::{Bench, bring, key, never, tag, within},
    tools::{Below, fresh, set, tier_stats},
};

/// A tier that fails, and one below it that works.
fn chain(bench: &Bench, strict: bool) -> (Cache, Below, Below) {
    let (failing, sound) = (Below::named("failing", bench), Below::named("sound", bench));
    let builder = bench.bare().shared_tier(failing.tier()).shared_tier(sound.tier());
    (builder.strict(strict).build().unwrap(), failing, sound)
}

/// What each kind of call answered: its error, if it had one.
async fn answers(cache: &Cache) -> Vec<(&'static str, Result<(), Error>)> {
    let a = key("a:1");
    let several = [a.clone(), key("a:2")];
    let each = |all: Vec<Result<(), Error>>| {
        assert_eq!(all.len(), 2);
        all.into_iter().collect::<Result<Vec<_>, _>>().map(drop)
    };
    let set = |text: &str| (key(text), bytes::Bytes::from("v"), SetOptions::default());
    let many = within(cache.get_many(&several)).await.unwrap();
    let stale = ReadOptions::default().allow_stale();
    let sets = within(cache.set_many(vec![set("a:1"), set("a:2")])).await.unwrap();
    vec![
        ("get", within(cache.get(&a)).await.map(drop)),
        ("get_with", within(cache.get_with(&a, stale)).await.map(drop)),
        ("get_as", within(cache.get_as::<String>(&key("a:3"))).await.map(drop)),
        ("get_many", each(many.into_iter().map(|found| found.map(drop)).collect())),
        ("set", within(cache.set(&a, "v", SetOptions::default())).await.map(drop)),
        ("set_many", each(sets.into_iter().map(|outcome| outcome.map(drop)).collect())),
        ("invalidate", within(cache.invalidate(&a)).await.map(drop)),
        ("invalidate_many", within(cache.invalidate_many(&several)).await.map(drop)),
        ("invalidate_tag", within(cache.invalidate_tag(&tag("co"))).await.map(drop)),
        ("invalidate_source", within(cache.invalidate_source("a")).await.map(drop)),
        ("purge", within(cache.purge(&Filter::source("a"))).await.map(drop)),
        ("clear", within(cache.clear()).await.map(drop)),
        ("expire", within(cache.expire(&a)).await.map(drop)),
        ("set_source_version", within(cache.set_source_version("a", "2")).await.map(drop)),
        ("clear_expired", within(cache.clear_expired()).await.map(drop)),
        ("list_keys", within(cache.list_keys(9)).await.map(drop)),
        ("scan", within(cache.scan(&Filter::all(), None, 9)).await.map(drop)),
    ]
}

#[tokio::test]
async fn in_strict_mode_the_error_of_a_tier_is_the_callers_and_names_the_tier() {
    let bench = Bench::new();
    let (cache, failing, _) = chain(&bench, true);
    failing.chaos.set(Faults::none().everywhere(Fault::Error, 1.0));
    for (call, answer) in answers(&cache).await {
        let Err(Error::Tier(error)) = answer else { panic!("{call}: {answer:?}") };
        assert_eq!((error.tier(), error.kind()), ("failing", ErrorKind::Unavailable), "{call}");
    }
    let loaded = within(cache.get_or_load(&key("a:1"), never())).await;
    assert!(matches!(loaded, Err(Error::Tier(_))), "{loaded:?}");
}

#[tokio::test]
async fn in_graceful_mode_the_error_of_a_tier_is_never_the_callers() {
    let bench = Bench::new();
    let (cache, failing, sound) = chain(&bench, false);
    failing.chaos.set(Faults::none().everywhere(Fault::Error, 1.0));
    for (call, answer) in answers(&cache).await {
        assert!(answer.is_ok(), "{call}: {answer:?}");
    }
    let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    assert_eq!(hit.value(), "v");
    assert_eq!(sound.inside(&key("a:1")).await.unwrap().value(), "v");
    let hit = within(cache.get_or_load(&key("a:1"), never())).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Tier("sound"));
}

#[tokio::test(start_paused = true)]
async fn the_same_holds_for_a_tier_that_does_not_answer_in_time() {
    for strict in [true, false] {
        let bench = Bench::new();
        let (cache, failing, _) = chain(&bench, strict);
        failing.chaos.set(Faults::none().everywhere(Fault::Hang, 1.0));
        for (call, answer) in answers(&cache).await {
            match answer {
                Err(Error::Tier(error)) if strict => {
                    assert_eq!((error.tier(), error.kind()), ("failing", ErrorKind::Timeout));
                }
                Ok(()) if !strict => {}
                answer => panic!("strict {strict}, {call}: {answer:?}"),
            }
        }
    }
}

#[tokio::test]
async fn in_strict_mode_a_tier_that_is_skipped_is_an_error_too() {
    let bench = Bench::new();
    let (cache, failing, _) = chain(&bench, true);
    failing.fails(Call::Get, ErrorKind::Unavailable);
    for _ in 0..5 {
        within(cache.get(&key("a:1"))).await.unwrap_err();
    }
    let calls = failing.calls();
    for (call, answer) in answers(&cache).await {
        let Err(Error::Tier(error)) = answer else { panic!("{call}: {answer:?}") };
        assert_eq!(error.tier(), "failing", "{call}");
    }
    assert_eq!(failing.calls(), calls);
    assert!(tier_stats(&cache, "failing").skipped > 0);
}

#[tokio::test]
async fn in_strict_mode_the_tiers_that_work_have_done_what_was_asked() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (cache, failing, sound) = chain(&bench, true);
    failing.chaos.down(true);
    within(cache.set(&a, "v", SetOptions::default())).await.unwrap_err();
    assert_eq!(sound.inside(&a).await.unwrap().value(), "v");
    within(cache.invalidate(&a)).await.unwrap_err();
    assert_eq!(sound.inside(&a).await, None);
}

#[tokio::test]
async fn in_strict_mode_what_a_tier_above_has_is_served_without_asking_below() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.builder(&bench).strict(true).build().unwrap();
    set(&cache, &a, "v").await;
    below.chaos.down(true);
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
    let keys: [Key; 2] = [a, key("a:2")];
    let found = within(cache.get_many(&keys)).await.unwrap();
    assert!(matches!(&found[..], [Ok(Some(_)), Err(Error::Tier(_))]), "{found:?}");
}
