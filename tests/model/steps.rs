//! The steps of a history: each has dice of its own, so that leaving one out changes no other.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use larder::{ErrorKind, Key, PolicyPatch, ReadMode, ReadOptions, SetOptions};
use tier_testkit::{Call, Dice, Fault, Faults};
use tokio::task::JoinHandle;

use crate::{
    model::What,
    ops::Op,
    plan::Weather,
    world::{World, rounds},
};

/// Plays one history.
pub(crate) struct Player {
    world: Arc<World>,
    calls: Vec<(usize, JoinHandle<()>)>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Peek,
    Get,
    GetOtherwise,
    Load,
    LoadOtherwise,
    Set,
    SetMany,
    Forget,
    Expire,
    Version,
    ClearExpired,
    Advance,
    OpenGate,
    Drop,
    Weather,
    Settle,
}

const STEPS: [(usize, Step); 16] = [
    (3, Step::Peek),
    (12, Step::Get),
    (8, Step::GetOtherwise),
    (20, Step::Load),
    (10, Step::LoadOtherwise),
    (8, Step::Set),
    (3, Step::SetMany),
    (9, Step::Forget),
    (4, Step::Expire),
    (1, Step::Version),
    (2, Step::ClearExpired),
    (14, Step::Advance),
    (10, Step::OpenGate),
    (2, Step::Drop),
    (9, Step::Weather),
    (4, Step::Settle),
];

impl Player {
    pub(crate) fn new(world: Arc<World>) -> Self {
        Self { world, calls: Vec::new() }
    }

    /// Plays all steps but those left out, until a rule is broken.
    pub(crate) async fn play(&mut self, without: &BTreeSet<usize>) {
        let plan = self.world.plan.clone();
        for at in 0..3 {
            self.weather(at, &mut Dice::stream(plan.seed, 2 + at as u64), true);
        }
        for step in (0..plan.steps).filter(|step| !without.contains(step)) {
            let mut dice = Dice::stream(plan.seed, 1_000 + step as u64);
            self.world.model().step = step;
            self.step(&mut dice).await;
            if self.world.model().violation.is_some() {
                return;
            }
        }
    }

    async fn step(&mut self, dice: &mut Dice) {
        match dice.weighed(&STEPS) {
            Step::Advance => {
                let by = dice
                    .millis(&[1, 40, 300, 700, 700, 1_000, 2_100, 2_100, 4_500, 11_000, 61_000]);
                self.world.model().say(format!("advance {by:?}"));
                self.world.advance(by).await;
            }
            Step::OpenGate => {
                let opened = self.world.open_gate(dice);
                self.world.model().say(format!("open a gate: {opened}"));
            }
            Step::Drop if self.world.plan.cancels => self.drop_one(dice),
            Step::Drop => {}
            Step::Weather => {
                let at = dice.below(3);
                self.weather(at, dice, false);
            }
            Step::Settle => rounds(150).await,
            call => {
                let op = self.op(call, dice);
                self.spawn(op);
            }
        }
        // Often the next step comes while this one is under way; often enough it does not.
        if dice.percent(55) {
            rounds(*dice.pick(&[0, 1, 2, 3, 4, 6, 9, 14])).await;
        } else {
            rounds(60).await;
        }
    }

    pub(crate) fn spawn(&mut self, op: Op) {
        let id = self.world.announce(&op);
        let world = Arc::clone(&self.world);
        self.calls.push((id, tokio::spawn(async move { world.call(id, op).await })));
    }

    /// Drops a call that is under way.
    fn drop_one(&mut self, dice: &mut Dice) {
        let mut model = self.world.model();
        self.calls.retain(|(id, _)| model.calls[*id].ended.is_none());
        if self.calls.is_empty() {
            return;
        }
        let at = dice.below(self.calls.len());
        let (id, task) = self.calls.swap_remove(at);
        model.say(format!("drop call {id}"));
        let tick = model.tick();
        let call = &mut model.calls[id];
        // What it does goes on, for who knows how long.
        (call.dropped, call.ended) = (true, Some(tick));
        model.counts.dropped += model.calls[id].keys.len() as u64;
        drop(model);
        task.abort();
    }

    fn op(&self, step: Step, dice: &mut Dice) -> Op {
        let plan = &self.world.plan;
        let key = |dice: &mut Dice| dice.pick(&plan.keys).clone();
        match step {
            Step::Peek => Op::Peek(key(dice)),
            Step::Get => Op::Get(self.keys(dice, 25), None),
            Step::GetOtherwise => {
                let keys = self.keys(dice, 30);
                Op::Get(keys, Some(self.options(dice)))
            }
            Step::Load => Op::Load(self.keys(dice, 20), None, Dice::new(dice.throw())),
            Step::LoadOtherwise => {
                let keys = self.keys(dice, 25);
                let options = self.options(dice);
                Op::Load(keys, Some(options), Dice::new(dice.throw()))
            }
            Step::Set => Op::Set(vec![(key(dice), self.set_options(dice))]),
            Step::SetMany => {
                let mut keys = self.keys(dice, 100);
                keys.sort_unstable();
                keys.dedup();
                Op::Set(keys.into_iter().map(|key| (key, self.set_options(dice))).collect())
            }
            Step::Forget => Op::Forget(self.what(dice)),
            Step::Expire => match self.what(dice) {
                What::Keys(mut keys) => {
                    keys.truncate(1);
                    Op::Expire(What::Keys(keys))
                }
                what => Op::Expire(what),
            },
            Step::Version => {
                let source = key(dice).source().to_owned();
                Op::Version(source, format!("w{}", dice.below(1_000_000)))
            }
            _ => Op::ClearExpired,
        }
    }

