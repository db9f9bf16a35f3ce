//! Crash safety of the SQLite tier: kills processes that write, and looks at what they leave behind.
//!
//! What an operation that has returned did must be there, whatever kills the process when:
//! `cycles.rs` kills at random instants, `calls.rs` at each single system call that writes.
//! `soak.rs` lets three processes use one file for a while. The chores are `cargo xtask crash` and
//! `cargo xtask soak`.
#![expect(clippy::print_stdout, reason = "it prints its results")]
#![expect(clippy::print_stderr, reason = "and says on stderr what failed")]

mod calls;
mod cycles;
mod history;
mod life;
mod lines;
mod look;
mod names;
mod soak;
mod writer;

use std::{
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Kills processes that write to the SQLite tier, and looks at what they leave behind.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Kills writers at random instants, and at every single write
    Crash {
        /// How many times
        #[arg(long, default_value_t = 300)]
        cycles: u32,
        /// What decides what is written and when it is killed; default: the time
        #[arg(long)]
        seed: Option<u64>,
        /// Leaves out the kills at every single write, which need strace
        #[arg(long)]
        no_strace: bool,
        /// Lets writers say that operations have returned before they have: it must be noticed
        #[arg(long)]
        early: bool,
    },
    /// Lets two processes read and one write for a while
    Soak {
        /// How long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// What decides what is read and written; default: the time
        #[arg(long)]
        seed: Option<u64>,
    },
    #[command(hide = true)]
    Write(writer::Write),
    #[command(hide = true)]
    SoakRead(soak::Part),
    #[command(hide = true)]
    SoakWrite(soak::Part),
    #[command(hide = true)]
    Script {
        #[arg(long)]
        path: PathBuf,
        #[arg(long)]
        seed: u64,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder-crash: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The seed that was given, or one of the moment.
fn seed_of(given: Option<u64>) -> Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(given.unwrap_or(since.as_millis() as u64))
}

fn run(task: Task) -> Result<()> {
    let runtime = match &task {
        // Whose threads are traced one by one.
        Task::Script { .. } => Builder::new_current_thread().enable_all().build()?,
        _ => Runtime::new()?,
    };
    match task {
        Task::Crash { cycles, seed, no_strace, early } => {
            crash(cycles, seed_of(seed)?, !no_strace, early, &runtime)
        }
        Task::Soak { seconds, seed } => soak::run(seconds, seed_of(seed)?, &runtime),
        Task::SoakRead(part) => runtime.block_on(soak::read(part)),
        Task::SoakWrite(part) => runtime.block_on(soak::write(part)),
        Task::Write(how) => runtime.block_on(writer::write(how)),
        Task::Script { path, seed } => runtime.block_on(writer::script(path, seed)),
    }
}

/// Kills at random instants and at each call, both at a time.
fn crash(cycles: u32, seed: u64, calls: bool, early: bool, runtime: &Runtime) -> Result<()> {
    let started = Instant::now();
    println!("crash: seed {seed}");
    let strace = calls && (calls::has_strace() || calls::missing()?) && calls::may_trace();
    let (sum, traced) = thread::scope(|scope| {
        let traced = strace.then(|| scope.spawn(|| calls::run(seed, runtime)));
        (cycles::run(cycles, seed, early, runtime), traced.map(thread::ScopedJoinHandle::join))
    });
    let mut sum = sum?;
    let points = match traced {
        None => "; NOT killed at every write and sync".to_owned(),
        Some(Err(_panic)) => return Err("the kills at each call panicked".into()),
        Some(Ok(traced)) => {
            let (points, others) = traced?;
            sum.add(&others);
            format!("; killed at each of {points}")
        }
    };
    println!("{}", cycles::report(&sum, &points, seed, started.elapsed()));
    Ok(())
}
