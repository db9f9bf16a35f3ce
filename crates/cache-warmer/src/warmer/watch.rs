//! Noticing what a run changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures_util::{StreamExt, stream};
use larder::{Hit, Timestamp};

use crate::{
    changes::{Change, ChangeLog, ChangeRule, Comparison, Notifier, compare},
    task::Task,
};

/// Values of up to this many bytes are compared where they are.
const COMPARED_HERE: usize = 64 << 10;
/// Notices that are sent at a time.
const SENT_AT_A_TIME: usize = 4;
/// After so many notices that reached nobody the rest is not sent: each takes minutes to fail.
const GIVEN_UP_AFTER: usize = 3;

/// Compares what a run fetches with what was stored before, logs and notes differences, and has people
/// told of those of critical sources. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Inner>);

#[derive(Clone, Debug, Default)]
struct Inner {
    rules: BTreeMap<String, ChangeRule>,
    critical: BTreeSet<String>,
    log: Option<Arc<ChangeLog>>,
    notifier: Option<Arc<Notifier>>,
}

impl Watch {
    /// Says what counts as a change of what `source` answers. Default: any difference.
    #[must_use]
    pub fn rule(mut self, source: impl Into<String>, rule: ChangeRule) -> Self {
        Arc::make_mut(&mut self.0).rules.insert(source.into(), rule);
        self
    }

    /// Has people told of changes of `source`.
    #[must_use]
    pub fn critical(mut self, source: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.0).critical.insert(source.into());
        self
    }

    /// Notes changes there. Default: nowhere.
    #[must_use]
    pub fn log(mut self, log: ChangeLog) -> Self {
        Arc::make_mut(&mut self.0).log = Some(Arc::new(log));
        self
    }

    /// How people are told. Default: not at all.
    #[must_use]
    pub fn notifier(mut self, notifier: Notifier) -> Self {
        Arc::make_mut(&mut self.0).notifier = Some(Arc::new(notifier));
        self
    }

    /// What has changed, logged and noted; `None` if nothing has.
    pub(super) async fn look(&self, task: &Task, old: &Hit, new: &Hit) -> Option<Change> {
        let request = task.request.as_ref().ok()?;
        let rule = self.0.rules.get(&task.source).cloned().unwrap_or_default();
        let (before, after) = (old.value().clone(), new.value().clone());
        let versions = [old, new].map(|hit| hit.entry().version().map(str::to_owned));
        let is_other_version = versions[0].is_some() && versions[0] != versions[1];
        let find = move || {
            let found = compare(&before, &after, &rule);
            found.or_else(|| is_other_version.then(|| Comparison::unchanged(&after, &rule)))
        };
        let is_small = old.value().len().max(new.value().len()) <= COMPARED_HERE;
        let found = if is_small {
            find()
        } else {
            // A panic there is a fault of the comparison, and no change.
            tokio::task::spawn_blocking(find).await.ok().flatten()
        };
        let at: Timestamp = new.entry().loaded_at();
        let mut change = Change::new(at, &task.source, request.key().as_str(), found?);
        change.market = Some(task.market.clone());
        change.critical = self.0.critical.contains(&task.source);
        [change.old_version, change.new_version] = versions;
        tracing::info!(
            source = task.source,
            market = task.market,
            differences = change.changed,
            old_version = change.old_version,
            new_version = change.new_version,
            "the data of a source have changed"
        );
        if let Some(log) = &self.0.log
            && let Err(error) = log.append_async(&change).await
        {
            tracing::warn!(path = %log.path().display(), %error, "a change is not noted");
        }
        Some(change)
    }

    /// Has people told of those that are critical.
    pub(super) async fn tell(&self, changes: &[Change]) {
        let Some(notifier) = &self.0.notifier else { return };
        let critical = changes.iter().filter(|change| change.critical);
        let sent = critical.map(async |change| (change, notifier.notify(change).await));
        let sent: Vec<_> = sent.collect();
        let mut sent = stream::iter(sent).buffer_unordered(SENT_AT_A_TIME);
        let mut lost = 0;
        while let Some((change, results)) = sent.next().await {
            lost += usize::from(!results.is_empty() && results.iter().all(|(_, it)| it.is_err()));
            for (to, result) in results {
                if let Err(error) = result {
                    let key = &change.key;
                    tracing::warn!(to, key, %error, "nobody was told of a change");
                }
            }
            if lost == GIVEN_UP_AFTER {
                tracing::warn!("nobody can be told of changes; those left are only noted");
                return;
            }
        }
    }
}
