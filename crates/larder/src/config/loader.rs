//! Puts the layers together: defaults, files, environment, code.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use figment::{Figment, error::Kind as FigmentKind};
use serde::Deserialize;

use super::{
    admit::{self, FileReader},
    advice,
    error::ConfigError,
    interpolate::Vars,
    layer::{Item, Layers},
    model::CacheConfig,
    place::Place,
    schema::{self, Kind},
    settings::{self, Setting, Warning},
    text::FromText,
    validate::{self, Problem},
    yaml,
};

/// Larger files are refused unread: no settings need them.
const MAX_FILE: u64 = 1 << 20;

/// Collects layers; nothing is read before [`load`](Loader::load).
///
/// Stronger layers override weaker ones setting by setting:
/// defaults, files in the order given, environment, code.
#[derive(Clone, Default)]
#[must_use = "a loader does nothing until `load`"]
pub struct Loader {
    files: Vec<Source>,
    vars: Vars,
    set: Vec<(String, String)>,
}

#[derive(Clone)]
enum Source {
    Path(PathBuf),
    Text { name: String, text: String },
}

impl Loader {
    /// Adds a YAML file, which must exist when loading.
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.files.push(Source::Path(path.as_ref().to_owned()));
        self
    }

    /// Adds YAML text in place of a file; `name` is what errors call it.
    pub fn yaml(mut self, text: impl Into<String>, name: impl Into<String>) -> Self {
        self.files.push(Source::Text { name: name.into(), text: text.into() });
        self
    }

    /// Adds environment variables: `LARDER_CACHE__...` are settings, all are there for `${VAR}`.
    ///
    /// Without this call no variable is read.
    pub fn env<K: Into<String>, V: Into<String>>(
        mut self,
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.vars.extend(vars.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// Adds the environment of this process; what is not UTF-8 in it is replaced.
    pub fn process_env(self) -> Self {
        self.env(std::env::vars_os().map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        }))
    }

    /// Sets one setting by its dotted name; the strongest layer. The last call for a name counts.
    pub fn set(mut self, path: impl Into<String>, value: impl Into<String>) -> Self {
        self.set.push((path.into(), value.into()));
        self
    }

    /// Reads all layers, merges them and checks the result.
    pub fn load(self) -> Result<Loaded, ConfigError> {
        let mut layers = Layers::default();
        for source in &self.files {
            let (name, text) = source.read()?;
            let yaml = yaml::parse(&text).map_err(|fault| {
                let (line, column) = (fault.line, fault.column);
                let place = Place::File { name: name.as_str().into(), line, column };
                ConfigError::new(place, fault.message)
            })?;
            let reader = FileReader { name: name.as_str().into(), vars: &self.vars };
            layers.0.push(reader.read(yaml)?);
        }
        let env = admit::from_env(&self.vars, &layers)?;
        layers.0.push(env);
        let code = admit::from_code(&self.set, &layers)?;
        layers.0.push(code);
        drop_unneeded(&mut layers)?;
        finish(&layers)
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, vars, set } = self;
        let names: Vec<&str> = set.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Loader")
            .field("files", &files.iter().map(Source::name).collect::<Vec<_>>())
            .field("vars", &vars.len())
            .field("set", &names)
            .finish()
    }
}

/// A checked configuration and where it came from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The effective configuration.
    pub config: CacheConfig,
    /// Every leaf of it, in the order of the sections, with its layer.
    pub settings: Vec<Setting>,
    /// What was accepted and should still be known: settings without effect, and settings that do
    /// not go together.
    pub warnings: Vec<Warning>,
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Text { name, .. } => name.clone(),
        }
    }

    fn read(&self) -> Result<(String, String), ConfigError> {
        let name = self.name();
        let fail = |message: String| ConfigError::new(Place::whole_file(&name), message);
        let bytes = match self {
            Self::Path(path) => read_some(path).map_err(|error| fail(io_message(&error)))?,
            Self::Text { text, .. } => text.clone().into_bytes(),
        };
        if bytes.len() as u64 > MAX_FILE {
            return Err(fail(
                "larger than 1 MiB, which no settings file is; check the path".into(),
            ));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok((name, text)),
            Err(_) => Err(fail("not UTF-8 text; save the file as UTF-8".into())),
        }
    }
}

