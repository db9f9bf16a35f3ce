//! Letting calls through.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{Ledger, Limits, LimitsError, Slot, Slots, Urgency, decide::Decision, turns::Turns};

/// Lets the calls of one source through, each when it is due.
#[derive(Debug)]
pub struct Limiter {
    source: Arc<str>,
    limits: Arc<Limits>,
    ledger: Arc<Ledger>,
    turns: Turns,
    under_way: Option<Arc<Semaphore>>,
}

/// Leave for one call; held while it is under way.
#[derive(Debug)]
#[must_use = "a call is under way as long as its permit is held"]
pub struct Permit {
    _under_way: Option<OwnedSemaphorePermit>,
    _slot: Option<Slot>,
}

/// Why a call may not be made now, and waiting for it is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The quota is used up.
    Quota {
        /// Until it lets a call through again.
        resets_in: Duration,
    },
    /// The API has asked to be left alone.
    Paused {
        /// For so long.
        ends_in: Duration,
    },
}

/// Why there is no leave for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied<E> {
    /// Its limits do not allow it.
    Refused(Refusal),
    /// Its slots are closed; nothing was counted.
    Closed,
    /// It is not wanted any more; nothing was counted.
    Unwanted(E),
}

/// How much of its quota a source has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Calls in the window up to now, of all who share the ledger.
    pub used: u32,
    /// Calls that the quota allows in it.
    pub allowed: u32,
    /// How long the window is.
    pub window: Duration,
    /// If it is used up, until it lets a call through.
    pub resets_in: Option<Duration>,
}

/// Waits this long, more exactly than the runtime's timers, which count in milliseconds: at hundreds of
/// calls a second what they oversleep is much of the rate. Once only: a ledger whose clock is not that
/// of the machine's threads has not moved then. Cancel safe.
async fn rest(wait: Duration, is_exact: &mut bool) {
    const COARSE: Duration = Duration::from_millis(2);
    if !std::mem::take(is_exact) {
        return tokio::time::sleep(wait).await;
    }
    let end = Instant::now() + wait;
    if let Some(most) = wait.checked_sub(COARSE) {
        tokio::time::sleep(most).await;
    }
    let left = end.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        // It cannot fail but when the runtime is being shut down, and this with it.
        _ = tokio::task::spawn_blocking(move || std::thread::sleep(left)).await;
    }
}

/// A slot if there are any; never one of those that are closed.
async fn slot_of(slots: Option<&Slots>) -> Option<Slot> {
    match slots?.take().await {
        None => std::future::pending().await,
        slot => slot,
    }
}

