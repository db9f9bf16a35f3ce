//! "Loading": what a loader is told, and what it may answer beside a value.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use larder::{Error, Load, LoadContext, Loaded, Origin, Policy, ReadOptions, Request, StaleReason};

use crate::{
    harness::{bring, gated, joined, key, never, tag, within},
    scene::{Answer, Scene, fail, give, ms, patch, settle, told},
};

// "The loader gets a context: stale value and its validators"

/// What a load brings that says all that can be said.
fn everything() -> Loaded {
    let mut loaded = Loaded::new("old").etag("\"e1\"").tag(tag("co")).ttl(ms(100));
    loaded.source_last_modified = Some("yesterday".to_owned());
    loaded.content_type = Some("text/plain".to_owned());
    loaded
}

#[tokio::test]
async fn a_loader_is_given_what_is_stored_and_its_validators() {
    for scene in Scene::each(&Policy::default().stale_if_error(ms(900))) {
        let loaded = scene.ask(give(Ok(everything()))).await.unwrap();
        scene.advance(100);
        let (gate, load) = gated();
        let caller = scene.start(load);
        let begun = gate.begun().await;
        assert_eq!(begun.context.key, scene.key);
        let stored = begun.context.stored.as_ref().unwrap();
        assert_eq!(stored, loaded.entry(), "{scene}");
        assert_eq!((stored.etag(), stored.value().as_ref()), (Some("\"e1\""), &b"old"[..]));
        assert_eq!(stored.source_last_modified(), Some("yesterday"), "{scene}");
        let as_of = begun.context.as_of;
        assert!(as_of > stored.as_of(), "{scene}");
        begun.bring("new");
        assert_eq!(joined(caller).await.unwrap().entry().as_of(), as_of, "{scene}");
    }
}

#[tokio::test]
async fn a_loader_is_given_nothing_where_nothing_of_use_is_stored() {
    let nothing = |context: LoadContext| async move {
        assert!(context.stored.is_none());
        Ok(Loaded::new("v"))
    };
    for scene in Scene::each(&Policy::ttl(ms(100)).stale_if_error(ms(900))) {
        scene.ask(nothing).await.unwrap();
        let bypass = scene.ask_with(ReadOptions::bypass(), nothing).await;
        assert!(bypass.is_ok(), "{scene}: as if there were no cache");
        scene.advance(1_000);
        scene.ask(nothing).await.unwrap();
        within(scene.cache.invalidate(&scene.key)).await.unwrap();
        scene.ask(nothing).await.unwrap();
    }
}

#[tokio::test]
async fn a_forced_refresh_gives_its_loader_what_is_fresh() {
    for scene in Scene::each(&Policy::default()) {
        scene.have("v").await;
        let load = |context: LoadContext| async move { Ok(context.not_modified()) };
        let hit = scene.ask_with(ReadOptions::refresh(), load).await.unwrap();
        assert_eq!((told(&hit), hit.is_revalidated()), (("v", None), true), "{scene}");
    }
}

#[tokio::test]
async fn an_origin_is_given_what_is_stored_too() {
    #[derive(Debug)]
    struct Conditional;
    #[async_trait]
    impl Origin for Conditional {
        async fn load(&self, load: Load) -> Answer {
            match load.stored.as_ref().and_then(|stored| stored.etag()) {
                None => Ok(everything()),
                Some(etag) => {
                    assert_eq!((etag, load.request.source()), ("\"e1\"", "census"));
                    Ok(Loaded::not_modified())
                }
            }
        }
    }
    let policy = Policy::default().stale_if_error(ms(900));
    let scene = Scene::chain(&policy);
    let scene = scene.with(|scene| scene.builder(&policy).origin("census", Conditional));
    let request = Request::new("census").param("cbsa", 14500);
    assert!(!within(scene.cache.request(&request)).await.unwrap().is_revalidated());
    scene.advance(100);
    let hit = within(scene.cache.request(&request)).await.unwrap();
    assert_eq!((told(&hit), hit.is_revalidated()), (("old", None), true));
}

// "a private copy of the policy to change (ttl, tags, version, don't store)": a loader changes it
// by what it says in its answer.

#[tokio::test]
async fn a_loader_is_told_what_holds_for_its_load() {
    for scene in Scene::each(&Policy::ttl(ms(100)).throttle(ms(7))) {
        let call = patch(|patch| patch.stale_if_error(ms(5)));
        let expected = Policy::ttl(ms(100)).throttle(ms(7)).stale_if_error(ms(5));
        let load = move |context: LoadContext| async move {
            assert_eq!(*context.policy, expected);
            Ok(Loaded::new("v"))
        };
        scene.ask_with(call, load).await.unwrap();
    }
}

