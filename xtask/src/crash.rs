//! Crash safety, and several processes on one file: another program does both, as processes are
//! killed in it.

use crate::{Result, cargo};

/// What is done, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Crash {
    /// The program's subcommand.
    pub(crate) task: &'static str,
    pub(crate) release: bool,
    /// Options of the subcommand.
    pub(crate) options: Vec<String>,
}

impl Crash {
    /// As continuous integration does it.
    pub(crate) fn step(task: &'static str, options: &[&str]) -> Self {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Self { task, release: false, options }
    }
}

pub(crate) fn run(crash: &Crash) -> Result<()> {
    cargo::run(&command(crash))
}

fn command(crash: &Crash) -> Vec<&str> {
    let mut command = vec!["run", "--package", "larder-crash"];
    command.extend(crash.release.then_some("--release"));
    command.extend(["--", crash.task]);
    command.extend(crash.options.iter().map(String::as_str));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_said_to_cargo_and_not_to_the_program() {
        let mut crash = Crash::step("soak", &["--seconds", "5"]);
        let plain = "run --package larder-crash -- soak --seconds 5";
        assert_eq!(command(&crash).join(" "), plain);
        crash.release = true;
        let optimised = "run --package larder-crash --release -- soak --seconds 5";
        assert_eq!(command(&crash).join(" "), optimised);
    }
}
