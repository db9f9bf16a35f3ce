//! Running a plan.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt, StreamExt,
    future::{Either, select},
    stream::{self, SelectAll},
};
use larder::{Error, Hit, OriginErrorKind, ReadOptions, Request, ServedBy, Slots};

use super::{Event, Summary, TaskOutcome, Warmer, check::Need};
use crate::changes::Change;

/// How often what failed is tried again when the others are done.
const ROUNDS: u32 = 3;
/// Longest time that a source is waited for that asks to be left alone.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Tasks that are asked for by one call, by their place.
#[derive(Clone, Debug)]
struct Unit {
    tasks: Vec<usize>,
    /// Whether they are asked for although they are stored.
    renews: bool,
}

/// What one call of a unit brought.
struct Answered {
    unit: Unit,
    answers: Vec<Result<Hit, Error>>,
    changes: Vec<Change>,
    elapsed: Duration,
}

/// What may help against a failure.
enum Remedy {
    /// To try again, after this time at least.
    Again(Duration),
    /// To wait for longer than a run does; until then the source is not asked.
    Later,
    Nothing,
}

/// What the units of a run share.
struct Course<'w> {
    warmer: &'w Warmer,
    slots: &'w Slots,
    /// Sources that are to be left alone, and why.
    left: Mutex<BTreeMap<String, Error>>,
}

impl Warmer {
    pub(super) async fn run_within(
        self,
        slots: &Slots,
        mut observe: impl FnMut(&Event),
        stop: impl Future<Output = ()>,
    ) -> Summary {
        let began = Instant::now();
        let mut summary = Summary::planned(&self.tasks);
        let course = Course { warmer: &self, slots, left: Mutex::default() };
        let mut stop = pin!(stop.fuse());
        let (mut missing, mut renewed) = (Vec::new(), Vec::new());
        for (place, need) in self.needs().await.into_iter().enumerate() {
            let (outcome, bytes, elapsed) = match need {
                Need::Missing => {
                    missing.push(place);
                    continue;
                }
                Need::Renew => {
                    renewed.push(place);
                    continue;
                }
                Need::Fresh { bytes, elapsed } => (TaskOutcome::Fresh, bytes, elapsed),
                Need::Impossible(error) => (TaskOutcome::Failed(error), 0, Duration::ZERO),
            };
            let event = course.event(place, outcome, bytes, elapsed);
            summary.note(&event);
            observe(&event);
        }
        if self.fail_fast && !summary.failed.is_empty() {
            slots.close();
        }
        let mut units = course.units(&missing, false);
        units.extend(course.units(&renewed, true));
        let (mut pause, mut changes) = (self.retry_after, Vec::new());
        for round in 0..=ROUNDS {
            let mut note = |event: Event| {
                summary.note(&event);
                observe(&event);
            };
            let again = course.pass(units, round == ROUNDS, &mut note, stop.as_mut()).await;
            for (source, calls) in again.calls {
                summary.of(&source).calls += calls;
            }
            for change in &again.changes {
                summary.of(&change.source).changed += 1;
            }
            changes.extend(again.changes.into_iter().filter(|change| change.critical));
            units = again.units;
            if units.is_empty() {
                break;
            }
            let rest = tokio::time::sleep(pause.max(again.pause));
            if !slots.is_closed()
                && let Either::Left(_) = select(stop.as_mut(), pin!(rest)).await
            {
                slots.close();
            }
            pause = pause.saturating_mul(3);
        }
        if let Some(watch) = &self.watch {
            watch.tell(&changes).await;
        }
        summary.elapsed = began.elapsed();
        summary
    }
}

/// What a pass leaves to do.
#[derive(Default)]
struct Again {
    units: Vec<Unit>,
    /// How long those who are to be asked again want to be left alone.
    pause: Duration,
    /// Calls made, by source.
    calls: BTreeMap<String, usize>,
    /// What was found to have changed.
    changes: Vec<Change>,
}

