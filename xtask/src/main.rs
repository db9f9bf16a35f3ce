//! Larder's chores: `cargo xtask help` lists them.

#![expect(clippy::print_stdout, reason = "a command line program talks on stdout")]
#![expect(clippy::print_stderr, reason = "and says on stderr what failed")]

mod args;
mod bench;
mod cargo;
mod ci;
mod crash;
mod deps;
mod features;
mod fuzz;
mod model;
mod run_tests;
mod tidy;
mod workspace;

use std::{env, error::Error, process::ExitCode};

use crate::args::Task;

/// What a chore that failed says.
type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let done = args::parse(env::args().skip(1)).and_then(|task| match task {
        Task::Help => {
            print!("{}", args::HELP);
            Ok(())
        }
        Task::Test(args) => run_tests::run(&args),
        Task::Ci(steps) => ci::run(&steps),
        Task::Model(model) => model::run(&model),
        Task::Fuzz(fuzz) => fuzz::run(&fuzz),
        Task::Crash(crash) => crash::run(&crash),
        Task::Bench(bench) => bench::run(&bench),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
