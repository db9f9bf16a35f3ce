//! Putting a chain together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, LazyLock, atomic::AtomicBool},
    time::Duration,
};

use cache_core::{Clock, Origin, Tier, Timestamp};
use tokio::sync::Semaphore;

use crate::{
    Cache, Ledger, OriginOptions, Policy, TierOptions,
    asking::Asker,
    chain::Chain,
    flight::Flights,
    front::{Front, FrontClock},
    guard::Guard,
    inner::{Inner, MOST_QUEUED},
    loading::Loading,
    pauses::Throttle,
    peers,
    policy::Policies,
    probes::Probes,
    tasks::Tasks,
    ticker::Ticker,
};

#[cfg(feature = "series")]
use crate::series::Series;

#[cfg(feature = "zstd")]
use crate::dictionaries::{self, Training};

/// The machine's clock: one for all chains of the process, so that their stamps differ.
static MACHINE: LazyLock<Ticker> = LazyLock::new(Ticker::new);

/// [`MACHINE`], to be handed around.
#[derive(Debug)]
struct Machine;

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        Clock::now(&*MACHINE)
    }
}

/// Builds a [`Cache`].
#[derive(Debug)]
#[must_use]
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
pub struct CacheBuilder {
    tiers: Vec<(Arc<dyn Tier>, TierOptions)>,
    /// `None` is the machine's.
    clock: Option<Arc<dyn Clock>>,
    policies: Policies,
    origins: HashMap<String, Arc<dyn Origin>>,
    origin_options: BTreeMap<String, OriginOptions>,
    ledger: Option<Arc<Ledger>>,
    #[cfg(feature = "series")]
    series: BTreeMap<String, Series>,
    strict: bool,
    offline: bool,
    log_hits: bool,
    hit_statistics: bool,
    lease: Duration,
    #[cfg(feature = "zstd")]
    compressor: Option<Arc<codec_compress::Compressor>>,
    #[cfg(feature = "zstd")]
    automatic: dictionaries::Automatic,
}

/// The parts make no chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A policy makes no sense.
    #[error("the policy of {of} makes no sense: {problem}")]
    Policy {
        /// Whose it is.
        of: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tier's options make no sense.
    #[error("the options of tier `{tier}` make no sense: {problem}")]
    TierOptions {
        /// Its name.
        tier: &'static str,
        /// What is wrong with them.
        problem: String,
    },
    /// The options of a source's origin make no sense.
    #[error("the options of the origin of `{name}` make no sense: {problem}")]
    OriginOptions {
        /// The source.
        name: String,
        /// What is wrong with them.
        problem: String,
    },
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
    /// The ranges of a source make no sense.
    #[error("the range of `{name}` makes no sense: {problem}")]
    Series {
        /// The source.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
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
            clock: None,
            policies: Policies::default(),
            origins: HashMap::new(),
            origin_options: BTreeMap::new(),
            ledger: None,
            #[cfg(feature = "series")]
            series: BTreeMap::new(),
            strict: false,
            lease: Duration::from_secs(5),
            offline: false,
            log_hits: false,
            hit_statistics: true,
            #[cfg(feature = "zstd")]
            compressor: None,
            #[cfg(feature = "zstd")]
            automatic: dictionaries::Automatic { usually: true, ..Default::default() },
        }
    }
}

impl CacheBuilder {
    /// Adds a tier below those added before.
    pub fn tier(self, tier: impl Tier) -> Self {
        self.shared_tier(Arc::new(tier))
    }

    /// The same for a tier that others hold too.
    pub fn shared_tier(self, tier: Arc<dyn Tier>) -> Self {
        self.shared_tier_with(tier, TierOptions::default())
    }

    /// Adds a tier below those added before, to be treated in another way.
    pub fn tier_with(self, tier: impl Tier, options: TierOptions) -> Self {
        self.shared_tier_with(Arc::new(tier), options)
    }

