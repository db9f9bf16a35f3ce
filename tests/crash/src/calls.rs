//! Kills a process at every single system call that writes, one after the other.
//!
//! strace counts the calls of each thread by itself. So each thread is traced alone, and for each of
//! its calls there is a run in which the process is killed as that call begins. A run in which the
//! whole process is traced and nothing is killed says how many calls there must have been at least.

use std::{
    env, fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    Result,
    cycles::Sum,
    history::States,
    life::{self, Reaped, history, itself},
    lines::{Line, now},
    look::{goes_on, look},
    writer::SCRIPT,
};

/// Calls that change files, as strace selects them. Not every system has each of them.
const CALLS: [&str; 4] = ["?pwrite64", "?fsync,?fdatasync", "?ftruncate", "?unlink,?unlinkat"];
/// Longest time until strace has taken hold of a thread.
const PATIENCE: Duration = Duration::from_secs(20);
/// Microseconds that the traced thread wakes up late: so it is the one that closes the file last,
/// which cleans up.
const LATE: u32 = 5_000;
/// Runs that end by themselves until a thread is believed to have no further call: on a busy machine
/// it may not have been the last.
const ENDS: u32 = 3;
/// And what was missed then is tried again.
const ROUNDS: u32 = 3;

/// Where strace takes hold, and what it does.
enum Trace {
    /// The process is killed at the `n`th of these calls of the `thread`th of its threads.
    Kill { thread: usize, calls: &'static str, n: u32 },
    /// The calls of all threads are listed in a file.
    List(PathBuf),
}

/// How a run ended.
enum Ended {
    Killed,
    ByItself,
    /// The process has no such thread.
    NoThread,
}

/// Whether strace is there.
pub(crate) fn has_strace() -> bool {
    let quiet = || Stdio::null();
    let status = Command::new("strace").arg("-V").stdout(quiet()).stderr(quiet()).status();
    status.is_ok_and(|status| status.success())
}

/// Whether strace may take hold of a process that is no child of its own; a container may forbid it.
pub(crate) fn may_trace() -> bool {
    let quiet = Stdio::null;
    let Ok(process) = Command::new("cat").stdin(Stdio::piped()).stdout(quiet()).spawn() else {
        return false;
    };
    let process = Reaped(process);
    let pid = process.0.id().to_string();
    let strace = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "-p", &pid])
        .stdin(quiet())
        .stderr(quiet())
        .spawn();
    let Ok(strace) = strace else { return false };
    let mut strace = Reaped(strace);
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        // One that may not ends at once.
        if !matches!(strace.0.try_wait(), Ok(None)) {
            println!("crash: processes cannot be traced here: NOT killed at every single call");
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Kills at each call; how many there were, for people, and what all runs came to.
pub(crate) fn run(seed: u64, runtime: &Runtime) -> Result<(String, Sum)> {
    let started = Instant::now();
    let mut sum = Sum::default();
    let mut player =
        Player { dir: tempfile::Builder::new().prefix("larder-crash-").tempdir()?, seed, runs: 0 };
    match player.all(runtime, &mut sum) {
        Ok(points) => {
            println!("crash: killed at {points}, {:.0?}", started.elapsed());
            Ok((points, sum))
        }
        Err(error) => {
            let kept = player.dir.keep();
            let kept = kept.display();
            Err(format!("{error}\n    what was left behind is kept in {kept}").into())
        }
    }
}

struct Player {
    dir: TempDir,
    seed: u64,
    runs: u32,
}

impl Player {
    fn all(&mut self, runtime: &Runtime, sum: &mut Sum) -> Result<String> {
        let list = self.dir.path().join("calls");
        self.play(&Trace::List(list.clone()), runtime, sum)?;
        let list = fs::read_to_string(list)?;
        let mut said = Vec::new();
        for calls in CALLS {
            let names: Vec<&str> = calls.split(',').map(|name| &name[1..]).collect();
            let of_these =
                |line: &&str| names.iter().any(|name| line.contains(&format!(" {name}(")));
            let expected = list.lines().filter(of_these).count();
            let mut total = 0;
            for _ in 0..ROUNDS {
                let killed: u32 = self.at_each(calls, runtime, sum)?.iter().sum();
                total = total.max(killed);
                if total as usize >= expected {
                    break;
                }
            }
            if (total as usize) < expected {
                let what = format!("killed at {total} of {expected} {names:?}");
                return Err(format!("{what} in {ROUNDS} rounds: some were missed").into());
            }
            said.push(format!("{total} {}", names.join("/")));
        }
        Ok(said.join(", "))
    }

    /// Kills at each of these calls; how many each thread made.
    fn at_each(
        &mut self,
        calls: &'static str,
        runtime: &Runtime,
        sum: &mut Sum,
    ) -> Result<Vec<u32>> {
        let mut killed = Vec::new();
        for thread in 0.. {
            let (mut n, mut ends) = (1, 0);
            while ends < ENDS {
                let trace = Trace::Kill { thread, calls, n };
                match self.play(&trace, runtime, sum) {
                    Ok(Ended::Killed) => (n, ends) = (n + 1, 0),
                    Ok(Ended::ByItself) => ends += 1,
                    Ok(Ended::NoThread) => return Ok(killed),
                    Err(error) => {
                        let call = calls.replace('?', "");
                        let at = format!("VIOLATION when killed at {call} {n} of thread {thread}");
                        return Err(format!("{at}:\n    {error}").into());
                    }
                }
            }
            killed.push(n - 1);
        }
        Ok(killed)
    }

    /// Plays the script in a new file, and looks at what is left.
    fn play(&mut self, trace: &Trace, runtime: &Runtime, sum: &mut Sum) -> Result<Ended> {
        self.runs += 1;
        let dir = self.dir.path().join(self.runs.to_string());
        let path = dir.join("cache.db");
        let Some((lines, killed)) = self.traced(&path, trace)? else { return Ok(Ended::NoThread) };
        if !killed && lines.last() != Some(&Line::Closes) {
            return Err("the script did not run to its end".into());
        }
        let (operations, failed) = history(SCRIPT, lines, now())?;
        if !failed.is_empty() {
            return Err(failed.join("; ").into());
        }
        sum.count(&operations);
        let twin = dir.join("left.db");
        if dir.exists() {
            life::copy(&path, &twin)?;
        }
        let seen = runtime.block_on(look(&path, self.seed))?;
        sum.compare(&States::new(), &operations, &seen)?;
        runtime.block_on(goes_on(&path))?;
        fs::remove_dir_all(&dir)?;
        Ok(if killed { Ended::Killed } else { Ended::ByItself })
    }

    /// Runs the script under strace; what it said, and whether it was killed.
    fn traced(&self, path: &Path, trace: &Trace) -> Result<Option<(Vec<Line>, bool)>> {
        let mut command = itself("script")?;
        command.arg("--path").arg(path);
        command.args(["--seed", &self.seed.to_string()]);
        let mut child = Reaped(command.spawn()?);
        let stdout = child.0.stdout.take().ok_or("the script has no output")?;
        let mut lines = life::lines(stdout);
        if lines.next() != Some(Ok(Line::Ready)) {
            return Err("the script does not begin".into());
        }
        let process = child.0.id();
        let mut threads = Vec::new();
        for entry in fs::read_dir(format!("/proc/{process}/task"))? {
            threads.push(entry?.file_name().to_string_lossy().parse::<u32>()?);
        }
        // In the order in which they were started.
        threads.sort_unstable();
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o"]);
        let traced = match trace {
            Trace::Kill { thread, calls, n } => {
                let Some(&thread) = threads.get(*thread) else { return Ok(None) };
                strace.args(["/dev/null", "-e", &format!("trace={calls},futex")]);
                strace.args(["-e", &format!("inject={calls}:signal=SIGKILL:when={n}")]);
                strace.args(["-e", &format!("inject=futex:delay_exit={LATE}")]);
                thread
            }
            Trace::List(file) => {
                strace.arg(file).args(["-f", "-e", &format!("trace={}", CALLS.join(","))]);
                process
            }
        };
        strace.args(["-p", &traced.to_string()]);
        // What it says is told if it fails; that a thread dies while it is late is no failure.
        let mut strace = Reaped(strace.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?);
        let held = if matches!(trace, Trace::List(_)) { &*threads } else { &[traced] };
        hold(process, held, &mut strace)?;
        child.0.stdin.take().ok_or("the script has no input")?.write_all(b"\n")?;
        let said = lines.collect::<Result<Vec<Line>, String>>()?;
        let status = child.0.wait()?;
        // It ends with what it traces.
        strace.0.wait()?;
        Ok(Some((said, !status.success())))
    }
}

/// Waits until strace has taken hold of the threads.
fn hold(process: u32, threads: &[u32], strace: &mut Reaped) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for thread in threads {
        let status = format!("/proc/{process}/task/{thread}/status");
        loop {
            let status = fs::read_to_string(&status)?;
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            if tracer.is_some_and(|tracer| tracer.trim() != "0") {
                break;
            }
            if let Some(status) = strace.0.try_wait()? {
                let mut said = String::new();
                strace
                    .0
                    .stderr
                    .take()
                    .map(|mut from| from.read_to_string(&mut said))
                    .transpose()?;
                let said = said.trim();
                return Err(format!(
                    "strace ended, {status}, and said `{said}`: may processes be traced here?"
                )
                .into());
            }
            if Instant::now() > deadline {
                return Err(format!("strace does not take hold in {PATIENCE:?}").into());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Says that strace is missing; an error where tests must not be left out. Returns that it is not
/// there.
pub(crate) fn missing() -> Result<bool> {
    let what = "strace is not installed: NOT killed at every single write and sync";
    if env::var_os("CI").is_some() {
        return Err(format!("{what}, as continuous integration must").into());
    }
    println!("crash: {what}; install it, or say --no-strace");
    Ok(false)
}
