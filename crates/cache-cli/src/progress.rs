//! Progress of a warm run: bars on a terminal, plain lines elsewhere.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use cache_warmer::{Event, Task, TaskOutcome};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use larder::Cache;
use tokio_util::task::AbortOnDropHandle;

use crate::{output, table};

/// The bars of this process: whoever writes to standard error must move them aside.
static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));

/// Distance of lines where there are no bars.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Runs `write` while the bars are out of the way.
pub(crate) fn suspended<T>(write: impl FnOnce() -> T) -> T {
    BARS.suspend(write)
}

/// Shows how far a run has come.
pub(crate) struct Progress {
    /// Of each source, and of all together where there are several.
    bars: BTreeMap<String, SourceBar>,
    all: Option<ProgressBar>,
    counts: Arc<Mutex<Counts>>,
    _lines: Option<AbortOnDropHandle<()>>,
}

struct SourceBar {
    bar: ProgressBar,
    failed: usize,
    /// What the source allows, for people.
    limit: String,
}

#[derive(Clone, Copy)]
struct Counts {
    began: Instant,
    done: usize,
    /// Of these, those that a tier had.
    fresh: usize,
    failed: usize,
    total: usize,
}

impl Progress {
    /// Of a run of these tasks; `quiet` shows nothing.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn new(cache: &Cache, tasks: &[Arc<Task>], quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let mut totals = BTreeMap::<&str, u64>::new();
        if terminal && !quiet {
            for task in tasks {
                *totals.entry(&task.source).or_default() += 1;
            }
        }
        let width = totals.keys().map(|source| source.len()).max().unwrap_or(0).max("all".len());
        let add = |name: &str, total: u64| {
            let bar = BARS.add(ProgressBar::new(total).with_style(style()));
            bar.set_prefix(format!("{name:width$}"));
            // So that the time left is right also while nothing ends.
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        };
        let all = (totals.len() > 1).then(|| add("all", tasks.len() as u64));
        let bars = totals.iter().map(|(source, total)| {
            let rate = cache.limits(source).and_then(|limits| limits.rate);
            let limit =
                rate.map(|rate| format!("at most {} in {}", rate.count, table::age(rate.per)));
            let bar =
                SourceBar { bar: add(source, *total), failed: 0, limit: limit.unwrap_or_default() };
            bar.show();
            ((*source).to_owned(), bar)
        });
        let bars = bars.collect();
        let (began, total) = (Instant::now(), tasks.len());
        let counts = Counts { began, done: 0, fresh: 0, failed: 0, total };
        let counts = Arc::new(Mutex::new(counts));
        let lines = (!terminal && !quiet).then(|| {
            let counts = Arc::clone(&counts);
            AbortOnDropHandle::new(tokio::spawn(async move {
                loop {
                    tokio::time::sleep(LINE_EVERY).await;
                    let counts = *counts.lock().unwrap_or_else(PoisonError::into_inner);
                    output::remark(&counts.line());
                }
            }))
        });
        Self { bars, all, counts, _lines: lines }
    }

    /// Takes note of what has become of a task.
    pub(crate) fn observe(&mut self, event: &Event) {
        let has_failed = matches!(event.outcome, TaskOutcome::Failed(_));
        if matches!(event.outcome, TaskOutcome::Retrying(_)) {
            return;
        }
        {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.done += 1;
            counts.fresh += usize::from(matches!(event.outcome, TaskOutcome::Fresh));
            counts.failed += usize::from(has_failed);
        }
        if let Some(of) = self.bars.get_mut(&event.task.source) {
            of.failed += usize::from(has_failed);
            of.show();
            of.bar.inc(1);
        }
        if let Some(all) = &self.all {
            all.inc(1);
        }
    }

    /// Leaves the bars as they are, for good.
    pub(crate) fn finish(self) {
        for of in self.bars.into_values() {
            of.bar.abandon();
        }
        if let Some(all) = self.all {
            all.abandon();
        }
    }
}

impl SourceBar {
    fn show(&self) {
        let failed =
            if self.failed > 0 { format!("{} failed  ", self.failed) } else { String::new() };
        self.bar.set_message(format!("{failed}{}", self.limit));
    }
}

impl Counts {
    fn line(&self) -> String {
        let Self { began, done, fresh, failed, total } = *self;
        let asked = done - fresh;
        let mut line = format!("{done} of {total} done, {failed} failed");
        let elapsed = began.elapsed();
        if asked > 0 && done < total {
            let rate = asked as f64 / elapsed.as_secs_f64().max(0.001);
            let left =
                Duration::try_from_secs_f64((total - done) as f64 / rate).unwrap_or_default();
            line = format!("{line}, {rate:.1}/s, about {} left", table::age(left));
        }
        line + "\n"
    }
}

fn style() -> ProgressStyle {
    let template = "  {prefix}  {bar:30} {pos:>5}/{len}  {per_sec:>10}  eta {eta:>4}  {wide_msg}";
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
