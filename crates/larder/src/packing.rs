//! The compressed form of a value is made once for all tiers that want it.

use std::borrow::Cow;

use cache_core::{Entry, Key};

use crate::{chain::Chain, guard::Guard};

/// Which tiers compress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packing {
    /// Whether a tier that answers at once does, and one that waits.
    is_shared_by_all: bool,
    /// Whether several of those that wait do.
    is_shared_below: bool,
}

impl Packing {
    pub(crate) fn new(tiers: &[Guard]) -> Self {
        let compressing = || tiers.iter().filter(|tier| tier.tier().compression().is_some());
        Self {
            is_shared_by_all: compressing().any(|tier| tier.sync().is_some())
                && compressing().count() > 1,
            is_shared_below: compressing().filter(|tier| tier.waits_to_store()).count() > 1,
        }
    }
}

impl Chain {
    /// An entry for all tiers.
    pub(crate) fn shared(&self, entry: Entry) -> Entry {
        if self.packing.is_shared_by_all { entry.sharing_packed() } else { entry }
    }

    /// Entries for the tiers that wait.
    pub(crate) fn shared_below<'a>(&self, entries: &'a [(Key, Entry)]) -> Cow<'a, [(Key, Entry)]> {
        if !self.packing.is_shared_below {
            return Cow::Borrowed(entries);
        }
        entries.iter().map(|(key, entry)| (key.clone(), entry.sharing_packed())).collect()
    }
}