impl Course<'_> {
    fn event(&self, place: usize, outcome: TaskOutcome, bytes: u64, elapsed: Duration) -> Event {
        Event { task: Arc::clone(&self.warmer.tasks[place]), outcome, bytes, elapsed }
    }

    /// Tasks as their sources are best asked.
    fn units(&self, places: &[usize], renews: bool) -> Vec<Unit> {
        let asked = places.iter().filter_map(|place| {
            Some((*place, self.warmer.tasks[*place].request.as_ref().ok()?.clone()))
        });
        let (places, requests): (Vec<usize>, Vec<Request>) = asked.unzip();
        let unit = |batch: Vec<usize>| {
            let tasks = batch.into_iter().filter_map(|at| places.get(at).copied()).collect();
            Unit { tasks, renews }
        };
        self.warmer.cache.batches(&requests).into_iter().map(unit).collect()
    }

    /// Asks for units, the sources side by side. What fails in a way that may pass is left to do, unless
    /// this is the last time.
    async fn pass(
        &self,
        units: Vec<Unit>,
        is_last: bool,
        note: &mut impl FnMut(Event),
        mut stop: std::pin::Pin<&mut impl Future<Output = ()>>,
    ) -> Again {
        let mut by_source: BTreeMap<&str, Vec<Unit>> = BTreeMap::new();
        for unit in units {
            let Some(task) = unit.tasks.first().map(|place| &self.warmer.tasks[*place]) else {
                continue;
            };
            by_source.entry(&task.source).or_default().push(unit);
        }
        let mut answers: SelectAll<_> = by_source
            .into_values()
            .map(|units| {
                // Slots bound the calls under way; of those that wait there are few in any case.
                let calls = stream::iter(units).map(|unit| self.call(unit));
                Box::pin(calls.buffer_unordered(self.warmer.parallel))
            })
            .collect();
        let (mut again, mut failed) = (Again::default(), Vec::new());
        loop {
            // Watched beside the answers, not between them: whoever asks to stop sees it at once.
            let next = match select(stop.as_mut(), answers.next()).await {
                Either::Left(((), _)) => {
                    self.slots.close();
                    // It has completed, and is not looked at again.
                    answers.next().await
                }
                Either::Right((next, _)) => next,
            };
            let Some(Answered { unit, answers, changes, elapsed }) = next else { break };
            again.changes.extend(changes);
            let came = |answer: &Result<Hit, Error>| match answer {
                Ok(hit) => hit.served_by() == ServedBy::Origin || hit.failure().is_some(),
                Err(error) => was_asked(error),
            };
            if answers.iter().any(came) {
                let source = self.warmer.tasks[unit.tasks[0]].source.clone();
                *again.calls.entry(source).or_default() += 1;
            }
            for (place, answer) in unit.tasks.iter().zip(answers) {
                let bytes = answer.as_ref().map_or(0, |hit| hit.value().len() as u64);
                let outcome = self.outcome(*place, answer, is_last);
                if let TaskOutcome::Retrying(error) = &outcome {
                    failed.push((*place, unit.renews));
                    if let Remedy::Again(pause) = remedy(error) {
                        again.pause = again.pause.max(pause);
                    }
                }
                note(self.event(*place, outcome, bytes, elapsed));
            }
        }
        for renews in [false, true] {
            let places: Vec<usize> =
                failed.iter().filter(|one| one.1 == renews).map(|one| one.0).collect();
            again.units.extend(self.units(&places, renews));
        }
        again
    }

    /// Asks for one unit, unless its source is to be left alone.
    async fn call(&self, unit: Unit) -> Answered {
        let began = Instant::now();
        let tasks = unit.tasks.iter().map(|place| &self.warmer.tasks[*place]);
        let requests: Vec<Request> =
            tasks.clone().filter_map(|task| task.request.as_ref().ok().cloned()).collect();
        let source = tasks.map(|task| task.source.as_str()).next().unwrap_or_default();
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned();
        let mut old = Vec::new();
        let answers: Vec<Result<Hit, Error>> = if let Some(error) = left {
            requests.iter().map(|_| Err(error.clone())).collect()
        } else {
            let options = if unit.renews { ReadOptions::refresh() } else { ReadOptions::default() };
            let options = options.in_background().within(self.slots);
            old = self.stored(&requests).await;
            match self.warmer.cache.request_many_with(&requests, options).await {
                Ok(answers) => answers,
                Err(error) => requests.iter().map(|_| Err(error.clone())).collect(),
            }
        };
        let elapsed = began.elapsed();
        let changes = self.changes(&unit, &old, &answers).await;
        Answered { unit, answers, changes, elapsed }
    }

    /// What is stored of requests, however stale, if changes are watched.
    async fn stored(&self, requests: &[Request]) -> Vec<Option<Hit>> {
        if self.warmer.watch.is_none() {
            return Vec::new();
        }
        let options = ReadOptions::cached_only().allow_stale();
        let stored = self.warmer.cache.request_many_with(requests, options).await;
        stored.unwrap_or_default().into_iter().map(Result::ok).collect()
    }

    /// What answers have changed of what was stored.
    async fn changes(
        &self,
        unit: &Unit,
        old: &[Option<Hit>],
        answers: &[Result<Hit, Error>],
    ) -> Vec<Change> {
        let Some(watch) = &self.warmer.watch else { return Vec::new() };
        let mut changes = Vec::new();
        for ((place, old), answer) in unit.tasks.iter().zip(old).zip(answers) {
            let (Some(old), Ok(new)) = (old, answer) else { continue };
            let is_new = new.served_by() == ServedBy::Origin && new.failure().is_none();
            if is_new && !new.is_revalidated() {
                changes.extend(watch.look(&self.warmer.tasks[*place], old, new).await);
            }
        }
        changes
    }

    fn outcome(&self, place: usize, answer: Result<Hit, Error>, is_last: bool) -> TaskOutcome {
        let error = match answer {
            Ok(hit) => match hit.failure() {
                // What is stale is no news.
                Some(failure) => failure.clone(),
                None if hit.is_revalidated() => return TaskOutcome::Revalidated,
                None if hit.served_by() == ServedBy::Origin => return TaskOutcome::Fetched,
                // Another process was quicker.
                None => return TaskOutcome::Fresh,
            },
            Err(error) => error,
        };
        if self.slots.is_closed() && is_stopped(&error) {
            return TaskOutcome::Left(None);
        }
        match remedy(&error) {
            Remedy::Later => {
                let source = &self.warmer.tasks[place].source;
                let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
                left.entry(source.clone()).or_insert_with(|| error.clone());
                TaskOutcome::Left(Some(error))
            }
            _ if self.warmer.fail_fast => {
                self.slots.close();
                TaskOutcome::Failed(error)
            }
            Remedy::Again(_) if !is_last && !self.slots.is_closed() => TaskOutcome::Retrying(error),
            Remedy::Again(_) | Remedy::Nothing => TaskOutcome::Failed(error),
        }
    }
}

