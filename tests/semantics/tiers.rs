//! Tiers failing: what is an outage, what is damage, and who is told. Breakers are in `breaker.rs`,
//! options in `options.rs`, missed barriers in `missed.rs`, strict mode in `strict.rs`, closing in
//! `closing.rs`.

use std::sync::Arc;

use larder::{
    Cache, Codec, CodecError, CodecId, ErrorKind, Policy, PutReport, ServedBy, SetOptions, Tier,
    TierOptions,
    tiers::{Compressor, MemoryTier, SqliteOptions, SqliteTier},
};
use tier_testkit::{Call, ManualClock};

use crate::{
    harness::{Bench, bring, close, key, never, within},
    tools::{Below, fresh, set, tier_stats},
};

// "`Tier::get` is `Result<Option<Entry>>`: an outage is never mistaken for a miss."

#[tokio::test]
async fn a_read_that_fails_counts_as_an_error_of_the_tier_and_not_as_not_found() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    let cache = below.alone(&bench);
    below.fails(Call::Get, ErrorKind::Unavailable);
    assert_eq!(fresh(&cache, &key("a:1")).await, None);
    let stats = tier_stats(&cache, "below");
    assert_eq!((stats.errors, stats.not_found), (1, 0));
    below.chaos.heal();
    assert_eq!(fresh(&cache, &key("a:1")).await, None);
    let stats = tier_stats(&cache, "below");
    assert_eq!((stats.errors, stats.not_found), (1, 1));
}

#[tokio::test]
async fn what_a_tier_holds_is_still_there_after_an_outage_and_is_served() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    set(&below.alone(&bench), &a, "v").await;
    bench.advance(1);
    let cache = below.under_memory(&bench);
    below.chaos.down(true);
    assert_eq!(fresh(&cache, &a).await, None);
    below.chaos.down(false);
    let hit = within(cache.get_or_load(&a, never())).await.unwrap();
    assert_eq!((hit.value().as_ref(), hit.served_by()), (&b"v"[..], ServedBy::Tier("below")));
}

// "... a value that can't be decoded or fails its checksum does not [feed the breaker]: it is
// counted `corrupt`, treated as a miss, and removed."

/// SQLite alone with `n` damaged rows, the tier itself, and a look at how many rows there are.
async fn damaged(bench: &Bench, n: usize) -> (Cache, Arc<SqliteTier>, impl Fn() -> u64 + use<>) {
    let cache = bench.sqlite_only();
    for at in 0..n {
        set(&cache, &key(&format!("a:{at}")), "sound").await;
    }
    set(&cache, &key("b:1"), "sound").await;
    close(cache).await;
    let other = rusqlite::Connection::open(bench.path()).unwrap();
    other.execute("UPDATE entries SET value = x'00' WHERE source = 'a'", ()).unwrap();
    let tier = Arc::new(bench.sqlite());
    let cache = bench.bare().shared_tier(Arc::clone(&tier) as Arc<dyn Tier>).build().unwrap();
    let rows = move || {
        let count = "SELECT count(*) FROM entries WHERE source = 'a'";
        other.query_row(count, (), |row| row.get(0)).unwrap()
    };
    (cache, tier, rows)
}

#[tokio::test]
async fn a_damaged_value_is_a_miss_is_counted_by_its_tier_and_removed() {
    let bench = Bench::new();
    let (cache, tier, rows) = damaged(&bench, 3).await;
    assert_eq!(rows(), 3);
    for n in 0..3 {
        assert_eq!(fresh(&cache, &key(&format!("a:{n}"))).await, None);
    }
    assert_eq!(fresh(&cache, &key("b:1")).await.as_deref(), Some("sound"));
    assert_eq!(tier.corrupt_rows(), 3);
    let stats = tier_stats(&cache, "sqlite");
    assert_eq!((stats.errors, stats.not_found, stats.found), (0, 3, 1));
    // Writes are done in turn: the removals before this one.
    set(&cache, &key("b:2"), "v").await;
    assert_eq!(rows(), 0);
    within(cache.get_or_load(&key("a:0"), bring("loaded"))).await.unwrap();
    assert_eq!(fresh(&cache, &key("a:0")).await.as_deref(), Some("loaded"));
}

