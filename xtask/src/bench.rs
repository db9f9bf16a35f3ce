//! The benchmarks: built as users build, run with the options that the benchmark program takes.

use crate::{Result, cargo};

/// Which benchmarks are run, and how.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bench {
    /// Whether other caches are built in, to compare with.
    pub(crate) peers: bool,
    /// Options of the benchmark program.
    pub(crate) options: Vec<String>,
}

pub(crate) fn run(bench: &Bench) -> Result<()> {
    cargo::run(&command(bench))
}

fn command(bench: &Bench) -> Vec<&str> {
    let mut command = vec!["run", "--profile", "bench", "--package", "larder-bench"];
    if bench.peers {
        command.extend(["--features", "peers"]);
    }
    command.push("--");
    command.extend(bench.options.iter().map(String::as_str));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_built_only_when_they_are_asked_for() {
        let options = vec!["--quick".to_owned()];
        let line = command(&Bench { peers: false, options: options.clone() }).join(" ");
        assert_eq!(line, "run --profile bench --package larder-bench -- --quick");
        let line = command(&Bench { peers: true, options }).join(" ");
        assert_eq!(line, "run --profile bench --package larder-bench --features peers -- --quick");
    }
}