/// At most one byte more than is allowed, so that a device or a pipe cannot fill the memory.
fn read_some(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn io_message(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "no such file; check the path, or leave it out to use the defaults".to_owned()
        }
        io::ErrorKind::IsADirectory => "a directory; name the file in it".to_owned(),
        io::ErrorKind::PermissionDenied => "may not be read; check its permissions".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// Takes out scalars whose variable is missing where nothing needs them; elsewhere it is an error.
fn drop_unneeded(layers: &mut Layers) -> Result<(), ConfigError> {
    let mut unneeded = Vec::new();
    let mut failed = None;
    for (depth, layer) in layers.0.iter().enumerate() {
        layer.visit(&mut Vec::new(), &mut |path, item| {
            let Some((leaf, missing)) =
                item.leaves().iter().find_map(|leaf| leaf.missing.as_ref().map(|it| (leaf, it)))
            else {
                return;
            };
            let overridden = layers.0[depth + 1..].iter().any(|above| above.get(path).is_some());
            if overridden || !in_use(layers, path) {
                unneeded.push((depth, path.to_vec()));
                return;
            }
            let name = &missing.variable;
            let why = missing
                .message
                .as_ref()
                .map_or_else(String::new, |message| format!(" ({})", super::error::clean(message)));
            let message = format!(
                "the environment variable {name} is not set{why}; \
                 export {name}, or write ${{{name}:-default}}"
            );
            let error = ConfigError::new(leaf.place.clone(), message).about(schema::dotted(path));
            failed.get_or_insert(error);
        });
    }
    if let Some(error) = failed {
        return Err(error);
    }
    for (depth, path) in unneeded {
        layers.0[depth].remove(&path);
    }
    Ok(())
}

/// Whether the section around a setting is switched on; its switch itself is always in use.
fn in_use(layers: &Layers, path: &[String]) -> bool {
    let Some(section) = path.get(..2) else { return true };
    let Some(Kind::Section(fields)) = schema::kind_at(section) else { return true };
    let Some(switch) = schema::switch(fields) else { return true };
    if path.get(2).is_some_and(|name| name == switch.name) {
        return true;
    }
    let at = [&section[0], &section[1], switch.name];
    if let Some(Item::Leaf(leaf)) = layers.get(&at) {
        // A switch that cannot be read is reported later, at its own place.
        return bool::from_text(&leaf.text).unwrap_or(true);
    }
    let defaults = serde_json::to_value(CacheConfig::default()).unwrap_or_default();
    defaults[&section[1]][switch.name].as_bool().unwrap_or(true)
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Root {
    cache: CacheConfig,
}

fn finish(layers: &Layers) -> Result<Loaded, ConfigError> {
    validate::check_text(layers).map_err(|problem| problem.locate(layers))?;
    let merged = layers.0.iter().fold(Figment::new(), Figment::merge);
    let Root { cache: config } = merged.extract().map_err(|error| typed(error).locate(layers))?;
    validate::check(&config).map_err(|problem| problem.locate(layers))?;
    let json = serde_json::to_value(&config).unwrap_or_default();
    let settings = settings::settings(&json, layers);
    let mut warnings = settings::warnings(layers);
    warnings.extend(advice::advice(&config, layers, &settings));
    Ok(Loaded { config, settings, warnings })
}

/// Keeps the path and our own reasons: figment's texts for its other kinds hold the value.
fn typed(error: figment::Error) -> Problem {
    let reason = match error.kind {
        FigmentKind::Message(reason) => reason,
        _ => "this value cannot be read here; check its type".to_owned(),
    };
    Problem::new(&error.path, reason)
}