#[tokio::test]
async fn what_a_loader_says_holds_for_its_answer_alone() {
    for scene in Scene::each(&Policy::ttl(ms(100)).stale_if_error(ms(200))) {
        let own = Loaded::new("own").ttl(ms(1_000)).stale_for(ms(3)).tag(tag("co"));
        let hit = scene.ask(give(Ok(own))).await.unwrap();
        let entry = hit.entry();
        assert_eq!(hit.fresh_for(), ms(1_000), "{scene}");
        assert_eq!(entry.stale_until(), entry.expires_at().saturating_add(ms(3)), "{scene}");
        assert_eq!(entry.tags(), [tag("co")], "{scene}");
        let usual = scene.ask_with(ReadOptions::refresh(), bring("usual")).await.unwrap();
        let entry = usual.entry();
        assert_eq!(usual.fresh_for(), ms(100), "{scene}");
        assert_eq!(entry.stale_until(), entry.expires_at().saturating_add(ms(200)), "{scene}");
        assert_eq!(entry.tags(), [], "{scene}");
        let policy = scene.cache.policy("census");
        assert_eq!(policy, &Policy::ttl(ms(100)).stale_if_error(ms(200)), "{scene}");
    }
}

#[tokio::test]
async fn tags_that_a_loader_gives_can_be_invalidated() {
    for scene in Scene::each(&Policy::default()) {
        scene.ask(give(Ok(Loaded::new("v").tag(tag("co")).tag(tag("ny"))))).await.unwrap();
        within(scene.cache.invalidate_tag(&tag("tx"))).await.unwrap();
        assert!(scene.get().await.is_some(), "{scene}");
        within(scene.cache.invalidate_tag(&tag("ny"))).await.unwrap();
        assert!(scene.get().await.is_none(), "{scene}");
    }
}

#[tokio::test]
async fn what_a_loader_does_not_want_stored_is_not_and_what_is_stored_stays() {
    for scene in Scene::each(&Policy::ttl(ms(100)).stale_if_error(ms(900))) {
        let passing = || give(Ok(Loaded::new("passing").do_not_store()));
        assert_eq!(scene.ask(passing()).await.unwrap().value(), "passing", "{scene}");
        settle().await;
        assert_eq!(scene.held().await.iter().flatten().count(), 0, "{scene}");
        assert_eq!(scene.cache.stats().not_stored, 1, "{scene}: counted");
        scene.have("old").await;
        scene.advance(100);
        assert_eq!(scene.ask(passing()).await.unwrap().value(), "passing", "{scene}");
        settle().await;
        assert_eq!(told(&scene.ask(fail()).await.unwrap()).0, "old", "{scene}");
    }
}

#[tokio::test]
async fn all_who_wait_are_given_what_is_not_stored() {
    for scene in Scene::each(&Policy::default()) {
        let (begun, callers) = scene.crowd(99).await;
        begun.end(Ok(Loaded::new("passing").do_not_store()));
        for caller in callers {
            assert_eq!(joined(caller).await.unwrap().value(), "passing", "{scene}");
        }
        scene.next_call_loads().await;
    }
}

#[tokio::test]
async fn a_version_that_a_loader_gives_makes_others_of_its_source_stale() {
    for scene in Scene::each(&Policy::default().stale_if_error(ms(900))) {
        let (old, other) = (key("census:old"), key("bls:other"));
        for key in [&old, &other] {
            let load = give(Ok(Loaded::new("v").version("2021")));
            within(scene.cache.get_or_load(key, load)).await.unwrap();
        }
        let load = give(Ok(Loaded::new("v").version("2022")));
        let hit = scene.ask(load).await.unwrap();
        assert_eq!(hit.entry().version(), Some("2022"), "{scene}");
        assert_eq!(scene.cache.source_version("census").as_deref(), Some("2022"), "{scene}");
        assert!(scene.get().await.is_some(), "{scene}");
        assert!(within(scene.cache.get(&old)).await.unwrap().is_none(), "{scene}");
        assert!(within(scene.cache.get(&other)).await.unwrap().is_some(), "{scene}");
        let stale = ReadOptions::default().allow_stale();
        assert!(within(scene.cache.get_with(&old, stale)).await.unwrap().is_some(), "{scene}");
    }
}

// "`not_modified()`"

