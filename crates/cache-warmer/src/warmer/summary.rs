//! What a run did.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use larder::Error;

use super::{Event, TaskOutcome};
use crate::task::Task;

/// What a run did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// By source.
    pub sources: BTreeMap<String, SourceSummary>,
    /// Tasks that failed, and why, in the order they ended.
    pub failed: Vec<(Arc<Task>, Error)>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What a run did for one source.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SourceSummary {
    /// Tasks planned.
    pub planned: usize,
    /// Values that a tier had, fresh.
    pub fresh: usize,
    /// Values that the origin gave.
    pub fetched: usize,
    /// Values of which the origin said that they still hold.
    pub revalidated: usize,
    /// Of the values that the origin gave, those that differ from what was stored before, where that is
    /// watched.
    pub changed: usize,
    /// Tasks that failed.
    pub failed: usize,
    /// Bytes that the origin gave.
    pub bytes: u64,
    /// Calls made, those that the cache made again aside.
    pub calls: usize,
    /// Why tasks were left, if it was for the source's sake.
    pub left_because: Option<Error>,
}

impl SourceSummary {
    /// Tasks that were not asked for, because the run was stopped or the source is to be left alone.
    pub fn left(&self) -> usize {
        self.planned - self.answered() - self.failed
    }

    /// Tasks whose value is stored and fresh now.
    pub fn answered(&self) -> usize {
        self.fresh + self.fetched + self.revalidated
    }

    /// Calls that were not necessary, because of what was stored and of answers for several at once.
    pub fn calls_saved(&self) -> usize {
        self.answered().saturating_sub(self.calls)
    }
}

impl Summary {
    /// All sources together.
    pub fn total(&self) -> SourceSummary {
        self.sources.values().fold(SourceSummary::default(), |sum, one| SourceSummary {
            planned: sum.planned + one.planned,
            fresh: sum.fresh + one.fresh,
            fetched: sum.fetched + one.fetched,
            revalidated: sum.revalidated + one.revalidated,
            changed: sum.changed + one.changed,
            failed: sum.failed + one.failed,
            bytes: sum.bytes + one.bytes,
            calls: sum.calls + one.calls,
            left_because: sum.left_because.or_else(|| one.left_because.clone()),
        })
    }

    pub(super) fn planned(tasks: &[Arc<Task>]) -> Self {
        let mut summary = Self::default();
        for task in tasks {
            summary.of(&task.source).planned += 1;
        }
        summary
    }

    pub(super) fn of(&mut self, source: &str) -> &mut SourceSummary {
        if !self.sources.contains_key(source) {
            self.sources.insert(source.to_owned(), SourceSummary::default());
        }
        self.sources.entry(source.to_owned()).or_default()
    }

    pub(super) fn note(&mut self, event: &Event) {
        let of = self.of(&event.task.source);
        match &event.outcome {
            TaskOutcome::Fresh => of.fresh += 1,
            TaskOutcome::Fetched => {
                of.fetched += 1;
                of.bytes += event.bytes;
            }
            TaskOutcome::Revalidated => of.revalidated += 1,
            TaskOutcome::Failed(error) => {
                of.failed += 1;
                self.failed.push((Arc::clone(&event.task), error.clone()));
            }
            TaskOutcome::Left(because) => {
                if of.left_because.is_none() {
                    of.left_because.clone_from(because);
                }
            }
            TaskOutcome::Retrying(_) => {}
        }
    }
}
