//! Kills writers at random instants, again and again.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use tier_testkit::Dice;

use crate::{
    Result,
    history::{Operation, States, judge},
    life::{self, End, Life, live},
    lines::Work,
    look::look,
    names::WRITERS,
    writer::Write,
};

/// One cycle in so many begins with a new file.
const FILE: usize = 50;

/// What all cycles came to.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    cycles: u32,
    /// With three writers.
    shared: u32,
    /// Killed processes.
    kills: u64,
    /// Values set by what returned.
    writes: u64,
    /// Invalidations that returned: of keys, and of more.
    removals: u64,
    purges: u64,
    expiries: u64,
    /// Operations under way when their process was killed, and those of them that were done.
    pending: u64,
    done: u64,
    /// Keys looked at, and those that could be in one state only.
    keys: u64,
    decided: u64,
}

impl Sum {
    pub(crate) fn count(&mut self, operations: &[Operation]) {
        for operation in operations {
            let Some(stored) = &operation.returned else {
                self.pending += 1;
                continue;
            };
            match operation.work {
                Work::Set(_) => self.writes += stored.len() as u64,
                Work::Forget(crate::names::Scope::Key(_)) => self.removals += 1,
                Work::Forget(_) => self.purges += 1,
                Work::Expire(_) => self.expiries += 1,
            }
        }
    }

    /// Compares what is seen with what must be; what is wrong is an error.
    pub(crate) fn compare(
        &mut self,
        before: &States,
        operations: &[Operation],
        seen: &States,
    ) -> Result<()> {
        let judged = judge(before, operations, seen);
        self.keys += crate::names::Name::all().count() as u64;
        self.decided += judged.decided as u64;
        self.done += judged.done.len() as u64;
        if judged.wrong.is_empty() { Ok(()) } else { Err(judged.wrong.join("\n    ").into()) }
    }

    /// Adds what another sum says of operations.
    pub(crate) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.removals += other.removals;
        self.purges += other.purges;
        self.expiries += other.expiries;
    }

    /// Cycles in which nothing could go wrong prove nothing.
    fn proves(&self) -> Result<()> {
        let enough = self.writes > u64::from(self.cycles)
            && self.purges > 0
            && self.pending > 0
            && self.decided * 2 > self.keys;
        if enough || self.cycles < 100 { Ok(()) } else { Err("this proves nothing".into()) }
    }
}

/// The file of the moment, what is in it, and how it came there.
struct Place {
    dir: TempDir,
    files: u32,
    path: PathBuf,
    states: States,
}

impl Place {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("larder-crash-").tempdir()?;
        let path = dir.path().join("0/cache.db");
        Ok(Self { dir, files: 0, path, states: States::new() })
    }

    /// Goes on with a new file, in a new directory.
    fn renew(&mut self) -> Result<()> {
        if let Some(old) = self.path.parent().filter(|old| old.exists()) {
            fs::remove_dir_all(old)?;
        }
        self.files += 1;
        self.path = self.dir.path().join(format!("{}/cache.db", self.files));
        self.states = States::new();
        Ok(())
    }

    /// Where what was left behind is copied to.
    fn twin(&self) -> PathBuf {
        self.dir.path().join("left.db")
    }
}

/// Plays the cycles of a seed.
pub(crate) fn run(cycles: u32, seed: u64, early: bool, runtime: &Runtime) -> Result<Sum> {
    let mut place = Place::new()?;
    let mut player =
        Player { seed, early, lives: 0, to_first: Duration::from_millis(20), sum: Sum::default() };
    let started = Instant::now();
    for cycle in 0..cycles {
        if let Err(error) = player.cycle(cycle, &mut place, runtime) {
            let kept = place.dir.keep();
            return Err(format!(
                "VIOLATION in cycle {cycle} of seed {seed}:\n    {error}\n    what was left behind is \
                 kept in {}",
                kept.display()
            )
            .into());
        }
        if (cycle + 1).is_multiple_of(100) {
            println!("crash: {} of {cycles} cycles, {:.0?}", cycle + 1, started.elapsed());
        }
    }
    let Sum { kills, removals, expiries, pending, done, keys, decided, .. } = player.sum;
    println!(
        "crash: {kills} processes killed amid {pending} operations, of which {done} were done; \
         {removals} removals and {expiries} expiries besides; {} of 100 keys could be in one state only",
        decided * 100 / keys.max(1)
    );
    player.sum.proves()?;
    Ok(player.sum)
}

