//! The demo's directory: a configuration and a SQLite file, kept from run to run.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use larder::config::CacheConfig;

use super::documents::Document;
use crate::exit::{Exit, Failure};

const CONFIG: &str = "larder.yaml";
const DATABASE: &str = "cache.db";

/// How a configuration begins that the demo wrote, and may replace.
const MARK: &str = "# Written by `larder demo`.";

pub(crate) struct Store {
    directory: PathBuf,
    /// As the user named it.
    named: PathBuf,
}

impl Store {
    /// Makes the directory if need be. `fresh` removes what an earlier run put there, and nothing
    /// else; what somebody else put there is not used.
    pub(crate) fn open(directory: &Path, fresh: bool) -> Result<Self, Failure> {
        let failed = |what: &str, path: &Path, error: io::Error| {
            Failure::failed(format!("cannot {what} {}: {error}", path.display()))
                .hint("name another directory with --dir")
        };
        fs::create_dir_all(directory).map_err(|error| failed("create", directory, error))?;
        let named = directory.to_owned();
        let directory =
            directory.canonicalize().map_err(|error| failed("find", directory, error))?;
        let store = Self { directory, named };
        if !store.is_ours()? {
            let message = format!(
                "{} holds a {CONFIG} or a {DATABASE} that the demo did not write",
                store.named.display()
            );
            return Err(Failure::failed(message).hint("name another directory with --dir"));
        }
        if fresh {
            for suffix in ["", "-wal", "-shm"] {
                remove(&store.directory.join(format!("{DATABASE}{suffix}")))?;
            }
            remove(&store.config_file())?;
        }
        Ok(store)
    }

    /// Whether an earlier demo, or nobody, used the directory. The configuration is written first
    /// and removed last, so the file of a demo never lies there alone.
    fn is_ours(&self) -> Result<bool, Failure> {
        let file = self.config_file();
        match fs::read(&file) {
            Ok(text) => Ok(text.starts_with(MARK.as_bytes())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(!self.database().exists()),
            Err(error) => Err(Failure::failed(format!("cannot read {}: {error}", file.display()))),
        }
    }

    fn database(&self) -> PathBuf {
        self.directory.join(DATABASE)
    }

    /// The directory as the user named it.
    pub(crate) fn named(&self) -> &Path {
        &self.named
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.named.join(CONFIG)
    }

    /// The port of the API that an earlier run wrote down.
    pub(crate) fn port(&self) -> Option<u16> {
        let loaded = CacheConfig::loader().file(self.config_file()).load().ok()?;
        let url = loaded.config.sources.get(Document::Profile.name())?.url.as_deref()?;
        let host = url.split('/').nth(2)?;
        host.strip_prefix("127.0.0.1:")?.parse().ok()
    }

    /// The configuration: the file, written at the first run, with the API at `port`.
    ///
    /// The environment has no say: it is meant for the user's own caches.
    pub(crate) fn config(&self, port: u16) -> Result<CacheConfig, Failure> {
        let file = self.config_file();
        if !file.exists() {
            // Whole or not at all, whenever the process is killed.
            let draft = self.directory.join(format!("{CONFIG}.{}.new", std::process::id()));
            let written = fs::write(&draft, self.text(port));
            written.and_then(|()| fs::rename(&draft, &file)).map_err(|error| {
                Failure::failed(format!("cannot write {}: {error}", file.display()))
            })?;
        }
        let loader = CacheConfig::loader().file(&file);
        let loader = loader.set("cache.sqlite.path", self.database().to_string_lossy());
        let loader = Document::ALL.iter().fold(loader, |loader, one| {
            loader.set(format!("cache.sources.{}.url", one.name()), url(port, *one))
        });
        let read = loader.load().map_err(|error| {
            Failure::new(Exit::Configuration, error.to_string())
                .hint("the demo with --fresh writes it anew")
        })?;
        Ok(read.config)
    }

    fn text(&self, port: u16) -> String {
        // JSON strings are YAML; a dollar sign would start a variable.
        let path = self.database().display().to_string().replace('$', "$$");
        let path = serde_json::Value::String(path);
        let sources: Vec<String> = Document::ALL
            .iter()
            .map(|one| {
                let url = url(port, *one);
                format!("    {}: {{url: \"{url}\", allow_private: true, rate_limit: 5/s, timeout: 10s}}\n", one.name())
            })
            .collect();
        format!(
            "{MARK} The API that the URLs name runs only while the demo does;\n\
             # what is stored is served without it.\n\
             cache:\n  \
               memory: {{size_mb: 64}}\n  \
               sqlite: {{path: {path}}}\n  \
               defaults: {{ttl: 30d}}\n  \
               sources:\n{}",
            sources.concat()
        )
    }
}

fn url(port: u16, document: Document) -> String {
    format!("http://127.0.0.1:{port}/v1/{}/{{cbsa}}", document.name())
}

fn remove(file: &Path) -> Result<(), Failure> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::failed(format!("cannot remove {}: {error}", file.display())))
        }
        _ => Ok(()),
    }
}
