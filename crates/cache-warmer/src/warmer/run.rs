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
use larder::{
    Error, Hit, OriginError, OriginErrorKind, PolicyPatch, ReadOptions, Request, ServedBy, Slots,
};

use super::{Event, Summary, TaskOutcome, Warmer, check::Need};
use crate::changes::Change;

/// How often what failed is tried again when the others are done.
const ROUNDS: u32 = 3;
/// Longest time that a source is waited for that asks to be left alone.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// How often a unit waits for that.
const PATIENT_TRIES: u32 = 5;
/// How long a call may take with all its waiting for limits.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

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
    /// The same slots, by source: each counts its calls.
    by_source: BTreeMap<String, Slots>,
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
        let by_source = summary.sources.keys().map(|name| (name.clone(), slots.counted_apart()));
        let by_source = by_source.collect();
        let course = Course { warmer: &self, slots, by_source, left: Mutex::default() };
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
            // Whoever stops the run does not wait for others to be told.
            _ = select(stop.as_mut(), pin!(watch.tell(&changes))).await;
        }
        for (source, slots) in &course.by_source {
            summary.of(source).calls = usize::try_from(slots.calls()).unwrap_or(usize::MAX);
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
        let old = self.stored(&requests).await;
        let slots = self.by_source.get(source).unwrap_or(self.slots).timed_apart();
        let mut answers = self.ask((source, &slots), &unit, &requests).await;
        for _ in 0..PATIENT_TRIES {
            // A source that asks to be left alone for a while is waited for; the others go on.
            let pauses = answers.iter().filter_map(|answer| pause_of(answer.as_ref().err()?));
            let Some(pause) = pauses.max().filter(|pause| *pause <= LONGEST_PAUSE) else { break };
            if self.warmer.fail_fast {
                break;
            }
            tokio::select! {
                biased;
                () = self.slots.closed() => break,
                () = tokio::time::sleep(pause) => {}
            }
            answers = self.ask((source, &slots), &unit, &requests).await;
        }
        let elapsed = slots.first_call().unwrap_or(began).elapsed();
        let changes = self.changes(&unit, &old, &answers).await;
        Answered { unit, answers, changes, elapsed }
    }

    /// What comes of asking for one unit now.
    async fn ask(
        &self,
        (source, slots): (&str, &Slots),
        unit: &Unit,
        requests: &[Request],
    ) -> Vec<Result<Hit, Error>> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).get(source).cloned();
        let all = |error: Error| requests.iter().map(|_| Err(error.clone())).collect();
        if let Some(error) = left {
            return all(error);
        }
        if self.slots.is_closed() {
            let why = "it was stopped before it was asked";
            return all(OriginError::new(OriginErrorKind::GaveUp, source, why).into());
        }
        let mut answers: Vec<Option<Result<Hit, Error>>> = requests.iter().map(|_| None).collect();
        if !unit.renews {
            // Somebody else may have asked meanwhile; what is stale will not do.
            let options = ReadOptions::cached_only();
            let stored = self.warmer.cache.request_many_with(requests, options).await;
            for (slot, hit) in answers.iter_mut().zip(stored.unwrap_or_default()) {
                *slot = hit.ok().filter(|hit| !hit.is_stale()).map(Ok);
            }
        }
        let asked: Vec<Request> = requests
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_none())
            .map(|(request, _)| request.clone())
            .collect();
        if !asked.is_empty() {
            // Waiting for limits is no part of a load's time: whoever warms has all night.
            let patch = PolicyPatch::default()
                .soft_timeout(Duration::ZERO)
                .hard_timeout(LONGEST_WAIT)
                .throttle(Duration::ZERO);
            // Of a range only the chunks that are missing.
            let spares_stored = !unit.renews
                && asked.iter().all(|request| self.warmer.cache.asks_for_range(request));
            let options =
                if spares_stored { ReadOptions::default() } else { ReadOptions::refresh() };
            let options = options.policy(patch).in_background().within(slots);
            let came = match self.warmer.cache.request_many_with(&asked, options).await {
                Ok(came) => came,
                Err(error) => asked.iter().map(|_| Err(error.clone())).collect(),
            };
            let mut came = came.into_iter();
            answers.iter_mut().filter(|it| it.is_none()).for_each(|slot| *slot = came.next());
        }
        answers.into_iter().flatten().collect()
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
            // It would have been tried again.
            Remedy::Again(_) if self.slots.is_closed() => TaskOutcome::Left(None),
            _ if self.warmer.fail_fast => {
                self.slots.close();
                TaskOutcome::Failed(error)
            }
            Remedy::Again(_) if !is_last => TaskOutcome::Retrying(error),
            Remedy::Again(_) | Remedy::Nothing => TaskOutcome::Failed(error),
        }
    }
}

/// Whether a call was not made because the run was stopped.
fn is_stopped(error: &Error) -> bool {
    matches!(error, Error::Origin(origin) if origin.kind() == OriginErrorKind::GaveUp)
}

/// How long a source asks to be left alone.
fn pause_of(error: &Error) -> Option<Duration> {
    match error {
        Error::LeftAlone { after, .. } => Some(*after),
        Error::Origin(origin) => match origin.kind() {
            OriginErrorKind::Quota | OriginErrorKind::Status(429 | 503) => origin.retry_after(),
            _ => None,
        },
        _ => None,
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
            OriginErrorKind::Quota => patient(origin.retry_after().unwrap_or(Duration::MAX)),
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
