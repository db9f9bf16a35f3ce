//! Benchmarks: what Larder costs over the parts it is built on, and beside its peers.
//!
//! The cases of a group are measured in turn, round by round, in one process: the machine's noise
//! falls on all of them, and the ratios hold. Each ratio has a goal; see `docs/benchmarks.md`.
#![expect(clippy::print_stdout, reason = "it prints its results")]
#![expect(clippy::cast_possible_wrap, clippy::cast_sign_loss, reason = "figures for people")]

mod allocations;
mod chart;
mod data;
mod groups;
mod measure;
mod report;
mod traces;

use std::{path::PathBuf, time::Instant};

use clap::{Parser, ValueEnum};

use crate::{measure::Effort, report::Report};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures Larder beside the parts it is built on, and beside its peers.
#[derive(Debug, Parser)]
struct Args {
    /// Fewer and shorter rounds: under two minutes in all
    #[arg(long)]
    quick: bool,

    /// Measures this group only; may be repeated
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<Group>,

    /// Directory with cache traces to replay in the group `scale`
    #[arg(long, value_name = "DIR")]
    traces: Option<PathBuf>,

    /// Directory that the reports are written to
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
}

/// What is measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// A hit in memory through the whole chain
    HitPath,
    /// A hit in memory as a decoded object
    Typed,
    /// Putting into memory
    Insert,
    /// Reads and writes of the SQLite tier
    Sqlite,
    /// Many keys in one call
    Batch,
    /// Compression
    Codec,
    /// Many readers of one missing key
    Stampede,
    /// Many entries, many threads, hit ratios
    Scale,
    /// Markets x sources fetched within limits
    Warming,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let started = Instant::now();
    let groups = if args.groups.is_empty() { Group::value_variants() } else { &args.groups };
    let mut report = Report::default();
    for group in groups {
        let effort = Effort::new(args.quick);
        println!("measuring {} ...", name(*group));
        match group {
            Group::HitPath => groups::hit_path::run(&effort, &mut report)?,
            Group::Typed => groups::typed::run(&effort, &mut report)?,
            Group::Insert => groups::insert::run(&effort, &mut report),
            Group::Sqlite => groups::sqlite::run(&effort, &mut report)?,
            Group::Batch => groups::batch::run(&effort, &mut report)?,
            Group::Codec => groups::codec::run(&effort, &mut report)?,
            Group::Stampede => groups::stampede::run(&effort, &mut report)?,
            Group::Warming => groups::warming::run(&effort, &mut report)?,
            Group::Scale => groups::scale::run(&effort, args.traces.as_deref(), &mut report)?,
        }
    }
    println!("{}", report.table());
    report.write(&args.out)?;
    println!(
        "ratios.json, report.md and report.html are in {}; it took {:.0?}",
        args.out.display(),
        started.elapsed()
    );
    Ok(())
}

fn name(group: Group) -> String {
    group.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
