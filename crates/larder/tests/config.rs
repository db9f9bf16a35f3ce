//! The configuration through its public interface.

#![cfg(feature = "config")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "config/advice.rs"]
mod advice;
#[cfg(all(feature = "memory", feature = "sqlite", feature = "http"))]
#[path = "config/chain.rs"]
mod chain;
#[path = "config/errors.rs"]
mod errors;
#[path = "config/layers.rs"]
mod layers;
#[path = "config/options.rs"]
mod options;
#[path = "config/policies.rs"]
mod policies;
#[path = "config/secrets.rs"]
mod secrets;
#[path = "config/tiers.rs"]
mod tiers;
#[path = "config/variables.rs"]
mod variables;

use std::{fmt::Write, fs, path::PathBuf, time::Duration};

use larder::config::{
    Algorithm, CacheConfig, ConfigError, DictionaryUse, Loaded, Provenance, RateLimit, Secret,
    SourceConfig, Status, TierKind, Ttl,
};

const HOUR: u64 = 3600;

fn shipped(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../config").join(name)
}

fn no_env() -> [(&'static str, &'static str); 0] {
    []
}

/// The settings `lines` below `cache:`, one a line.
fn cache(lines: &[&str]) -> String {
    let mut yaml = String::from("cache:\n");
    for line in lines {
        writeln!(yaml, "  {line}").expect("a string");
    }
    yaml
}

fn load(yaml: &str) -> Result<Loaded, ConfigError> {
    CacheConfig::loader().yaml(yaml, "larder.yaml").load()
}

fn good(lines: &[&str]) -> CacheConfig {
    load(&cache(lines)).unwrap_or_else(|error| panic!("{lines:?}: {error}")).config
}

#[track_caller]
fn bad(yaml: &str, message: &str) {
    let error = load(yaml).expect_err(yaml).to_string();
    assert_eq!(error, message);
}

fn from<'a>(loaded: &'a Loaded, path: &str) -> (&'a str, &'a Provenance) {
    let setting = loaded.settings.iter().find(|setting| setting.path == path).expect(path);
    (&setting.value, &setting.from)
}

fn file(line: u64) -> Provenance {
    Provenance::File { name: "larder.yaml".into(), line }
}
