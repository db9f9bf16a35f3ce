//! The configuration and the chain that commands work on.

use std::{
    env,
    path::{Path, PathBuf},
};

use larder::{
    BuildError, Cache, Escaped,
    config::{CacheConfig, Loaded, Provenance, TierKind},
    import,
};

use crate::{args::Global, exit::Failure, output};

/// Where a configuration is looked for, in this order, when none is named.
const PLACES: [&str; 3] = ["larder.yaml", "config/larder.yaml", "config/cache_config.yaml"];

/// The configuration, and the file it was read from.
pub(crate) struct Context {
    pub(crate) loaded: Loaded,
    pub(crate) file: Option<PathBuf>,
}

impl Context {
    /// Finds and loads the configuration.
    pub(crate) fn load(global: &Global) -> Result<Self, Failure> {
        // An empty variable means as little as none.
        let named = env::var_os("LARDER_CONFIG").filter(|name| !name.is_empty()).map(PathBuf::from);
        let file = global.config.clone().or(named).or_else(discover);
        let loader = CacheConfig::loader().process_env();
        let loader = match &file {
            Some(file) => loader.file(file),
            None => loader,
        };
        let loader = if global.offline { loader.set("cache.offline", "true") } else { loader };
        Ok(Self { loaded: loader.load()?, file })
    }

    /// The chain it describes.
    pub(crate) fn cache(&self) -> Result<Cache, Failure> {
        Cache::from_config(&self.loaded.config).map_err(|error| {
            let setting = match &error {
                BuildError::Unsupported(_) => "cache.redis.enable".to_owned(),
                BuildError::Source { name, .. } => format!("cache.sources.{name}.url"),
                _ => String::new(),
            };
            let failure = Failure::from(error);
            match self.loaded.settings.iter().find(|one| one.path == setting) {
                Some(one) => Failure {
                    message: format!("{}: `{setting}`: {}", one.from, failure.message),
                    ..failure
                },
                None => failure,
            }
        })
    }

    /// The file of the SQLite tier: the configured one, or that beside it if it is a Python cache.
    pub(crate) fn store(&self) -> PathBuf {
        let configured = &self.loaded.config.sqlite.path;
        match import::is_python_cache(configured) {
            Ok(true) => import::store_beside(configured),
            // If it cannot be told just now, whoever opens it says so.
            Ok(false) | Err(_) => configured.clone(),
        }
    }

    /// Whether the file of the SQLite tier exists: looking must not create what is looked at.
    ///
    /// # Errors
    /// If there is no such tier, or that cannot be told.
    pub(crate) fn has_store(&self) -> Result<bool, Failure> {
        if !self.loaded.config.tiers().contains(&TierKind::Sqlite) {
            return Err(Failure::failed("no tier of this configuration outlives a program")
                .hint("enable one, for example `cache.sqlite.enable: true`"));
        }
        let path = self.store();
        path.try_exists()
            .map_err(|error| Failure::failed(format!("cannot look at {}: {error}", shown(&path))))
    }

    /// The layer that a setting came from.
    pub(crate) fn layer_of(&self, setting: &str) -> String {
        let setting = self.loaded.settings.iter().find(|one| one.path == setting);
        setting.map_or_else(String::new, |one| layer(&one.from))
    }

    /// Says on standard error what is accepted but should be known.
    pub(crate) fn warn(&self) {
        for warning in &self.loaded.warnings {
            output::remark(&format!("warning: {warning}\n"));
        }
    }
}

fn discover() -> Option<PathBuf> {
    let here = PLACES.iter().map(PathBuf::from);
    here.chain(user_directory().map(|dir| dir.join("larder/larder.yaml")))
        .find(|file| file.exists())
}

fn user_directory() -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let xdg = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(absolute);
    xdg.or_else(|| env::home_dir().map(|home| home.join(".config")))
}

/// What this program sets in code was asked for by a flag.
pub(crate) fn layer(from: &Provenance) -> String {
    match from {
        Provenance::Code => "command line".to_owned(),
        from => from.to_string(),
    }
}

/// The path as commands to copy show it.
pub(crate) fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", Escaped(&text).to_string().replace('\'', r"'\''"))
    }
}
