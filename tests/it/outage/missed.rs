//! What a tier missed while it was down.

use super::*;

#[tokio::test]
async fn what_was_invalidated_while_a_tier_was_down_is_not_served_when_it_is_back() {
    let bench = Bench::new();
    let options = || SetOptions::default().tag(tag("boulder"));
    for how in ["key", "tag", "source", "source and tag", "all"] {
        let (cache, switches) = chaos_alone(&bench);
        within(cache.set(&key("a:1"), "old", options())).await.unwrap();
        within(cache.set(&key("b:1"), "kept", SetOptions::default())).await.unwrap();
        switches.all(DOWN);
        let filter = match how {
            "tag" => Filter::tag(tag("boulder")),
            "source" => Filter::source("a"),
            "source and tag" => Filter::source("a").and_tag(tag("boulder")),
            _ => Filter::all(),
        };
        let removed = if how == "key" {
            within(cache.invalidate(&key("a:1"))).await.unwrap()
        } else {
            within(cache.purge(&filter)).await.unwrap()
        };
        assert_eq!(removed.tiers, [("chaos", None)], "{how}");
        switches.all(Mode::Works);
        assert!(within(cache.get(&key("a:1"))).await.unwrap().is_none(), "{how}");
        let kept = within(cache.get(&key("b:1"))).await.unwrap();
        assert_eq!(kept.is_some(), how != "all", "{how}");
        let hit = within(cache.get_or_load(&key("a:1"), bring("new"))).await.unwrap();
        assert_eq!(hit.value(), "new", "{how}");
        assert_eq!(within(cache.get(&key("a:1"))).await.unwrap().unwrap().value(), "new", "{how}");
    }
}

#[tokio::test]
async fn what_was_invalidated_while_the_breaker_was_open_is_not_served_after_the_probe() {
    let bench = Bench::new();
    let (cache, switches) = chaos_alone(&bench);
    within(cache.set(&key("a:1"), "old", SetOptions::default())).await.unwrap();
    switches.all(DOWN);
    for n in 0..5 {
        within(cache.get(&key(&format!("b:{n}")))).await.unwrap();
    }
    let calls = switches.calls();
    within(cache.invalidate(&key("a:1"))).await.unwrap();
    assert_eq!(switches.calls(), calls, "the tier has not heard of it");
    switches.all(Mode::Works);
    forward(&bench, 5);
    assert!(within(cache.get(&key("a:1"))).await.unwrap().is_none());
    assert!(within(cache.get(&key("a:1"))).await.unwrap().is_none());
}

#[tokio::test]
async fn a_value_that_memory_refuses_is_not_hidden_by_the_older_one_it_still_has() {
    let bench = Bench::new();
    let memory =
        MemoryTier::with_clock(1 << 20, Arc::<tier_testkit::ManualClock>::clone(&bench.clock));
    let cache = bench.bare().tier(memory).tier(bench.sqlite()).build().unwrap();
    let a = key("a:1");
    within(cache.set(&a, "old", SetOptions::default())).await.unwrap();
    let large = vec![b'x'; 2 << 20];
    let outcome = within(cache.set(&a, large.clone(), SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["sqlite"]);
    let hit = within(cache.get(&a)).await.unwrap().unwrap();
    assert!(hit.value() == &large, "{:?} of {}", hit.served_by(), hit.value().len());
}
