//! What must hold of every answer, whatever happened before.
//!
//! Order of versions. A chain promises that of two values of a key the one whose load or set began
//! later wins, in whatever order they arrive. Seen from outside that has limits: a value that only
//! a tier that is down has cannot be served, and a tier that was down when a newer value was
//! stored may be the first that is asked later. What is promised whatever fails is that a value
//! that is *held everywhere* is not overtaken. So whenever a set has returned, or a read has got a
//! value, the model looks past all faults into the tiers. If each of them has that value or a newer
//! one (one that is only read and empty can never have an older one), or if a leading memory tier
//! that does not evict has it, then no read that begins later may get anything older, whatever
//! goes wrong with tiers meanwhile. Without faults each acknowledged set is held everywhere, which
//! is a rule of its own, so that there the order is strict. It ends when the value, or a newer one
//! that may have taken its place, may be dead or invalidated: then what is older, and was on its
//! way, may be the newest there is.

use std::sync::Arc;

use larder::{
    Entry, Error, Failure as Class, Freshness, Hit, Key, OriginErrorKind, Policy, ReadMode,
    ReadOptions, ServedBy, StaleReason, Timestamp,
};

use crate::model::{How, Instance, Model, Origin, Since, Tick, show};

/// A read, as the model knows it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) call: usize,
    pub(crate) began: Tick,
    pub(crate) at: Timestamp,
    /// Whether it may load.
    pub(crate) loads: bool,
    pub(crate) options: ReadOptions,
    /// The first tier, where it is memory that does not evict.
    pub(crate) memory: Option<&'static str>,
    pub(crate) calm: bool,
}

/// One key of a read.
#[derive(Clone, Debug)]
pub(crate) struct OfKey {
    pub(crate) key: Key,
    /// What holds for it.
    pub(crate) policy: Policy,
    /// The version in force when the read began, and when it ended.
    pub(crate) versions: [Option<Arc<str>>; 2],
}

impl Asked {
    fn is_plain(&self) -> bool {
        self.options == ReadOptions::default()
    }

    fn skips(&self, tier: &str) -> bool {
        self.options.skip.iter().any(|skipped| skipped == tier)
    }
}

impl Model {
    /// Which of the values that ever were this entry is; or what is wrong with it.
    pub(crate) fn identify(&mut self, key: &Key, entry: &Entry) -> Result<usize, String> {
        let as_of = entry.as_of();
        let id = match entry.content_type() {
            Some(mark) => mark.parse().ok(),
            // An answer "not found" has no mark.
            None => self
                .instances
                .iter()
                .position(|one| one.key == *key && one.as_of == Some(as_of) && one.absent),
        };
        let Some((id, one)) = id.and_then(|id| Some((id, self.instances.get_mut(id)?))) else {
            return Err(format!("{key} has {}, which nobody brought", show(entry)));
        };
        let known = one.as_of.get_or_insert(as_of);
        let same = *known == as_of
            && one.key == *key
            && one.body.as_bytes() == entry.value()
            && one.absent == entry.is_absent()
            && one.tags == entry.tags();
        if !same {
            return Err(format!("{key} has {} {:?}, not {one}", show(entry), entry.value()));
        }
        let (from, to) = one.loaded_at;
        if entry.loaded_at() < from || entry.loaded_at() > to {
            return Err(format!(
                "{key} has {}, loaded at {}: {one}",
                show(entry),
                Since(entry.loaded_at())
            ));
        }
        one.loaded_at = (entry.loaded_at(), entry.loaded_at());
        if entry.expires_at() > one.latest_expiry() || entry.stale_until() > one.latest_death() {
            return Err(format!("{key} has {}, which lives too long: {one}", show(entry)));
        }
        Ok(id)
    }