#[tokio::test]
async fn damaged_values_do_not_feed_the_breaker() {
    let bench = Bench::new();
    let (cache, tier, _) = damaged(&bench, 30).await;
    for n in 0..30 {
        assert_eq!(fresh(&cache, &key(&format!("a:{n}"))).await, None);
    }
    assert_eq!(tier.corrupt_rows(), 30);
    let stats = tier_stats(&cache, "sqlite");
    assert_eq!((stats.errors, stats.skipped, stats.not_found), (0, 0, 30));
}

#[tokio::test]
async fn a_damaged_value_is_counted_corrupt_in_the_statistics_of_the_chain() {
    let bench = Bench::new();
    let (cache, ..) = damaged(&bench, 3).await;
    for n in 0..3 {
        fresh(&cache, &key(&format!("a:{n}"))).await;
    }
    let stats = serde_json::to_value(cache.stats()).unwrap();
    assert_eq!(stats["tiers"][0]["corrupt"], 3, "{stats}");
}

/// Halves every value, and is unable to give it back.
#[derive(Debug)]
struct OneWay;

impl Codec for OneWay {
    fn id(&self) -> CodecId {
        CodecId(200)
    }

    fn name(&self) -> &'static str {
        "one-way"
    }

    fn encode(&self, raw: &[u8]) -> Result<Option<Vec<u8>>, CodecError> {
        Ok(Some(raw[..raw.len() / 2].to_vec()))
    }

    fn decode(&self, _: &[u8], _: u64, _: u64) -> Result<Vec<u8>, CodecError> {
        Err(CodecError::Corrupt { codec: "one-way", reason: "half of it is gone".to_owned() })
    }
}

#[tokio::test]
async fn a_value_that_cannot_be_decoded_is_a_miss_is_counted_and_removed() {
    let bench = Bench::new();
    let clock = Arc::<ManualClock>::clone(&bench.clock);
    let compressor = Arc::new(Compressor::new().codec(Arc::new(OneWay), 1));
    let options = SqliteOptions::new(bench.path()).clock(clock).compression(compressor);
    let tier = Arc::new(SqliteTier::new(options).unwrap());
    let cache = bench.bare().shared_tier(Arc::clone(&tier) as Arc<dyn Tier>).build().unwrap();
    for n in 0..10 {
        set(&cache, &key(&format!("a:{n}")), "some text").await;
        assert_eq!(fresh(&cache, &key(&format!("a:{n}"))).await, None);
    }
    assert_eq!(tier.corrupt_rows(), 10);
    let stats = tier_stats(&cache, "sqlite");
    assert_eq!((stats.errors, stats.skipped, stats.not_found), (0, 0, 10));
    // Writes are done in turn: the removals before this one.
    within(cache.invalidate(&key("none:1"))).await.unwrap();
    assert_eq!(within(cache.list_keys(99)).await.unwrap(), []);
}

// "A tier that is down at start is used when it comes up."

#[tokio::test]
async fn a_tier_that_is_down_at_start_is_used_when_it_comes_up() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let below = Below::new(&bench);
    below.chaos.down(true);
    let cache = below.under_memory(&bench);
    let hit = within(cache.get_or_load(&a, bring("v"))).await.unwrap();
    assert_eq!(hit.served_by(), ServedBy::Origin);
    below.chaos.down(false);
    set(&cache, &key("a:2"), "w").await;
    assert_eq!(below.inside(&key("a:2")).await.unwrap().value(), "w");
}

