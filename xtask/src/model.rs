//! The long form of the model-based test: many random histories, from a seed of the day.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::{Result, cargo, ci::seconds};

/// Which histories are played, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) sequences: u64,
    /// The first seed, the others follow; `None`: one that was never played before, as good as.
    pub(crate) seed: Option<u64>,
    pub(crate) release: bool,
}

impl Default for Model {
    fn default() -> Self {
        Self { sequences: 10_000, seed: None, release: false }
    }
}

/// Plays the histories.
pub(crate) fn run(model: &Model) -> Result<()> {
    let started = Instant::now();
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = model.seed.unwrap_or(since.as_millis() as u64);
    let (sequences, seed) = (model.sequences.to_string(), seed.to_string());
    let variables = [("LARDER_MODEL_SEQUENCES", &*sequences), ("LARDER_MODEL_FIRST", &*seed)];
    cargo::run_with_env(&command(model.release), &variables)?;
    println!(
        "xtask model: {sequences} histories from seed {seed} break no rule; it took {}",
        seconds(started.elapsed())
    );
    Ok(())
}

fn command(release: bool) -> Vec<&'static str> {
    let mut command = vec!["test", "--package", "larder-tests", "--test", "model"];
    command.extend(release.then_some("--release"));
    command.extend(["--", "--nocapture", "random_histories"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_said_to_cargo_and_not_to_the_test() {
        assert_eq!(
            command(true).join(" "),
            "test --package larder-tests --test model --release -- --nocapture random_histories"
        );
        assert!(!command(false).contains(&"--release"));
    }
}