    /// One key or, in `percent` of 100 cases, several.
    fn keys(&self, dice: &mut Dice, percent: usize) -> Vec<Key> {
        let several = if dice.percent(percent) { 2 + dice.below(3) } else { 1 };
        (0..several).map(|_| dice.pick(&self.world.plan.keys).clone()).collect()
    }

    fn options(&self, dice: &mut Dice) -> ReadOptions {
        let mut options = match dice.below(12) {
            0..=2 => ReadOptions::refresh(),
            3..=4 => ReadOptions::cached_only(),
            5 => ReadOptions::bypass(),
            6 => ReadOptions::purge_expired(),
            _ => ReadOptions::default(),
        };
        if dice.percent(35) {
            options = options.allow_stale();
        }
        if dice.percent(20) && options.mode != ReadMode::Bypass {
            options = options.skip(*dice.pick(&self.world.plan.names()));
        }
        if dice.percent(12) {
            let patch = PolicyPatch::default();
            options = options.policy(match dice.below(3) {
                0 => patch.ttl(dice.millis(&[200, 1_500])),
                1 => patch.stale_if_error(dice.millis(&[0, 15_000])),
                _ => patch.stale_while_revalidate(dice.millis(&[0, 15_000])),
            });
        }
        options
    }

    fn set_options(&self, dice: &mut Dice) -> SetOptions {
        let mut options = SetOptions::default();
        if dice.percent(20) {
            options = SetOptions::ttl(dice.millis(&[0, 500, 3_000, 20_000]));
        }
        if dice.percent(12) {
            options = options.stale_for(dice.millis(&[0, 1_000, 8_000]));
        }
        for tag in &self.world.plan.tags {
            if dice.percent(35) {
                options = options.tag(tag.clone());
            }
        }
        if dice.percent(4) {
            options = options.version("set");
        }
        options
    }

    fn what(&self, dice: &mut Dice) -> What {
        let plan = &self.world.plan;
        let key = dice.pick(&plan.keys).clone();
        let tag = dice.pick(&plan.tags).clone();
        let below = key.as_str().rsplit_once(':').map_or("s0", |(below, _)| below).to_owned();
        match dice.below(20) {
            0..=8 => What::Keys(vec![key]),
            9..=10 => What::Keys(self.keys(dice, 100)),
            11..=13 => What::Tag(tag),
            14..=15 => What::Below(key.source().to_owned()),
            16 => What::Below(below),
            17..=18 => What::BelowWithTag(key.source().to_owned(), tag),
            _ => What::All,
        }
    }

    /// Sets the faults of a tier.
    fn weather(&self, at: usize, dice: &mut Dice, first: bool) {
        let Some(chaos) = self.world.chaos(at) else { return };
        let delays = *dice.pick(&[0.0, 0.3, 0.8]);
        let fair = Faults::none().everywhere(Fault::Delay, delays).delay_yields(12);
        let weather = self.world.plan.weather;
        let kind = if first || weather == Weather::Calm { 0 } else { 1 + dice.below(7) };
        let says = match (kind, weather) {
            (0, _) => {
                chaos.set(fair);
                return;
            }
            (1..=2, _) => {
                chaos.heal();
                chaos.set(fair);
                "heals".to_owned()
            }
            (3, _) => {
                chaos.down(true);
                "goes down".to_owned()
            }
            (4, Weather::Outages) => {
                chaos.set(fair.everywhere(Fault::Hang, 0.5));
                "hangs".to_owned()
            }
            (_, Weather::Outages) => {
                let often = *dice.pick(&[0.2, 0.6, 1.0]);
                chaos.set(fair.everywhere(Fault::Error, often));
                format!("fails {often}")
            }
            (4..=5, _) => {
                let call = *dice.pick(&[Call::Get, Call::Put, Call::Bar, Call::Bar, Call::Put]);
                let mut fits = Fault::ALL.to_vec();
                fits.retain(|fault| fault.applies_to(call));
                let fault = *dice.pick(&fits);
                let times = 1 + dice.below(3);
                (0..times).for_each(|_| chaos.next(call, fault));
                format!("meets {times} times {fault:?} of the next {call:?}")
            }
            _ => {
                let mut faults = fair.error_kind(*dice.pick(&[
                    ErrorKind::Unavailable,
                    ErrorKind::Timeout,
                    ErrorKind::Corrupt,
                    ErrorKind::Refused,
                    ErrorKind::Refused,
                    ErrorKind::Internal,
                ]));
                for fault in Fault::ALL {
                    for call in Call::ALL {
                        if fault != Fault::Delay && fault.applies_to(call) && dice.percent(20) {
                            faults = faults.on(call, fault, *dice.pick(&[0.2, 0.5, 1.0]));
                        }
                    }
                }
                chaos.set(faults);
                "has it all".to_owned()
            }
        };
        let name = self.world.plan.names()[at];
        self.world.model().say(format!("{name} {says}"));
    }

    /// Heals everything, and waits until every call has returned.
    pub(crate) async fn settle(&mut self) {
        for at in 0..3 {
            if let Some(chaos) = self.world.chaos(at) {
                chaos.heal();
                chaos.settle().await;
            }
        }
        let mut dice = Dice::new(self.world.plan.seed);
        for _ in 0..1_500 {
            while self.world.open_gate(&mut dice) {
                rounds(10).await;
            }
            rounds(40).await;
            if !self.world.model().is_busy() || self.world.model().violation.is_some() {
                return;
            }
            self.world.advance(Duration::from_millis(250)).await;
        }
        let mut model = self.world.model();
        let left: Vec<String> = model
            .calls
            .iter()
            .enumerate()
            .filter(|(_, call)| call.ended.is_none())
            .map(|(id, call)| format!("call {id}, {}", call.name))
            .collect();
        model.broken("every call returns", left.join("; "));
    }
}