    /// Checks what a read got; which value it is.
    pub(crate) fn check_hit(
        &mut self,
        asked: &Asked,
        of: &OfKey,
        hit: &Hit,
        now: Timestamp,
    ) -> Option<usize> {
        let key = &of.key;
        let id = match self.identify(key, hit.entry()) {
            Ok(id) => id,
            Err(problem) => {
                self.broken("a value is one that was brought for its key", problem);
                return None;
            }
        };
        let one = self.instances[id].clone();
        let tell = |what: &str| format!("call {} got {id} of {key}: {what}", asked.call);
        if !(asked.at..=now).contains(&hit.at()) {
            self.broken("a hit is of its call", tell(&format!("at {}", Since(hit.at()))));
        }
        self.check_server(asked, &one, hit, &tell);
        if hit.is_stale() {
            self.check_stale(asked, of, &one, hit, &tell);
        } else {
            self.check_fresh(asked, of, &one, hit, &tell);
        }
        if let Some(change) = self.barred(&one, asked.began, true) {
            let text = tell(&format!("though {change:?}"));
            self.broken("no read gets what was invalidated before it began", text);
        }
        let armed = self.changes.iter().any(|change| {
            change.forget
                && change.what.may_cover(key)
                && change.returned.is_some_and(|returned| returned < asked.began)
        });
        self.counts.armed.barred += u64::from(armed);
        self.check_order(asked, &one, hit, now, &tell);
        Some(id)
    }

    fn check_server(
        &mut self,
        asked: &Asked,
        one: &Instance,
        hit: &Hit,
        tell: &dyn Fn(&str) -> String,
    ) {
        let mode = asked.options.mode;
        if let ServedBy::Tier(tier) = hit.served_by() {
            if asked.skips(tier) {
                self.broken("a tier that is left out does not answer", tell(tier));
            }
            if !one.storable {
                self.broken("what is not to be stored is not", tell(tier));
            }
            let stale_will_do = mode == ReadMode::Refresh && hit.is_stale();
            if matches!(mode, ReadMode::Refresh | ReadMode::Bypass) && !stale_will_do {
                self.broken("who wants a load gets one", tell(tier));
            }
        } else {
            let mine = mode != ReadMode::Bypass || one.op == asked.call;
            if !one.is_load() || !mine || !asked.loads || hit.is_stale() {
                self.broken("only loads come from the origin", tell(&one.to_string()));
            }
        }
        let revalidated = hit.served_by() == ServedBy::Origin && one.origin == Origin::Revalidation;
        if hit.is_revalidated() != revalidated {
            self.broken("a hit tells whether it was revalidated", tell(&one.to_string()));
        }
    }

    fn check_fresh(
        &mut self,
        asked: &Asked,
        of: &OfKey,
        one: &Instance,
        hit: &Hit,
        tell: &dyn Fn(&str) -> String,
    ) {
        let entry = hit.entry();
        if let Some(change) = self.barred(one, asked.began, false) {
            let text = tell(&format!("fresh, though {change:?}"));
            self.broken("what was expired is not fresh", text);
        }
        let armed = self.changes.iter().any(|change| {
            !change.forget
                && change.what.may_cover(&of.key)
                && change.returned.is_some_and(|returned| returned < asked.began)
        });
        self.counts.armed.expired += u64::from(armed);
        if hit.served_by() == ServedBy::Origin {
            // Those who waited for a load are given what it brings; not those who come too late.
            // Where tiers hang it may be long until it lands.
            let landed = self.calls[one.op].ended.is_some_and(|ended| ended < asked.began);
            let landed = landed && asked.calm;
            if one.storable && landed && asked.at >= one.latest_expiry() {
                let text = tell(&format!("asked at {}, {one}", Since(asked.at)));
                self.broken("what is served as fresh is fresh", text);
            }
            return;
        }
        if entry.freshness(hit.at()) != Freshness::Fresh || hit.at() >= one.latest_expiry() {
            let text = tell(&format!("at {}, {}, {one}", Since(hit.at()), show(entry)));
            self.broken("what is served as fresh is fresh", text);
        }
        if let [Some(before), Some(after)] = &of.versions
            && before == after
            && entry.version() != Some(before)
        {
            let text = tell(&format!("{:?}, but {before} is in force", entry.version()));
            self.broken("another version is not fresh", text);
        }
        let ttl = match of.policy.ttl {
            larder::Ttl::For(ttl) if asked.options.policy.ttl.is_some() => ttl,
            _ => return,
        };
        let until = entry.loaded_at().saturating_add(ttl);
        if of.policy.retroactive_ttl && !one.own_lifetime && !one.absent && hit.at() >= until {
            self.broken("a call's own ttl holds", tell(&format!("{ttl:?}, {}", show(entry))));
        }
    }

