//! Loads, as the model knows them.

use std::time::Duration;

use larder::{Freshness, Key, LoadContext, Loaded, Timestamp, Ttl};

use crate::{
    loader::Leg,
    model::{Failure, How, Instance, Model, Origin, What, show},
    world::{MOMENT, World},
};

impl World {
    /// Notes that a load begins, and checks that it may.
    pub(crate) fn begin_load(&self, call: usize, context: &LoadContext) -> usize {
        let now = self.now();
        let mut model = self.model();
        let tick = model.tick();
        let key = &context.key;
        let id = model.instances.len();
        let with = context.stored.as_ref().map_or("nothing".to_owned(), show);
        model.say(format!("    load {id} of {key} by call {call}, has {with}"));
        model.counts.loads += 1;
        model.check_load(call, context, now);
        model.instances.push(Instance {
            key: key.clone(),
            origin: Origin::Load,
            op: call,
            body: String::new(),
            absent: false,
            tags: Vec::new(),
            stamped: (tick, tick),
            as_of: Some(context.as_of),
            ended: None,
            loaded_at: (now, Timestamp::NEVER),
            ttl: Ttl::Never,
            stale_for: Duration::ZERO,
            jitter: context.policy.jitter,
            own_lifetime: false,
            storable: false,
            forgets: false,
            failed: false,
            hard_timeout: context.policy.hard_timeout,
            may_be_dropped: context.policy.cancel_abandoned,
        });
        id
    }
}

impl Model {
    pub(crate) fn load_dropped(&mut self, id: usize) {
        let one = &self.instances[id];
        if one.ended.is_some() || self.over {
            return;
        }
        // Who loads for itself alone has been told that it takes too long.
        let may = one.may_be_dropped || self.calls[one.op].bypasses;
        let key = one.key.clone();
        self.say(format!("    load {id} of {key} is dropped"));
        let tick = self.tick();
        let one = &mut self.instances[id];
        (one.ended, one.failed) = (Some(tick), true);
        if !may {
            self.broken("a load goes on though nobody waits", format!("{key}: load {id}"));
        }
    }

    pub(crate) fn load_failed(&mut self, leg: &Leg, how: How, mark: &str) {
        let tick = self.tick();
        let key = leg.context.key.clone();
        self.say(format!("    load {} of {key} fails: {how:?}", leg.instance));
        let one = &mut self.instances[leg.instance];
        (one.ended, one.failed) = (Some(tick), true);
        self.failures.push(Failure { key, how, mark: mark.to_owned() });
    }

    pub(crate) fn load_ended(
        &mut self,
        leg: &Leg,
        now: Timestamp,
        loaded: &Loaded,
        (ttl, stale_for): (Ttl, Duration),
    ) {
        let tick = self.tick();
        let stored = leg.context.stored.as_ref();
        let bypasses = self.calls[self.instances[leg.instance].op].bypasses;
        let mut tags = loaded.tags.clone();
        let one = &mut self.instances[leg.instance];
        one.ended = Some(tick);
        match loaded.answer {
            larder::Answer::NotModified => {
                one.origin = Origin::Revalidation;
                one.absent = stored.is_some_and(larder::Entry::is_absent);
                let body = stored.map(|stored| stored.value().to_vec()).unwrap_or_default();
                one.body = String::from_utf8(body).unwrap();
                tags.extend(stored.iter().flat_map(|stored| stored.tags().iter().cloned()));
            }
            larder::Answer::Absent => one.absent = true,
            larder::Answer::Value(ref value) => {
                one.body = String::from_utf8(value.to_vec()).unwrap();
            }
        }
        tags.sort_unstable();
        tags.dedup();
        one.tags = tags;
        // The next task may hear of it only after the clocks have moved.
        one.loaded_at = (now, Timestamp::NEVER);
        self.just_ended.push(leg.instance);
        (one.ttl, one.stale_for) = (ttl, stale_for);
        one.own_lifetime = loaded.ttl.is_some();
        let zero = matches!(ttl, Ttl::For(ttl) if ttl.as_millis() == 0);
        one.storable = loaded.store && !zero && !bypasses;
        one.forgets = loaded.store && zero && !bypasses;
        let one = one.to_string();
        self.say(format!("    load {} brings {one}", leg.instance));
    }

    fn check_load(&mut self, call: usize, context: &LoadContext, now: Timestamp) {
        let key = &context.key;
        let caller = self.calls[call].clone();
        if !caller.loads || !caller.keys.contains(key) {
            self.broken("loads only what is to be loaded", format!("{key} by {}", caller.name));
        }
        if let Some(stored) = &context.stored {
            if stored.freshness(now) == Freshness::Dead {
                // It may have died on the way; a loader that revalidates it makes it new.
                self.say("    what is stored has died");
            }
            match self.identify(key, stored) {
                Err(problem) => self.broken("a loader gets what is stored", problem),
                Ok(id) => {
                    let one = self.instances[id].clone();
                    if let Some(change) = self.barred(&one, caller.began, true) {
                        let text = format!("{key} with {id}, though {change:?}");
                        self.broken("a loader gets nothing that was invalidated", text);
                    }
                }
            }
        }
        self.check_single_flight(call, key, now);
    }

    /// Of all who ask for a key at a time one loads, unless something made its load worth less.
    fn check_single_flight(&mut self, call: usize, key: &Key, now: Timestamp) {
        let disturbs = |what: &Option<What>| what.as_ref().is_some_and(|what| what.may_cover(key));
        let mine = &self.calls[call];
        if mine.bypasses || disturbs(&mine.disturbs) || self.is_versioned(key.source()) {
            return;
        }
        let mut armed = 0;
        let mut second = None;
        for (id, one) in self.instances.iter().enumerate() {
            if !one.is_load() {
                continue;
            }
            let theirs = &self.calls[one.op];
            if theirs.bypasses
                || one.ended.is_some()
                || one.key != *key
                || disturbs(&theirs.disturbs)
            {
                continue;
            }
            armed += 1;
            let since = mine.began.min(theirs.began);
            let disturbed = self.calls.iter().any(|other| {
                disturbs(&other.disturbs) && other.ended.is_none_or(|ended| ended > since)
            });
            // One that something newer has overtaken need not be waited for.
            let overtaken = self.instances.iter().any(|other| {
                other.key == *key && other.stamped.0 > one.stamped.0 && other.ended.is_some()
            });
            // Its time began when the task was made in which it runs.
            let took = now.saturating_since(one.loaded_at.0) + MOMENT;
            let given_up = one.hard_timeout.is_some_and(|hard| took >= hard);
            if !disturbed && !given_up && !overtaken {
                second = Some(id);
            }
        }
        self.counts.armed.single_flight += armed;
        if let Some(id) = second {
            self.broken("one load at a time", format!("{key}: load {id} is still under way"));
        }
    }
}
