//! What has been run, as it is stored.

use std::time::Duration;

use larder::{Cache, Error, Key, Loaded, PolicyPatch, ReadOptions, Timestamp, Ttl};
use serde::{Deserialize, Serialize};

use crate::schedule::{
    Job,
    zone::{from_rfc3339, rfc3339},
};

/// The source under which runs are stored, so that all who share a tier know of them.
const SOURCE: &str = "larder-jobs";
/// How many of the latest occurrences are looked at for the last run.
const LOOK_BACK: usize = 5;
/// How long a run is kept when it is no longer looked at: a clock may be set back.
const KEPT_ON: Duration = Duration::from_hours(7 * 24);

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastRun {
    /// When it was due.
    pub due: Timestamp,
    /// When it began: later than it was due by the jitter, or because nobody was there to run it.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// Whether it did what it should.
    pub succeeded: bool,
    /// What it did, or why it failed.
    pub note: String,
}

/// A [`LastRun`] as it is stored.
#[derive(Deserialize, Serialize)]
struct Document {
    due: String,
    began: String,
    ended: String,
    succeeded: bool,
    note: String,
}

impl LastRun {
    fn to_json(&self) -> String {
        let document = Document {
            due: rfc3339(self.due),
            began: rfc3339(self.began),
            ended: rfc3339(self.ended),
            succeeded: self.succeeded,
            note: self.note.clone(),
        };
        // Text and a truth value always make JSON.
        serde_json::to_string(&document).unwrap_or_default()
    }

    /// What is stored for the occurrence `due`: that there is something says that it has been run.
    fn from_json(due: Timestamp, json: &[u8]) -> Self {
        let Ok(document) = serde_json::from_slice::<Document>(json) else {
            let note = "what is stored of this run cannot be read".to_owned();
            return Self { due, began: due, ended: due, succeeded: false, note };
        };
        Self {
            due,
            began: from_rfc3339(&document.began).unwrap_or(due),
            ended: from_rfc3339(&document.ended).unwrap_or(due),
            succeeded: document.succeeded,
            note: document.note,
        }
    }
}

/// The key under which nothing is stored, and that is loaded while the job runs.
pub(super) fn turn_key(job: &Job) -> Key {
    Key::builder(SOURCE).param("job", job.name()).param("entry", "turn").build()
}

fn run_key(job: &Job, due: Timestamp) -> Key {
    Key::builder(SOURCE).param("job", job.name()).param("due", rfc3339(due)).build()
}

/// A job with another schedule has not been seen: what it would have missed with that is not run.
fn since_key(job: &Job) -> Key {
    let schedule = job.schedule().to_string();
    Key::builder(SOURCE).param("job", job.name()).param("schedule", schedule).build()
}

/// Reads that store for exactly `ttl`, whatever holds for other sources.
fn kept_for(ttl: Ttl) -> ReadOptions {
    ReadOptions::default().policy(PolicyPatch::default().ttl(ttl).jitter(0.0))
}

/// When the job was seen for the first time; `now`, which is remembered, if it is the first time.
pub(super) async fn first_seen(
    cache: &Cache,
    job: &Job,
    now: Timestamp,
) -> Result<Timestamp, Error> {
    let options = kept_for(Ttl::Never);
    let load = move |_context| async move { Ok(Loaded::new(rfc3339(now)).ttl(Ttl::Never)) };
    let hit = cache.get_or_load_with(&since_key(job), options, load).await?;
    let text = str::from_utf8(hit.value()).ok();
    Ok(text.and_then(from_rfc3339).unwrap_or(now))
}

/// The same, where nothing is remembered; `None` if it has not been seen.
pub(super) async fn was_first_seen(cache: &Cache, job: &Job) -> Result<Option<Timestamp>, Error> {
    let hit = cache.get(&since_key(job)).await?;
    Ok(hit.and_then(|hit| str::from_utf8(hit.value()).ok().and_then(from_rfc3339)))
}

/// Whether the occurrence has been run.
pub(super) async fn has_run(cache: &Cache, job: &Job, due: Timestamp) -> Result<bool, Error> {
    Ok(cache.get(&run_key(job, due)).await?.is_some())
}

/// Remembers a run, until later ones are looked at in its place.
pub(super) async fn remember(cache: &Cache, job: &Job, run: &LastRun) -> Result<(), Error> {
    let later = |due: &Timestamp| job.schedule().next_after(*due);
    let last = std::iter::successors(Some(run.due), later).take(LOOK_BACK + 1).last();
    let ttl = last.map_or(KEPT_ON, |last| last.saturating_since(run.ended) + KEPT_ON);
    let ttl = Ttl::For(ttl);
    let json = run.to_json();
    let load = move |_context| async move {
        Ok(Loaded::new(json).ttl(ttl).content_type("application/json"))
    };
    cache.get_or_load_with(&run_key(job, run.due), kept_for(ttl), load).await?;
    Ok(())
}

/// The last run of the latest occurrences until `now`.
pub(super) async fn last_run(
    cache: &Cache,
    job: &Job,
    now: Timestamp,
) -> Result<Option<LastRun>, Error> {
    let latest = |until| job.schedule().latest_until(until);
    let before = |due: &Timestamp| latest(Timestamp::from_millis(due.as_millis() - 1));
    let dues: Vec<Timestamp> = std::iter::successors(latest(now), before).take(LOOK_BACK).collect();
    let keys: Vec<Key> = dues.iter().map(|due| run_key(job, *due)).collect();
    for (due, hit) in dues.into_iter().zip(cache.get_many(&keys).await?) {
        if let Some(hit) = hit? {
            return Ok(Some(LastRun::from_json(due, hit.value())));
        }
    }
    Ok(None)
}
