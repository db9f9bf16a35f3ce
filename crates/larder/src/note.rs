//! What a hit tells beside its entry, in one word.

use std::sync::{PoisonError, RwLock};

use cache_core::Timestamp;

use crate::{ServedBy, StaleReason};

/// Who answered a read, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct By(u16);

/// Names of tiers, each once, at the place that its number says.
static NAMES: RwLock<Vec<&'static str>> = RwLock::new(Vec::new());

impl By {
    pub(crate) const ORIGIN: Self = Self(0);
    const MOST: usize = (1 << Note::BY_BITS) - 1;

    /// The tier of this name. Of more names than there are numbers, the last share one.
    pub(crate) fn tier(name: &'static str) -> Self {
        let mut names = NAMES.write().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().position(|known| *known == name);
        let at = known.unwrap_or_else(|| {
            if names.len() < Self::MOST {
                names.push(name);
            }
            names.len() - 1
        });
        Self(at as u16 + 1)
    }

    pub(crate) fn name(self) -> ServedBy {
        let names = NAMES.read().unwrap_or_else(PoisonError::into_inner);
        let at = usize::from(self.0).checked_sub(1);
        at.and_then(|at| names.get(at)).map_or(ServedBy::Origin, |name| ServedBy::Tier(name))
    }
}

/// From the lowest bit: who answered, why something stale was served, whether it was revalidated,
/// and when, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Note(u64);

impl Note {
    const BY_BITS: u32 = 12;
    const STALE_BITS: u32 = 3;
    const REVALIDATED: u64 = 1 << (Self::BY_BITS + Self::STALE_BITS);
    const AT_SHIFT: u32 = Self::BY_BITS + Self::STALE_BITS + 1;
    const STALE_MASK: u64 = ((1 << Self::STALE_BITS) - 1) << Self::BY_BITS;
    /// 48 bits are 4,400 years to either side of 1970.
    const LATEST: i64 = i64::MAX >> Self::AT_SHIFT;

    #[inline]
    pub(crate) fn new(by: By, at: Timestamp) -> Self {
        let at = at.as_millis().clamp(-Self::LATEST, Self::LATEST);
        Self(at.cast_unsigned() << Self::AT_SHIFT | u64::from(by.0))
    }

    pub(crate) const fn by(self) -> By {
        By((self.0 & ((1 << Self::BY_BITS) - 1)) as u16)
    }

    pub(crate) const fn at(self) -> Timestamp {
        Timestamp::from_millis(self.0.cast_signed() >> Self::AT_SHIFT)
    }

    pub(crate) fn stale(self, reason: StaleReason) -> Self {
        let code = match reason {
            StaleReason::Revalidating => 1,
            StaleReason::LoadFailed => 2,
            StaleReason::LoadSlow => 3,
            StaleReason::Throttled => 4,
            StaleReason::Offline => 5,
            StaleReason::Asked => 6,
        };
        Self(self.0 & !Self::STALE_MASK | code << Self::BY_BITS)
    }

    pub(crate) const fn stale_reason(self) -> Option<StaleReason> {
        Some(match (self.0 & Self::STALE_MASK) >> Self::BY_BITS {
            1 => StaleReason::Revalidating,
            2 => StaleReason::LoadFailed,
            3 => StaleReason::LoadSlow,
            4 => StaleReason::Throttled,
            5 => StaleReason::Offline,
            6 => StaleReason::Asked,
            _ => return None,
        })
    }

    pub(crate) const fn revalidated(self, revalidated: bool) -> Self {
        Self(if revalidated { self.0 | Self::REVALIDATED } else { self.0 & !Self::REVALIDATED })
    }

    pub(crate) const fn is_revalidated(self) -> bool {
        self.0 & Self::REVALIDATED != 0
    }
}
