//! A writing process as its parent sees it: started, listened to, killed.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Result,
    history::Operation,
    lines::{Line, now},
    names::Id,
    writer::Write,
};

/// Longest time until a process does what it is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// When a process is killed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// So long after its start: while it opens the file, as a rule.
    Opening(Duration),
    /// So long after the first operation that returned.
    Running(Duration),
    /// So long after it began to close.
    Closing(Duration),
}

/// What a process did.
#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) operations: Vec<Operation>,
    pub(crate) failed: Vec<String>,
    /// From its start until its first operation had returned.
    pub(crate) to_first: Option<Duration>,
    pub(crate) status: ExitStatus,
}

/// A process that is killed when its parent goes on without it.
#[derive(Debug)]
pub(crate) struct Reaped(pub(crate) Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // It is dead already, as a rule.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// This program, to do something else.
pub(crate) fn itself(subcommand: &str) -> Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.arg(subcommand).stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

/// Says what a writer is to do.
pub(crate) fn write(how: &Write) -> Result<Command> {
    let mut command = itself("write")?;
    command.arg("--path").arg(&how.path);
    command.args(["--seed", &how.seed.to_string(), "--life", &how.life.to_string()]);
    command.args(["--writer", &how.writer.to_string()]);
    if let Some(operations) = how.operations {
        command.args(["--operations", &operations.to_string()]);
    }
    command.args(how.early.then_some("--early"));
    Ok(command)
}

/// Lines of a process, as long as there are whole ones.
pub(crate) fn lines(from: impl Read) -> impl Iterator<Item = Result<Line, String>> {
    let mut from = BufReader::new(from);
    std::iter::from_fn(move || {
        let mut text = String::new();
        match from.read_line(&mut text) {
            Err(error) => Some(Err(error.to_string())),
            // A line without an end was not written as a whole, and says nothing.
            Ok(_) => Some(Line::parse(text.strip_suffix('\n')?)),
        }
    })
}

/// Starts a writer and kills it.
pub(crate) fn live(how: &Write, end: End) -> Result<Life, String> {
    let told = |error: std::io::Error| format!("a writer cannot be started: {error}");
    let mut command = write(how).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut child = Reaped(command.spawn().map_err(told)?);
    let stdout = child.0.stdout.take().ok_or("a writer has no output")?;
    let (tell, told) = mpsc::channel();
    let listener = thread::spawn(move || -> Result<(Vec<Line>, Option<Duration>), String> {
        let (mut all, mut to_first) = (Vec::new(), None);
        for line in lines(stdout) {
            let line = line?;
            let (first, closes) = match line {
                Line::Returned { .. } if to_first.is_none() => {
                    to_first = Some(started.elapsed());
                    (true, false)
                }
                Line::Closes => (false, true),
                _ => (false, false),
            };
            let waited_for = match end {
                End::Opening(_) => false,
                End::Running(_) => first,
                End::Closing(_) => closes,
            };
            if waited_for {
                // Nobody waits any more if it is late.
                _ = tell.send(());
            }
            all.push(line);
        }
        Ok((all, to_first))
    });
    let after = match end {
        End::Opening(after) => after,
        End::Running(after) | End::Closing(after) => {
            if let Err(mpsc::RecvTimeoutError::Timeout) = told.recv_timeout(PATIENCE) {
                return Err(format!("writer {} did nothing in {PATIENCE:?}: {end:?}", how.life));
            }
            after
        }
    };
    thread::sleep(after);
    _ = child.0.kill();
    let status = child.0.wait().map_err(|error| error.to_string())?;
    let dead = now();
    let (lines, to_first) = listener.join().map_err(|_panic| "who listens panicked")??;
    let killed = status.signal() == Some(9);
    let closed = matches!(end, End::Closing(_)) && status.success();
    if !killed && !closed {
        return Err(format!("writer {} ended by itself: {status}", how.life));
    }
    let (operations, failed) = history(how.life, lines, dead)?;
    Ok(Life { operations, failed, to_first, status })
}

/// What a process said that it did until it died.
pub(crate) fn history(
    life: u32,
    lines: Vec<Line>,
    dead: u64,
) -> Result<(Vec<Operation>, Vec<String>), String> {
    let mut operations: BTreeMap<u32, Operation> = BTreeMap::new();
    let mut failed = Vec::new();
    for line in lines {
        match line {
            Line::Ready | Line::Closes => {}
            Line::Begins { number, at, work } => {
                let id = Id { life, number };
                let begun = Operation { id, work, began: at, ended: dead, returned: None };
                operations.insert(number, begun);
            }
            Line::Returned { number, at, stored } => {
                let ended = operations.get_mut(&number);
                let ended =
                    ended.ok_or_else(|| format!("{life}.{number} ended and never began"))?;
                ended.ended = at;
                ended.returned = Some(stored);
            }
            Line::Failed { number, error } => {
                failed.push(format!("operation {life}.{number} failed: {error}"));
            }
        }
    }
    Ok((operations.into_values().collect(), failed))
}

/// Copies a database that no process has open.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-journal"] {
        let beside = |path: &Path| {
            let mut path = path.to_owned().into_os_string();
            path.push(suffix);
            path
        };
        match std::fs::copy(beside(from), beside(to)) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                match std::fs::remove_file(beside(to)) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    _ => {}
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
