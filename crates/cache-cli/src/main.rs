//! The `larder` command: warm, inspect and watch a Larder cache.

mod args;
mod benchmark;
mod changes;
mod config;
mod context;
mod daemon;
mod demo;
mod dictionary;
mod exit;
mod get;
mod import;
mod interrupts;
mod jobs;
mod log;
mod markets;
mod output;
mod progress;
mod stats;
mod table;
mod validate;
mod warm;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    args::{Args, Command, ConfigCommand},
    exit::{Exit, Failure},
};

fn main() -> ExitCode {
    let args = Args::parse();
    log::start(args.global.quiet, args.global.verbose);
    let format = args.global.format;
    let result = run(args);
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output::report(&failure, format);
            failure.exit.into()
        }
    }
}

fn run(args: Args) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    let Args { global, command } = args;
    runtime.block_on(async {
        match command {
            Command::Demo(args) => demo::run(&global, &args).await,
            Command::Get(args) => get::run(&global, &args).await,
            Command::Warm(args) => warm::run(&global, &args).await,
            Command::Changes(args) => changes::run(&global, &args).await,
            Command::Daemon => daemon::run(&global).await,
            Command::Jobs => jobs::run(&global).await,
            Command::Import(args) => import::run(&global, &args).await,
            Command::Stats => stats::run(&global).await,
            Command::Validate(args) => validate::run(&global, &args).await,
            Command::Dictionary { command } => dictionary::run(&global, &command).await,
            Command::Benchmark(args) => benchmark::run(&global, &args).await,
            Command::Config { command: ConfigCommand::Check } => config::check(&global),
            Command::Config { command: ConfigCommand::Show } => config::show(&global),
        }
    })
}
