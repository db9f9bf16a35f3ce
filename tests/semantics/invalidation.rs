//! Invalidation: what each selector covers, and what it says it removed. Expiring is in `expire.rs`,
//! versions in `versions.rs`; what races with an invalidation in `barriers.rs`.
//!
//! Not yet: "Receivers never delete from a shared tier ...; a process ignores its own messages;
//! messages carry selector, stamp, node id, wire version" and "publish only after the shared tier took
//! the change" (this version has no journal, no pub/sub and no Redis).

use std::time::Duration;

use larder::{Cache, Filter, Key, Loaded, Removed, Request, Selector, SetOptions};
use tier_testkit::CountingOrigin;

use crate::{
    harness::{Bench, close, key, tag, within},
    tools::{Below, any, fresh, set},
};

/// Keys, their tags and their versions, in every tier.
const ALL: [(&str, &str, &str); 8] = [
    ("bls:a", "ny", "1"),
    ("census", "co", "1"),
    ("census:a", "co", "1"),
    ("census:a:b", "ny", "2"),
    ("census:a:b:c", "co", "2"),
    ("census:ab", "co", "1"),
    ("census_acs:a", "co", "1"),
    ("other", "co-2", "1"),
];

async fn filled(bench: &Bench) -> Cache {
    let cache = bench.cache();
    let entry = |(text, market, version): (&str, &str, &str)| {
        let options = SetOptions::default().tag(tag(market)).version(version);
        (key(text), bytes::Bytes::from("v"), options)
    };
    let outcomes = within(cache.set_many(ALL.map(entry).to_vec())).await.unwrap();
    assert!(outcomes.iter().all(Result::is_ok));
    cache
}

/// What of [`ALL`] is gone.
async fn gone(cache: &Cache) -> Vec<&'static str> {
    let mut gone = Vec::new();
    for (text, ..) in ALL {
        if any(cache, &key(text)).await.is_none() {
            gone.push(text);
        }
    }
    gone
}

/// Forgets, and checks that exactly these are gone: from the chain, for another process, and after a
/// restart; and that both tiers say so.
async fn forgets(forget: impl AsyncFn(&Cache) -> Removed, expected: &[&str]) {
    let bench = Bench::new();
    let cache = filled(&bench).await;
    let removed = forget(&cache).await;
    let count = expected.len() as u64;
    assert_eq!(removed.tiers, [("memory", Some(count)), ("sqlite", Some(count))]);
    assert_eq!(removed.entries(), count);
    assert_eq!(gone(&cache).await, expected);
    assert_eq!(gone(&bench.sqlite_only()).await, expected, "another process");
    close(cache).await;
    assert_eq!(gone(&bench.cache()).await, expected, "after a restart");
}

// "`invalidate(key)` ...; by tag, by source, by filter, all. Each returns the number of entries removed
// per tier."

#[tokio::test]
async fn invalidate_forgets_one_key() {
    forgets(async |cache| within(cache.invalidate(&key("census:a"))).await.unwrap(), &["census:a"])
        .await;
}

#[tokio::test]
async fn invalidate_many_forgets_its_keys_and_counts_them_together() {
    let keys = ["census:a", "bls:a", "none:1", "bls:a"].map(Key::new);
    let forget = async |cache: &Cache| within(cache.invalidate_many(&keys)).await.unwrap();
    forgets(forget, &["bls:a", "census:a"]).await;
    forgets(async |cache| within(cache.invalidate_many(&[])).await.unwrap_or_default(), &[]).await;
}

#[tokio::test]
async fn invalidate_tag_forgets_it_in_every_source() {
    let expected = ["census", "census:a", "census:a:b:c", "census:ab", "census_acs:a"];
    forgets(async |cache| within(cache.invalidate_tag(&tag("co"))).await.unwrap(), &expected).await;
}

