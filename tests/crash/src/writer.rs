//! The process that is killed: it writes as a seed says, and tells what it does.

use std::{
    io::BufRead,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Args;
use larder::{
    Cache, PutOutcome, PutReport, SetOptions,
    tiers::{SqliteOptions, SqliteTier},
};
use rustix::process::{PTracer, set_ptracer};
use tokio::task::JoinSet;

use tier_testkit::Dice;

use crate::{
    Result,
    lines::{Line, Out, Work, now},
    names::{GROUPS, Id, KEYS, Name, SHARED, Scope},
};

/// Operations at a time.
const TASKS: u64 = 6;
/// Most keys of one set.
const BATCH: usize = 8;
/// A writer that nobody kills ends then.
const LONGEST: Duration = Duration::from_mins(1);

/// Number of a process that plays the script: always the same, so that its calls are, too.
pub(crate) const SCRIPT: u32 = 1;

/// How a writer writes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Write {
    /// The file
    #[arg(long)]
    pub(crate) path: PathBuf,
    /// What values and operations are made from
    #[arg(long)]
    pub(crate) seed: u64,
    /// Number of the process, never used before with this file
    #[arg(long)]
    pub(crate) life: u32,
    /// Whose keys it writes, beside those of all
    #[arg(long)]
    pub(crate) writer: usize,
    /// Closes after so many operations
    #[arg(long)]
    pub(crate) operations: Option<u32>,
    /// Says that operations have returned before they have
    #[arg(long)]
    pub(crate) early: bool,
}

/// A cache whose only tier is the file, and whose errors are told.
pub(crate) fn open(path: &Path) -> Result<Cache> {
    // One reader is enough, and makes what threads do the same each time.
    let tier = SqliteTier::new(SqliteOptions::new(path).readers(1))?;
    Ok(Cache::builder().tier(tier).strict(true).build()?)
}

/// Closes a cache that has nothing under way.
pub(crate) async fn close(cache: &Cache) -> Result<()> {
    let report = cache.close(Duration::from_secs(10)).await;
    if report.is_clean() {
        Ok(())
    } else {
        Err(format!("the cache does not close: {report:?}").into())
    }
}

struct Writer {
    how: Write,
    cache: Cache,
    out: Out,
    next: AtomicU32,
}

/// Writes until it is killed.
pub(crate) async fn write(how: Write) -> Result<()> {
    let cache = open(&how.path)?;
    let writer = Writer { how, cache, out: Out::stdout()?, next: AtomicU32::new(0) };
    let writer = Arc::new(writer);
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for task in 0..TASKS {
        let writer = Arc::clone(&writer);
        tasks.spawn(async move { writer.work(task).await });
    }
    let mut all = async || -> Result<()> {
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    };
    tokio::time::timeout(LONGEST, all()).await??;
    writer.out.say(&Line::Closes)?;
    close(&writer.cache).await
}