#[tokio::test]
async fn not_modified_stores_the_value_and_its_validators_anew() {
    for scene in Scene::each(&Policy::ttl(ms(300)).stale_if_error(ms(900))) {
        let first = scene.ask(give(Ok(everything()))).await.unwrap();
        scene.advance(100);
        let load = |context: LoadContext| async move { Ok(context.not_modified()) };
        let hit = scene.ask(load).await.unwrap();
        assert_eq!((told(&hit), hit.is_revalidated()), (("old", None), true), "{scene}");
        let (entry, old) = (hit.entry(), first.entry());
        assert_eq!((entry.etag(), entry.tags()), (old.etag(), old.tags()), "{scene}");
        assert_eq!(entry.source_last_modified(), old.source_last_modified(), "{scene}");
        assert_eq!(entry.content_type(), old.content_type(), "{scene}");
        // A load like any other, which says nothing of a lifetime.
        assert!(entry.as_of() > old.as_of(), "{scene}");
        assert_eq!((hit.fresh_for(), hit.age()), (ms(300), Duration::ZERO), "{scene}");
        settle().await;
        for held in scene.held().await {
            assert_eq!(&held.unwrap(), entry, "{scene}");
        }
        assert!(!scene.get().await.unwrap().is_revalidated(), "{scene}: the tier was asked");
    }
}

#[tokio::test]
async fn not_modified_may_bring_other_validators_and_a_lifetime() {
    for scene in Scene::each(&Policy::default().stale_if_error(ms(900))) {
        scene.ask(give(Ok(everything()))).await.unwrap();
        scene.advance(100);
        let load = |context: LoadContext| async move {
            let mut loaded = context.not_modified().etag("\"e2\"").tag(tag("ny")).ttl(ms(7));
            loaded.source_last_modified = Some("today".to_owned());
            Ok(loaded)
        };
        let hit = scene.ask(load).await.unwrap();
        let entry = hit.entry();
        assert_eq!((told(&hit).0, entry.etag()), ("old", Some("\"e2\"")), "{scene}");
        assert_eq!(entry.source_last_modified(), Some("today"), "{scene}");
        assert_eq!(entry.tags(), [tag("co"), tag("ny")], "{scene}");
        assert_eq!(hit.fresh_for(), ms(7), "{scene}");
    }
}

#[tokio::test]
async fn not_modified_is_an_error_where_nothing_is_stored() {
    for scene in Scene::each(&Policy::default()) {
        let load = |context: LoadContext| async move { Ok(context.not_modified()) };
        for options in [ReadOptions::default(), ReadOptions::bypass()] {
            match scene.ask_with(options, load).await {
                Err(Error::Origin(error)) => {
                    assert!(error.to_string().contains("nothing is stored"), "{scene}: {error}");
                }
                other => panic!("{scene}: {other:?}"),
            }
        }
        scene.next_call_loads().await;
    }
}

// "Version of a source (set in config...): entries with another version are stale from that moment,
// refreshed on access, usable as fallback": `Policy::version`.

#[tokio::test]
async fn values_of_another_version_than_the_policys_are_stale_and_of_use() {
    let policy = Policy::ttl(Duration::from_hours(1)).stale_if_error(ms(900));
    for scene in [Scene::lower(&policy), Scene::chain(&policy)] {
        scene.have("old").await;
        let scene = scene.restarted(&policy.clone().version("2022"));
        assert!(scene.get().await.is_none(), "{scene}");
        let hit = scene.ask(fail()).await.unwrap();
        assert_eq!(told(&hit), ("old", Some(StaleReason::LoadFailed)), "{scene}");
        let hit = scene.ask_with(ReadOptions::refresh(), bring("new")).await.unwrap();
        assert_eq!(hit.entry().version(), Some("2022"), "{scene}");
        assert_eq!(scene.ask(never()).await.unwrap().value(), "new", "{scene}");
        let scene = scene.restarted(&policy.clone().version("2022"));
        assert_eq!(scene.ask(never()).await.unwrap().value(), "new", "{scene}: the same version");
    }
}

#[tokio::test]
async fn a_loader_and_its_callers_share_one_context_and_one_answer() {
    for scene in Scene::each(&Policy::default()) {
        let (begun, callers) = scene.crowd(9).await;
        let policy = Arc::clone(&begun.context.policy);
        begun.end(Ok(everything()));
        let mut entries = Vec::new();
        for caller in callers {
            entries.push(joined(caller).await.unwrap().into_entry());
        }
        assert!(entries.iter().all(|entry| entry.is_same(&entries[0])), "{scene}");
        assert_eq!(*policy, Policy::default());
    }
}
