//! What the command line asks for.

use crate::{Result, bench::Bench, ci::Step, crash::Crash, fuzz::Fuzz, model::Model};

pub(crate) const HELP: &str = "\
Larder's chores.

cargo xtask test [-- ARGS]     all tests: cargo-nextest if it is installed, else cargo test;
                               then the doctests. ARGS go to the runner, for example the name
                               of a test; doctests are left out then.
cargo xtask ci                 what continuous integration checks, in this order:
                               test, crash, soak, fmt, clippy, doc, features, deps, tidy.
                               Stops at the first step that fails.
cargo xtask ci --only A,B      these steps only
cargo xtask ci --skip A,B      all steps but these
cargo xtask model              10,000 random histories of a chain against a simple model (`test`
                               plays some hundred); says the seed of one that breaks a rule.
    --sequences N              so many
    --seed S                   from this seed on, instead of one of the moment
    --release                  optimised
cargo xtask fuzz               1,000,000 frames, damaged, made up or declared wrongly, of every codec
                               (`test` reads 20,000); says the seed of one that gives wrong bytes or
                               takes more memory than it may.
    --frames N                 so many
    --seed S, --release        as above
cargo xtask crash              kills processes that write to the SQLite tier at random instants, and at
                               every single write and sync, which needs strace; what they had said to
                               be stored or purged must be so
    --cycles N                 so many kills at random instants, of 300
    --seed S                   from this seed, instead of one of the moment
    --no-strace                at random instants only
    --release                  optimised
cargo xtask soak               two processes that read and one that writes on one SQLite file: no errors,
                               and what reads take beside what they take alone
    --seconds N                for so long, of 60
    --seed S, --release        as above
cargo xtask bench              all benchmarks; writes ratios.json, report.md and report.html to
                               target/bench
    --quick                    fewer and shorter rounds: under two minutes in all
    --group NAME               this group only: hit-path, typed, insert, sqlite, batch, codec,
                               stampede, scale or warming; may be repeated
    --peers                    beside other caches, which take some minutes to build
    --traces DIR               replays the cache traces in this directory, too
cargo xtask help               this text

With the variable CI set, `test` uses the profile `ci` of .config/nextest.toml.
";

/// A chore.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Help,
    /// With arguments for the test runner.
    Test(Vec<String>),
    Ci(Vec<Step>),
    Model(Model),
    Fuzz(Fuzz),
    Crash(Crash),
    Bench(Bench),
}

/// What `args`, without the program's name, ask for.
pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Task> {
    let mut args = args.into_iter().peekable();
    match args.next().as_deref() {
        None | Some("help" | "--help" | "-h") => Ok(Task::Help),
        Some("test") => {
            args.next_if(|arg| arg == "--");
            Ok(Task::Test(args.collect()))
        }
        Some("ci") => steps(args).map(Task::Ci),
        Some("model") => {
            let (sequences, seed, release) =
                seeded(args, "model", "--sequences", Model::default().sequences)?;
            Ok(Task::Model(Model { sequences, seed, release }))
        }
        Some("fuzz") => {
            let (frames, seed, release) = seeded(args, "fuzz", "--frames", Fuzz::default().frames)?;
            Ok(Task::Fuzz(Fuzz { frames, seed, release }))
        }
        Some(task @ ("crash" | "soak")) => {
            let (release, options): (Vec<_>, Vec<_>) = args.partition(|arg| arg == "--release");
            let task = if task == "crash" { "crash" } else { "soak" };
            Ok(Task::Crash(Crash { task, release: !release.is_empty(), options }))
        }
        Some("bench") => {
            let (peers, options): (Vec<_>, Vec<_>) = args.partition(|arg| arg == "--peers");
            Ok(Task::Bench(Bench { peers: !peers.is_empty(), options }))
        }
        Some(other) => Err(format!("no chore `{other}`; try `cargo xtask help`").into()),
    }
}

fn steps(mut args: impl Iterator<Item = String>) -> Result<Vec<Step>> {
    let mut steps = Step::ALL.to_vec();
    while let Some(option) = args.next() {
        let keep = match option.as_str() {
            "--only" => true,
            "--skip" => false,
            _ => return Err(format!("`ci` takes --only and --skip, not `{option}`").into()),
        };
        let named = args.next().ok_or_else(|| format!("{option} needs names of steps"))?;
        let named = named.split(',').map(Step::parse).collect::<Result<Vec<_>>>()?;
        steps.retain(|step| named.contains(step) == keep);
    }
    if steps.is_empty() { Err("no step is left to run".into()) } else { Ok(steps) }
}