#[tokio::test]
async fn invalidate_source_forgets_its_keys_alone() {
    let expected = ["census", "census:a", "census:a:b", "census:a:b:c", "census:ab"];
    let forget = async |cache: &Cache| within(cache.invalidate_source("census")).await.unwrap();
    forgets(forget, &expected).await;
}

#[tokio::test]
async fn a_filter_forgets_what_matches_all_its_parts() {
    let co = || tag("co");
    let cases: [(Filter, &[&str]); 4] = [
        (
            Filter::source("census").and_tag(co()),
            &["census", "census:a", "census:a:b:c", "census:ab"],
        ),
        (Filter::prefix("census:a").and_tag(co()), &["census:a", "census:a:b:c"]),
        (Filter::tag(tag("ny")), &["bls:a", "census:a:b"]),
        (Filter::prefix("bls").and_tag(co()), &[]),
    ];
    for (filter, expected) in cases {
        let purge = async |cache: &Cache| within(cache.purge(&filter)).await.unwrap();
        forgets(purge, expected).await;
        let invalidate = async |cache: &Cache| within(cache.invalidate(&filter)).await.unwrap();
        forgets(invalidate, expected).await;
    }
}

#[tokio::test]
async fn clear_forgets_everything() {
    let all = ALL.map(|(text, ..)| text);
    forgets(async |cache| within(cache.clear()).await.unwrap(), &all).await;
    forgets(async |cache| within(cache.purge(&Filter::all())).await.unwrap(), &all).await;
}

#[tokio::test]
async fn entries_of_another_version_can_be_forgotten() {
    let selector = Selector::OtherVersion("census".into(), "2".into());
    let forget = async |cache: &Cache| within(cache.invalidate(selector.clone())).await.unwrap();
    forgets(forget, &["census", "census:a", "census:ab"]).await;
}

#[tokio::test]
async fn each_tier_says_how_many_entries_it_removed() {
    let bench = Bench::new();
    close(filled(&bench).await).await;
    bench.advance(1);
    let cache = bench.cache();
    // Two of them are in memory too.
    for text in ["census:a", "census:ab"] {
        assert_eq!(fresh(&cache, &key(text)).await.as_deref(), Some("v"));
    }
    let removed = within(cache.invalidate_source("census")).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(2)), ("sqlite", Some(5))]);
    assert_eq!(removed.entries(), 5, "one that both tiers held counts once");
    let again = within(cache.invalidate_source("census")).await.unwrap();
    assert_eq!(again.tiers, [("memory", Some(0)), ("sqlite", Some(0))]);
}

#[tokio::test]
async fn a_tier_that_failed_says_nothing_of_what_it_removed() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    set(&cache, &a, "v").await;
    below.chaos.down(true);
    let removed = within(cache.invalidate(&a)).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(1)), ("below", None)]);
    assert_eq!(removed.entries(), 1);
}

#[tokio::test]
async fn an_invalidation_whose_caller_has_gone_is_done_all_the_same() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let cache = below.under_memory(&bench);
    set(&cache, &a, "v").await;
    below.hangs(tier_testkit::Call::Bar);
    let caller = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.invalidate(&a).await }
    });
    crate::harness::until(|| below.chaos.hanging() == 1).await;
    caller.abort();
    assert!(within(caller).await.unwrap_err().is_cancelled());
    below.chaos.heal();
    close(cache).await;
    assert_eq!(below.inside(&a).await, None);
}

// "An entry has the tags of its latest write only."

#[tokio::test]
async fn a_set_with_other_tags_replaces_those_of_the_set_before() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    for (value, market) in [("old", "co"), ("new", "ny")] {
        let options = SetOptions::default().tag(tag(market)).tag(tag("both"));
        within(cache.set(&a, value, options)).await.unwrap();
    }
    let removed = within(cache.invalidate_tag(&tag("co"))).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(0)), ("sqlite", Some(0))]);
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("new"));
    assert_eq!(fresh(&bench.sqlite_only(), &a).await.as_deref(), Some("new"));
    let removed = within(cache.invalidate_tag(&tag("ny"))).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(1)), ("sqlite", Some(1))]);
}