    /// The same for a tier that others hold too.
    pub fn shared_tier_with(mut self, tier: Arc<dyn Tier>, options: TierOptions) -> Self {
        self.tiers.push((tier, options));
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

    /// How the origin of `source` is asked, by its own loads and by those that callers bring.
    /// Default: as soon as there is something to load, and once.
    pub fn origin_options(mut self, source: impl Into<String>, options: OriginOptions) -> Self {
        self.origin_options.insert(source.into(), options);
        self
    }

    /// Where calls are remembered that count towards limits. Default: in this process's memory.
    pub fn ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = Some(Arc::new(ledger));
        self
    }

    /// How ranges of time of `source` are cut into chunks: [`Cache::request`] and its like answer
    /// requests that have both bounds from chunks that are stored, and load only missing ones.
    #[cfg(feature = "series")]
    pub fn series(mut self, source: impl Into<String>, series: Series) -> Self {
        self.series.insert(source.into(), series);
        self
    }

    /// What holds for `source`. Default: the default policy.
    pub fn policy(mut self, source: impl Into<String>, policy: Policy) -> Self {
        self.policies.sources.insert(source.into(), Arc::new(policy));
        self
    }

    /// What holds for sources without a policy of their own. Default: fresh for 30 days.
    pub fn default_policy(mut self, policy: Policy) -> Self {
        self.policies.default = Arc::new(policy);
        self
    }

    /// Where the chain reads time; tiers have clocks of their own. Default: the machine's clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Whether a tier's error is the caller's error. Default: no, the chain goes on without it.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Whether no origin is ever asked: reads are answered by the tiers alone. Default: no.
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// Whether each hit is logged, at info level with target `larder::hits`. Default: no.
    pub fn log_hits(mut self, log: bool) -> Self {
        self.log_hits = log;
        self
    }

    /// Whether hits in memory are counted, and one in 64 of them timed; everything else is in any
    /// case. Default: yes.
    pub fn hit_statistics(mut self, count: bool) -> Self {
        self.hit_statistics = count;
        self
    }

    /// How long a process that was killed while it loaded keeps the others that share a tier from
    /// loading the same: it holds a lease, which it makes longer while it loads. Zero: processes do
    /// not wait for each other. Default: 5 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// What its tiers were given to compress values with: dictionaries are trained for it.
    #[cfg(feature = "zstd")]
    pub fn compressor(mut self, compressor: Arc<codec_compress::Compressor>) -> Self {
        self.compressor = Some(compressor);
        self
    }

    /// Whether a source's dictionary is trained once 500 small values of it are stored, rather than
    /// only by [`Cache::train_dictionary`]. Default: yes.
    #[cfg(feature = "zstd")]
    pub fn automatic_dictionaries(mut self, automatic: bool) -> Self {
        self.automatic.usually = automatic;
        self
    }

    /// The same for one source.
    #[cfg(feature = "zstd")]
    pub fn automatic_dictionaries_of(mut self, source: impl Into<String>, automatic: bool) -> Self {
        self.automatic.by_source.insert(source.into(), automatic);
        self
    }