impl Limiter {
    /// A limiter of `source`, by which the ledger knows it.
    ///
    /// # Errors
    /// As [`Limits::check`].
    pub fn new(
        source: impl Into<Arc<str>>,
        limits: Limits,
        ledger: Arc<Ledger>,
    ) -> Result<Self, LimitsError> {
        limits.check()?;
        let under_way = limits.concurrency.map(|most| {
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(most))
        });
        let source = source.into();
        Ok(Self { source, limits: Arc::new(limits), ledger, turns: Turns::new(), under_way })
    }

    /// What it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Waits until a call may be made, and counts it.
    ///
    /// # Errors
    /// [`Refusal`], at once, if it would have to wait for the end of a quota or of a pause.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn acquire(&self, urgency: Urgency) -> Result<Permit, Refusal> {
        let wanted = || Ok::<(), std::convert::Infallible>(());
        match self.acquire_when(urgency, &wanted, None).await? {
            Ok((permit, ())) => Ok(permit),
            Err(never) => match never {},
        }
    }

    /// Waits until a call may be made, also by `slots`, and counts it if it is wanted then: `wanted` is
    /// asked when the call is next, maybe several times, and what it gives before the last time is
    /// dropped.
    ///
    /// Foreground calls of this process go before background ones; those of other processes come in
    /// between. Cancel safe: a call is counted only when this has returned, but for the instant
    /// between its being counted and the return.
    ///
    /// # Errors
    /// [`Denied`]: what `wanted` says; once the slots are closed; and at once, if it would have to wait for
    /// the end of a quota or of a pause.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn acquire_if<T, E>(
        &self,
        urgency: Urgency,
        slots: Option<&Slots>,
        wanted: impl Fn() -> Result<T, E>,
    ) -> Result<(Permit, T), Denied<E>> {
        let acquired = self.acquire_when(urgency, &wanted, slots);
        let acquired = match slots {
            None => acquired.await,
            Some(slots) => tokio::select! {
                biased;
                () = slots.closed() => return Err(Denied::Closed),
                acquired = acquired => acquired,
            },
        };
        acquired.map_err(Denied::Refused)?.map_err(Denied::Unwanted)
    }

    /// Waits for ever if the slots are closed.
    async fn acquire_when<T, E>(
        &self,
        urgency: Urgency,
        wanted: &impl Fn() -> Result<T, E>,
        slots: Option<&Slots>,
    ) -> Result<Result<(Permit, T), E>, Refusal> {
        let place = self.turns.queue(urgency).await;
        loop {
            let turn = place.turn().await;
            let under_way = tokio::select! {
                biased;
                () = place.must_give_way() => continue,
                permit = self.slot() => permit,
            };
            let mut is_exact = true;
            loop {
                // Not held while this waits for its source: others may use it.
                let slot = tokio::select! {
                    biased;
                    () = place.must_give_way() => break,
                    slot = slot_of(slots) => slot,
                };
                let given = match wanted() {
                    Ok(given) => given,
                    Err(unwanted) => return Ok(Err(unwanted)),
                };
                let Some(wait) = self.pass(urgency).await? else {
                    if let Some(slots) = slots {
                        slots.note_call();
                    }
                    return Ok(Ok((Permit { _under_way: under_way, _slot: slot }, given)));
                };
                drop((given, slot));
                // Nothing is taken ahead: who gives way now, or is dropped, loses nothing.
                tokio::select! {
                    biased;
                    () = place.must_give_way() => break,
                    () = rest(wait, &mut is_exact) => {}
                }
            }
            drop(turn);
        }
    }

    /// Takes leave for a call, or says how long to wait before asking again.
    async fn pass(&self, urgency: Urgency) -> Result<Option<Duration>, Refusal> {
        match self.take(urgency).await {
            Decision::Go { warns, .. } => {
                if warns {
                    self.warn();
                }
                Ok(None)
            }
            Decision::Wait(wait) => Ok(Some(wait)),
            Decision::Full(resets_in) => Err(Refusal::Quota { resets_in }),
            Decision::Paused(ends_in) => Err(Refusal::Paused { ends_in }),
        }
    }

    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        // Closed never.
        Arc::clone(self.under_way.as_ref()?).acquire_owned().await.ok()
    }

    async fn take(&self, urgency: Urgency) -> Decision {
        let (source, limits) = (Arc::clone(&self.source), Arc::clone(&self.limits));
        self.ledger.on(move |ledger| ledger.take(&source, &limits, urgency)).await
    }

    fn warn(&self) {
        let Some(quota) = self.limits.quota else { return };
        tracing::warn!(
            source = &*self.source,
            quota = quota.count,
            window = ?quota.per,
            "four fifths of the source's quota are used up"
        );
    }

    /// Lets no call of the source through for a while, whoever shares the ledger: the API has asked
    /// for that. A pause that ends later stays.
    pub async fn pause(&self, pause: Duration) {
        let source = Arc::clone(&self.source);
        self.ledger.on(move |ledger| ledger.pause(&source, pause)).await;
    }

    /// How much of the quota is used; `None` if there is none.
    pub async fn usage(&self) -> Option<Usage> {
        let quota = self.limits.quota?;
        let (source, limits) = (Arc::clone(&self.source), Arc::clone(&self.limits));
        let (used, resets_in) = self.ledger.on(move |ledger| ledger.used(&source, &limits)).await;
        Some(Usage { used, allowed: quota.count, window: quota.per, resets_in })
    }
}