/// Whether a call was not made because the run was stopped.
fn is_stopped(error: &Error) -> bool {
    matches!(error, Error::Origin(origin) if origin.kind() == OriginErrorKind::GaveUp)
}

/// Whether an origin was asked before this failed.
fn was_asked(error: &Error) -> bool {
    match error {
        Error::Origin(origin) => {
            !matches!(origin.kind(), OriginErrorKind::GaveUp | OriginErrorKind::Quota)
        }
        Error::LoadTimedOut { .. } => true,
        _ => false,
    }
}

fn remedy(error: &Error) -> Remedy {
    let patient = |pause: Duration| {
        if pause <= LONGEST_PAUSE { Remedy::Again(pause) } else { Remedy::Later }
    };
    match error {
        Error::LeftAlone { after, .. } => patient(*after),
        Error::LoadTimedOut { .. } => Remedy::Again(Duration::ZERO),
        Error::Origin(origin) => match origin.kind() {
            OriginErrorKind::Quota => Remedy::Later,
            OriginErrorKind::Network
            | OriginErrorKind::Timeout
            | OriginErrorKind::Unusable
            | OriginErrorKind::Status(429 | 500..=599) => {
                patient(origin.retry_after().unwrap_or_default())
            }
            _ => Remedy::Nothing,
        },
        _ => Remedy::Nothing,
    }
}