/// How many, from which seed on, and whether optimised.
fn seeded(
    mut args: impl Iterator<Item = String>,
    chore: &str,
    many: &str,
    default: u64,
) -> Result<(u64, Option<u64>, bool)> {
    let (mut count, mut seed, mut release) = (default, None, false);
    while let Some(option) = args.next() {
        let mut number = || -> Result<u64> {
            let number = args.next().ok_or_else(|| format!("{option} needs a number"))?;
            let wrong = |error| format!("{option} needs a number, not `{number}`: {error}");
            Ok(number.parse().map_err(|error: std::num::ParseIntError| wrong(error))?)
        };
        match option.as_str() {
            "--seed" => seed = Some(number()?),
            "--release" => release = true,
            option if option == many => count = number()?,
            _ => {
                let all = format!("{many}, --seed and --release");
                return Err(format!("`{chore}` takes {all}, not `{option}`").into());
            }
        }
    }
    if count == 0 {
        return Err(format!("{many} 0 leaves nothing to do").into());
    }
    Ok((count, seed, release))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    fn refused(line: &str) -> String {
        parsed(line).unwrap_err().to_string()
    }

    #[test]
    fn test_passes_arguments_on() {
        let args = vec!["--no-capture".to_owned(), "name".to_owned()];
        assert_eq!(parsed("test").unwrap(), Task::Test(Vec::new()));
        assert_eq!(parsed("test -- --no-capture name").unwrap(), Task::Test(args.clone()));
        assert_eq!(parsed("test --no-capture name").unwrap(), Task::Test(args));
    }

    #[test]
    fn ci_runs_all_steps_in_order_unless_told_otherwise() {
        assert_eq!(parsed("ci").unwrap(), Task::Ci(Step::ALL.to_vec()));
        assert_eq!(
            parsed("ci --only clippy,fmt").unwrap(),
            Task::Ci(vec![Step::Fmt, Step::Clippy])
        );
        let Task::Ci(steps) = parsed("ci --skip test,tidy").unwrap() else { panic!("not ci") };
        assert_eq!(steps, Step::ALL[1..Step::ALL.len() - 1]);
    }

    #[test]
    fn model_plays_ten_thousand_unless_told_otherwise() {
        let long = Model { sequences: 10_000, seed: None, release: false };
        assert_eq!(parsed("model").unwrap(), Task::Model(long));
        let told = Model { sequences: 7, seed: Some(3), release: true };
        let line = "model --seed 3 --release --sequences 7";
        assert_eq!(parsed(line).unwrap(), Task::Model(told));
        assert!(refused("model --seed").contains("--seed needs"));
        assert!(refused("model --seed x").contains("`x`"));
        assert!(refused("model --sequences 0").contains("nothing to do"));
        assert!(refused("model --sequence 5").contains("`--sequence`"));
    }

    #[test]
    fn fuzz_reads_a_million_unless_told_otherwise() {
        let long = Fuzz { frames: 1_000_000, seed: None, release: false };
        assert_eq!(parsed("fuzz").unwrap(), Task::Fuzz(long));
        let told = Fuzz { frames: 5, seed: Some(9), release: true };
        assert_eq!(parsed("fuzz --release --frames 5 --seed 9").unwrap(), Task::Fuzz(told));
        assert!(refused("fuzz --sequences 5").contains("takes --frames"));
    }

    #[test]
    fn bench_passes_on_what_is_not_about_building() {
        let all = Bench { peers: false, options: Vec::new() };
        assert_eq!(parsed("bench").unwrap(), Task::Bench(all));
        let options = vec!["--group".to_owned(), "codec".to_owned()];
        let told = Bench { peers: true, options };
        assert_eq!(parsed("bench --group codec --peers").unwrap(), Task::Bench(told));
    }

    #[test]
    fn crash_and_soak_pass_on_what_is_not_about_building() {
        let options = vec!["--cycles".to_owned(), "7".to_owned()];
        let told = Crash { task: "crash", release: true, options };
        assert_eq!(parsed("crash --release --cycles 7").unwrap(), Task::Crash(told));
        let plain = Crash { task: "soak", release: false, options: Vec::new() };
        assert_eq!(parsed("soak").unwrap(), Task::Crash(plain));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert!(refused("tset").contains("`tset`"));
        assert!(refused("ci --fast").contains("`--fast`"));
        assert!(refused("ci --only").contains("--only needs"));
        assert!(refused("ci --only fmt,lint").contains("`lint`"));
        assert!(refused("ci --only fmt --skip fmt").contains("no step"));
    }

    #[test]
    fn help_names_every_step() {
        assert_eq!(parsed("").unwrap(), Task::Help);
        let names: Vec<_> = Step::ALL.iter().map(|step| step.name()).collect();
        assert!(HELP.contains(&names.join(", ")), "the order in the text is the order of the run");
    }
}
