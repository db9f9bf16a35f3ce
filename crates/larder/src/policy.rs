//! What holds for the values of a source: how long they are fresh, when stale ones may be served,
//! and how long anybody waits.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use cache_core::{Entry, Freshness, Key, OriginErrorKind, Stamp, Timestamp, Ttl};

use crate::Error;

/// What holds for the values of a source.
///
/// A call may change it for itself with a [`PolicyPatch`]; what the call does not say, the source
/// says, and what the source does not say, the default. What is stored already lives no longer for a
/// call's sake.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// How long a value stays fresh, from the end of its load. Zero means that it is not stored, and
    /// what is stored goes. Default: 30 days.
    pub ttl: Ttl,
    /// Largest share of a lifetime, 0 to 1, by which it is shortened at random, so that what was
    /// loaded together does not expire together. Default: 0.
    pub jitter: f64,
    /// For so long after it expired, a value is served at once while one refresh runs behind it.
    /// Default: 0.
    pub stale_while_revalidate: Duration,
    /// For so long after it expired, a value is served if its load fails or is slow. Default: 0.
    pub stale_if_error: Duration,
    /// For so long after it expired, a value with an entity tag or a time of its last change is kept,
    /// not to be served but so that the origin can answer that it still holds; not where the loader
    /// has said how long it is of use. Default: 30 days.
    pub revalidate_for: Duration,
    /// Whether that also holds for values without either, so that what comes next can be compared with
    /// them. Default: no.
    pub keeps_expired: bool,
    /// Share of the lifetime, above 0 and below 1, after which a hit starts a refresh behind it.
    /// Default: none.
    pub refresh_ahead: Option<f64>,
    /// How long the answer "there is none" is stored; zero means not at all. Default: 0.
    pub negative_ttl: Duration,
    /// How long a caller waits for a load when a stale value could be served. Default: until the
    /// load ends.
    pub soft_timeout: Option<Duration>,
    /// How long anybody waits for a load; it goes on, and its value is stored if nothing newer is.
    /// Default: 5 minutes.
    pub hard_timeout: Option<Duration>,
    /// For so long after a load failed, a stale value is served without trying again. Default: 30 s.
    pub throttle: Duration,
    /// Whether a shorter `ttl` also holds for what is stored already; a lifetime that was given with
    /// the value is kept in any case. Default: yes.
    pub retroactive_ttl: bool,
    /// Failures after which a stale value may be served. Default: [`Failures::TEMPORARY`].
    pub stale_on: Failures,
    /// Version of the source's data: values with another one are stale. Default: any will do.
    pub version: Option<Arc<str>>,
    /// Whether a load is stopped when nobody waits for it any more, and nothing stale was there to
    /// be content with. Default: no, it goes on and its value is stored.
    pub cancel_abandoned: bool,
}

impl Policy {
    /// Values stay fresh for `ttl`; zero means that they are not stored.
    pub fn ttl(ttl: impl Into<Ttl>) -> Self {
        Self { ttl: ttl.into(), ..Self::default() }
    }

    /// Values stay fresh for ever.
    pub fn forever() -> Self {
        Self { ttl: Ttl::Never, ..Self::default() }
    }

    /// This policy, changed where `patch` says so.
    #[must_use]
    pub fn patched(&self, patch: &PolicyPatch) -> Self {
        let PolicyPatch {
            ttl,
            jitter,
            stale_while_revalidate,
            stale_if_error,
            revalidate_for,
            refresh_ahead,
            negative_ttl,
            soft_timeout,
            hard_timeout,
            throttle,
            retroactive_ttl,
            stale_on,
            cancel_abandoned,
        } = patch.clone();
        Self {
            ttl: ttl.unwrap_or(self.ttl),
            jitter: jitter.unwrap_or(self.jitter),
            stale_while_revalidate: stale_while_revalidate.unwrap_or(self.stale_while_revalidate),
            stale_if_error: stale_if_error.unwrap_or(self.stale_if_error),
            revalidate_for: revalidate_for.unwrap_or(self.revalidate_for),
            keeps_expired: self.keeps_expired,
            refresh_ahead: refresh_ahead.unwrap_or(self.refresh_ahead),
            negative_ttl: negative_ttl.unwrap_or(self.negative_ttl),
            soft_timeout: soft_timeout.unwrap_or(self.soft_timeout),
            hard_timeout: hard_timeout.unwrap_or(self.hard_timeout),
            throttle: throttle.unwrap_or(self.throttle),
            retroactive_ttl: retroactive_ttl.unwrap_or(self.retroactive_ttl),
            stale_on: stale_on.unwrap_or(self.stale_on),
            version: self.version.clone(),
            cancel_abandoned: cancel_abandoned.unwrap_or(self.cancel_abandoned),
        }
    }

