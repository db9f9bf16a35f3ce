//! The reference: what was ever loaded, set and invalidated, in the order of one counter.

use std::time::Duration;

use larder::{Clock, Entry, Key, Stamp, Tag, Timestamp, Ttl};
use tier_testkit::ManualClock;

/// The place of an event in the history. No two have the same.
pub(crate) type Tick = u64;

/// What an invalidation covers, told without the code under test.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Keys(Vec<Key>),
    Tag(Tag),
    Below(String),
    BelowWithTag(String, Tag),
    All,
}

impl What {
    /// Whether it may cover a value of `key`, whatever its tags.
    pub(crate) fn may_cover(&self, key: &Key) -> bool {
        match self {
            Self::Keys(keys) => keys.contains(key),
            Self::Below(prefix) | Self::BelowWithTag(prefix, _) => {
                format!("{}:", key.as_str()).starts_with(&format!("{prefix}:"))
            }
            Self::Tag(_) | Self::All => true,
        }
    }

    pub(crate) fn covers(&self, one: &Instance) -> bool {
        self.may_cover(&one.key)
            && match self {
                Self::Tag(tag) | Self::BelowWithTag(_, tag) => one.tags.contains(tag),
                _ => true,
            }
    }
}

/// An invalidation (`forget`), or an expiry.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) what: What,
    pub(crate) forget: bool,
    pub(crate) began: Tick,
    pub(crate) returned: Option<Tick>,
}

impl Change {
    /// Whether it surely came after the load or set began.
    pub(crate) fn surely_covers(&self, one: &Instance) -> bool {
        one.stamped.1 < self.began && self.what.covers(one)
    }

    /// Whether it may have.
    pub(crate) fn may_cover(&self, one: &Instance) -> bool {
        self.returned.is_none_or(|returned| one.stamped.0 < returned) && self.what.covers(one)
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Load,
    /// A load that said that what was stored still holds.
    Revalidation,
    Set,
    /// Stored before the history began.
    Seed,
}

/// One value of a key, as one load or set brought it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are facts, each for itself")]
pub(crate) struct Instance {
    pub(crate) key: Key,
    pub(crate) origin: Origin,
    pub(crate) op: usize,
    pub(crate) body: String,
    pub(crate) absent: bool,
    pub(crate) tags: Vec<Tag>,
    /// Events between which it got its stamp.
    pub(crate) stamped: (Tick, Tick),
    pub(crate) as_of: Option<Stamp>,
    /// When the value was there, and the instants between which its lifetime begins.
    pub(crate) ended: Option<Tick>,
    pub(crate) loaded_at: (Timestamp, Timestamp),
    pub(crate) ttl: Ttl,
    pub(crate) stale_for: Duration,
    pub(crate) jitter: f64,
    pub(crate) own_lifetime: bool,
    /// Whether any tier may ever have it.
    pub(crate) storable: bool,
    /// Whether it makes the tiers forget what they have: it came with a lifetime of zero.
    pub(crate) forgets: bool,
    pub(crate) failed: bool,
    pub(crate) hard_timeout: Option<Duration>,
    /// Whether it ends when nobody waits for it.
    pub(crate) may_be_dropped: bool,
}

impl Instance {
    pub(crate) fn is_load(&self) -> bool {
        matches!(self.origin, Origin::Load | Origin::Revalidation)
    }

    pub(crate) fn latest_expiry(&self) -> Timestamp {
        self.expiry(self.loaded_at.1, 0.0)
    }

    pub(crate) fn earliest_expiry(&self) -> Timestamp {
        self.expiry(self.loaded_at.0, self.jitter)
    }

    pub(crate) fn latest_death(&self) -> Timestamp {
        self.latest_expiry().saturating_add(self.stale_for)
    }

    pub(crate) fn earliest_death(&self) -> Timestamp {
        self.earliest_expiry().saturating_add(self.stale_for)
    }

    fn expiry(&self, from: Timestamp, less: f64) -> Timestamp {
        match self.ttl {
            Ttl::Never => Timestamp::NEVER,
            // What is rounded must not look like a mistake.
            Ttl::For(ttl) if less > 0.0 => {
                let shortest = ttl.mul_f64(1.0 - less).saturating_sub(Duration::from_millis(1));
                from.saturating_add(shortest)
            }
            Ttl::For(ttl) => from.saturating_add(ttl),
        }
    }
}

impl std::fmt::Display for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { origin, body, stamped, tags, ttl, stale_for, jitter, .. } = self;
        let (from, to) = (Since(self.loaded_at.0), Since(self.loaded_at.1));
        let tags: Vec<&str> = tags.iter().map(Tag::as_str).collect();
        write!(f, "{origin:?} {body:?} stamped {}..{}", stamped.0, stamped.1)?;
        write!(f, " loaded {from}..{to} {ttl:?} + {stale_for:?} less {jitter} {tags:?}")?;
        f.write_str(if self.absent { ", absent" } else { "" })?;
        f.write_str(if self.storable { "" } else { ", not storable" })?;
        f.write_str(if self.failed { ", failed" } else { "" })
    }
}

/// An instant, for people: since the history began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since(pub(crate) Timestamp);

impl std::fmt::Display for Since {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0 == Timestamp::NEVER {
            return f.write_str("never");
        }
        write!(f, "{}ms", self.0.as_millis() - ManualClock::default().now().as_millis())
    }
}