    fn check_stale(
        &mut self,
        asked: &Asked,
        of: &OfKey,
        one: &Instance,
        hit: &Hit,
        tell: &dyn Fn(&str) -> String,
    ) {
        self.counts.armed.stale += 1;
        let (entry, at, policy) = (hit.entry(), hit.at(), &of.policy);
        if entry.freshness(at) == Freshness::Dead || at >= one.latest_death() {
            let text =
                tell(&format!("{:?} at {}, {}, {one}", hit.stale_reason(), Since(at), show(entry)));
            self.broken("nothing is served past its stale limit", text);
            return;
        }
        let within = |extra| at < entry.expires_at().saturating_add(extra);
        let any = asked.options.allow_stale;
        let fallback = any || within(policy.stale_if_error);
        // As long as it need not wait for a load, it may outlast the failure of one.
        let meanwhile = within(policy.stale_while_revalidate) && !entry.is_expired();
        let after_failure = || {
            hit.failure().is_some_and(|error| any || meanwhile || fallback && allows(policy, error))
        };
        let allowed = hit.stale_reason().is_some_and(|reason| match reason {
            StaleReason::Asked => any,
            StaleReason::Revalidating => meanwhile,
            StaleReason::LoadSlow => policy.soft_timeout.is_some() && fallback,
            StaleReason::LoadFailed | StaleReason::Throttled => after_failure(),
            _ => false,
        });
        if !allowed {
            let text = tell(&format!(
                "{:?} at {} after {:?}, {}",
                hit.stale_reason(),
                Since(at),
                hit.failure(),
                show(entry)
            ));
            self.broken("what is stale is served only where that is allowed", text);
        }
    }

    fn check_order(
        &mut self,
        asked: &Asked,
        one: &Instance,
        hit: &Hit,
        now: Timestamp,
        tell: &dyn Fn(&str) -> String,
    ) {
        let sees_memory = asked.memory.is_some_and(|memory| !asked.skips(memory));
        let mut armed = 0;
        let newer = self.known.iter().find(|known| {
            let holds = known.from < asked.began
                && self.instances[known.instance].key == one.key
                && (known.everywhere || known.in_memory && sees_memory)
                && !self.may_have_gone(known.instance, Some(known.as_of), now);
            armed += u64::from(holds);
            holds && known.as_of > hit.entry().as_of()
        });
        let newer = newer.cloned();
        self.counts.armed.order += armed;
        if let Some(known) = newer {
            let text = tell(&format!("by {}, though {known:?} was known", hit.served_by()));
            self.broken("nothing older is served over something newer", text);
        }
    }

