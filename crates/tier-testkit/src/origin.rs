//! An origin that counts.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use cache_core::{Key, Load, Loaded, Origin, OriginError, OriginErrorKind, Ttl};

/// Answers every request with `<key> #<call>` and counts the calls; can be told to answer otherwise.
///
/// An error it is told to give comes first, then that there is nothing, then that nothing has
/// changed.
#[derive(Debug, Default)]
pub struct CountingOrigin {
    calls: AtomicU64,
    answers: Mutex<Answers>,
}

#[derive(Clone, Debug, Default)]
struct Answers {
    down: bool,
    error: Option<OriginErrorKind>,
    retry_after: Option<Duration>,
    absent: bool,
    not_modified: bool,
    version: Option<String>,
    etag: Option<String>,
    ttl: Option<Ttl>,
    last: Option<Key>,
}

impl CountingOrigin {
    /// How often it was asked.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// The key it was asked for last.
    pub fn last_key(&self) -> Option<Key> {
        self.answers().last.clone()
    }

    /// From now on it fails with a network error, to be asked again after a second, or answers
    /// again.
    pub fn set_down(&self, down: bool) {
        self.answers().down = down;
    }

    /// From now on it fails like this, or answers again.
    pub fn set_error(&self, kind: Option<OriginErrorKind>) {
        self.answers().error = kind;
    }

    /// Errors given by [`CountingOrigin::set_error`] say when it may be asked again, or do not.
    pub fn set_retry_after(&self, after: Option<Duration>) {
        self.answers().retry_after = after;
    }

    /// From now on it says that there is nothing, or answers again.
    pub fn set_absent(&self, absent: bool) {
        self.answers().absent = absent;
    }

    /// From now on it says that nothing has changed where something is stored, or answers anew.
    pub fn set_not_modified(&self, not_modified: bool) {
        self.answers().not_modified = not_modified;
    }

    /// Answers have this version from now on, or none.
    pub fn set_version(&self, version: Option<&str>) {
        self.answers().version = version.map(str::to_owned);
    }

    /// Answers have this entity tag from now on, or none.
    pub fn set_etag(&self, etag: Option<&str>) {
        self.answers().etag = etag.map(str::to_owned);
    }

    /// Answers are fresh for so long from now on, or as their source's policy says.
    pub fn set_ttl(&self, ttl: Option<Ttl>) {
        self.answers().ttl = ttl;
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Origin for CountingOrigin {
    async fn load(&self, load: Load) -> Result<Loaded, OriginError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let (key, source) = (load.request.key(), load.request.source());
        let answers = {
            let mut answers = self.answers();
            answers.last = Some(key.clone());
            answers.clone()
        };
        if answers.down {
            return Err(OriginError::new(OriginErrorKind::Network, source, "switched off")
                .with_retry_after(Some(Duration::from_secs(1))));
        }
        if let Some(kind) = answers.error {
            return Err(OriginError::new(kind, source, "told to fail")
                .with_retry_after(answers.retry_after));
        }
        let mut loaded = if answers.absent {
            Loaded::absent()
        } else if answers.not_modified && load.stored.is_some() {
            Loaded::not_modified()
        } else {
            Loaded::new(format!("{key} #{call}"))
        };
        loaded.version = answers.version;
        loaded.etag = answers.etag;
        loaded.ttl = answers.ttl;
        Ok(loaded)
    }
}
