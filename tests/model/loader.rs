//! Loads: what they bring is new each time, when they end is up to the dice, or to a later step.

use std::{pin::Pin, sync::Arc, time::Duration};

use larder::{
    Key, LoadContext, Loaded, OriginError, OriginErrorKind as Kind, Policy, Timestamp, Ttl,
};
use tokio::sync::oneshot;

use tier_testkit::Dice;

use crate::{
    model::{How, Model},
    world::{World, rounds},
};

/// What the loader of several keys answers.
type Answers = Vec<(Key, Result<Loaded, OriginError>)>;

pub(crate) type Answer<T> = Pin<Box<dyn Future<Output = Result<T, OriginError>> + Send>>;

/// The loader of one call.
pub(crate) struct Loader {
    pub(crate) world: Arc<World>,
    pub(crate) call: usize,
    pub(crate) dice: Dice,
}

/// How long a load takes.
#[derive(Clone, Copy, Debug)]
enum Pace {
    AtOnce,
    Rounds,
    /// Until a step lets it go on.
    Gated,
    Sleeps,
}

/// What a load brings.
#[derive(Clone, Copy, Debug)]
enum Brings {
    Value,
    Same,
    Absent,
    Fails(Kind),
    AsksToWait,
    Panics,
    /// Of several keys, this one is not answered.
    Nothing,
}

/// One key of a load.
pub(crate) struct Leg {
    pub(crate) context: LoadContext,
    pub(crate) instance: usize,
    brings: Brings,
}

