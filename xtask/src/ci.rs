//! The steps of continuous integration.

use std::time::{Duration, Instant};

use crate::{
    Result, cargo,
    crash::{self, Crash},
    deps, features, run_tests, tidy,
};

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Test,
    Crash,
    Soak,
    Fmt,
    Clippy,
    Doc,
    Features,
    Deps,
    Tidy,
}

impl Step {
    /// All of them, in the order in which they run.
    pub(crate) const ALL: [Self; 9] = [
        Self::Test,
        Self::Crash,
        Self::Soak,
        Self::Fmt,
        Self::Clippy,
        Self::Doc,
        Self::Features,
        Self::Deps,
        Self::Tidy,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Crash => "crash",
            Self::Soak => "soak",
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Doc => "doc",
            Self::Features => "features",
            Self::Deps => "deps",
            Self::Tidy => "tidy",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("no step `{name}`; there are {names}").into()
        })
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Test => run_tests::run(&[]),
            Self::Crash => crash::run(&Crash::step("crash", &["--cycles", "300"])),
            Self::Soak => crash::run(&Crash::step("soak", &["--seconds", "5"])),
            Self::Fmt => cargo::run(&["fmt", "--all", "--", "--check"]),
            Self::Clippy => cargo::run(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--all-features",
                "--",
                "-D",
                "warnings",
            ]),
            Self::Doc => cargo::run_with_env(
                &["doc", "--workspace", "--no-deps", "--all-features"],
                &[("RUSTDOCFLAGS", "-D warnings")],
            ),
            Self::Features => features::check(),
            Self::Deps => deps::check(),
            Self::Tidy => tidy::check(),
        }
    }
}

/// Runs `steps` until one fails.
pub(crate) fn run(steps: &[Step]) -> Result<()> {
    let started = Instant::now();
    let mut taken = Vec::new();
    for &step in steps {
        let name = step.name();
        println!("\n== {name}");
        let begun = Instant::now();
        if let Err(error) = step.run() {
            return Err(format!(
                "{error}\nxtask: step `{name}` failed after {}; run it alone with \
                 `cargo xtask ci --only {name}`",
                seconds(begun.elapsed())
            )
            .into());
        }
        println!("== {name}: ok, {}", seconds(begun.elapsed()));
        taken.push(format!("{name} {}", seconds(begun.elapsed())));
    }
    let total = seconds(started.elapsed());
    println!("\nxtask ci: all passed in {total}: {}", taken.join(", "));
    Ok(())
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_found_by_its_name() {
        for step in Step::ALL {
            assert_eq!(Step::parse(step.name()).unwrap(), step);
        }
        let refused = Step::parse("lint").unwrap_err().to_string();
        assert!(refused.contains("`lint`") && refused.contains("clippy"), "{refused}");
    }
}
