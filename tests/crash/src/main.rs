//! Crash safety of the SQLite tier: kills processes that write, and looks at what they leave behind.
//!
//! What an operation that has returned did must be there, whatever kills the process when:
//! `cycles.rs` kills at random instants, `calls.rs` at each single system call that writes.
//! `soak.rs` lets three processes use one file for a while. The chores are `cargo xtask crash` and
//! `cargo xtask soak`.
#![expect(clippy::print_stdout, reason = "it prints its results")]
#![expect(clippy::print_stderr, reason = "and says on stderr what failed")]

mod cycles;
mod dice;
mod history;
mod life;
mod lines;
mod look;
mod names;
mod writer;

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

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
    #[command(hide = true)]
    Write(writer::Write),
    #[command(hide = true)]
    Script {
        #[arg(long)]
        path: PathBuf,
        #[arg(long)]
        seed: u64,
        #[arg(long)]
        life: u32,
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
    let runtime = Runtime::new()?;
    match task {
        Task::Crash { cycles, seed, no_strace, early } => {
            let started = Instant::now();
            let seed = seed_of(seed)?;
            println!("crash: seed {seed}");
            let sum = cycles::run(cycles, seed, early, &runtime)?;
            println!("{}", cycles::report(&sum, "", seed, started.elapsed()));
            Ok(())
        }
        Task::Write(how) => runtime.block_on(writer::write(how)),
        Task::Script { path, seed, life } => runtime.block_on(writer::script(path, seed, life)),
    }
}
