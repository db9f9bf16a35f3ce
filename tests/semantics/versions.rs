//! Invalidation: versions of a source: configured, set, or learned from the origin.

use std::time::Duration;

use larder::{Cache, Key, Loaded, Policy, ReadOptions, SetOptions, StaleReason};

use crate::{
    harness::{Bench, bring, close, failure, joined, key, load_gated, never, within},
    log::Log,
    tools::{Below, any, fresh, set},
};

fn a() -> Key {
    key("census:a")
}

fn loads(
    value: &'static str,
    version: &'static str,
) -> impl FnOnce(larder::LoadContext) -> std::future::Ready<Result<Loaded, larder::OriginError>>
+ Send
+ 'static {
    move |_| std::future::ready(Ok(Loaded::new(value).version(version)))
}

/// `census:a` of version 2021 and `bls:a` of none, in memory over SQLite.
async fn filled(bench: &Bench) -> Cache {
    let cache = bench.cache();
    let options = SetOptions::default().version("2021");
    within(cache.set(&a(), "old", options)).await.unwrap();
    set(&cache, &key("bls:a"), "kept").await;
    bench.advance(1);
    cache
}

/// Puts version 2022 of `census` in force.
async fn put_in_force(cache: &Cache, how: &str) {
    match how {
        "set" => {
            let removed = within(cache.set_source_version("census", "2022")).await.unwrap();
            assert_eq!(removed.tiers, [("memory", Some(1)), ("sqlite", Some(1))]);
        }
        _ => {
            within(cache.get_or_load(&key("census:b"), loads("new", "2022"))).await.unwrap();
        }
    }
    assert_eq!(cache.source_version("census").as_deref(), Some("2022"));
    assert_eq!(cache.source_version("bls"), None);
}

// "Version of a source (set in config, by `set_source_version`, or learned from the origin): entries
// with another version are stale from that moment, refreshed on access, usable as fallback ..."

#[tokio::test]
async fn entries_of_another_version_are_stale_from_the_moment_a_version_is_set_or_learned() {
    for how in ["set", "learned"] {
        let bench = Bench::new();
        let cache = filled(&bench).await;
        put_in_force(&cache, how).await;
        let other = bench.sqlite_only();
        // A file is told behind an answer that a version was learned from.
        while how == "learned" && fresh(&other, &a()).await.is_some() {
            tokio::task::yield_now().await;
        }
        for cache in [&cache, &other] {
            assert_eq!(fresh(cache, &a()).await, None, "{how}");
            assert_eq!(any(cache, &a()).await.as_deref(), Some("old"), "{how}");
            assert_eq!(fresh(cache, &key("bls:a")).await.as_deref(), Some("kept"), "{how}");
        }
        close(cache).await;
        assert_eq!(fresh(&bench.cache(), &a()).await, None, "{how}, after a restart");
    }
}

#[tokio::test]
async fn entries_of_another_version_are_refreshed_on_access() {
    for how in ["set", "learned"] {
        let bench = Bench::new();
        let cache = filled(&bench).await;
        put_in_force(&cache, how).await;
        let hit = within(cache.get_or_load(&a(), bring("new"))).await.unwrap();
        assert_eq!(hit.entry().version(), Some("2022"), "{how}: what is loaded has it");
        let hit = within(cache.get_or_load(&a(), never())).await.unwrap();
        assert_eq!((hit.value().as_ref(), hit.is_stale()), (&b"new"[..], false), "{how}");
    }
}

#[tokio::test]
async fn entries_of_another_version_are_a_fallback() {
    for how in ["set", "learned"] {
        let bench = Bench::new();
        let cache = filled(&bench).await;
        put_in_force(&cache, how).await;
        let failing = |context: larder::LoadContext| async move {
            assert_eq!(context.stored.unwrap().version(), Some("2021"));
            Err(failure("down"))
        };
        let hit = within(cache.get_or_load(&a(), failing)).await.unwrap();
        assert_eq!(hit.value(), "old", "{how}");
        assert_eq!(hit.stale_reason(), Some(StaleReason::LoadFailed), "{how}");
    }
}