/// Says what `sum` and the time it took come to.
pub(crate) fn report(sum: &Sum, points: &str, seed: u64, took: Duration) -> String {
    let Sum { cycles, shared, writes, purges, .. } = sum;
    format!(
        "crash: {cycles} cycles ({shared} with {WRITERS} writers), {writes} acknowledged writes, \
         {purges} purges{points}: none lost, none undone, 0 corrupt, seed {seed}, {:.0} s",
        took.as_secs_f64()
    )
}

struct Player {
    seed: u64,
    early: bool,
    lives: u32,
    /// From the start of a process until its first operation has returned, as a rule.
    to_first: Duration,
    sum: Sum,
}

impl Player {
    fn cycle(&mut self, cycle: u32, place: &mut Place, runtime: &Runtime) -> Result<()> {
        let mut dice = Dice::stream(self.seed, u64::from(cycle));
        if cycle > 0 && dice.below(FILE) == 0 {
            place.renew()?;
        }
        let writers = if cycle % 3 == 2 { WRITERS } else { 1 };
        let mut operations = self.round(writers, &mut dice, &place.path, false)?;
        // Killed again while it recovers what the first kill left.
        if dice.percent(25) {
            operations.extend(self.round(writers, &mut dice, &place.path, true)?);
        }
        self.sum.cycles += 1;
        self.sum.shared += u32::from(writers > 1);
        self.sum.count(&operations);

        // One of them is looked into, and so recovered and closed; the other stays as it was left.
        let twin = place.twin();
        life::copy(&place.path, &twin)?;
        let looked: &Path = if dice.percent(50) { &place.path } else { &twin };
        let seen = runtime.block_on(look(looked, self.seed))?;
        self.sum.compare(&place.states, &operations, &seen)?;
        place.states = seen;
        Ok(())
    }

    /// Starts writers on the file and kills them; what they did.
    fn round(
        &mut self,
        writers: usize,
        dice: &mut Dice,
        path: &Path,
        opening: bool,
    ) -> Result<Vec<Operation>> {
        let first = dice.below(WRITERS);
        let all_at_once = dice.percent(50).then(|| Self::up_to(dice, 15_000));
        let mut plans = Vec::new();
        for writer in 0..writers {
            let kind = dice.below(100);
            let end = if opening || kind < 10 {
                End::Opening(Self::up_to(dice, self.to_first.as_micros() * 6 / 5))
            } else if kind < 20 {
                End::Closing(Self::up_to(dice, 4_000))
            } else if kind < 25 {
                // Long enough for the write-ahead log to be moved into the file.
                End::Running(Self::up_to(dice, 200_000))
            } else {
                End::Running(all_at_once.unwrap_or_else(|| Self::up_to(dice, 15_000)))
            };
            let operations = matches!(end, End::Closing(_)).then(|| 1 + dice.below(60) as u32);
            self.lives += 1;
            let how = Write {
                path: path.to_owned(),
                seed: self.seed,
                life: self.lives,
                writer: (first + writer) % WRITERS,
                operations,
                early: self.early,
            };
            plans.push((how, end));
        }
        let lives: Vec<Result<Life, String>> = thread::scope(|scope| {
            let lives: Vec<_> =
                plans.iter().map(|(how, end)| scope.spawn(move || live(how, *end))).collect();
            let panicked = |_| Err("who watches a writer panicked".to_owned());
            lives.into_iter().map(|life| life.join().unwrap_or_else(panicked)).collect()
        });
        let mut operations = Vec::new();
        let mut failed = BTreeSet::new();
        for life in lives {
            let life = life?;
            if let Some(to_first) = life.to_first {
                self.to_first = (self.to_first * 7 + to_first) / 8;
            }
            self.sum.kills += u64::from(!life.status.success());
            failed.extend(life.failed);
            operations.extend(life.operations);
        }
        if failed.is_empty() {
            Ok(operations)
        } else {
            let failed: Vec<String> = failed.into_iter().collect();
            Err(failed.join("\n    ").into())
        }
    }

    fn up_to(dice: &mut Dice, micros: impl TryInto<u64>) -> Duration {
        let micros = micros.try_into().unwrap_or(1_000_000).max(1);
        Duration::from_micros(dice.throw() % micros)
    }
}
