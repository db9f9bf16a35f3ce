//! Asking an origin: within its limits, again where that helps, and not while it keeps failing.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cache_core::{Clock, OriginError, OriginErrorKind, Timestamp};
use origin_limits::{Denied, Ledger, Limiter, LimitsError, Permit, Refusal};
use tokio::time::Instant;

use crate::{
    OriginOptions, RetryOptions,
    breaker::{Breaker, Change, Ticket},
    load::{Terms, stopped},
};

/// Asks the origin of one source.
#[derive(Debug)]
pub(crate) struct Asker {
    source: String,
    limiter: Limiter,
    retry: RetryOptions,
    breaker: Option<Fuse>,
    clock: Arc<dyn Clock>,
    /// How long a call counts as under way; nobody waits for it for longer.
    patience: Option<Duration>,
}

/// A breaker that remembers what made it open.
#[derive(Debug)]
struct Fuse {
    breaker: Breaker,
    last: Mutex<Option<Failed>>,
}

#[derive(Clone, Debug)]
struct Failed {
    kind: OriginErrorKind,
    message: String,
    until: Timestamp,
}

impl Asker {
    pub(crate) fn new(
        source: &str,
        options: &OriginOptions,
        ledger: Arc<Ledger>,
        clock: Arc<dyn Clock>,
        patience: Option<Duration>,
    ) -> Result<Self, LimitsError> {
        Ok(Self {
            source: source.to_owned(),
            limiter: Limiter::new(source, options.limits.clone(), ledger)?,
            retry: options.retry,
            breaker: options
                .breaker
                .map(|options| Fuse { breaker: Breaker::new(options), last: Mutex::default() }),
            clock,
            patience,
        })
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn patience(&self) -> Option<Duration> {
        self.patience
    }

    pub(crate) fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Makes one call when its turn has come.
    pub(crate) async fn once<T>(
        &self,
        terms: &Terms,
        call: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, OriginError> {
        let leave = self.leave(terms).await?;
        self.watched(leave, call).await
    }

    /// Makes a call when its turn has come, and again as the options say.
    pub(crate) async fn ask<T, Fut>(
        &self,
        terms: &Terms,
        call: impl Fn() -> Fut,
    ) -> Result<T, OriginError>
    where
        Fut: Future<Output = Result<T, OriginError>>,
    {
        let leave = self.leave(terms).await?;
        let began = Instant::now();
        let mut error = match self.watched(leave, call()).await {
            Err(error) => error,
            answer => return answer,
        };
        for calls in 1..self.retry.attempts {
            let Some(delay) = self.delay(&error, calls) else { break };
            let Some(left) = self.retry.budget.checked_sub(began.elapsed()) else { break };
            if delay > left {
                break;
            }
            tracing::debug!(source = self.source, calls, ?delay, %error, "the call is made again");
            // Nothing is held meanwhile: others may call.
            let stopped = async {
                match &terms.slots {
                    Some(slots) => slots.closed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stopped => break,
                () = tokio::time::sleep(delay) => {}
            }
            let left = self.retry.budget.saturating_sub(began.elapsed());
            // What the origin said says more than that it is not asked again, or not in time.
            let Ok(Ok(leave)) = tokio::time::timeout(left, self.leave(terms)).await else {
                break;
            };
            error = match self.watched(leave, call()).await {
                Err(error) => error,
                answer => return answer,
            };
        }
        Err(error)
    }

    /// When to make a call again that failed like this; `None` if that does not help.
    fn delay(&self, error: &OriginError, calls: u32) -> Option<Duration> {
        let is_passing = matches!(
            error.kind(),
            OriginErrorKind::Network | OriginErrorKind::Status(429 | 502..=504)
        );
        let ceiling = self.retry.ceiling(calls);
        is_passing.then(|| error.retry_after().unwrap_or_else(|| ceiling.mul_f64(fastrand::f64())))
    }

    /// Leave to make a call, once that is due.
    pub(crate) async fn leave(&self, terms: &Terms) -> Result<Leave<'_>, OriginError> {
        // Before its turn, so as not to wait for nothing, and after it: others may have failed.
        drop(self.admitted()?);
        let Terms { urgency, slots } = terms;
        match self.limiter.acquire_if(*urgency, slots.as_ref(), || self.admitted()).await {
            Ok((permit, admitted)) => Ok(Leave { permit: Some(permit), admitted }),
            Err(Denied::Unwanted(tripped)) => Err(tripped),
            Err(Denied::Closed) => Err(stopped(&self.source)),
            Err(Denied::Refused(refusal)) => Err(self.refused(refusal)),
        }
    }

    fn admitted(&self) -> Result<Admitted<'_>, OriginError> {
        let Some(fuse) = &self.breaker else { return Ok(Admitted { asker: self, ticket: None }) };
        let now = self.clock.now();
        match fuse.breaker.admit(now) {
            Some(ticket) => Ok(Admitted { asker: self, ticket: Some(ticket) }),
            None => Err(self.tripped(fuse, now)),
        }
    }

    /// Makes the call, and learns from how it ended.
    async fn watched<T>(
        &self,
        leave: Leave<'_>,
        call: impl Future<Output = Result<T, OriginError>>,
    ) -> Result<T, OriginError> {
        let (answer, leave) = under_way(self.patience, leave, call).await;
        leave.end(answer.as_ref().err()).await;
        answer
    }

    fn refused(&self, refusal: Refusal) -> OriginError {
        match refusal {
            Refusal::Quota { resets_in } => {
                let quota = self.limiter.limits().quota;
                let (count, per) =
                    quota.map_or((0, Duration::ZERO), |quota| (quota.count, quota.per));
                let message = format!(
                    "its quota of {count} calls in {} is used up; it lets the next one through in {}",
                    spoken(per),
                    spoken(resets_in)
                );
                OriginError::new(OriginErrorKind::Quota, &self.source, message)
                    .with_retry_after(Some(resets_in))
            }
            Refusal::Paused { ends_in } => {
                let message = format!(
                    "it has asked to be left alone, and is not asked for another {}",
                    spoken(ends_in)
                );
                OriginError::new(OriginErrorKind::Status(429), &self.source, message)
                    .with_retry_after(Some(ends_in))
            }
            other => {
                let message = format!("its limits let no call through: {other:?}");
                OriginError::new(OriginErrorKind::Quota, &self.source, message)
            }
        }
    }

    fn tripped(&self, fuse: &Fuse, now: Timestamp) -> OriginError {
        let last = fuse.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (kind, why, wait) = match last {
            Some(Failed { kind, message, until }) => (kind, message, until.saturating_since(now)),
            None => (OriginErrorKind::Other, "nothing is known".to_owned(), Duration::ZERO),
        };
        let until = if wait.is_zero() {
            "until a call that is under way has worked".to_owned()
        } else {
            format!("for another {}", spoken(wait))
        };
        let message = format!("it keeps failing, and is not asked {until}; at last: {why}");
        OriginError::new(kind, &self.source, message)
    }
}

/// Waits for a call; one that nobody waits for any more gives up its place among those under way.
pub(crate) async fn under_way<T, L: Yield>(
    patience: Option<Duration>,
    mut leave: L,
    call: impl Future<Output = T>,
) -> (T, L) {
    let mut call = pin!(call);
    if let Some(patience) = patience {
        tokio::select! {
            biased;
            answer = &mut call => return (answer, leave),
            () = tokio::time::sleep(patience) => leave.give_up_place(),
        }
    }
    (call.await, leave)
}

/// What holds a place among the calls that are under way.
pub(crate) trait Yield {
    fn give_up_place(&mut self);
}

/// Leave to make one call; dropped, it has ended without saying anything.
pub(crate) struct Leave<'a> {
    permit: Option<Permit>,
    admitted: Admitted<'a>,
}