#[tokio::test]
async fn a_load_with_other_tags_replaces_those_of_the_load_before() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    for market in ["co", "ny"] {
        let load = move |_| async move { Ok(Loaded::new(market).tag(tag(market))) };
        within(cache.expire(&a)).await.unwrap();
        within(cache.get_or_load(&a, load)).await.unwrap();
    }
    assert_eq!(within(cache.invalidate_tag(&tag("co"))).await.unwrap().entries(), 0);
    assert_eq!(within(cache.invalidate_tag(&tag("ny"))).await.unwrap().entries(), 1);
    assert_eq!(any(&cache, &a).await, None);
}

#[tokio::test]
async fn a_set_without_tags_leaves_none() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    within(cache.set(&a, "old", SetOptions::default().tag(tag("co")))).await.unwrap();
    set(&cache, &a, "new").await;
    assert_eq!(within(cache.invalidate_tag(&tag("co"))).await.unwrap().entries(), 0);
    close(cache).await;
    assert_eq!(fresh(&bench.cache(), &a).await.as_deref(), Some("new"));
}

#[tokio::test]
async fn a_load_has_the_tags_of_its_request_and_those_it_says_itself() {
    let bench = Bench::new();
    let cache = bench.builder().origin("o", CountingOrigin::default()).build().unwrap();
    let request = Request::new("o").param("n", 1).tag(tag("co")).tag(tag("o-data"));
    for text in ["co", "o-data"] {
        within(cache.request(&request)).await.unwrap();
        assert_eq!(within(cache.invalidate_tag(&tag(text))).await.unwrap().entries(), 1, "{text}");
    }
}

#[tokio::test]
async fn a_copy_that_was_promoted_has_its_tags() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let options = SetOptions::default().tag(tag("co"));
    within(below.alone(&bench).set(&a, "v", options)).await.unwrap();
    bench.advance(1);
    let cache = below.under_memory(&bench);
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
    let removed = within(cache.invalidate_tag(&tag("co"))).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(1)), ("below", Some(1))]);
}

// "Unknown tag: nothing happens. Source `census` does not match `census_acs`; prefixes are matched on
// whole segments."

#[tokio::test]
async fn a_tag_source_or_key_that_nothing_has_forgets_nothing() {
    for selector in [
        Selector::Tag(tag("tx")),
        Selector::Tag(tag("c")),
        Selector::source("fred"),
        Selector::source(""),
        Selector::prefix("census:x"),
        Selector::Key(key("census:")),
        Selector::Key(key("")),
    ] {
        let forget =
            async |cache: &Cache| within(cache.invalidate(selector.clone())).await.unwrap();
        forgets(forget, &[]).await;
    }
}

#[tokio::test]
async fn prefixes_match_whole_segments_only() {
    let below_census = ["census", "census:a", "census:a:b", "census:a:b:c", "census:ab"];
    let cases: [(&str, &[&str]); 8] = [
        ("census", &below_census),
        ("census:", &below_census),
        ("census_acs", &["census_acs:a"]),
        ("cens", &[]),
        ("census:a", &["census:a", "census:a:b", "census:a:b:c"]),
        ("census:a:", &["census:a", "census:a:b", "census:a:b:c"]),
        ("census:a:b", &["census:a:b", "census:a:b:c"]),
        ("a", &[]),
    ];
    for (prefix, expected) in cases {
        let by_filter = Filter::prefix(prefix);
        forgets(async |cache| within(cache.purge(&by_filter)).await.unwrap(), expected).await;
        let selector = Selector::prefix(prefix);
        let forget =
            async |cache: &Cache| within(cache.invalidate(selector.clone())).await.unwrap();
        forgets(forget, expected).await;
    }
}

