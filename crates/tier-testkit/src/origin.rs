//! An origin that counts.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use cache_core::{Load, Loaded, Origin, OriginError, OriginErrorKind};

/// Answers every request with `<key> #<call>` and counts the calls.
#[derive(Debug, Default)]
pub struct CountingOrigin {
    calls: AtomicU64,
    down: AtomicBool,
}

impl CountingOrigin {
    /// How often it was asked.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// From now on it fails with a network error, or answers again.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }
}

#[async_trait]
impl Origin for CountingOrigin {
    async fn load(&self, load: Load) -> Result<Loaded, OriginError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if self.down.load(Ordering::SeqCst) {
            let source = load.request.source();
            return Err(OriginError::new(OriginErrorKind::Network, source, "switched off")
                .with_retry_after(Some(Duration::from_secs(1))));
        }
        Ok(Loaded::new(format!("{} #{call}", load.request.key())))
    }
}
