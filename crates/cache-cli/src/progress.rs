//! Progress of a warm run: bars on a terminal, plain lines elsewhere.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
    sync::LazyLock,
    time::{Duration, Instant},
};

use cache_warmer::{Event, Task, TaskOutcome};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

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
    bars: BTreeMap<String, ProgressBar>,
    lines: bool,
    last_line: Instant,
    done: usize,
    total: usize,
    failed: usize,
}

impl Progress {
    /// Of a run of these tasks; `quiet` shows nothing.
    pub(crate) fn new(tasks: &[Task], quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        let mut totals = BTreeMap::<&str, u64>::new();
        if terminal && !quiet {
            for task in tasks {
                *totals.entry(&task.source).or_default() += 1;
            }
        }
        let width = totals.keys().map(|source| source.len()).max().unwrap_or(0);
        let bars = totals.into_iter().map(|(source, total)| {
            let bar = BARS.add(ProgressBar::new(total).with_style(style()));
            bar.set_prefix(format!("{source:width$}"));
            (source.to_owned(), bar)
        });
        Self {
            bars: bars.collect(),
            lines: !terminal && !quiet,
            last_line: Instant::now(),
            done: 0,
            total: tasks.len(),
            failed: 0,
        }
    }

    /// Takes note of the end of a task.
    pub(crate) fn observe(&mut self, event: &Event<'_>) {
        self.done += 1;
        self.failed += usize::from(matches!(event.outcome, TaskOutcome::Failed(_)));
        if let Some(bar) = self.bars.get(&event.task.source) {
            bar.set_message(event.task.market.clone());
            bar.inc(1);
        }
        if self.lines && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let Self { done, total, failed, .. } = self;
            output::remark(&format!("{done} of {total} done, {failed} failed\n"));
        }
    }

    /// Leaves the bars as they are, for good.
    pub(crate) fn finish(self) {
        for bar in self.bars.into_values() {
            bar.set_message("");
            bar.abandon();
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("  {prefix}  {bar:30} {pos:>4}/{len}  eta {eta:>4}  {wide_msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}