#[tokio::test]
async fn signs_that_mean_something_to_a_database_mean_nothing_in_a_prefix() {
    for prefix in ["%", "census%", "_", "census_", "*", "census*", "' OR 1=1 --", "census;"] {
        let filter = Filter::prefix(prefix);
        forgets(async |cache| within(cache.purge(&filter)).await.unwrap(), &[]).await;
    }
}

#[tokio::test]
async fn a_key_that_ends_with_its_separator_is_below_its_prefix_in_every_tier() {
    let cases = [("census:", "census"), ("census:a:", "census:a"), (":", ""), ("a::", "a")];
    for (text, prefix) in cases {
        for tagged in [false, true] {
            let (bench, a) = (Bench::new(), key(text));
            let cache = bench.cache();
            within(cache.set(&a, "v", SetOptions::default().tag(tag("co")))).await.unwrap();
            let filter = Filter::prefix(prefix);
            let filter = if tagged { filter.and_tag(tag("co")) } else { filter };
            let found = within(cache.scan(&filter, None, 9)).await.unwrap();
            assert_eq!(found.len(), 1, "{text}");
            let removed = within(cache.purge(&filter)).await.unwrap();
            assert_eq!(removed.tiers, [("memory", Some(1)), ("sqlite", Some(1))], "{text}");
            close(cache).await;
            assert_eq!(any(&bench.cache(), &a).await, None, "{text}, after a restart");
        }
    }
}

#[tokio::test]
async fn an_invalidation_holds_for_values_that_come_with_a_tag_it_did_not_know_of() {
    // Of an earlier load, for example that of another process.
    let bench = Bench::new();
    let cache = bench.cache();
    let early =
        larder::Entry::builder("early", larder::Stamp::at(larder::Clock::now(&*bench.clock)))
            .tags([tag("new")])
            .build();
    bench.advance(1);
    let removed = within(cache.invalidate_tag(&tag("new"))).await.unwrap();
    assert_eq!(removed.entries(), 0);
    let outcome = within(larder::Tier::put(&bench.sqlite(), &key("a:1"), &early)).await.unwrap();
    assert_eq!(outcome, larder::PutOutcome::Barred);
}

#[tokio::test]
async fn a_value_set_in_the_millisecond_of_an_invalidation_is_served() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.cache();
    for _ in 0..20 {
        within(cache.clear()).await.unwrap();
        within(cache.set(&a, "v", SetOptions::ttl(Duration::from_secs(9)))).await.unwrap();
        assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
    }
}

// The tags of a load under way are not known: it is taken to be covered.
#[tokio::test]
async fn after_an_invalidation_by_any_tag_no_load_from_before_is_joined() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let cache = bench.memory_only();
    let (gate, first) = crate::harness::load_gated(&cache, &a);
    let load = gate.begun().await;
    assert_eq!(within(cache.invalidate_tag(&tag("unknown"))).await.unwrap().entries(), 0);
    let second = tokio::spawn({
        let (cache, a) = (cache.clone(), a.clone());
        async move { cache.get_or_load(&a, crate::harness::bring("a second load")).await }
    });
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    load.bring("v");
    assert_eq!(crate::harness::joined(first).await.unwrap().value(), "v");
    assert_eq!(crate::harness::joined(second).await.unwrap().value(), "a second load");
    assert_eq!(cache.stats().loads, 2);
}

#[tokio::test]
async fn an_old_tag_takes_the_old_copy_of_a_tier_and_leaves_the_new_one_of_another() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    let (cache, other) = (below.under_memory(&bench), below.alone(&bench));
    within(cache.set(&a, "old", SetOptions::default().tag(tag("co")))).await.unwrap();
    bench.advance(1);
    within(other.set(&a, "new", SetOptions::default().tag(tag("ny")))).await.unwrap();
    let removed = within(cache.invalidate_tag(&tag("co"))).await.unwrap();
    assert_eq!(removed.tiers, [("memory", Some(1)), ("below", Some(0))]);
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("new"));
}