#[tokio::test]
async fn a_file_that_cannot_be_made_at_start_is_used_when_it_can() {
    let (bench, a) = (Bench::new(), key("a:1"));
    std::fs::write(bench.path(), "in the way").unwrap();
    let clock = Arc::<ManualClock>::clone(&bench.clock);
    let options = SqliteOptions::new(bench.path().join("deep/cache.db")).clock(clock);
    let cache = bench.bare().tier(SqliteTier::new(options).unwrap()).build().unwrap();
    assert_eq!(fresh(&cache, &a).await, None);
    std::fs::remove_file(bench.path()).unwrap();
    set(&cache, &a, "v").await;
    assert_eq!(fresh(&cache, &a).await.as_deref(), Some("v"));
}

// "Building the chain fails only for bad configuration."

#[tokio::test]
async fn a_chain_of_tiers_that_are_all_down_is_built_without_asking_them() {
    let bench = Bench::new();
    let below = Below::new(&bench);
    below.chaos.down(true);
    std::fs::create_dir(bench.path()).unwrap();
    let cache = bench.bare().shared_tier(below.tier()).tier(bench.sqlite()).build().unwrap();
    assert_eq!(below.calls(), 0);
    let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    assert_eq!(hit.value(), "v");
}

#[test]
fn a_chain_that_makes_no_sense_is_not_built_and_the_error_says_why() {
    let bench = Bench::new();
    let zero = {
        let mut options = TierOptions::default();
        options.read_timeout = std::time::Duration::ZERO;
        options
    };
    let cases = [
        (bench.bare().tier(bench.memory()).tier(bench.memory()), "two tiers are named `memory`"),
        (bench.bare().tier_with(bench.memory(), zero), "the options of tier `memory` make no"),
        (bench.bare().policy("a", Policy::default().jitter(2.0)), "the policy of `a` makes no"),
        (bench.bare().default_policy(Policy::default().refresh_ahead(1.0)), "the policy of sour"),
    ];
    for (builder, expected) in cases {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

// "`set` on a chain: succeeds when every required tier took it (`required: true` on a tier; default
// none are required in graceful mode); the outcome names each tier."

/// Three tiers, of which the second is required or not.
fn three(bench: &Bench, required: bool) -> (Cache, [Below; 3]) {
    let tiers = ["first", "second", "third"].map(|name| Below::named(name, bench));
    let mut options = TierOptions::default();
    options.required = required;
    let [first, second, third] = tiers.each_ref().map(Below::tier);
    let builder =
        bench.bare().shared_tier(first).shared_tier_with(second, options).shared_tier(third);
    (builder.build().unwrap(), tiers)
}

#[tokio::test]
async fn a_set_that_a_required_tier_did_not_take_fails_and_the_others_have_the_value() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (cache, [first, second, third]) = three(&bench, true);
    second.fails(Call::Put, ErrorKind::Unavailable);
    let error = within(cache.set(&a, "v", SetOptions::default())).await.unwrap_err();
    let larder::Error::NotStored { key: of, tier, reason } = &error else { panic!("{error:?}") };
    assert_eq!((of, *tier), (&a, "second"));
    assert!(reason.contains("unavailable") && reason.contains("chaos"), "{reason}");
    let text = error.to_string();
    assert!(text.contains("`second`") && text.contains("`a:1`") && text.contains(reason), "{text}");
    for (tier, holds) in [(&first, true), (&second, false), (&third, true)] {
        assert_eq!(tier.inside(&a).await.is_some(), holds);
    }
}

#[tokio::test]
async fn a_set_that_every_required_tier_took_succeeds_though_others_fail_and_names_each_tier() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (cache, [first, _second, third]) = three(&bench, true);
    first.fails(Call::Put, ErrorKind::Unavailable);
    third.fails(Call::Put, ErrorKind::Refused);
    let outcome = within(cache.set(&a, "v", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().collect::<Vec<_>>(), ["second"]);
    let failures: Vec<_> = outcome
        .tiers
        .iter()
        .map(|(name, report)| match report {
            PutReport::Failed(error) => (*name, Some(error.kind())),
            _ => (*name, None),
        })
        .collect();
    let expected = [
        ("first", Some(ErrorKind::Unavailable)),
        ("second", None),
        ("third", Some(ErrorKind::Refused)),
    ];
    assert_eq!(failures, expected);
}

#[tokio::test]
async fn by_default_no_tier_is_required() {
    let bench = Bench::new();
    let (cache, tiers) = three(&bench, false);
    for tier in &tiers {
        tier.fails(Call::Put, ErrorKind::Unavailable);
    }
    let outcome = within(cache.set(&key("a:1"), "v", SetOptions::default())).await.unwrap();
    assert_eq!(outcome.stored_in().count(), 0);
    assert!(outcome.tiers.iter().all(|(_, report)| matches!(report, PutReport::Failed(_))));
}

#[tokio::test]
async fn a_value_that_a_required_tier_refuses_is_not_stored_and_the_error_says_why() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let memory = MemoryTier::with_clock(1 << 20, Arc::<ManualClock>::clone(&bench.clock));
    let required = TierOptions::default().required();
    let cache = bench.bare().tier_with(memory, required).tier(bench.sqlite()).build().unwrap();
    let large = vec![b'x'; 2 << 20];
    let set = within(cache.set(&a, large, SetOptions::default())).await;
    let Err(larder::Error::NotStored { tier: "memory", reason, .. }) = set else {
        panic!("{set:?}")
    };
    assert!(reason.contains("weighs"), "{reason}");
    assert!(within(cache.get(&a)).await.unwrap().is_some(), "SQLite has it");
}

