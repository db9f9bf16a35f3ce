//! A whole tier, as somebody else would write it, and the proof that it keeps its promises.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "an example, to be read")]

use std::{collections::BTreeMap, slice::from_ref, sync::Arc, sync::Mutex};

use cache_core::{
    Barrier, BarrierSet, Capability, Clock, Entry, Freshness, Key, PutOutcome, Result, Tier,
    Verdict,
};

#[derive(Debug)]
struct MapTier {
    clock: Arc<dyn Clock>,
    barriers: BarrierSet,
    entries: Mutex<BTreeMap<Key, Entry>>,
}

impl MapTier {
    fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, barriers: BarrierSet::new(), entries: Mutex::default() }
    }

    fn is_alive(&self, entry: &Entry) -> bool {
        entry.freshness(self.clock.now()) != Freshness::Dead
    }

    fn store(&self, key: &Key, entry: &Entry) -> PutOutcome {
        if !key.is_storable() {
            return PutOutcome::Refused { reason: "the key cannot be stored".to_owned() };
        }
        let mut entries = self.entries.lock().unwrap();
        let Some(entry) = self.barriers.admit(key, entry.clone()) else {
            return PutOutcome::Barred;
        };
        // What was loaded later stays; of the same load, what is alive.
        let rank = |stored: &Entry| (stored.as_of(), self.is_alive(stored));
        if entries.get(key).is_some_and(|stored| rank(stored) >= (entry.as_of(), true)) {
            return PutOutcome::Superseded;
        }
        entries.insert(key.clone(), entry);
        PutOutcome::Stored
    }
}

#[async_trait::async_trait]
impl Tier for MapTier {
    fn name(&self) -> &'static str {
        "map"
    }
    fn capability(&self) -> Capability {
        Capability::LOCAL
    }
    async fn get(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.get_many(from_ref(key)).await?.pop().flatten())
    }
    async fn put(&self, key: &Key, entry: &Entry) -> Result<PutOutcome> {
        Ok(self.store(key, entry))
    }
    async fn remove(&self, key: &Key) -> Result<bool> {
        Ok(self.remove_many(from_ref(key)).await? > 0)
    }
    async fn bar(&self, barrier: &Barrier) -> Result<u64> {
        let mut entries = self.entries.lock().unwrap();
        self.barriers.add(barrier); // Under the lock: no put comes in between.
        let mut changed = 0;
        entries.retain(|key, entry| {
            let verdict = self.barriers.judge(key, entry);
            changed += u64::from(verdict != Verdict::Passes);
            if verdict == Verdict::Expired {
                *entry = entry.to_expired();
            }
            verdict != Verdict::Barred
        });
        Ok(changed)
    }
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Entry>>> {
        let entries = self.entries.lock().unwrap();
        let found = keys.iter().map(|key| entries.get(key).filter(|entry| self.is_alive(entry)));
        Ok(found.map(Option::<&Entry>::cloned).collect())
    }
    async fn put_many(&self, entries: &[(Key, Entry)]) -> Result<Vec<PutOutcome>> {
        Ok(entries.iter().map(|(key, entry)| self.store(key, entry)).collect())
    }
    async fn remove_many(&self, keys: &[Key]) -> Result<u64> {
        let mut entries = self.entries.lock().unwrap();
        let gone = keys.iter().filter_map(|key| entries.remove(key));
        Ok(gone.filter(|entry| self.is_alive(entry)).count() as u64)
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn main() {
    tier_testkit::conformance(async |clock| MapTier::new(clock)).await;
    println!("MapTier keeps every promise of a tier");
}
