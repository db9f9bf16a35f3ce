//! A caller's wait for a load, and what it is content with meanwhile.

use cache_core::{Freshness, Key};
use tokio::time::Instant;

use crate::{
    Error, Hit, StaleReason,
    flight::Progress,
    inner::{Follower, Inner, Outcome, Wanted},
};

impl Inner {
    /// The answer of a flight, or what there is already where the caller's policy allows it.
    pub(crate) async fn wait(
        &self,
        key: &Key,
        mut follower: Follower,
        since: Instant,
        wanted: &Wanted,
    ) -> Result<Hit, Error> {
        let outcome = match follower.progress().await {
            Progress::Landed(outcome) => Some(outcome),
            Progress::Lost => None,
            Progress::Candidate(_) if wanted.is_forced() => follower.outcome().await,
            Progress::Candidate(candidate) => {
                if let Some(hit) = self.enough(key, &candidate, wanted) {
                    follower.content();
                    return Ok(hit);
                }
                // One beyond the end of time is none.
                match wanted.policy.soft_timeout.and_then(|soft| since.checked_add(soft)) {
                    None => follower.outcome().await,
                    Some(soft) => {
                        let outcome = tokio::time::timeout_at(soft, follower.outcome());
                        match outcome.await {
                            Ok(outcome) => outcome,
                            Err(_elapsed) => match self.in_time(key, &candidate, wanted) {
                                Some(hit) => {
                                    follower.content();
                                    return Ok(hit);
                                }
                                None => follower.outcome().await,
                            },
                        }
                    }
                }
            }
        };
        let lost = || Err((Error::LoadAborted { key: key.clone() }, StaleReason::LoadFailed));
        self.content_with(key, outcome.unwrap_or_else(lost), follower.candidate(), wanted)
    }

    /// A candidate as it counts now: it may have been invalidated, or have died, since it was found,
    /// and it may be of a tier that the caller leaves out. Where memory has been given something
    /// newer meanwhile, that takes its place.
    fn still(&self, key: &Key, candidate: &Hit, wanted: &Wanted) -> Option<Hit> {
        let in_memory = self.hit_of(&self.chain.get_leading(key, wanted.skip, false));
        let newer = in_memory.filter(|hit| hit.entry().as_of() > candidate.entry().as_of());
        let candidate = newer.as_ref().unwrap_or(candidate);
        let tiers = &self.chain.tiers;
        let tier = tiers.iter().position(|tier| tier.by() == candidate.by());
        if tier.is_some_and(|at| wanted.skip.contains(at)) {
            return None;
        }
        let entry = self.chain.admit(key, candidate.entry().clone())?;
        let now = self.clock.now();
        // Nor is it served when something newer has come while the load was under way.
        let outdated = self.loading.is_outdated(key, entry.as_of());
        (entry.freshness(now) != Freshness::Dead && !outdated)
            .then(|| Hit::new(entry, candidate.by(), now))
    }

    /// What need not be waited for: it is fresh, or served while it is refreshed.
    fn enough(&self, key: &Key, candidate: &Hit, wanted: &Wanted) -> Option<Hit> {
        let hit = self.still(key, candidate, wanted)?;
        let (entry, now) = (hit.entry(), hit.at());
        if wanted.accepts(entry, now) {
            return Some(hit);
        }
        wanted
            .policy
            .allows_while_revalidating(entry, now)
            .then(|| hit.stale(StaleReason::Revalidating, None))
    }

    /// What is served because the load takes long.
    fn in_time(&self, key: &Key, candidate: &Hit, wanted: &Wanted) -> Option<Hit> {
        let hit = self.still(key, candidate, wanted)?;
        let usable = wanted.allow_stale || wanted.policy.allows_as_fallback(hit.entry(), hit.at());
        usable.then(|| hit.stale(StaleReason::LoadSlow, None))
    }

    /// An outcome, or instead of a failure what is stale.
    fn content_with(
        &self,
        key: &Key,
        outcome: Outcome,
        candidate: Option<Hit>,
        wanted: &Wanted,
    ) -> Result<Hit, Error> {
        let (error, reason) = match outcome {
            Ok(hit) => return Ok(hit),
            Err(failed) => failed,
        };
        let hit = candidate.and_then(|hit| self.still(key, &hit, wanted));
        if let Some(hit) = hit.as_ref().and_then(|hit| self.enough(key, hit, wanted))
            && !wanted.is_forced()
        {
            // The load was quicker than its caller, who would not have waited for it.
            return Ok(hit);
        }
        let usable = |hit: &Hit| {
            let (entry, now) = (hit.entry(), hit.at());
            // Who forces a load has what is fresh, and wants to know that there is no other.
            let fresh = entry.freshness(now) == Freshness::Fresh && wanted.is_forced();
            !fresh && wanted.takes_after(&error, entry, now)
        };
        match hit.filter(usable) {
            Some(hit) => Ok(hit.stale(reason, Some(error))),
            None => Err(error),
        }
    }
}
