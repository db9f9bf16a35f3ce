//! What is asked of the cache.

use std::{fmt, time::Duration};

use larder::{Key, Policy, PolicyPatch, ReadMode, ReadOptions, SetOptions, Timestamp};

use tier_testkit::Dice;

use crate::model::{Call, What};

/// What is asked of the cache.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Peek(Key),
    Get(Vec<Key>, Option<ReadOptions>),
    Load(Vec<Key>, Option<ReadOptions>, Dice),
    /// Values for keys, each with what to say of it.
    Set(Vec<(Key, SetOptions)>),
    Forget(What),
    Expire(What),
    Version(String, String),
    ClearExpired,
}

/// Longest that a call without a load may take: each of three tiers may take as long as a read may,
/// and the look of another one may have to be waited for before.
const LOOK: Duration = Duration::from_secs(14);
/// The same for a write.
const WRITE: Duration = Duration::from_secs(12);

impl Op {
    pub(crate) fn keys(&self) -> Vec<Key> {
        match self {
            Self::Peek(key) => vec![key.clone()],
            Self::Get(keys, _) | Self::Load(keys, ..) => keys.clone(),
            Self::Set(values) => values.iter().map(|(key, _)| key.clone()).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn options(&self) -> ReadOptions {
        match self {
            Self::Get(_, Some(options)) | Self::Load(_, Some(options), _) => options.clone(),
            _ => ReadOptions::default(),
        }
    }

    /// A call like this, as the model knows it.
    pub(crate) fn call(&self, policy: impl Fn(&Key) -> Policy) -> Call {
        let (keys, options) = (self.keys(), self.options());
        let loads = matches!(self, Self::Load(..));
        let forced = options.mode == ReadMode::Refresh;
        let disturbs = match self {
            Self::Set(_) => Some(What::Keys(keys.clone())),
            Self::Forget(what) | Self::Expire(what) => Some(what.clone()),
            Self::Version(source, _) => Some(What::Below(source.clone())),
            Self::Load(..) if forced || !options.skip.is_empty() => Some(What::Keys(keys.clone())),
            _ => None,
        };
        let hard = keys.iter().map(|key| policy(key).hard_timeout);
        let hard: Option<Duration> =
            hard.collect::<Option<Vec<_>>>().map(|all| all.into_iter().max().unwrap_or_default());
        // A call that purges what is dead writes before it reads.
        let purges = WRITE * u32::from(options.purge_expired) * keys.len() as u32;
        let limit = match self {
            // What is learned, stored and given up afterwards takes its time too.
            Self::Load(..) => hard.map(|hard| hard + LOOK + 3 * WRITE + purges),
            Self::Peek(_) | Self::Get(..) => Some(LOOK + purges),
            Self::Set(values) => Some(WRITE * (1 + values.len() as u32)),
            _ => Some(WRITE),
        };
        let bypasses = options.mode == ReadMode::Bypass;
        let at = Timestamp::NEVER;
        Call {
            name: self.to_string(),
            keys,
            began: u64::MAX,
            at,
            ended: None,
            dropped: false,
            loads: loads && options.mode != ReadMode::CachedOnly,
            bypasses,
            disturbs,
            limit,
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |keys: &[Key]| keys.iter().map(Key::as_str).collect::<Vec<_>>().join(" ");
        let tell = |options: &Option<ReadOptions>| {
            let Some(options) = options else { return String::new() };
            let ReadOptions { mode, allow_stale, purge_expired, skip, .. } = options;
            let patch = match &options.policy {
                none if *none == PolicyPatch::default() => String::new(),
                some => format!("{some:?}").replace(": None", "-"),
            };
            format!("{mode:?} stale {allow_stale} purge {purge_expired} skip {skip:?} {patch}")
        };
        match self {
            Self::Peek(key) => write!(f, "peek {key}"),
            Self::Get(keys, options) => write!(f, "get {} {}", names(keys), tell(options)),
            Self::Load(keys, options, _) => {
                write!(f, "get_or_load {} {}", names(keys), tell(options))
            }
            Self::Set(values) => {
                f.write_str("set")?;
                values.iter().try_for_each(|(key, how)| {
                    write!(
                        f,
                        " {key} ttl {:?} stale {:?} v {:?}",
                        how.ttl, how.stale_for, how.version
                    )
                })
            }
            Self::Forget(what) => write!(f, "invalidate {what:?}"),
            Self::Expire(what) => write!(f, "expire {what:?}"),
            Self::Version(source, version) => write!(f, "version of {source} is {version}"),
            Self::ClearExpired => f.write_str("clear_expired"),
        }
    }
}