    /// The chain. Opens nothing: a tier that is down now is used when it comes up.
    ///
    /// # Errors
    /// [`BuildError::DuplicateTier`], [`BuildError::Policy`], [`BuildError::TierOptions`],
    /// [`BuildError::OriginOptions`], [`BuildError::Series`].
    pub fn build(self) -> Result<Cache, BuildError> {
        let mut names = BTreeSet::new();
        if let Some(twice) = self.tiers.iter().find(|(tier, _)| !names.insert(tier.name())) {
            return Err(BuildError::DuplicateTier(twice.0.name()));
        }
        let all = self.policies.sources.iter().map(|(name, policy)| (format!("`{name}`"), policy));
        let default = ("sources without one of their own".to_owned(), &self.policies.default);
        for (of, policy) in all.chain([default]) {
            if let Some(problem) = policy.problem() {
                return Err(BuildError::Policy { of, problem });
            }
        }
        if self.policies.default.version.is_some() {
            let problem = "a version belongs to one source".to_owned();
            return Err(BuildError::Policy { of: "all sources".to_owned(), problem });
        }
        for (tier, options) in &self.tiers {
            if let Some(problem) = options.problem() {
                let problem = problem.to_owned();
                return Err(BuildError::TierOptions { tier: tier.name(), problem });
            }
        }
        for (name, options) in &self.origin_options {
            if let Some(problem) = options.problem() {
                return Err(BuildError::OriginOptions { name: name.clone(), problem });
            }
        }
        #[cfg(feature = "series")]
        for (name, series) in &self.series {
            series.check().map_err(|problem| BuildError::Series { name: name.clone(), problem })?;
        }
        let front_clock = match &self.clock {
            None => FrontClock::Machine(&MACHINE),
            Some(clock) => FrontClock::Other(Arc::clone(clock)),
        };
        let memory = Arc::new(match &self.clock {
            None => Ledger::in_memory(),
            Some(clock) => {
                let clock = Arc::clone(clock);
                let now = move || clock.now().as_millis().saturating_mul(1_000);
                Ledger::in_memory().with_clock(now)
            }
        });
        let shared = self.ledger.as_ref().unwrap_or(&memory);
        let clock = self.clock.unwrap_or_else(|| Arc::new(Machine));
        let askers = self.origin_options.iter().map(|(name, options)| {
            // No file is made for sources that need none.
            let patience = self.policies.of(name).hard_timeout;
            let ledger = if options.limits.is_remembered() { shared } else { &memory };
            let asker = Asker::new(name, options, Arc::clone(ledger), Arc::clone(&clock), patience);
            let asker = asker.map_err(|error| BuildError::OriginOptions {
                name: name.clone(),
                problem: error.to_string(),
            })?;
            Ok((name.clone(), Arc::new(asker)))
        });
        let askers = askers.collect::<Result<_, BuildError>>()?;
        let probed = self.origin_options.iter();
        let probed =
            probed.filter_map(|(name, options)| Some((name.clone(), options.probe_every?)));
        let probed = probed.collect();
        let guard = |(tier, options)| Guard::new(tier, options, Arc::clone(&clock));
        let tiers = self.tiers.into_iter().map(guard).collect();
        let chain = Chain::new(tiers, self.policies, Arc::clone(&clock), self.strict, self.lease);
        let front = Front::new(&chain, front_clock, self.hit_statistics, self.log_hits);
        let (chain, tasks) = (Arc::new(chain), Tasks::default());
        #[cfg(feature = "zstd")]
        let keeps = |tier: &Guard| tier.tier().as_dictionaries().is_some() && !tier.is_read_only();
        #[cfg(feature = "zstd")]
        let compressor = self.compressor.filter(|_| chain.tiers.iter().any(keeps));
        #[cfg(feature = "zstd")]
        let training = compressor.map(|compressor| {
            let training = Training::new(compressor, self.automatic, &chain, &clock, &tasks);
            Arc::new(training)
        });
        let cache = Cache::new(Inner {
            front,
            chain,
            #[cfg(feature = "zstd")]
            training,
            clock,
            origins: self.origins,
            askers,
            #[cfg(feature = "series")]
            series: self.series,
            probes: Probes::new(probed),
            flights: Arc::new(Flights::default()),
            looks: Arc::new(Flights::default()),
            throttle: Throttle::default(),
            loading: Loading::default(),
            tasks,
            queue: Arc::new(Semaphore::new(MOST_QUEUED as usize)),
            version_order: tokio::sync::Mutex::default(),
            offline: self.offline,
            closed: AtomicBool::new(false),
        });
        peers::follow(&cache.inner);
        Ok(cache)
    }
}
