//! What has been called, in this process's memory.

use std::collections::{HashMap, VecDeque};

use crate::{
    Limits, Urgency,
    decide::{Decision, Seen, decide, window},
};

#[derive(Debug, Default)]
pub(crate) struct Memory {
    sources: HashMap<Box<str>, Page>,
}

#[derive(Debug, Default)]
struct Page {
    seen: Seen,
    /// Of calls in order, as far as a quota counts them.
    calls: VecDeque<i64>,
}

impl Memory {
    /// Decides about one call, and takes note of it if it may be made.
    pub(crate) fn take(
        &mut self,
        source: &str,
        limits: &Limits,
        urgency: Urgency,
        now: i64,
    ) -> Decision {
        let seen = self.look(source, limits, urgency, now);
        let decision = decide(limits, now, &seen);
        if let Decision::Go { due, warns } = decision {
            let page = self.page(source);
            page.seen.due = due;
            if warns {
                page.seen.warned = now;
            }
            if limits.quota.is_some() {
                page.calls.push_back(now);
            }
        }
        decision
    }

    pub(crate) fn look(
        &mut self,
        source: &str,
        limits: &Limits,
        urgency: Urgency,
        now: i64,
    ) -> Seen {
        let page = self.page(source);
        page.seen.settle(limits, now);
        let Some((since, allowance)) = window(limits, urgency, now) else {
            return Seen { used: 0, blocking: None, ..page.seen };
        };
        // Set back clocks leave calls in the future; they count as of now.
        for at in page.calls.iter_mut().rev().take_while(|at| **at > now) {
            *at = now;
        }
        while page.calls.front().is_some_and(|at| *at <= since) {
            page.calls.pop_front();
        }
        let used = page.calls.len();
        let blocking = used.checked_sub(allowance as usize).and_then(|place| page.calls.get(place));
        Seen { used: used as u32, blocking: blocking.copied(), ..page.seen }
    }

    /// Takes note of a call that was let through elsewhere.
    #[cfg(feature = "sqlite")]
    pub(crate) fn note(&mut self, source: &str, limits: &Limits, now: i64) {
        let page = self.page(source);
        page.seen.settle(limits, now);
        if limits.quota.is_some() {
            page.calls.push_back(now);
        }
        if let Decision::Go { due, .. } =
            decide(limits, now, &Seen { due: page.seen.due, ..Seen::default() })
        {
            page.seen.due = due;
        }
    }

    /// Until when the quota is used up by the calls that this process knows of.
    #[cfg(feature = "sqlite")]
    pub(crate) fn is_full(
        &mut self,
        source: &str,
        limits: &Limits,
        urgency: Urgency,
        now: i64,
    ) -> Option<Decision> {
        let Seen { used, blocking, .. } = self.look(source, limits, urgency, now);
        blocking?;
        Some(decide(limits, now, &Seen { used, blocking, ..Seen::default() }))
    }

    pub(crate) fn pause(&mut self, source: &str, until: i64) {
        let seen = &mut self.page(source).seen;
        seen.paused_until = seen.paused_until.max(until);
    }

    fn page(&mut self, source: &str) -> &mut Page {
        self.sources.entry(source.into()).or_default()
    }
}