    /// Whether anything that a load brings may be stored.
    pub(crate) fn stores(&self) -> bool {
        self.ttl != Ttl::For(Duration::ZERO) || !self.negative_ttl.is_zero()
    }

    /// What is wrong with it, for people.
    pub(crate) fn problem(&self) -> Option<String> {
        if !(0.0..=1.0).contains(&self.jitter) {
            return Some(format!("jitter {} is no share from 0 to 1", self.jitter));
        }
        if [self.soft_timeout, self.hard_timeout].contains(&Some(Duration::ZERO)) {
            return Some("a time limit of zero lets no load end; None is no limit".to_owned());
        }
        match self.refresh_ahead {
            Some(share) if !(share > 0.0 && share < 1.0) => {
                Some(format!("refresh_ahead {share} is no share above 0 and below 1"))
            }
            _ => None,
        }
    }

    /// How long a value may be of use after it is no longer fresh.
    fn stale_for(&self, lifetime: &Lifetime) -> Duration {
        let served = self.stale_while_revalidate.max(self.stale_if_error);
        let is_kept = lifetime.has_validator || self.keeps_expired;
        if is_kept { served.max(self.revalidate_for) } else { served }
    }

    /// The limits of a value loaded at `now`; `None` if it is not to be stored.
    pub(crate) fn limits(&self, now: Timestamp, lifetime: &Lifetime, seed: u64) -> Option<Limits> {
        let own = if lifetime.absent { Ttl::For(self.negative_ttl) } else { self.ttl };
        let expires_at = match lifetime.ttl.unwrap_or(own) {
            Ttl::Never => Timestamp::NEVER,
            Ttl::For(ttl) if ttl.as_millis() == 0 => return None,
            Ttl::For(ttl) => now.saturating_add(jittered(ttl, self.jitter, seed)),
        };
        let stale_for = lifetime.stale_for.unwrap_or_else(|| self.stale_for(lifetime));
        Some(Limits { expires_at, stale_until: expires_at.saturating_add(stale_for) })
    }

    /// Until when an entry that expires at `expires_at` is fresh under this policy.
    fn fresh_until(&self, entry: &Entry) -> Timestamp {
        if !self.retroactive_ttl || entry.has_own_lifetime() {
            return entry.expires_at();
        }
        let ttl = if entry.is_absent() { Ttl::For(self.negative_ttl) } else { self.ttl };
        match ttl {
            Ttl::Never => entry.expires_at(),
            Ttl::For(ttl) => entry.expires_at().min(entry.loaded_at().saturating_add(ttl)),
        }
    }

    /// A stored entry as this policy sees it now: fresh for less, or expired, and with the instant
    /// noted from which a hit refreshes it.
    pub(crate) fn adjusted(&self, entry: Entry, version: Option<&str>) -> Entry {
        let fresh_until = self.fresh_until(&entry);
        let outdated = version.is_some_and(|version| entry.version() != Some(version));
        let entry = if fresh_until < entry.expires_at() || outdated && !entry.is_expired() {
            entry
                .to_builder()
                .expires_at(fresh_until)
                .stale_until(entry.stale_until())
                .expired(entry.is_expired() || outdated)
                .build()
        } else {
            entry
        };
        entry.note_refresh_at(self.refresh_at(&entry));
        entry
    }

    /// Whether an entry that its source's policy calls fresh is so under this one, of a call.
    pub(crate) fn accepts(&self, entry: &Entry, now: Timestamp) -> bool {
        now < self.fresh_until(entry)
    }

    /// From when on a hit of the entry starts a refresh.
    pub(crate) fn refresh_at(&self, entry: &Entry) -> Timestamp {
        match self.refresh_ahead {
            Some(share) if entry.expires_at() != Timestamp::NEVER => {
                let lifetime = entry.expires_at().saturating_since(entry.loaded_at());
                entry.loaded_at().saturating_add(lifetime.mul_f64(share.clamp(0.0, 1.0)))
            }
            _ => Timestamp::NEVER,
        }
    }

    /// Whether a stale entry may be served while it is refreshed. Not one that was made stale on
    /// purpose: whoever did that wants another.
    pub(crate) fn allows_while_revalidating(&self, entry: &Entry, now: Timestamp) -> bool {
        let fresh_until = self.fresh_until(entry);
        entry.freshness(now) != Freshness::Dead
            && !entry.is_expired()
            && now >= fresh_until
            && now < fresh_until.saturating_add(self.stale_while_revalidate)
    }

