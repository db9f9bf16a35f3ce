//! Users of the memory tier alone must not pay for what other features need.

use crate::{Result, cargo};

const TREE: [&str; 8] = [
    "tree",
    "--package",
    "larder",
    "--no-default-features",
    "--features",
    "memory",
    "--edges",
    "normal",
];

/// Crates of other features; the two C libraries among them take longest to build.
const FOREIGN: [&str; 9] = [
    "clap",
    "libsqlite3-sys",
    "redis",
    "reqwest",
    "rusqlite",
    "rustls",
    "zstd",
    "zstd-safe",
    "zstd-sys",
];

pub(crate) fn check() -> Result<()> {
    let tree = cargo::output(&[&TREE[..], &["--prefix", "none"]].concat())?;
    // A tree of something else would pass for the wrong reason.
    if !crates(&tree).any(|name| name == "tier-memory") {
        return Err(format!("`cargo {}` does not name tier-memory", TREE.join(" ")).into());
    }
    let foreign = foreign(&tree);
    if !foreign.is_empty() {
        return Err(format!(
            "larder with only `memory` depends on {}; `cargo {} --invert CRATE` says why",
            foreign.join(", "),
            TREE.join(" ")
        )
        .into());
    }
    let mut names: Vec<_> = crates(&tree).collect();
    names.sort_unstable();
    names.dedup();
    println!("larder with only `memory`: {} crates, none of other features", names.len());
    Ok(())
}

fn crates(tree: &str) -> impl Iterator<Item = &str> {
    tree.lines().filter_map(|line| line.split_whitespace().next())
}

fn foreign(tree: &str) -> Vec<&'static str> {
    FOREIGN.into_iter().filter(|foreign| crates(tree).any(|name| name == *foreign)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_count() {
        let tree = "larder v0.1.0 (/w/crates/larder)\nredistribute v1.0.0\nzstd-sys v2.0.1+zstd.1\n\
                    clap_lex v1.0.0\n\nreqwest v0.13.5 (*)\n";
        assert_eq!(foreign(tree), ["reqwest", "zstd-sys"]);
        assert_eq!(foreign("larder v0.1.0\ntier-memory v0.1.0\n"), [""; 0]);
    }
}
