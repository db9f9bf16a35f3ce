//! The workspace's packages, as cargo knows them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Result, cargo};

/// The workspace.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// A package of the workspace.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) features: Vec<String>,
    /// Packages of the workspace that it cannot be built without, or may be built with.
    pub(crate) uses: Vec<String>,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self> {
        Self::parse(&cargo::output(&["metadata", "--format-version", "1", "--no-deps"])?)
    }

    pub(crate) fn package(&self, name: &str) -> Result<&Package> {
        let found = self.packages.iter().find(|package| package.name == name);
        found.ok_or_else(|| format!("the workspace has no package `{name}`").into())
    }

    fn parse(metadata: &str) -> Result<Self> {
        let metadata: Value = serde_json::from_str(metadata)?;
        let root = text(&metadata, "workspace_root")?.into();
        let packages = list(&metadata, "packages")?.iter().map(package).collect::<Result<_>>()?;
        Ok(Self { root, packages })
    }
}

fn package(value: &Value) -> Result<Package> {
    let manifest = Path::new(text(value, "manifest_path")?);
    let features = value.get("features").and_then(Value::as_object);
    let features = features.ok_or("cargo metadata: a package has no `features`")?;
    let mut uses = Vec::new();
    for dependency in list(value, "dependencies")? {
        let ours = dependency.get("path").is_some_and(Value::is_string);
        let dev = dependency.get("kind").and_then(Value::as_str) == Some("dev");
        if ours && !dev {
            uses.push(text(dependency, "name")?.to_owned());
        }
    }
    Ok(Package {
        name: text(value, "name")?.to_owned(),
        dir: manifest.parent().ok_or("cargo metadata: a manifest has no directory")?.into(),
        features: features.keys().cloned().collect(),
        uses,
    })
}

fn text<'v>(value: &'v Value, name: &str) -> Result<&'v str> {
    let text = value.get(name).and_then(Value::as_str);
    text.ok_or_else(|| format!("cargo metadata has no text `{name}`").into())
}

fn list<'v>(value: &'v Value, name: &str) -> Result<&'v [Value]> {
    let list = value.get(name).and_then(Value::as_array);
    Ok(list.ok_or_else(|| format!("cargo metadata has no list `{name}`"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_their_features_and_the_packages_they_use() {
        let workspace = Workspace::parse(
            r#"{"workspace_root": "/w", "packages": [{
                "name": "larder", "manifest_path": "/w/crates/larder/Cargo.toml",
                "features": {"default": ["memory"], "memory": ["dep:tier-memory"]},
                "dependencies": [
                    {"name": "serde", "kind": null},
                    {"name": "tier-memory", "kind": null, "path": "/w/crates/tier-memory"},
                    {"name": "tier-testkit", "kind": "dev", "path": "/w/crates/tier-testkit"},
                    {"name": "cache-core", "kind": "build", "path": "/w/crates/cache-core"}
                ]}]}"#,
        )
        .unwrap();
        assert_eq!(workspace.root, Path::new("/w"));
        assert_eq!(
            workspace.package("larder").unwrap(),
            &Package {
                name: "larder".into(),
                dir: "/w/crates/larder".into(),
                features: vec!["default".into(), "memory".into()],
                uses: vec!["tier-memory".into(), "cache-core".into()],
            }
        );
        assert!(workspace.package("lader").unwrap_err().to_string().contains("`lader`"));
    }

    #[test]
    fn metadata_of_another_shape_is_an_error() {
        assert!(Workspace::parse("{}").unwrap_err().to_string().contains("workspace_root"));
        assert!(Workspace::parse(r#"{"workspace_root": "/w"}"#).is_err());
    }
}
