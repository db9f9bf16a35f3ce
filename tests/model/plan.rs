//! What one seed plays with: the chain, the policies, the keys, and which faults there are.

use std::time::Duration;

use larder::{BreakerOptions, Failures, Key, Policy, Tag, TierOptions};

use tier_testkit::Dice;

/// What the tiers may suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Delays only: whatever is promised holds.
    Calm,
    /// Tiers go down, hang and come up again.
    Outages,
    /// Anything goes wrong with any call.
    Wild,
}

/// The first tier of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// A chaos tier, like the others.
    Chaos,
    /// Memory that never evicts.
    Memory,
    /// Memory that has room for about three entries.
    SmallMemory,
    /// Memory that keeps its copies for a second.
    CappedMemory,
}

/// What one seed plays with.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: usize,
    pub(crate) first: First,
    pub(crate) weather: Weather,
    /// The last tier is only read; it has something older from the start.
    pub(crate) read_only: bool,
    /// The second tier is required.
    pub(crate) required: bool,
    /// Calls may be dropped half-way.
    pub(crate) cancels: bool,
    pub(crate) breaker: BreakerOptions,
    pub(crate) policies: Vec<(&'static str, Policy)>,
    pub(crate) keys: Vec<Key>,
    pub(crate) tags: Vec<Tag>,
}

const KEYS: [&str; 6] = ["s0:p:a", "s1:q", "s0:q", "s2:a", "s0:p:b", "s1:p:a"];
const SOURCES: [&str; 3] = ["s0", "s1", "s2"];

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::stream(seed, 0);
        let first = dice.weighed(&[
            (4, First::Chaos),
            (4, First::Memory),
            (2, First::SmallMemory),
            (1, First::CappedMemory),
        ]);
        let weather =
            dice.weighed(&[(2, Weather::Calm), (2, Weather::Outages), (3, Weather::Wild)]);
        let mut breaker = BreakerOptions::default();
        if dice.percent(50) {
            breaker.failures = 2;
            (breaker.cooldown, breaker.max_cooldown) =
                (Duration::from_secs(1), Duration::from_secs(4));
        }
        let keys = 2 + dice.below(KEYS.len() - 2);
        Self {
            seed,
            steps: 40 + dice.below(81),
            first,
            weather,
            read_only: dice.percent(15),
            required: dice.percent(15),
            cancels: dice.percent(30),
            breaker,
            policies: SOURCES.into_iter().map(|source| (source, policy(&mut dice))).collect(),
            keys: KEYS[..keys].iter().map(Key::new).collect(),
            tags: ["red", "blue"].into_iter().map(|tag| Tag::new(tag).unwrap()).collect(),
        }
    }

    pub(crate) fn policy(&self, source: &str) -> &Policy {
        &self.policies.iter().find(|(name, _)| *name == source).unwrap().1
    }

    pub(crate) fn names(&self) -> [&'static str; 3] {
        [if self.first == First::Chaos { "one" } else { "memory" }, "two", "three"]
    }

    /// The options of the tier at a place.
    pub(crate) fn options(&self, at: usize) -> TierOptions {
        let mut options = TierOptions::default();
        options.breaker = self.breaker;
        match at {
            0 if self.first == First::CappedMemory => options.max_ttl(Duration::from_secs(1)),
            1 if self.required => options.required(),
            2 if self.read_only => options.read_only(),
            _ => options,
        }
    }
}

fn policy(dice: &mut Dice) -> Policy {
    let mut policy = if dice.percent(8) {
        Policy::forever()
    } else {
        Policy::ttl(dice.millis(&[1_000, 2_000, 4_000, 8_000, 60_000, 600_000]))
    };
    if dice.percent(20) {
        policy = policy.jitter(0.3);
    }
    if dice.percent(20) {
        policy = policy.refresh_ahead(*dice.pick(&[0.3, 0.7]));
    }
    if dice.percent(15) {
        policy = policy.soft_timeout(dice.millis(&[300, 1_000, 2_500]));
    }
    if dice.percent(15) {
        policy = policy.cancel_abandoned(true);
    }
    policy = policy
        .stale_while_revalidate(dice.millis(&[0, 0, 1_000, 4_000]))
        .stale_if_error(dice.millis(&[0, 0, 2_000, 10_000]))
        .negative_ttl(dice.millis(&[0, 0, 2_000]))
        .throttle(dice.millis(&[0, 1_000, 5_000]))
        .retroactive_ttl(dice.percent(80))
        .stale_on(*dice.pick(&[Failures::TEMPORARY, Failures::TEMPORARY, Failures::ALL]));
    policy.hard_timeout = *dice.pick(&[
        Some(Duration::from_secs(2)),
        Some(Duration::from_secs(10)),
        Some(Duration::from_mins(5)),
        None,
    ]);
    policy
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { first, weather, read_only, required, cancels, steps, breaker, .. } = self;
        let names = self.names().join(" > ");
        writeln!(f, "  {names}; first {first:?}, weather {weather:?}, {steps} steps")?;
        writeln!(f, "  last read-only {read_only}, second required {required}, drops {cancels}")?;
        writeln!(f, "  breaker {} failures, {:?}", breaker.failures, breaker.cooldown)?;
        for (source, policy) in &self.policies {
            let text = format!("{policy:?}").replace("stale_while_revalidate", "swr");
            writeln!(f, "  {source}: {text}")?;
        }
        Ok(())
    }
}
