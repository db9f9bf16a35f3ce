//! What a run would take, without running it.

use std::{collections::BTreeMap, time::Duration};

use larder::{Error, QuotaUsage, Request, Urgency};

use super::{Warmer, check::Need};
use crate::task::Task;

/// What a run would take.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Forecast {
    /// By source, sorted by name.
    pub sources: Vec<SourceForecast>,
    /// Tasks that cannot be asked for, and why.
    pub impossible: Vec<(Task, Error)>,
}

/// What a run would ask of one source.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SourceForecast {
    /// The source.
    pub source: String,
    /// Tasks planned.
    pub planned: usize,
    /// Of these, those that are stored and fresh.
    pub fresh: usize,
    /// Calls that the others take, if each works the first time.
    pub calls: usize,
    /// The time that the source's rate makes of that; `None` without a rate.
    pub paced: Option<Duration>,
    /// How much of its quota is used now; `None` without a quota.
    pub quota: Option<QuotaUsage>,
    /// Calls that a run may make within it: what is reserved for others aside.
    pub allowed: Option<u32>,
}

impl SourceForecast {
    /// Calls that the quota does not allow before it lets further ones through.
    pub fn beyond_quota(&self) -> usize {
        let left = self.quota.zip(self.allowed);
        let left = left.map(|(quota, allowed)| allowed.saturating_sub(quota.used) as usize);
        left.map_or(0, |left| self.calls.saturating_sub(left))
    }
}

impl Forecast {
    /// Calls in all.
    pub fn calls(&self) -> usize {
        self.sources.iter().map(|source| source.calls).sum()
    }

    /// The least time that rates allow: sources go side by side.
    pub fn paced(&self) -> Duration {
        self.sources.iter().filter_map(|source| source.paced).max().unwrap_or_default()
    }
}

/// What is to be asked of one source.
#[derive(Default)]
struct Wanted {
    planned: usize,
    fresh: usize,
    missing: Vec<Request>,
    renewed: Vec<Request>,
}

impl Warmer {
    /// Finds out what a run would take. Asks no origin.
    ///
    /// # Errors
    /// [`Error::Closed`]; in strict mode [`Error::Tier`].
    pub async fn forecast(&self) -> Result<Forecast, Error> {
        let needs = self.needs().await;
        let mut forecast = Forecast::default();
        let mut wanted: BTreeMap<&str, Wanted> = BTreeMap::new();
        for (task, need) in self.tasks.iter().zip(needs) {
            let wanted = wanted.entry(&task.source).or_default();
            wanted.planned += 1;
            match (&need, &task.request) {
                (Need::Fresh { .. }, _) => wanted.fresh += 1,
                (Need::Renew, Ok(request)) => wanted.renewed.push(request.clone()),
                (Need::Missing, Ok(request)) => wanted.missing.push(request.clone()),
                (Need::Impossible(error), _) | (_, Err(error)) => {
                    forecast.impossible.push((Task::clone(task), error.clone()));
                }
            }
        }
        for (source, Wanted { planned, fresh, missing, renewed }) in wanted {
            let calls = self.cache.calls_for(&missing, false).await?
                + self.cache.calls_for(&renewed, true).await?;
            let limits = self.cache.limits(source);
            let allowed = limits.as_ref().and_then(|it| it.allowance(Urgency::Background));
            let rate = limits.and_then(|limits| limits.rate);
            let paced = rate.map(|rate| {
                rate.per.mul_f64(calls.saturating_sub(1) as f64 / f64::from(rate.count.max(1)))
            });
            let quota = self.cache.quota(source).await;
            let source = source.to_owned();
            let of = SourceForecast { source, planned, fresh, calls, paced, quota, allowed };
            forecast.sources.push(of);
        }
        Ok(forecast)
    }
}
