//! Each feature alone: it must build, without warnings, with no other feature's help.

use crate::{
    Result, cargo,
    workspace::{Package, Workspace},
};

/// Packages whose features users choose.
const PACKAGES: [&str; 2] = ["larder", "codec-compress"];

pub(crate) fn check() -> Result<()> {
    let workspace = Workspace::load()?;
    for name in PACKAGES {
        for line in lines(workspace.package(name)?) {
            cargo::run(&line)?;
        }
    }
    Ok(())
}

/// Command lines that check `package` without features and with each one.
fn lines(package: &Package) -> Vec<Vec<&str>> {
    let none = vec!["clippy", "--package", &package.name, "--no-default-features"];
    let each = package.features.iter().map(|feature| {
        let mut line = none.clone();
        line.extend(["--features", feature]);
        line
    });
    let mut lines: Vec<_> = [none.clone()].into_iter().chain(each).collect();
    for line in &mut lines {
        // Not in RUSTFLAGS, which would rebuild every dependency.
        line.extend(["--", "-D", "warnings"]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_feature_comes_first_then_each_alone() {
        let package = Package {
            name: "p".into(),
            dir: "/w/p".into(),
            features: vec!["a".into(), "b".into()],
            uses: Vec::new(),
        };
        let lines: Vec<_> = lines(&package).iter().map(|line| line.join(" ")).collect();
        let end = "-- -D warnings";
        assert_eq!(
            lines,
            [
                format!("clippy --package p --no-default-features {end}"),
                format!("clippy --package p --no-default-features --features a {end}"),
                format!("clippy --package p --no-default-features --features b {end}"),
            ]
        );
    }
}
