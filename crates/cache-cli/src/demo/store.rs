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

pub(crate) struct Store {
    directory: PathBuf,
}

impl Store {
    /// Makes the directory if need be; `fresh` removes what an earlier run put there, and nothing
    /// else.
    pub(crate) fn open(directory: &Path, fresh: bool) -> Result<Self, Failure> {
        let failed = |what: &str, path: &Path, error: io::Error| {
            Failure::failed(format!("cannot {what} {}: {error}", path.display()))
                .hint("name another directory with --dir")
        };
        fs::create_dir_all(directory).map_err(|error| failed("create", directory, error))?;
        let directory =
            directory.canonicalize().map_err(|error| failed("find", directory, error))?;
        if fresh {
            for suffix in ["", "-wal", "-shm"] {
                remove(&directory.join(format!("{DATABASE}{suffix}")))?;
            }
            remove(&directory.join(CONFIG))?;
        }
        Ok(Self { directory })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.directory.join(CONFIG)
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
            fs::write(&file, self.text(port)).map_err(|error| {
                Failure::failed(format!("cannot write {}: {error}", file.display()))
            })?;
        }
        let loader = Document::ALL.iter().fold(CacheConfig::loader().file(&file), |loader, one| {
            loader.set(format!("cache.sources.{}.url", one.name()), url(port, *one))
        });
        let read = loader.load().map_err(|error| {
            Failure::new(Exit::Configuration, error.to_string())
                .hint("`larder demo --fresh` writes it anew")
        })?;
        Ok(read.config)
    }

    fn text(&self, port: u16) -> String {
        // JSON strings are YAML; a dollar sign would start a variable.
        let path = self.directory.join(DATABASE).display().to_string().replace('$', "$$");
        let path = serde_json::Value::String(path);
        let sources: Vec<String> = Document::ALL
            .iter()
            .map(|one| {
                let url = url(port, *one);
                format!("    {}: {{url: \"{url}\", rate_limit: 5/s, timeout: 10s}}\n", one.name())
            })
            .collect();
        format!(
            "# Written by `larder demo`. The API that the URLs name runs only while the demo does;\n\
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
