//! All tests, with the best runner there is.

use std::{env, time::Instant};

use crate::{Result, cargo, ci::seconds};

/// The benchmarks have no tests, and with all features they build a dozen other caches.
const EVERYTHING: [&str; 4] = ["--workspace", "--exclude", "larder-bench", "--all-features"];
/// With a package that `args` name, `--workspace` would win.
const OF_ONE_PACKAGE: [&str; 1] = ["--all-features"];

/// Runs all tests and the doctests or, with `args`, the tests that the runner picks by them.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let started = Instant::now();
    let (name, runner) = runner(cargo::has("nextest"), env::var_os("CI").is_some());
    let scope = if names_package(args) { &OF_ONE_PACKAGE[..] } else { &EVERYTHING };
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    cargo::run(&[runner, scope, &args].concat())?;
    if args.is_empty() {
        // nextest runs none, and cargo test was told to leave them for here.
        cargo::run(&[&["test", "--doc"][..], &EVERYTHING].concat())?;
        println!("xtask test: {name} and doctests passed in {}", seconds(started.elapsed()));
    } else {
        println!("xtask test: {name} passed in {}; no doctests", seconds(started.elapsed()));
    }
    Ok(())
}

fn names_package(args: &[String]) -> bool {
    let own = args.iter().take_while(|arg| *arg != "--");
    own.map(String::as_str)
        .any(|arg| arg.starts_with("-p") || arg == "--package" || arg.starts_with("--package="))
}

/// The runner's name and the start of its command line.
fn runner(nextest: bool, ci: bool) -> (&'static str, &'static [&'static str]) {
    match (nextest, ci) {
        (true, true) => ("cargo nextest", &["nextest", "run", "--profile", "ci"]),
        (true, false) => ("cargo nextest", &["nextest", "run"]),
        (false, _) => ("cargo test", &["test", "--no-fail-fast", "--tests", "--examples"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nextest_is_used_where_it_is_and_has_a_profile_for_ci() {
        assert_eq!(runner(true, false).1, ["nextest", "run"]);
        assert_eq!(runner(true, true).1, ["nextest", "run", "--profile", "ci"]);
        assert_eq!(runner(false, true), runner(false, false));
        assert_eq!(runner(false, true).0, "cargo test");
    }

    #[test]
    fn a_package_that_is_named_is_not_drowned_in_the_workspace() {
        let named = |line: &str| {
            names_package(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        assert!(named("-p larder") && named("-plarder name") && named("--package=larder"));
        assert!(!named("") && !named("name --profile ci") && !named("name -- -p"));
    }
}
