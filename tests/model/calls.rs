//! Calls of the cache, each in a task of its own, checked when they return.

use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use larder::{
    Error, Filter, Hit, Key, PutOutcome, PutReport, Removed, Selector, ServedBy, SetOptions,
    SetOutcome, Timestamp, Ttl,
};

use crate::{
    checks::{Asked, OfKey},
    loader::{Loader, stale_for},
    model::{Change, Instance, Known, Model, Origin, Since, What, show},
    ops::Op,
    plan::First,
    world::World,
};

impl World {
    /// Notes a call that is to begin.
    pub(crate) fn announce(&self, op: &Op) -> usize {
        let options = op.options();
        let call = op.call(|key| self.plan.policy(key.source()).patched(&options.policy));
        let mut model = self.model();
        let id = model.calls.len();
        model.say(format!("call {id}: {}", call.name));
        model.calls.push(call);
        id
    }

    /// Makes the call, and checks what comes of it.
    pub(crate) async fn call(self: Arc<Self>, id: usize, op: Op) {
        let began = {
            let now = self.now();
            let mut model = self.model();
            let began = model.tick();
            (model.calls[id].began, model.calls[id].at) = (began, now);
            began
        };
        match op {
            Op::Set(values) => self.set(id, values).await,
            Op::Forget(what) => self.change(id, what, true).await,
            Op::Expire(what) => self.change(id, what, false).await,
            Op::Version(source, version) => {
                self.model().versioned.push(source.clone());
                let done = self.cache.set_source_version(&source, &version).await;
                self.changed(id, None, done).await;
            }
            Op::ClearExpired => {
                let done = self.cache.clear_expired().await;
                self.changed(id, None, done).await;
            }
            read => self.read(id, began, read).await,
        }
    }

