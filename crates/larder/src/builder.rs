//! Putting a chain together.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, atomic::AtomicBool},
};

use cache_core::{Clock, Origin, SystemClock, Tier};
use tokio_util::task::TaskTracker;

use crate::{
    Cache, Policy, chain::Chain, flight::Flights, guard::Guard, inner::Inner, policy::Policies,
};

/// Builds a [`Cache`].
#[derive(Debug)]
#[must_use]
pub struct CacheBuilder {
    tiers: Vec<Arc<dyn Tier>>,
    clock: Arc<dyn Clock>,
    policies: Policies,
    origins: HashMap<String, Arc<dyn Origin>>,
    strict: bool,
    log_hits: bool,
}

/// The parts make no chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Two tiers have one name.
    #[error("two tiers are named `{0}`; names must differ")]
    DuplicateTier(&'static str),
    /// The configuration asks for something that was not compiled in.
    #[error("{what} needs larder's `{feature}` feature, which this program was built without")]
    FeatureDisabled {
        /// What was asked for.
        what: String,
        /// The Cargo feature that has it.
        feature: &'static str,
    },
    /// The configuration asks for something that this version does not have.
    #[error("{0}")]
    Unsupported(String),
    /// A tier cannot be made.
    #[error("tier `{tier}` cannot be made")]
    Tier {
        /// Its name.
        tier: &'static str,
        /// Why.
        #[source]
        source: cache_core::BoxError,
    },
    /// A source cannot be made.
    #[error("source `{name}` cannot be made")]
    Source {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: cache_core::BoxError,
    },
}

impl Default for CacheBuilder {
    fn default() -> Self {
        Self {
            tiers: Vec::new(),
            clock: Arc::new(SystemClock::new()),
            policies: Policies::default(),
            origins: HashMap::new(),
            strict: false,
            log_hits: false,
        }
    }
}

impl CacheBuilder {
    /// Adds a tier below those added before.
    pub fn tier(self, tier: impl Tier) -> Self {
        self.shared_tier(Arc::new(tier))
    }

    /// The same for a tier that others hold too.
    pub fn shared_tier(mut self, tier: Arc<dyn Tier>) -> Self {
        self.tiers.push(tier);
        self
    }

    /// Where loads and requests of `source` are answered. Default: nowhere.
    pub fn origin(self, source: impl Into<String>, origin: impl Origin) -> Self {
        self.shared_origin(source, Arc::new(origin))
    }

    /// The same for an origin that others hold too.
    pub fn shared_origin(mut self, source: impl Into<String>, origin: Arc<dyn Origin>) -> Self {
        self.origins.insert(source.into(), origin);
        self
    }

    /// What holds for `source`. Default: the default policy.
    pub fn policy(mut self, source: impl Into<String>, policy: Policy) -> Self {
        self.policies.sources.insert(source.into(), policy);
        self
    }

    /// What holds for sources without a policy of their own. Default: fresh for 30 days.
    pub fn default_policy(mut self, policy: Policy) -> Self {
        self.policies.default = policy;
        self
    }

    /// Where the chain reads time; tiers have clocks of their own. Default: the machine's clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Whether a tier's error is the caller's error. Default: no, the chain goes on without it.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Whether each hit is logged, at info level with target `larder::hits`. Default: no.
    pub fn log_hits(mut self, log: bool) -> Self {
        self.log_hits = log;
        self
    }

    /// The chain. Opens nothing: a tier that is down now is used when it comes up.
    ///
    /// # Errors
    /// [`BuildError::DuplicateTier`].
    pub fn build(self) -> Result<Cache, BuildError> {
        let mut names = BTreeSet::new();
        if let Some(twice) = self.tiers.iter().find(|tier| !names.insert(tier.name())) {
            return Err(BuildError::DuplicateTier(twice.name()));
        }
        let guard = |tier| Guard::new(tier, Arc::clone(&self.clock));
        let tiers = self.tiers.into_iter().map(guard).collect();
        Ok(Cache::new(Inner {
            chain: Arc::new(Chain::new(tiers, Arc::clone(&self.clock), self.strict)),
            clock: self.clock,
            policies: self.policies,
            origins: self.origins,
            flights: Arc::new(Flights::default()),
            tasks: TaskTracker::new(),
            log_hits: self.log_hits,
            closed: AtomicBool::new(false),
        }))
    }
}