    /// Whether an entry may be served because there is no other.
    pub(crate) fn allows_as_fallback(&self, entry: &Entry, now: Timestamp) -> bool {
        let fresh_until = self.fresh_until(entry);
        match entry.freshness(now) {
            Freshness::Dead => false,
            Freshness::Fresh if now < fresh_until => true,
            _ => now < fresh_until.saturating_add(self.stale_if_error),
        }
    }

    /// The same after this failure.
    pub(crate) fn allows_after(&self, error: &Error, entry: &Entry, now: Timestamp) -> bool {
        Failure::of(error).is_none_or(|failure| self.stale_on.contains(failure))
            && self.allows_as_fallback(entry, now)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: Ttl::For(Duration::from_hours(30 * 24)),
            jitter: 0.0,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            revalidate_for: Duration::from_hours(30 * 24),
            keeps_expired: false,
            refresh_ahead: None,
            negative_ttl: Duration::ZERO,
            soft_timeout: None,
            hard_timeout: Some(Duration::from_mins(5)),
            throttle: Duration::from_secs(30),
            retroactive_ttl: true,
            stale_on: Failures::TEMPORARY,
            version: None,
            cancel_abandoned: false,
        }
    }
}

/// A change of a [`Policy`]: what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PolicyPatch {
    /// See [`Policy::ttl`](struct@Policy).
    pub ttl: Option<Ttl>,
    /// See [`Policy::jitter`].
    pub jitter: Option<f64>,
    /// See [`Policy::stale_while_revalidate`].
    pub stale_while_revalidate: Option<Duration>,
    /// See [`Policy::stale_if_error`].
    pub stale_if_error: Option<Duration>,
    /// See [`Policy::revalidate_for`].
    pub revalidate_for: Option<Duration>,
    /// See [`Policy::refresh_ahead`]; `Some(None)` switches it off.
    pub refresh_ahead: Option<Option<f64>>,
    /// See [`Policy::negative_ttl`].
    pub negative_ttl: Option<Duration>,
    /// See [`Policy::soft_timeout`]; `Some(None)` switches it off.
    pub soft_timeout: Option<Option<Duration>>,
    /// See [`Policy::hard_timeout`]; `Some(None)` switches it off.
    pub hard_timeout: Option<Option<Duration>>,
    /// See [`Policy::throttle`].
    pub throttle: Option<Duration>,
    /// See [`Policy::retroactive_ttl`].
    pub retroactive_ttl: Option<bool>,
    /// See [`Policy::stale_on`].
    pub stale_on: Option<Failures>,
    /// See [`Policy::cancel_abandoned`].
    pub cancel_abandoned: Option<bool>,
}

/// The setters that a policy and its patch have in common.
macro_rules! setters {
    ($type:ty, $(#[$doc:meta] $name:ident: $value:ty $(=> $wrap:expr)?;)*) => {
        impl $type {
            $(
                #[$doc]
                #[must_use]
                pub fn $name(mut self, $name: $value) -> Self {
                    $(let $name = $wrap($name);)?
                    self.$name = $name.into();
                    self
                }
            )*
        }
    };
}

setters! { Policy,
    /// Shortens lifetimes at random, by up to this share of them.
    jitter: f64;
    /// Serves stale values for so long while they are refreshed.
    stale_while_revalidate: Duration;
    /// Serves stale values for so long if their load fails.
    stale_if_error: Duration;
    /// Keeps values with a validator for so long, to ask whether they still hold.
    revalidate_for: Duration;
    /// Whether values without a validator are kept for so long, too.
    keeps_expired: bool;
    /// Refreshes behind hits after this share of the lifetime.
    refresh_ahead: f64;
    /// Stores the answer "there is none" for so long.
    negative_ttl: Duration;
    /// Serves a stale value if the load takes longer; zero switches that off.
    soft_timeout: Duration => nonzero;
    /// Nobody waits longer for a load; zero switches that off.
    hard_timeout: Duration => nonzero;
    /// Does not load again for so long after a failure, while there is a stale value.
    throttle: Duration;
    /// Whether a shorter lifetime holds for what is stored already.
    retroactive_ttl: bool;
    /// Says which failures allow stale values.
    stale_on: Failures;
    /// Says which version of the source's data is the right one.
    version: &str => |version| Some(Arc::from(version));
    /// Whether a load that nobody waits for is stopped.
    cancel_abandoned: bool;
}

setters! { PolicyPatch,
    /// Changes how long a value stays fresh.
    ttl: impl Into<Ttl> => Into::into;
    /// Shortens lifetimes at random, by up to this share of them.
    jitter: f64;
    /// Serves stale values for so long while they are refreshed.
    stale_while_revalidate: Duration;
    /// Serves stale values for so long if their load fails.
    stale_if_error: Duration;
    /// Keeps values with a validator for so long, to ask whether they still hold.
    revalidate_for: Duration;
    /// Refreshes behind hits after this share of the lifetime.
    refresh_ahead: f64 => Some;
    /// Stores the answer "there is none" for so long.
    negative_ttl: Duration;
    /// Serves a stale value if the load takes longer; zero switches that off.
    soft_timeout: Duration => |limit| Some(nonzero(limit));
    /// Nobody waits longer for a load; zero switches that off.
    hard_timeout: Duration => |limit| Some(nonzero(limit));
    /// Does not load again for so long after a failure, while there is a stale value.
    throttle: Duration;
    /// Whether a shorter lifetime holds for what is stored already.
    retroactive_ttl: bool;
    /// Says which failures allow stale values.
    stale_on: Failures;
    /// Whether a load that nobody waits for is stopped.
    cancel_abandoned: bool;
}

/// A time limit, of which zero means none.
fn nonzero(limit: Duration) -> Option<Duration> {
    (!limit.is_zero()).then_some(limit)
}

/// A class of failures of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// No connection, or it broke.
    Network,
    /// No whole answer in time.
    Timeout,
    /// Too many requests: HTTP status 429, or the source's own quota is used up.
    RateLimited,
    /// The server's fault: HTTP status 5xx, or what it sent is no answer.
    ServerError,
    /// The request's fault: HTTP status 4xx. Such a status is an answer.
    ClientError,
    /// Anything else, panics included.
    Other,
}