#[tokio::test]
async fn a_required_tier_that_is_skipped_has_not_taken_the_value() {
    let bench = Bench::new();
    let (cache, [_, second, _]) = three(&bench, true);
    second.chaos.down(true);
    for _ in 0..5 {
        within(cache.get(&key("a:1"))).await.unwrap();
    }
    let calls = second.calls();
    let set = within(cache.set(&key("a:1"), "v", SetOptions::default())).await;
    assert!(matches!(set, Err(larder::Error::NotStored { tier: "second", .. })), "{set:?}");
    assert_eq!(second.calls(), calls);
}

#[tokio::test]
async fn a_removal_by_lifetime_zero_that_a_required_tier_did_not_take_fails_too() {
    let (bench, a) = (Bench::new(), key("a:1"));
    let (cache, [_, second, _]) = three(&bench, true);
    set(&cache, &a, "v").await;
    second.chaos.down(true);
    let options = SetOptions::ttl(std::time::Duration::ZERO);
    let set = within(cache.set(&a, "", options)).await;
    assert!(matches!(set, Err(larder::Error::NotStored { tier: "second", .. })), "{set:?}");
    assert_eq!(fresh(&cache, &a).await, None);
}

#[tokio::test]
async fn of_several_values_each_has_its_own_outcome_from_one_write_in_each_tier() {
    let bench = Bench::new();
    let (cache, [first, second, third]) = three(&bench, true);
    let entry = |text: &str| (key(text), bytes::Bytes::from("v"), SetOptions::default());
    let unstorable = key("a:\u{7}");
    let mut entries = vec![entry("a:1"), entry("a:2")];
    entries.push((unstorable.clone(), bytes::Bytes::from("v"), SetOptions::default()));
    let outcomes = within(cache.set_many(entries)).await.unwrap();
    let stored: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(stored, [true, true, false]);
    let Err(larder::Error::NotStored { key: of, tier: "second", .. }) = &outcomes[2] else {
        panic!("{:?}", outcomes[2])
    };
    assert_eq!(*of, unstorable);
    for tier in [first, second, third] {
        assert_eq!(tier.chaos.calls(Call::Put), 1);
    }
}

#[tokio::test]
async fn a_required_tier_does_not_make_loads_fail() {
    let bench = Bench::new();
    let (cache, [_, second, _]) = three(&bench, true);
    second.chaos.down(true);
    let hit = within(cache.get_or_load(&key("a:1"), bring("v"))).await.unwrap();
    assert_eq!(hit.value(), "v");
}
