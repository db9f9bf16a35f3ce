//! The long form of the test of hostile frames: many of them, from a seed of the day.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::{Result, cargo, ci::seconds};

/// Which frames are read, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fuzz {
    pub(crate) frames: u64,
    /// The first seed, the others follow; `None`: one that was never used before, as good as.
    pub(crate) seed: Option<u64>,
    pub(crate) release: bool,
}

impl Default for Fuzz {
    fn default() -> Self {
        Self { frames: 1_000_000, seed: None, release: false }
    }
}

/// Reads the frames.
pub(crate) fn run(fuzz: &Fuzz) -> Result<()> {
    let started = Instant::now();
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let seed = fuzz.seed.unwrap_or(since.as_millis() as u64);
    let (frames, seed) = (fuzz.frames.to_string(), seed.to_string());
    let variables = [("LARDER_FUZZ_FRAMES", &*frames), ("LARDER_FUZZ_FIRST", &*seed)];
    cargo::run_with_env(&command(fuzz.release), &variables)?;
    println!(
        "xtask fuzz: {frames} frames from seed {seed} were read as they must be; it took {}",
        seconds(started.elapsed())
    );
    Ok(())
}

fn command(release: bool) -> Vec<&'static str> {
    let mut command =
        vec!["test", "--package", "codec-compress", "--all-features", "--test", "hostile"];
    command.extend(release.then_some("--release"));
    command.extend(["--", "--nocapture", "hostile_frames"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_said_to_cargo_and_not_to_the_test() {
        assert_eq!(
            command(true).join(" "),
            "test --package codec-compress --all-features --test hostile --release -- --nocapture \
             hostile_frames"
        );
        assert!(!command(false).contains(&"--release"));
    }
}