impl Writer {
    async fn work(&self, task: u64) -> Result<()> {
        let lives = Dice::stream(self.how.seed, u64::from(self.how.life)).throw();
        let mut dice = Dice::stream(lives, task);
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if self.how.operations.is_some_and(|limit| number >= limit) {
                return Ok(());
            }
            let work = self.choose(&mut dice);
            self.carry_out(number, work).await?;
        }
    }

    fn choose(&self, dice: &mut Dice) -> Work {
        let source = if dice.percent(30) { SHARED } else { self.how.writer };
        let name = |dice: &mut Dice| Name { source, number: dice.below(KEYS) };
        let group = |dice: &mut Dice| Scope::Group(source, dice.below(GROUPS));
        match dice.below(100) {
            0..50 => Work::Set(vec![name(dice)]),
            50..64 => {
                let mut names: Vec<Name> =
                    (0..2 + dice.below(BATCH - 1)).map(|_| name(dice)).collect();
                names.sort_unstable();
                names.dedup();
                Work::Set(names)
            }
            64..82 => Work::Forget(Scope::Key(name(dice))),
            82..87 => Work::Forget(group(dice)),
            87..88 => Work::Forget(Scope::Source(source)),
            88..96 => Work::Expire(Scope::Key(name(dice))),
            _ => Work::Expire(group(dice)),
        }
    }

    /// Does it, between a line before and a line after.
    async fn carry_out(&self, number: u32, work: Work) -> Result<()> {
        self.out.say(&Line::Begins { number, at: now(), work: work.clone() })?;
        if self.how.early {
            let stored =
                if let Work::Set(names) = &work { vec![true; names.len()] } else { Vec::new() };
            self.out.say(&Line::Returned { number, at: now(), stored })?;
        }
        let done = self.perform(number, work).await;
        let line = match done {
            Ok(_) if self.how.early => return Ok(()),
            Ok(stored) => Line::Returned { number, at: now(), stored },
            Err(error) => Line::Failed { number, error: error.to_string() },
        };
        self.out.say(&line)
    }

    async fn perform(&self, number: u32, work: Work) -> Result<Vec<bool>> {
        let narrow = number.is_multiple_of(2);
        match work {
            Work::Set(names) => self.set(Id { life: self.how.life, number }, &names).await,
            Work::Forget(scope) => {
                self.cache.invalidate(scope.selector(narrow)?).await?;
                Ok(Vec::new())
            }
            Work::Expire(scope) => {
                self.cache.expire(scope.selector(narrow)?).await?;
                Ok(Vec::new())
            }
        }
    }

    async fn set(&self, id: Id, names: &[Name]) -> Result<Vec<bool>> {
        let mut entries = Vec::with_capacity(names.len());
        for &name in names {
            let options = id.tags(name)?.into_iter().fold(SetOptions::default(), SetOptions::tag);
            entries.push((name.key(), id.value(self.how.seed, name), options));
        }
        let outcomes = if let [(key, value, options)] = &*entries {
            vec![self.cache.set(key, value.clone(), options.clone()).await]
        } else {
            self.cache.set_many(entries).await?
        };
        let mut stored = Vec::with_capacity(names.len());
        for outcome in outcomes {
            stored.push(match outcome?.tiers.as_slice() {
                [(_, PutReport::Done(PutOutcome::Stored))] => true,
                [(_, PutReport::Done(PutOutcome::Superseded | PutOutcome::Barred))] => false,
                other => return Err(format!("set answers {other:?}").into()),
            });
        }
        Ok(stored)
    }
}

/// A short life, in which each system call can be counted: a file is made, three values are set, one
/// is invalidated, some are purged, and the cache is closed.
pub(crate) async fn script(path: PathBuf, seed: u64) -> Result<()> {
    // Whoever traces it is no ancestor; where the system does not ask for that this does nothing.
    _ = set_ptracer(PTracer::Any);
    let how = Write { path, seed, life: SCRIPT, writer: 0, operations: None, early: false };
    // It has its threads now, and opens nothing yet.
    let cache = open(&how.path)?;
    let writer = Writer { how, cache, out: Out::stdout()?, next: AtomicU32::new(0) };
    writer.out.say(&Line::Ready)?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    let name = |number| Name { source: 0, number };
    let set = |numbers: &[usize]| Work::Set(numbers.iter().copied().map(name).collect());
    let works = [
        set(&[1]),
        set(&[2, 3]),
        set(&[4]),
        Work::Forget(Scope::Key(name(1))),
        Work::Forget(name(2).group()),
    ];
    for (number, work) in (0..).zip(works) {
        writer.carry_out(number, work).await?;
    }
    writer.out.say(&Line::Closes)?;
    close(&writer.cache).await?;
    released(&writer.how.path)
}

/// Waits until the file is no longer open here: the last calls are those of the connection that is
/// closed last, and the process must not end before them.
fn released(path: &Path) -> Result<()> {
    let deadline = Instant::now() + LONGEST;
    let held = || -> Result<bool> {
        for open in std::fs::read_dir("/proc/self/fd")? {
            // It may be closed meanwhile.
            let Ok(target) = std::fs::read_link(open?.path()) else { continue };
            if target.as_os_str().as_bytes().starts_with(path.as_os_str().as_bytes()) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    while held()? {
        if Instant::now() > deadline {
            return Err("the file stays open though the cache is closed".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
