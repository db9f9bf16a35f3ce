//! What of a plan is stored already.

use std::time::{Duration, Instant};

use larder::{Error, Hit, ReadOptions, Request};

use super::Warmer;

/// Requests looked up by one read in each tier.
const AT_A_TIME: usize = 256;

/// Whether a task is to be asked for.
#[derive(Clone, Debug)]
pub(super) enum Need {
    /// It is stored and fresh.
    Fresh {
        bytes: u64,
        /// Its share of the time that it took to find out.
        elapsed: Duration,
    },
    /// It is stored, and to be loaded all the same.
    Renew,
    Missing,
    /// It cannot be asked for.
    Impossible(Error),
}

impl Warmer {
    /// What each task needs, in their order.
    pub(super) async fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::with_capacity(self.tasks.len());
        for tasks in self.tasks.chunks(AT_A_TIME) {
            let requests: Vec<Request> =
                tasks.iter().filter_map(|task| task.request.clone().ok()).collect();
            let mut found = self.look(&requests).await.into_iter();
            needs.extend(tasks.iter().map(|task| match &task.request {
                Ok(_) => found.next().unwrap_or(Need::Missing),
                Err(error) => Need::Impossible(error.clone()),
            }));
        }
        needs
    }

    async fn look(&self, requests: &[Request]) -> Vec<Need> {
        if self.refresh {
            return requests.iter().map(|_| Need::Renew).collect();
        }
        let began = Instant::now();
        let stored = self.cache.request_many_with(requests, ReadOptions::cached_only()).await;
        let elapsed = began.elapsed() / u32::try_from(requests.len()).unwrap_or(u32::MAX).max(1);
        let stored = match stored {
            Ok(stored) => stored,
            Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
        };
        let need = |answer| match answer {
            Ok(hit) => self.need_of(&hit, elapsed),
            Err(Error::NotCached { .. } | Error::Offline { .. }) => Need::Missing,
            Err(error) => Need::Impossible(error),
        };
        stored.into_iter().map(need).collect()
    }

    fn need_of(&self, hit: &Hit, elapsed: Duration) -> Need {
        if hit.is_stale() {
            Need::Missing
        } else if self.max_age.is_some_and(|most| hit.age() > most) {
            Need::Renew
        } else {
            Need::Fresh { bytes: hit.value().len() as u64, elapsed }
        }
    }
}
