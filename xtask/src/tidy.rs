//! Rules about the repository itself that no compiler checks.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    Result,
    workspace::{Package, Workspace},
};

/// What each package of the workspace may use of it; tests may use anything.
const MAY_USE: [(&str, &[&str]); 15] = [
    ("cache-core", &[]),
    ("codec-compress", &["cache-core"]),
    ("origin-http", &["cache-core"]),
    ("origin-limits", &[]),
    ("python-cache", &["cache-core"]),
    ("tier-memory", &["cache-core"]),
    ("tier-sqlite", &["cache-core", "python-cache"]),
    ("tier-testkit", &["cache-core"]),
    (
        "larder",
        &[
            "cache-core",
            "codec-compress",
            "origin-http",
            "origin-limits",
            "python-cache",
            "tier-memory",
            "tier-sqlite",
        ],
    ),
    ("cache-warmer", &["larder"]),
    ("cache-cli", &["cache-warmer", "larder"]),
    ("larder-bench", &["cache-core", "cache-warmer", "codec-compress", "larder"]),
    ("larder-crash", &["larder", "tier-testkit"]),
    ("larder-tests", &[]),
    ("xtask", &[]),
];

/// In Cargo.lock it would be a version that is not published.
const UNPUBLISHED: &str = "sqlite-wasm-rs";

/// The registry that cargo uses when told nothing.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn check() -> Result<()> {
    let workspace = Workspace::load()?;
    let mut found = directions(&workspace.packages);
    found.extend(lock(&fs::read_to_string(workspace.root.join("Cargo.lock"))?));
    let mut files = Vec::new();
    for package in &workspace.packages {
        rust_files(&package.dir, &mut files)?;
    }
    for path in &files {
        let shown = path.strip_prefix(&workspace.root).unwrap_or(path);
        found.extend(source(shown, &fs::read_to_string(path)?));
    }
    if found.is_empty() {
        println!("{} packages and {} files are tidy", workspace.packages.len(), files.len());
        Ok(())
    } else {
        Err(found.join("\n").into())
    }
}

/// Uses between packages that point the wrong way.
fn directions(packages: &[Package]) -> Vec<String> {
    let mut found = Vec::new();
    for package in packages {
        let name = &package.name;
        let Some((_, may)) = MAY_USE.iter().find(|(known, _)| known == name) else {
            found.push(format!("{name}: say what it may use in xtask/src/tidy.rs"));
            continue;
        };
        let wrong = package.uses.iter().filter(|used| !may.contains(&used.as_str()));
        found.extend(wrong.map(|used| format!("{name}: must not depend on {used}")));
    }
    found
}

/// What is wrong with Cargo.lock.
fn lock(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut name = "";
    for line in text.lines() {
        let value = |field| {
            line.strip_prefix(field)
                .and_then(|rest: &str| rest.strip_prefix(" = \""))?
                .strip_suffix('"')
        };
        name = value("name").unwrap_or(name);
        if value("name") == Some(UNPUBLISHED) {
            found.push(format!("Cargo.lock: {name}: keep the default features of rusqlite off"));
        }
        if let Some(source) = value("source").filter(|source| *source != REGISTRY) {
            found.push(format!("Cargo.lock: {name}: comes from {source}, not from crates.io"));
        }
    }
    found
}

/// What is wrong with a source file.
fn source(path: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if path.file_name() == Some(OsStr::new("mod.rs")) {
        found.push(format!("{}: name it after its module, beside the directory", path.display()));
    }
    if !text.starts_with("//!") {
        found.push(format!("{}: open with `//!` and what the module is", path.display()));
    }
    found
}

/// Adds the Rust files below `dir`, but not what was built.
fn rust_files(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = fs::read_dir(dir)?.collect::<std::io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                rust_files(&path, files)?;
            }
        } else if path.extension() == Some(OsStr::new("rs")) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, uses: &[&str]) -> Package {
        Package {
            name: name.into(),
            dir: PathBuf::new(),
            features: Vec::new(),
            uses: uses.iter().map(|&used| used.into()).collect(),
        }
    }

    #[test]
    fn dependencies_point_one_way() {
        assert_eq!(directions(&[package("larder", &["cache-core", "tier-sqlite"])]), [""; 0]);
        assert_eq!(
            directions(&[package("tier-memory", &["cache-core", "larder"]), package("new", &[])]),
            [
                "tier-memory: must not depend on larder",
                "new: say what it may use in xtask/src/tidy.rs"
            ]
        );
    }

    #[test]
    fn what_a_package_may_use_has_no_circle() {
        for (at, (name, uses)) in MAY_USE.iter().enumerate() {
            for used in *uses {
                let earlier = MAY_USE[..at].iter().any(|(known, _)| known == used);
                assert!(earlier, "{name} may use {used}, which must come before it");
            }
        }
    }

    #[test]
    fn the_lock_has_one_source_and_no_unpublished_crate() {
        let entry = |name: &str, source: &str| {
            format!("[[package]]\nname = \"{name}\"\nversion = \"1.0.0\"\nsource = \"{source}\"\n")
        };
        let own = "[[package]]\nname = \"larder\"\nversion = \"0.1.0\"\ndependencies = [\n \"serde\",\n]\n";
        assert_eq!(lock(&format!("{own}\n{}", entry("serde", REGISTRY))), [""; 0]);
        let found = lock(
            &[entry("a", "git+https://h.example/a#1"), entry(UNPUBLISHED, REGISTRY)].join("\n"),
        );
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("a: comes from git+"), "{found:?}");
        assert!(found[1].contains(UNPUBLISHED), "{found:?}");
    }

    #[test]
    fn files_open_with_their_doc_and_are_named_after_their_module() {
        assert_eq!(source(Path::new("src/a.rs"), "//! A.\n"), [""; 0]);
        assert_eq!(source(Path::new("src/a.rs"), "use std::fs;\n//! A.\n").len(), 1);
        assert_eq!(source(Path::new("src/a/mod.rs"), "fn a() {}\n").len(), 2);
    }
}
