//! What can be typed.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

/// Keeps the answers of slow, rate-limited, costly data APIs close to you.
#[derive(Debug, Parser)]
#[command(name = "larder", version, about, propagate_version = true, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 5 problems found,
6 partly done, 130 interrupted.
Start with:  larder demo";

/// Flags that every command takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Global {
    /// Configuration file; without it `$LARDER_CONFIG`, or the first of these: `larder.yaml`,
    /// `config/larder.yaml`, `config/cache_config.yaml`, `larder/larder.yaml` in the user's
    /// configuration directory
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Never call an origin: answer from what is stored, and say what is missing
    #[arg(long, global = true)]
    pub(crate) offline: bool,
    /// How to print results
    #[arg(short = 'F', long, global = true, value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Print results and errors only: no progress, no remarks
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Say more about what happens; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// One JSON document
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch ten real markets being fetched from a slow API once, and served from cache ever after
    Demo(DemoArgs),
    /// Print the answer of a source about a market, from the cache or, if need be, its origin
    #[command(after_help = GET_EXAMPLES)]
    Get(GetArgs),
    /// Fetch what is not stored yet for many markets and sources
    #[command(after_help = WARM_EXAMPLES)]
    Warm(WarmArgs),
    /// Warm by the schedules of `cache.jobs`, until it is stopped
    #[command(after_help = DAEMON_EXAMPLES)]
    Daemon,
    /// Show the jobs of `cache.jobs`, when they run next, and how their last run went
    Jobs,
    /// Show what warming has found to have changed
    Changes(ChangesArgs),
    /// Copy what is live in a cache file of the Python cache manager into the configured cache
    #[command(after_help = IMPORT_EXAMPLES)]
    Import(ImportArgs),
    /// Show what is stored, by tier, source and codec
    Stats,
    /// Check everything that is stored, and mend or remove what is wrong
    Validate(ValidateArgs),
    /// Train or list the dictionaries that small values are compressed with
    #[command(after_help = DICTIONARY_EXAMPLES)]
    Dictionary {
        #[command(subcommand)]
        command: DictionaryCommand,
    },
    /// Measure on what is stored, and recommend settings
    #[command(after_help = BENCHMARK_EXAMPLES)]
    Benchmark(BenchmarkArgs),
    /// Check or show the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

const GET_EXAMPLES: &str = "\
Examples:
  larder get census_acs --market \"Boulder, CO\"
  larder get census_acs --market 14500 --param year=2021 --format json
  larder get census_acs --market 14500 --refresh";

const WARM_EXAMPLES: &str = "\
Examples:
  larder warm --markets markets.csv --sources census_acs,bls_ces
  larder warm --market boulder-co --market 19740 --sources census_acs
  larder warm --all-metros --sources census_acs --dry-run
  larder warm --market \"Boulder, CO\" --nearby=60 --sources census_acs --max-age 7d

A markets file is CSV with a column `market` (names, slugs or CBSA codes) and, if wanted, further
columns that feed URL parameters; `lat` and `lon` say for --nearby where a market is. What has been fetched
is stored: the same command, run again, fetches the rest.";

const DAEMON_EXAMPLES: &str = "\
In larder.yaml:
  cache:
    jobs:
      - {name: weekly, cron: '0 3 * * SUN', time_zone: America/Denver, all_metros: true, sources: census_acs}

Each job runs once when it is due, on one of the machines that share a tier. What was missed while none was
there is caught up once. Ctrl-C stops after what is under way; the rest is done at the next start.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  larder import aker_platform.db --dry-run
  larder import aker_platform.db

The file is only read. What was loaded or invalidated later in the configured cache stays so; to import
again copies what is new. Values become JSON; what cannot be is kept as application/python-pickle.";

const DICTIONARY_EXAMPLES: &str = "\
Examples:
  larder dictionary train --source census_acs
  larder dictionary list

With `cache.compression.dictionaries: auto` a source's first dictionary is trained by itself once 500 small
values of it are stored. What is stored already stays as it is.";

const BENCHMARK_EXAMPLES: &str = "\
Examples:
  larder benchmark --compression
  larder benchmark --compression --source census_acs --values 1000";

#[derive(Debug, Subcommand)]
pub(crate) enum DictionaryCommand {
    /// Learn from the small values of a source that are stored, for those to come
    Train {
        /// The source, as the first part of its keys; may be given several times
        #[arg(short, long, value_delimiter = ',', required = true, value_name = "NAME")]
        source: Vec<String>,
    },
    /// Show the dictionaries that are stored, and how much they save
    List,
}