impl Loader {
    pub(crate) fn one(self) -> impl FnOnce(LoadContext) -> Answer<Loaded> + Send + 'static {
        move |context| {
            let key = context.key.clone();
            let answers = self.load(vec![context]);
            Box::pin(async move {
                let mut answers = answers.await?;
                answers.pop().map_or_else(|| Err(left_out(&key)), |(_, answer)| answer)
            })
        }
    }

    pub(crate) fn many(self) -> impl FnOnce(Vec<LoadContext>) -> Answer<Answers> + Send + 'static {
        move |contexts| self.load(contexts)
    }

    fn load(mut self, contexts: Vec<LoadContext>) -> Answer<Answers> {
        let several = contexts.len() > 1;
        let pace = self.dice.weighed(&[
            (4, Pace::AtOnce),
            (3, Pace::Rounds),
            (5, Pace::Gated),
            (2, Pace::Sleeps),
        ]);
        let mut legs = Vec::new();
        for context in contexts {
            let instance = self.world.begin_load(self.call, &context);
            let brings = brings(&mut self.dice, several);
            legs.push(Leg { context, instance, brings });
        }
        let panics = legs.iter().any(|leg| matches!(leg.brings, Brings::Panics));
        if panics && self.dice.percent(50) {
            self.panics(&legs);
        }
        let instances = legs.iter().map(|leg| leg.instance).collect();
        let under_way = UnderWay { world: Arc::clone(&self.world), instances };
        Box::pin(async move {
            let _under_way = under_way;
            match pace {
                Pace::AtOnce => {}
                Pace::Rounds => rounds(1 + self.dice.below(12)).await,
                Pace::Gated => self.gate().await,
                Pace::Sleeps => {
                    tokio::time::sleep(self.dice.millis(&[200, 900, 2_500, 7_000])).await;
                }
            }
            if panics {
                self.panics(&legs);
            }
            if several && self.dice.percent(8) {
                return Err(self.fails_whole(&legs));
            }
            Ok(legs.iter().filter_map(|leg| self.answer(leg)).collect())
        })
    }

    async fn gate(&self) {
        let (open, opened) = oneshot::channel::<()>();
        self.world.gates.lock().unwrap().push(open);
        // Either way it goes on.
        drop(opened.await);
    }

    fn panics(&self, legs: &[Leg]) -> ! {
        {
            let mut model = self.world.model();
            for leg in legs {
                model.load_failed(leg, How::Panic, "planned");
            }
        }
        panic!("planned");
    }

    fn fails_whole(&self, legs: &[Leg]) -> OriginError {
        let mut model = self.world.model();
        let mark = format!("#{}.", legs[0].instance);
        for leg in legs {
            model.load_failed(leg, How::Error, &mark);
        }
        OriginError::new(Kind::Network, "all", format!("fails, {mark}"))
    }

    fn answer(&mut self, leg: &Leg) -> Option<(Key, Result<Loaded, OriginError>)> {
        let key = leg.context.key.clone();
        let now = self.world.now();
        let world = Arc::clone(&self.world);
        let mut model = world.model();
        let mark = format!("#{}.", leg.instance);
        let (kind, how) = match leg.brings {
            Brings::Nothing => {
                model.load_failed(leg, How::LeftOut, "no answer");
                return None;
            }
            Brings::Panics => unreachable!("it has"),
            Brings::Same if leg.context.stored.is_none() => {
                model.load_failed(leg, How::NothingToRevalidate, "nothing is stored");
                return Some((key, Ok(Loaded::not_modified())));
            }
            Brings::Value | Brings::Same | Brings::Absent => {
                let answer = self.value(&mut model, leg, now);
                return Some((key, Ok(answer)));
            }
            Brings::Fails(kind) => (kind, How::Error),
            Brings::AsksToWait => (Kind::Status(503), How::AskedToWait),
        };
        // "Not found" is stored where absence is.
        let negative = leg.context.policy.negative_ttl;
        let bypasses = model.calls[self.call].bypasses;
        if matches!(kind, Kind::Status(404 | 410)) && !negative.is_zero() && !bypasses {
            let limits = (Ttl::For(negative), stale_for(&leg.context.policy));
            model.load_ended(leg, now, &Loaded::absent(), limits);
        } else {
            model.load_failed(leg, how, &mark);
        }
        let wait = (how == How::AskedToWait).then(|| self.dice.millis(&[500, 2_000]));
        let error = OriginError::new(kind, key.source(), format!("fails, {mark}"));
        Some((key, Err(error.with_retry_after(wait))))
    }

    fn value(&mut self, model: &mut Model, leg: &Leg, now: Timestamp) -> Loaded {
        let context = &leg.context;
        let policy = &context.policy;
        let mut loaded = match leg.brings {
            Brings::Same => context.not_modified(),
            Brings::Absent => Loaded::absent(),
            _ => Loaded::new(format!("{}={}", context.key, leg.instance)),
        };
        // The mark by which it is known again.
        loaded.content_type = Some(leg.instance.to_string());
        for tag in &self.world.plan.tags {
            if self.dice.percent(35) {
                loaded = loaded.tag(tag.clone());
            }
        }
        if self.dice.percent(12) {
            loaded = loaded.ttl(self.dice.millis(&[0, 500, 3_000, 20_000]));
        }
        if self.dice.percent(8) {
            loaded = loaded.stale_for(self.dice.millis(&[0, 1_000, 8_000]));
        }
        if self.dice.percent(6) {
            loaded = loaded.do_not_store();
        }
        if self.dice.percent(5) {
            let source = context.key.source();
            let known = self.world.cache.source_version(source);
            let known = known.filter(|_| self.dice.percent(50)).map(|version| version.to_string());
            loaded = loaded.version(known.unwrap_or_else(|| format!("v{}", leg.instance)));
            model.versioned.push(source.to_owned());
        }
        let absent = match leg.brings {
            Brings::Same => context.stored.as_ref().is_some_and(larder::Entry::is_absent),
            Brings::Absent => true,
            _ => false,
        };
        let own = if absent { Ttl::For(policy.negative_ttl) } else { policy.ttl };
        let limits =
            (loaded.ttl.unwrap_or(own), loaded.stale_for.unwrap_or_else(|| stale_for(policy)));
        model.load_ended(leg, now, &loaded, limits);
        loaded
    }
}

fn brings(dice: &mut Dice, several: bool) -> Brings {
    let nothing = usize::from(several);
    dice.weighed(&[
        (60, Brings::Value),
        (14, Brings::Same),
        (5, Brings::Absent),
        (8, Brings::Fails(Kind::Network)),
        (3, Brings::Fails(Kind::Status(404))),
        (2, Brings::Fails(Kind::Status(500))),
        (1, Brings::Fails(Kind::Other)),
        (2, Brings::Fails(Kind::GaveUp)),
        (1, Brings::AsksToWait),
        (3, Brings::Panics),
        (2 * nothing, Brings::Nothing),
    ])
}

fn left_out(key: &Key) -> OriginError {
    OriginError::new(Kind::Other, key.source(), "no answer")
}

/// How long a policy keeps what is stale.
pub(crate) fn stale_for(policy: &Policy) -> Duration {
    policy.stale_while_revalidate.max(policy.stale_if_error)
}

/// Notes a load that was dropped before it ended.
struct UnderWay {
    world: Arc<World>,
    instances: Vec<usize>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut model = self.world.model();
        for id in &self.instances {
            model.load_dropped(*id);
        }
    }
}
