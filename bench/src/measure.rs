//! Measuring cases in turn.

use std::time::{Duration, Instant};

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) quick: bool,
    rounds: usize,
    /// How long one case runs in a round: short enough to be left alone by other programs.
    chunk: Duration,
}

impl Effort {
    pub(crate) fn new(quick: bool) -> Self {
        let (rounds, chunk) = if quick { (11, 1_500) } else { (31, 4_000) };
        Self { quick, rounds, chunk: Duration::from_micros(chunk) }
    }

    /// The same with fewer rounds, for cases that take long.
    pub(crate) fn rounds(self, quick: usize, thorough: usize) -> Self {
        Self { rounds: if self.quick { quick } else { thorough }, ..self }
    }
}

/// One thing to measure: does its work so many times, and tells how long that took.
pub(crate) struct Case<'a> {
    name: String,
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
    /// Operations that one time is.
    operations: u64,
    times: u64,
}

impl<'a> Case<'a> {
    /// Work that is timed as a whole.
    pub(crate) fn new(name: &str, mut work: impl FnMut(u64) + 'a) -> Self {
        Self::timed(name, move |times| {
            let started = Instant::now();
            work(times);
            started.elapsed()
        })
    }

    /// Work that tells how long it took.
    pub(crate) fn timed(name: &str, run: impl FnMut(u64) -> Duration + 'a) -> Self {
        Self { name: name.to_owned(), run: Box::new(run), operations: 1, times: 0 }
    }

    /// One time is so many operations.
    pub(crate) fn operations(mut self, operations: u64) -> Self {
        self.operations = operations;
        self
    }

    /// It is done so many times a round, however long that takes.
    pub(crate) fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Finds out how often it runs in a chunk.
    fn calibrate(&mut self, chunk: Duration) {
        let mut times = 1;
        while self.times == 0 {
            let took = (self.run)(times);
            if took * 2 > chunk {
                self.times = times;
            }
            let more = chunk.as_nanos() / took.as_nanos().max(1);
            times *= u64::try_from(more.clamp(2, 16)).unwrap_or(2);
        }
    }

    /// Nanoseconds per operation.
    fn once(&mut self) -> f64 {
        (self.run)(self.times).as_nanos() as f64 / (self.times * self.operations) as f64
    }
}

/// Nanoseconds per operation of each case, round by round.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    cases: Vec<(String, Vec<f64>)>,
}

/// Measures all cases, each once in every round.
pub(crate) fn measure(effort: &Effort, mut cases: Vec<Case<'_>>) -> Measured {
    for case in &mut cases {
        case.calibrate(effort.chunk);
    }
    let mut measured: Vec<(String, Vec<f64>)> =
        cases.iter().map(|case| (case.name.clone(), Vec::with_capacity(effort.rounds))).collect();
    for round in 0..effort.rounds {
        for at in 0..cases.len() {
            // Another order each round: none always comes after the same one.
            let at = (at + round) % cases.len();
            measured[at].1.push(undisturbed(|| cases[at].once()));
        }
    }
    Measured { cases: measured }
}

/// Measures again, up to three times, what another program has interrupted; the quickest counts.
fn undisturbed(mut measure: impl FnMut() -> f64) -> f64 {
    let mut quickest = f64::INFINITY;
    for _ in 0..4 {
        let before = interruptions();
        quickest = quickest.min(measure());
        if interruptions() == before {
            break;
        }
    }
    quickest
}

/// How often this thread has been interrupted; `None` where the system does not tell.
fn interruptions() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"))?;
    line.trim().parse().ok()
}

impl Measured {
    /// The median of a case, in nanoseconds per operation.
    pub(crate) fn ns(&self, case: &str) -> f64 {
        median(self.rounds(case).to_vec())
    }

    /// The median of the ratios of two cases, round by round.
    pub(crate) fn ratio(&self, ours: &str, base: &str) -> f64 {
        median(self.rounds(ours).iter().zip(self.rounds(base)).map(|(a, b)| a / b).collect())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.cases.iter().map(|(name, _)| name.as_str())
    }

    pub(crate) fn has(&self, case: &str) -> bool {
        self.cases.iter().any(|(name, _)| name == case)
    }

    fn rounds(&self, case: &str) -> &[f64] {
        self.cases.iter().find(|(name, _)| name == case).map_or(&[], |(_, rounds)| rounds)
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}
