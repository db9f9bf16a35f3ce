//! The compressed form of a value is made once for all tiers that want it.

use std::{borrow::Cow, sync::Arc};

use cache_core::{Compression, Entry, Key};

use crate::{chain::Chain, guard::Guard};

/// A longer value is compressed off the threads that answer.
const PACKED_HERE: usize = 256 << 10;

/// Which tiers compress.
#[derive(Clone, Debug)]
pub(crate) struct Packing {
    /// Of a tier that answers at once, and cannot have it done elsewhere.
    leading: Option<Arc<dyn Compression>>,
    /// Whether several of those that wait do.
    is_shared_below: bool,
}

impl Packing {
    pub(crate) fn new(tiers: &[Guard]) -> Self {
        let compressing = || tiers.iter().filter(|tier| tier.tier().compression().is_some());
        let leading = compressing().find(|tier| tier.sync().is_some());
        Self {
            leading: leading.and_then(|tier| tier.tier().compression()).cloned(),
            is_shared_below: compressing().filter(|tier| tier.waits_to_store()).count() > 1,
        }
    }
}

impl Chain {
    /// An entry for all tiers, once what a leading one needs of it has been made.
    pub(crate) async fn prepared(&self, key: &Key, entry: Entry) -> Entry {
        let Some(compression) = &self.packing.leading else { return entry };
        let entry = entry.sharing_packed();
        if entry.value().len() > PACKED_HERE {
            let (key, own, by) = (key.clone(), entry.clone(), Arc::clone(compression));
            let made = tokio::task::spawn_blocking(move || own.pack(key.source(), &*by)).await;
            if made.is_err() {
                tracing::debug!("a value was not compressed ahead");
            }
        }
        entry
    }

    /// Entries for the tiers that wait.
    pub(crate) fn shared_below<'a>(&self, entries: &'a [(Key, Entry)]) -> Cow<'a, [(Key, Entry)]> {
        if !self.packing.is_shared_below {
            return Cow::Borrowed(entries);
        }
        entries.iter().map(|(key, entry)| (key.clone(), entry.sharing_packed())).collect()
    }
}