    /// Checks a read that found nothing: what is fresh, and held where it looks, is found.
    pub(crate) fn check_nothing(&mut self, asked: &Asked, of: &OfKey, now: Timestamp) {
        if !asked.is_plain() {
            return;
        }
        let there = |model: &Self, known: &crate::model::Known| {
            let one = &model.instances[known.instance];
            let changed = model.changes.iter().any(|change| change.may_cover(one));
            let others = model.instances.iter().enumerate().any(|(id, other)| {
                id != known.instance && other.key == one.key && other.stamped.1 > one.stamped.0
            });
            one.key == of.key
                && known.from < asked.began
                && (known.in_memory || known.everywhere && asked.calm)
                && now < one.earliest_expiry()
                && !changed
                && !others
                && !model.is_versioned(one.key.source())
        };
        if let Some(known) = self.known.iter().find(|known| there(self, known)).cloned() {
            let text = format!("call {} got nothing for {}, but {known:?}", asked.call, of.key);
            self.broken("what is fresh is found", text);
        }
    }

    /// Counts a read that had something to find, so that the rule is known to be tried.
    pub(crate) fn note_found(&mut self, asked: &Asked, id: usize) {
        let found = asked.is_plain() && self.known.iter().any(|known| known.instance == id);
        self.counts.armed.must_find += u64::from(found);
    }

    /// Checks that something that went wrong explains the error.
    pub(crate) fn check_error(&mut self, asked: &Asked, key: &Key, error: &Error) {
        self.counts.armed.errors += 1;
        let text = error.to_string();
        let failed = |how: &[How]| {
            let mut of_key = self.failures.iter().filter(|failure| failure.key == *key);
            of_key.any(|failure| how.contains(&failure.how) && text.contains(&failure.mark))
        };
        let explained = match error {
            Error::Origin(_) => {
                failed(&[How::Error, How::LeftOut, How::NothingToRevalidate, How::AskedToWait])
            }
            Error::LoadPanicked { .. } => failed(&[How::Panic]),
            Error::LoadTimedOut { limit, .. } => self.instances.iter().any(|one| {
                one.key == *key
                    && one.hard_timeout.is_some_and(|hard| hard <= *limit)
                    && one.is_load()
            }),
            Error::LeftAlone { name, .. } => self.failures.iter().any(|failure| {
                failure.how == How::AskedToWait
                    && failure.key.source() == name
                    && text.contains(&failure.mark)
            }),
            Error::NotCached { .. } => asked.options.mode == ReadMode::CachedOnly,
            _ => false,
        };
        if !explained {
            let text = format!("call {} for {key}: {error:?}", asked.call);
            self.broken("an error has its cause", text);
        }
    }

    /// Whether all that may be as new as a value may still be there at `now`; if not, what is older
    /// may be the newest there is.
    pub(crate) fn may_have_gone(
        &self,
        root: usize,
        as_of: Option<larder::Stamp>,
        now: Timestamp,
    ) -> bool {
        let first = &self.instances[root];
        let newer = |id: usize, one: &Instance| {
            let by_stamp = one.as_of.zip(as_of).map(|(one, root)| one >= root);
            id == root || by_stamp.unwrap_or(one.stamped.1 > first.stamped.0)
        };
        let goes = |one: &Instance| {
            one.forgets
                || one.earliest_death() <= now
                || self.changes.iter().any(|change| change.forget && change.may_cover(one))
        };
        let mut all = self.instances.iter().enumerate();
        all.any(|(id, one)| {
            one.key == first.key && (one.storable || one.forgets) && newer(id, one) && goes(one)
        })
    }
}

/// Whether a policy lets what is stale serve after this failure.
fn allows(policy: &Policy, error: &Error) -> bool {
    let class = match error {
        Error::Origin(error) | Error::LeftAlone { cause: error, .. } => match error.kind() {
            OriginErrorKind::GaveUp => return true,
            OriginErrorKind::Network => Class::Network,
            OriginErrorKind::Timeout => Class::Timeout,
            OriginErrorKind::Status(429) => Class::RateLimited,
            OriginErrorKind::Status(500..=599) => Class::ServerError,
            OriginErrorKind::Status(400..=499) => Class::ClientError,
            _ => Class::Other,
        },
        Error::LoadTimedOut { .. } => Class::Timeout,
        _ => Class::Other,
    };
    policy.stale_on.contains(class)
}