#[tokio::test]
async fn entries_without_a_version_are_stale_when_there_is_one() {
    let bench = Bench::new();
    let cache = bench.cache();
    set(&cache, &a(), "of none").await;
    within(cache.set_source_version("census", "2022")).await.unwrap();
    assert_eq!(fresh(&cache, &a()).await, None);
    assert_eq!(any(&cache, &a()).await.as_deref(), Some("of none"));
}

#[tokio::test]
async fn a_configured_version_holds_for_what_is_stored_already() {
    let bench = Bench::new();
    close(filled(&bench).await).await;
    for (version, is_fresh) in [("2021", true), ("2022", false)] {
        let policy = Policy::default().version(version);
        let cache = bench.builder().policy("census", policy).build().unwrap();
        assert_eq!(cache.source_version("census").as_deref(), Some(version));
        assert_eq!(fresh(&cache, &a()).await.is_some(), is_fresh, "{version}");
        assert_eq!(any(&cache, &a()).await.as_deref(), Some("old"), "{version}");
        assert_eq!(fresh(&cache, &key("bls:a")).await.as_deref(), Some("kept"), "{version}");
        let failing = |_| async { Err(failure("down")) };
        let hit = within(cache.get_or_load(&a(), failing)).await.unwrap();
        assert_eq!((hit.value().as_ref(), hit.is_stale()), (&b"old"[..], !is_fresh), "{version}");
        close(cache).await;
    }
}

#[tokio::test]
async fn what_is_set_or_loaded_has_the_version_in_force_unless_it_says_another() {
    let bench = Bench::new();
    let policy = Policy::default().version("2021");
    let cache = bench.builder().policy("census", policy).build().unwrap();
    let version = async |text: &str| {
        let options = ReadOptions::default().allow_stale();
        let hit = within(cache.get_with(&key(text), options)).await.unwrap().unwrap();
        hit.entry().version().map(str::to_owned)
    };
    set(&cache, &key("census:set"), "v").await;
    within(cache.get_or_load(&key("census:loaded"), bring("v"))).await.unwrap();
    assert_eq!(version("census:set").await.as_deref(), Some("2021"));
    assert_eq!(version("census:loaded").await.as_deref(), Some("2021"));
    within(cache.set(&key("census:other"), "v", SetOptions::default().version("1999")))
        .await
        .unwrap();
    assert_eq!(version("census:other").await.as_deref(), Some("1999"));
    set(&cache, &key("bls:a"), "v").await;
    assert_eq!(version("bls:a").await, None);
}

#[tokio::test]
async fn what_is_set_as_of_another_version_than_the_one_in_force_is_stale_in_every_tier() {
    let bench = Bench::new();
    let cache = bench.cache();
    within(cache.set_source_version("census", "2022")).await.unwrap();
    within(cache.set(&a(), "old", SetOptions::default().version("2021"))).await.unwrap();
    let below = within(cache.get_with(&a(), ReadOptions::default().skip("memory"))).await.unwrap();
    assert!(below.is_none(), "from SQLite");
    assert_eq!(fresh(&cache, &a()).await, None, "from memory");
}

#[tokio::test]
async fn setting_the_version_in_force_again_changes_nothing() {
    let bench = Bench::new();
    let cache = filled(&bench).await;
    within(cache.set_source_version("census", "2021")).await.unwrap();
    assert_eq!(fresh(&cache, &a()).await.as_deref(), Some("old"), "it has that version");
    let again = within(cache.set_source_version("census", "2021")).await.unwrap();
    assert_eq!(again.entries(), 0);
}

#[tokio::test]
async fn a_version_that_comes_back_does_not_make_fresh_what_was_stale() {
    let bench = Bench::new();
    let cache = filled(&bench).await;
    within(cache.set_source_version("census", "2022")).await.unwrap();
    bench.advance(1);
    within(cache.set_source_version("census", "2021")).await.unwrap();
    assert_eq!(fresh(&cache, &a()).await, None);
    set(&cache, &a(), "anew").await;
    assert_eq!(fresh(&cache, &a()).await.as_deref(), Some("anew"));
}