impl Yield for Leave<'_> {
    fn give_up_place(&mut self) {
        self.permit = None;
    }
}

impl Yield for Vec<Leave<'_>> {
    fn give_up_place(&mut self) {
        self.iter_mut().for_each(Yield::give_up_place);
    }
}

impl Leave<'_> {
    /// Learns from how the call ended. Only then another one begins, which is to know it.
    pub(crate) async fn end(self, error: Option<&OriginError>) {
        let Self { permit, admitted } = self;
        let Some(error) = error else { return admitted.worked() };
        if matches!(error.kind(), OriginErrorKind::Status(429 | 503))
            && let Some(pause) = error.retry_after().filter(|pause| !pause.is_zero())
        {
            admitted.asker.limiter.pause(pause).await;
        }
        match error.kind() {
            OriginErrorKind::Network
            | OriginErrorKind::Timeout
            | OriginErrorKind::Status(500..=599)
            | OriginErrorKind::Unusable
            | OriginErrorKind::Other => admitted.failed(error),
            OriginErrorKind::Status(429) | OriginErrorKind::Request | OriginErrorKind::GaveUp => {
                drop(admitted);
            }
            // The origin answers.
            _ => admitted.worked(),
        }
        drop(permit);
    }

    pub(crate) fn source(&self) -> &str {
        &self.admitted.asker.source
    }
}

/// A call that the breaker has let through; dropped, it has ended without saying anything.
struct Admitted<'a> {
    asker: &'a Asker,
    ticket: Option<Ticket>,
}

impl Admitted<'_> {
    fn worked(mut self) {
        let Some((fuse, ticket)) = self.asker.breaker.as_ref().zip(self.ticket.take()) else {
            return;
        };
        if fuse.breaker.succeeded(ticket, self.asker.clock.now()) == Change::Closed {
            tracing::info!(source = self.asker.source, "the origin works again");
        }
    }

    fn failed(mut self, error: &OriginError) {
        let Some((fuse, ticket)) = self.asker.breaker.as_ref().zip(self.ticket.take()) else {
            return;
        };
        let now = self.asker.clock.now();
        if let Change::Opened(cooldown) = fuse.breaker.failed(ticket, now) {
            tracing::warn!(
                source = self.asker.source,
                ?cooldown,
                %error,
                "the origin keeps failing, and is not asked until the next probe"
            );
            let failed = Failed {
                kind: error.kind(),
                message: error.message().to_owned(),
                until: now.saturating_add(cooldown),
            };
            *fuse.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(failed);
        }
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if let Some((fuse, ticket)) = self.asker.breaker.as_ref().zip(self.ticket) {
            fuse.breaker.undecided(ticket, self.asker.clock.now());
        }
    }
}

/// A length of time as people say it, rounded up to what matters.
fn spoken(span: Duration) -> String {
    let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let part = |count: u64, unit| (count > 0).then(|| format!("{count} {unit}"));
    let parts = match seconds {
        0..60 => [part(seconds.max(1), "s"), None],
        60..3_600 => [part(minutes, "min"), part(seconds % 60, "s")],
        3_600..86_400 => [part(hours, "h"), part(minutes, "min")],
        _ => [part(days, "d"), part(hours, "h")],
    };
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_what_matters() {
        for (millis, text) in [
            (1, "1 s"),
            (1_500, "2 s"),
            (60_000, "1 min"),
            (61_000, "1 min 1 s"),
            (18_720_000, "5 h 12 min"),
            (86_400_000, "1 d"),
        ] {
            assert_eq!(spoken(Duration::from_millis(millis)), text);
        }
    }
}