    /// Notes that a call has returned.
    fn end(&self, id: usize) -> MutexGuard<'_, Model> {
        let now = self.now();
        let mut model = self.model();
        let tick = model.tick();
        let call = &mut model.calls[id];
        call.ended = Some(tick);
        let took = now.saturating_since(call.at);
        if call.limit.is_some_and(|limit| took > limit) {
            let text = format!("call {id}, {}, took {took:?}", call.name);
            model.broken("nothing takes longer than it may", text);
        }
        model.say(format!("    call {id} returns at {}", Since(now)));
        model
    }

    /// A change has returned.
    async fn changed(&self, id: usize, place: Option<usize>, done: Result<Removed, Error>) {
        let finish = move |world: &Self| {
            let mut model = world.end(id);
            if let Err(error) = done {
                model.broken("a change works", error.to_string());
            }
            if let Some(place) = place {
                model.changes[place].returned = model.calls[id].ended;
            }
        };
        self.finish(id, Box::new(finish)).await;
    }

    async fn change(&self, id: usize, what: What, forget: bool) {
        let place = {
            let mut model = self.model();
            let began = model.calls[id].began;
            model.changes.push(Change { what: what.clone(), forget, began, returned: None });
            model.changes.len() - 1
        };
        let cache = &self.cache;
        let done = match (&what, forget) {
            (What::Keys(keys), true) if keys.len() != 1 => cache.invalidate_many(keys).await,
            (What::Keys(keys), true) => cache.invalidate(&keys[0]).await,
            (What::Tag(tag), true) if id.is_multiple_of(2) => cache.invalidate_tag(tag).await,
            (What::Tag(tag), true) => cache.purge(&Filter::tag(tag.clone())).await,
            (What::Below(name), true) if !name.contains(':') && id.is_multiple_of(2) => {
                cache.invalidate_source(name).await
            }
            (What::Below(prefix), true) if id.is_multiple_of(3) => {
                cache.invalidate(Selector::prefix(prefix)).await
            }
            (What::Below(prefix), true) => cache.purge(&Filter::prefix(prefix)).await,
            (What::BelowWithTag(prefix, tag), true) => {
                cache.purge(&Filter::prefix(prefix).and_tag(tag.clone())).await
            }
            (What::All, true) => cache.clear().await,
            (What::Keys(keys), false) => cache.expire(&keys[0]).await,
            (What::Tag(tag), false) => cache.expire(tag).await,
            (What::Below(prefix), false) => cache.expire(Selector::prefix(prefix)).await,
            (What::BelowWithTag(prefix, tag), false) => {
                cache.expire(&Filter::prefix(prefix).and_tag(tag.clone())).await
            }
            (What::All, false) => cache.expire(Selector::All).await,
        };
        self.changed(id, Some(place), done).await;
    }

    async fn set(&self, id: usize, values: Vec<(Key, SetOptions)>) {
        let (instances, entries) = self.make(id, values);
        let keys: Vec<Key> = entries.iter().map(|(key, ..)| key.clone()).collect();
        let several = entries.len() > 1;
        let outcomes = if several {
            self.cache.set_many(entries).await
        } else {
            let (key, value, options) = entries.into_iter().next().unwrap();
            Ok(vec![self.cache.set(&key, value, options).await])
        };
        let finish = move |world: &Self| {
            world.note_set(id, &instances);
            match outcomes {
                Ok(outcomes) => {
                    for ((instance, key), outcome) in instances.into_iter().zip(keys).zip(outcomes)
                    {
                        world.check_set(instance, &key, outcome);
                    }
                }
                Err(error) => world.model().broken("a set works", error.to_string()),
            }
        };
        self.finish(id, Box::new(finish)).await;
    }

    /// A set has returned.
    fn note_set(&self, id: usize, instances: &[usize]) {
        let now = self.now();
        let mut model = self.end(id);
        let (began, ended) = (model.calls[id].began, model.calls[id].ended);
        // A lifetime of zero forgets.
        for change in model.changes.iter_mut().filter(|change| change.began == began) {
            change.returned = ended;
        }
        for instance in instances {
            let one = &mut model.instances[*instance];
            one.ended = ended;
            one.stamped.1 = ended.unwrap();
            one.loaded_at.1 = one.loaded_at.1.min(now);
        }
    }

    fn check_set(&self, instance: usize, key: &Key, outcome: Result<SetOutcome, Error>) {
        match outcome {
            Ok(outcome) => self.check_stored(instance, &outcome),
            Err(Error::NotStored { .. }) if self.plan.required && !self.is_calm() => {}
            Err(error) => self.model().broken("a set works", format!("{key}: {error}")),
        }
        self.note_known(instance);
    }

    /// Notes the values that are to be set.
    fn make(
        &self,
        call: usize,
        values: Vec<(Key, SetOptions)>,
    ) -> (Vec<usize>, Vec<(Key, Bytes, SetOptions)>) {
        let now = self.now();
        let mut model = self.model();
        let began = model.calls[call].began;
        let (mut instances, mut entries) = (Vec::new(), Vec::new());
        for (key, mut options) in values {
            let id = model.instances.len();
            let body = format!("{key}={id}");
            let policy = self.plan.policy(key.source());
            let ttl = options.ttl.unwrap_or(policy.ttl);
            let zero = matches!(ttl, Ttl::For(ttl) if ttl.as_millis() == 0);
            if zero {
                let what = What::Keys(vec![key.clone()]);
                model.changes.push(Change { what, forget: true, began, returned: None });
            }
            let mut tags = options.tags.clone();
            tags.sort_unstable();
            tags.dedup();
            model.instances.push(Instance {
                key: key.clone(),
                origin: Origin::Set,
                op: call,
                body: body.clone(),
                absent: false,
                tags,
                stamped: (began, u64::MAX),
                as_of: None,
                ended: None,
                loaded_at: (now, Timestamp::NEVER),
                ttl,
                stale_for: options.stale_for.unwrap_or_else(|| stale_for(policy)),
                jitter: policy.jitter,
                own_lifetime: options.ttl.is_some(),
                storable: !zero,
                forgets: false,
                failed: false,
                hard_timeout: None,
                may_be_dropped: false,
            });
            options.content_type = Some(id.to_string());
            model.say(format!("    {id} of {key} is set"));
            instances.push(id);
            entries.push((key, body.into(), options));
        }
        (instances, entries)
    }

    /// Without faults, a tier that says that it has stored a value has it, or something newer.
    fn check_stored(&self, id: usize, outcome: &SetOutcome) {
        let mut model = self.model();
        let one = model.instances[id].clone();
        if !self.is_calm() || model.may_have_gone(id, None, self.now()) {
            return;
        }
        let keeps = |at: usize| at > 0 || matches!(self.plan.first, First::Memory | First::Chaos);
        let held = self.held(&one.key);
        for (at, (tier, report)) in outcome.tiers.iter().enumerate().filter(|(at, _)| keeps(*at)) {
            if !matches!(report, PutReport::Done(PutOutcome::Stored)) {
                continue;
            }
            let has = match &held[at] {
                None => false,
                Some(entry) => match model.identify(&one.key, entry) {
                    Ok(other) => other == id || model.instances[other].stamped.1 > one.stamped.0,
                    Err(problem) => {
                        model.broken("a tier holds what was stored", problem);
                        continue;
                    }
                },
            };
            if !has {
                let text =
                    format!("{id} of {}: {tier} has {:?}", one.key, held[at].as_ref().map(show));
                model.broken("what was acknowledged is stored", text);
            }
        }
    }

    /// Looks where a value is held that somebody knows of.
    fn note_known(&self, instance: usize) {
        let mut model = self.model();
        let key = model.instances[instance].key.clone();
        if !model.instances[instance].storable {
            return;
        }
        let held = self.held(&key);
        let mark = instance.to_string();
        let seen = held.iter().flatten().find(|entry| entry.content_type() == Some(&mark));
        if let Some(entry) = seen {
            model.instances[instance].as_of = Some(entry.as_of());
        }
        let Some(as_of) = model.instances[instance].as_of else { return };
        let has = |at: usize| held[at].as_ref().is_some_and(|entry| entry.as_of() >= as_of);
        let forgets = |at: usize| {
            at == 0 && matches!(self.plan.first, First::SmallMemory | First::CappedMemory)
        };
        let never_written = |at: usize| at == 2 && self.plan.read_only;
        let cannot = |at: usize| held[at].is_none() && (forgets(at) || never_written(at));
        let everywhere = (0..3).all(|at| has(at) || cannot(at)) && (0..3).any(has);
        let in_memory = self.plan.first == First::Memory && has(0);
        if everywhere || in_memory {
            let from = model.tick();
            model.known.push(Known { instance, as_of, from, everywhere, in_memory });
        }
    }

    async fn read(self: &Arc<Self>, id: usize, began: u64, op: Op) {
        let keys = op.keys();
        let options = op.options();
        let names = self.plan.names();
        let asked = Asked {
            call: id,
            began,
            at: self.now(),
            loads: matches!(op, Op::Load(..)),
            options: options.clone(),
            memory: (self.plan.first == First::Memory).then_some(names[0]),
            calm: self.is_calm(),
        };
        let versions = |key: &Key| self.cache.source_version(key.source());
        let before: Vec<_> = keys.iter().map(versions).collect();
        let peeks = matches!(op, Op::Peek(_));
        let results = self.results(id, op).await;
        let of_keys = keys.iter().zip(before).map(|(key, before)| OfKey {
            key: key.clone(),
            policy: self.plan.policy(key.source()).patched(&options.policy),
            versions: [before, versions(key)],
        });
        let answers: Vec<_> = of_keys.zip(results).collect();
        let now = self.now();
        let finish = move |world: &Self| {
            let mut got = Vec::new();
            let mut model = world.end(id);
            for (of, result) in answers {
                got.extend(world.check_answer(&mut model, &asked, &of, result, (peeks, now)));
            }
            drop(model);
            for one in got {
                world.note_known(one);
            }
        };
        self.finish(id, Box::new(finish)).await;
    }

    /// Checks and counts one answer; which value it is.
    fn check_answer(
        &self,
        model: &mut Model,
        asked: &Asked,
        of: &OfKey,
        result: Result<Option<Hit>, Error>,
        (peeks, now): (bool, Timestamp),
    ) -> Option<usize> {
        match result {
            Ok(Some(hit)) => {
                let stale = hit.stale_reason();
                let (by, entry) = (hit.served_by(), show(hit.entry()));
                model.say(format!("    of {}: {entry} by {by}, stale {stale:?}", of.key));
                self.count(model, &hit);
                let one = model.check_hit(asked, of, &hit, now)?;
                model.note_found(asked, one);
                return Some(one);
            }
            Ok(None) if peeks => {}
            Ok(None) => {
                model.say(format!("    of {}: nothing", of.key));
                model.counts.misses += 1;
                model.check_nothing(asked, of, now);
            }
            Err(error) => {
                model.say(format!("    of {}: {error}", of.key));
                model.counts.misses += 1;
                model.check_error(asked, &of.key, &error);
            }
        }
        None
    }

    async fn results(self: &Arc<Self>, id: usize, op: Op) -> Vec<Result<Option<Hit>, Error>> {
        let cache = &self.cache;
        let loader = |dice| Loader { world: Arc::clone(self), call: id, dice };
        let all =
            |result: Result<Vec<Result<Option<Hit>, Error>>, Error>, keys: &[Key]| match result {
                Ok(results) => results,
                Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
            };
        let found = |results: Result<Vec<Result<Hit, Error>>, Error>| {
            results.map(|results| results.into_iter().map(|one| one.map(Some)).collect())
        };
        match op {
            Op::Peek(key) => vec![Ok(cache.peek(&key))],
            Op::Get(keys, None) if keys.len() == 1 => vec![cache.get(&keys[0]).await],
            Op::Get(keys, Some(options)) if keys.len() == 1 => {
                vec![cache.get_with(&keys[0], options).await]
            }
            Op::Get(keys, None) => all(cache.get_many(&keys).await, &keys),
            Op::Get(keys, Some(options)) => all(cache.get_many_with(&keys, options).await, &keys),
            Op::Load(keys, None, dice) if keys.len() == 1 => {
                vec![cache.get_or_load(&keys[0], loader(dice).one()).await.map(Some)]
            }
            Op::Load(keys, Some(options), dice) if keys.len() == 1 => {
                let hit = cache.get_or_load_with(&keys[0], options, loader(dice).one()).await;
                vec![hit.map(Some)]
            }
            Op::Load(keys, None, dice) => {
                all(found(cache.get_or_load_many(&keys, loader(dice).many()).await), &keys)
            }
            Op::Load(keys, Some(options), dice) => {
                let load = loader(dice).many();
                all(found(cache.get_or_load_many_with(&keys, options, load).await), &keys)
            }
            _ => Vec::new(),
        }
    }

    fn count(&self, model: &mut Model, hit: &Hit) {
        let counts = &mut model.counts;
        match hit.served_by() {
            ServedBy::Tier(name) => {
                let at = self.plan.names().iter().position(|one| *one == name).unwrap();
                let by = if hit.is_stale() { &mut counts.stale_hits } else { &mut counts.hits };
                by[at] += 1;
            }
            _ => counts.misses += 1,
        }
    }
}