#[derive(Debug, clap::Args)]
pub(crate) struct BenchmarkArgs {
    /// Try the codecs and their levels on the values that are stored
    #[arg(long, required = true)]
    pub(crate) compression: bool,
    /// Only values of this source; may be given several times [default: all that are stored]
    #[arg(short, long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) source: Vec<String>,
    /// Most values of a source to try, those stored last
    #[arg(long, default_value_t = 200, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) values: u32,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ChangesArgs {
    /// For how long back: 12h, 7d
    #[arg(long, value_name = "AGE", default_value = "7d", value_parser = larder::config::parse_duration)]
    pub(crate) since: std::time::Duration,
    /// Only of this source; may be given several times
    #[arg(short, long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) source: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ImportArgs {
    /// The cache file
    pub(crate) file: PathBuf,
    /// Only say what would be imported
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArgs {
    /// Mend what can be mended, and remove what cannot
    #[arg(long)]
    pub(crate) repair: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Where the demo keeps its SQLite file and its configuration
    #[arg(long, default_value = "larder-demo", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Start over: forget what an earlier run stored
    #[arg(long)]
    pub(crate) fresh: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// The source, as named under `cache.sources`
    pub(crate) source: String,
    /// The market: a name like "Boulder, CO", a slug like boulder-co, or a CBSA code like 14500
    #[arg(short, long)]
    pub(crate) market: String,
    /// A value for the source's URL, NAME=VALUE
    #[arg(short, long = "param", value_name = "NAME=VALUE", value_parser = pair)]
    pub(crate) params: Vec<(String, String)>,
    /// Load it now, whatever is stored, and store it
    #[arg(long, conflicts_with = "cached_only")]
    pub(crate) refresh: bool,
    /// Never load: answer from what is stored, or fail
    #[arg(long)]
    pub(crate) cached_only: bool,
    /// Answer with what is stale too, however stale, where there is nothing fresh
    #[arg(long)]
    pub(crate) allow_stale: bool,
}

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct WarmArgs {
    /// CSV file of markets; `-` reads standard input
    #[arg(long, value_name = "FILE",
        required_unless_present_any = ["market", "all_metros", "schedule"])]
    pub(crate) markets: Option<PathBuf>,
    /// One market more
    #[arg(short, long)]
    pub(crate) market: Vec<String>,
    /// All metropolitan areas of the United States
    #[arg(long)]
    pub(crate) all_metros: bool,
    /// Markets within so many miles of those, too [default: `cache.prefetch.nearby_radius_miles`]
    #[expect(clippy::option_option, reason = "the flag may be alone")]
    #[arg(long, value_name = "MILES", num_args = 0..=1, require_equals = true, value_parser = miles)]
    pub(crate) nearby: Option<Option<f64>>,
    /// Fail, and fetch nothing, if a market is not known
    #[arg(long)]
    pub(crate) strict: bool,
    /// Sources, as named under `cache.sources`
    #[arg(
        short,
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        required_unless_present = "schedule"
    )]
    sources: Vec<String>,
    /// Warm by the schedules of `cache.jobs`, until it is stopped: the same as `larder daemon`
    #[arg(long, exclusive = true)]
    pub(crate) schedule: bool,
    /// Only say what would be asked for, how long that takes, and what it costs
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Ask for what is fresh, too
    #[arg(long)]
    pub(crate) refresh: bool,
    /// Ask for what was loaded longer ago than this, although it is fresh: 12h, 7d
    #[arg(long, value_name = "AGE", value_parser = larder::config::parse_duration,
        conflicts_with = "refresh")]
    pub(crate) max_age: Option<std::time::Duration>,
    /// Stop at the first failure; otherwise what may pass is tried again at the end
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Most requests under way at a time [default: `cache.prefetch.max_parallel_requests`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) parallel: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the configuration and say what is wrong with it
    Check,
    /// Show every setting, its value and where it came from; secrets are hidden
    Show,
}

impl WarmArgs {
    /// The sources named, as `a, b,` is usually meant.
    pub(crate) fn sources(&self) -> Vec<String> {
        let names = self.sources.iter().map(|name| name.trim());
        names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }
}

fn miles(text: &str) -> Result<f64, String> {
    let miles = text.parse().ok().filter(|miles: &f64| miles.is_finite() && *miles >= 0.0);
    miles.ok_or_else(|| "write a number of miles, such as 60".to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}