impl Failure {
    /// The class of an error; `None` for a loader that gave up, which asks for a stale value.
    fn of(error: &Error) -> Option<Self> {
        let error = match error {
            Error::Origin(error) | Error::LeftAlone { cause: error, .. } => error,
            Error::LoadTimedOut { .. } => return Some(Self::Timeout),
            _ => return Some(Self::Other),
        };
        Some(match error.kind() {
            OriginErrorKind::GaveUp => return None,
            OriginErrorKind::Network => Self::Network,
            OriginErrorKind::Timeout => Self::Timeout,
            OriginErrorKind::Quota | OriginErrorKind::Status(429) => Self::RateLimited,
            // An error page with status 200 says that the server fails, no more than a 500 does.
            OriginErrorKind::Unusable | OriginErrorKind::Status(500..=599) => Self::ServerError,
            OriginErrorKind::Status(400..=499) => Self::ClientError,
            _ => Self::Other,
        })
    }
}

/// A set of classes of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Failures(u8);

impl Failures {
    /// No failure.
    pub const NONE: Self = Self(0);
    /// Network errors, time-outs, 429 and 5xx: trying again later may help.
    pub const TEMPORARY: Self = Self::NONE
        .with(Failure::Network)
        .with(Failure::Timeout)
        .with(Failure::RateLimited)
        .with(Failure::ServerError);
    /// Every failure.
    pub const ALL: Self = Self::TEMPORARY.with(Failure::ClientError).with(Failure::Other);

    /// These and one class more.
    #[must_use]
    pub const fn with(self, failure: Failure) -> Self {
        Self(self.0 | 1 << failure as u8)
    }

    /// Whether the class is one of these.
    pub const fn contains(self, failure: Failure) -> bool {
        self.0 & 1 << failure as u8 != 0
    }
}

/// What is known of a value's lifetime beside the policy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lifetime {
    pub(crate) absent: bool,
    /// Whether an origin can be asked if it still holds.
    pub(crate) has_validator: bool,
    pub(crate) ttl: Option<Ttl>,
    pub(crate) stale_for: Option<Duration>,
}

/// When a value is no longer fresh, and when it is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) expires_at: Timestamp,
    pub(crate) stale_until: Timestamp,
}

/// What the share of jitter of a value depends on: the values of one batch have one stamp.
pub(crate) fn seed(key: &Key, as_of: Stamp) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, as_of.packed()).hash(&mut hasher);
    hasher.finish()
}

/// `ttl` less a share of up to `jitter` that depends on the seed alone.
fn jittered(ttl: Duration, jitter: f64, seed: u64) -> Duration {
    if jitter <= 0.0 {
        return ttl;
    }
    // The finalizer of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
    // generators", 2014): seeds differ by little, shares by much.
    let mut bits = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    let share = (bits >> 11) as f64 / (1_u64 << 53) as f64;
    // What rounds to nothing would mean "not stored".
    ttl.mul_f64(1.0 - jitter.min(1.0) * share).max(Duration::from_millis(1))
}

/// The policies of all sources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    pub(crate) default: Arc<Policy>,
    pub(crate) sources: HashMap<String, Arc<Policy>>,
}

impl Policies {
    pub(crate) fn of(&self, source: &str) -> &Arc<Policy> {
        self.sources.get(source).unwrap_or(&self.default)
    }
}