/// An entry, for people.
pub(crate) fn show(entry: &Entry) -> String {
    let (until, dies) = (Since(entry.expires_at()), Since(entry.stale_until()));
    let mark = entry.content_type().unwrap_or("no mark");
    let expired = if entry.is_expired() { " expired" } else { "" };
    let version = entry.version().unwrap_or("none");
    let as_of = Since(entry.as_of().instant());
    format!(
        "<{mark} as of {as_of}.{} expires {until} dies {dies}{expired} version {version}>",
        entry.as_of().packed() & 0xffff
    )
}

/// A call under way, or over.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) keys: Vec<Key>,
    pub(crate) began: Tick,
    pub(crate) at: Timestamp,
    pub(crate) ended: Option<Tick>,
    pub(crate) dropped: bool,
    /// Whether it may load.
    pub(crate) loads: bool,
    /// Whether what it loads is for it alone.
    pub(crate) bypasses: bool,
    /// Whether loads that others have begun may not be good enough, or may be replaced by it.
    pub(crate) disturbs: Option<What>,
    /// Longest it may take on the clock that all share.
    pub(crate) limit: Option<Duration>,
}

/// Since when a value has been where nothing older can overtake it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) instance: usize,
    pub(crate) as_of: Stamp,
    pub(crate) from: Tick,
    /// Every tier has it, or something newer, or can never have anything older.
    pub(crate) everywhere: bool,
    /// A memory tier that does not evict has it, or something newer.
    pub(crate) in_memory: bool,
}

/// How a load failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) key: Key,
    pub(crate) how: How,
    /// What its error says.
    pub(crate) mark: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Error,
    Panic,
    LeftOut,
    NothingToRevalidate,
    AskedToWait,
}

/// What was counted beside the cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hits: [u64; 3],
    pub(crate) stale_hits: [u64; 3],
    pub(crate) misses: u64,
    pub(crate) loads: u64,
    /// Reads of calls that were dropped: they may have been counted.
    pub(crate) dropped: u64,
    /// How often a rule had something to say, to know that a run proves something.
    pub(crate) armed: Armed,
}

/// How often a rule had something to say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Armed {
    pub(crate) barred: u64,
    pub(crate) expired: u64,
    pub(crate) order: u64,
    pub(crate) must_find: u64,
    pub(crate) stale: u64,
    pub(crate) single_flight: u64,
    pub(crate) errors: u64,
    pub(crate) leftovers: u64,
}

impl Armed {
    pub(crate) fn each(&self) -> [(&'static str, u64); 8] {
        [
            ("barred", self.barred),
            ("expired", self.expired),
            ("order", self.order),
            ("must find", self.must_find),
            ("stale", self.stale),
            ("single flight", self.single_flight),
            ("errors", self.errors),
            ("leftovers", self.leftovers),
        ]
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let Self { barred, expired, order, must_find, stale, single_flight, errors, leftovers } =
            other;
        self.barred += barred;
        self.expired += expired;
        self.order += order;
        self.must_find += must_find;
        self.stale += stale;
        self.single_flight += single_flight;
        self.errors += errors;
        self.leftovers += leftovers;
    }
}

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) rule: &'static str,
    pub(crate) text: String,
}

/// The whole history.
#[derive(Debug, Default)]
pub(crate) struct Model {
    tick: Tick,
    pub(crate) step: usize,
    pub(crate) instances: Vec<Instance>,
    pub(crate) calls: Vec<Call>,
    pub(crate) changes: Vec<Change>,
    pub(crate) known: Vec<Known>,
    pub(crate) failures: Vec<Failure>,
    /// Sources of which a version was set, or learned.
    pub(crate) versioned: Vec<String>,
    pub(crate) counts: Counts,
    pub(crate) log: Vec<String>,
    pub(crate) violation: Option<Violation>,
    /// Loads that have ended since the clocks moved.
    pub(crate) just_ended: Vec<usize>,
    /// Nothing that happens now counts.
    pub(crate) over: bool,
}

impl Model {
    pub(crate) fn tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    pub(crate) fn say(&mut self, text: impl std::fmt::Display) {
        let line = format!("[{:>3}] {text}", self.step);
        self.log.push(line);
    }

    /// The clocks have moved: what has ended before is known by now.
    pub(crate) fn moved(&mut self, now: Timestamp) {
        for id in std::mem::take(&mut self.just_ended) {
            let latest = &mut self.instances[id].loaded_at.1;
            *latest = now.min(*latest);
        }
    }

    /// Whether a call is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.calls.iter().any(|call| call.ended.is_none())
    }

    /// Notes a broken rule; the first one counts.
    pub(crate) fn broken(&mut self, rule: &'static str, text: String) {
        self.say(format!("!! {rule}: {text}"));
        self.violation.get_or_insert(Violation { rule, text });
    }

    /// The latest version that a source has been given here, if any.
    pub(crate) fn is_versioned(&self, source: &str) -> bool {
        self.versioned.iter().any(|one| one == source)
    }

    /// Whether a value that a read that began at `began` must not get, because it was invalidated
    /// before; and by which change.
    pub(crate) fn barred(&self, one: &Instance, began: Tick, forget: bool) -> Option<&Change> {
        self.changes.iter().find(|change| {
            change.forget == forget
                && change.returned.is_some_and(|returned| returned < began)
                && change.surely_covers(one)
        })
    }
}