#[tokio::test]
async fn a_load_from_before_the_version_is_stored_as_stale() {
    let bench = Bench::new();
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &a());
    let load = gate.begun().await;
    within(cache.set_source_version("census", "2022")).await.unwrap();
    load.bring("from before");
    assert_eq!(joined(caller).await.unwrap().value(), "from before");
    assert_eq!(fresh(&cache, &a()).await, None);
    assert_eq!(any(&cache, &a()).await.as_deref(), Some("from before"));
}

#[tokio::test]
async fn a_slow_load_that_learned_an_older_version_does_not_put_it_back_in_force() {
    let bench = Bench::new();
    let cache = bench.cache();
    let (gate, caller) = load_gated(&cache, &a());
    let slow = gate.begun().await;
    bench.advance(10);
    within(cache.get_or_load(&key("census:b"), loads("new", "2022"))).await.unwrap();
    slow.end(Ok(Loaded::new("old").version("2021")));
    assert_eq!(joined(caller).await.unwrap().value(), "old");
    assert_eq!(cache.source_version("census").as_deref(), Some("2022"));
    assert_eq!(fresh(&cache, &key("census:b")).await.as_deref(), Some("new"));
    assert_eq!(fresh(&cache, &a()).await, None, "it has another version");
}

#[tokio::test]
async fn a_version_set_here_makes_entries_stale_for_others_who_share_the_tier() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let (cache, other) = (below.under_memory(&bench), below.alone(&bench));
    within(cache.set(&a(), "old", SetOptions::default().version("2021"))).await.unwrap();
    bench.advance(1);
    within(cache.set_source_version("census", "2022")).await.unwrap();
    assert!(below.inside(&a()).await.unwrap().is_expired());
    assert_eq!(fresh(&other, &a()).await, None);
}

#[tokio::test]
async fn a_source_whose_name_begins_alike_keeps_its_entries() {
    let bench = Bench::new();
    let cache = filled(&bench).await;
    set(&cache, &key("census_acs:a"), "kept").await;
    within(cache.set_source_version("census", "2022")).await.unwrap();
    assert_eq!(fresh(&cache, &key("census_acs:a")).await.as_deref(), Some("kept"));
}

// "... the change is logged with old and new."

#[tokio::test]
async fn a_change_of_version_is_logged_once_with_old_and_new() {
    for how in ["set", "learned"] {
        let bench = Bench::new();
        let cache = bench.cache();
        let (log, _guard) = Log::capture();
        let change = async |version: &'static str, n: u32| {
            if how == "set" {
                within(cache.set_source_version("census", version)).await.unwrap();
            } else {
                let key = key(&format!("census:{n}"));
                within(cache.get_or_load(&key, loads("v", version))).await.unwrap();
            }
        };
        let mut n = 0;
        for version in ["2021", "2021", "2022", "2022"] {
            n += 1;
            bench.advance(1);
            change(version, n).await;
        }
        let told = log.texts(tracing::Level::INFO);
        let [first, second] = &told[..] else { panic!("{how}: {told:#?}") };
        assert!(first.contains("census") && first.contains("2021"), "{first}");
        for part in ["census", "old=\"2021\"", "new=\"2022\""] {
            assert!(second.contains(part), "{part}: {second}");
        }
    }
}

#[tokio::test]
async fn a_change_of_version_leaves_lifetimes_as_they_are() {
    let bench = Bench::new();
    let cache = bench.cache();
    let options = SetOptions::ttl(Duration::from_secs(10)).version("2021");
    within(cache.set(&a(), "old", options)).await.unwrap();
    within(cache.set_source_version("census", "2022")).await.unwrap();
    bench.advance(9_999);
    assert_eq!(any(&cache, &a()).await.as_deref(), Some("old"));
    bench.advance(1);
    assert_eq!(any(&cache, &a()).await, None);
}
