//! Tests that run in a process of their own: without root's rights, or with a limit.
//!
//! Such a test has two parts. One prepares the fault and starts the test binary again; the other is
//! an ignored test, that does nothing unless it is started so.

use std::{
    env, fs,
    io::Write as _,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use tempfile::TempDir;

/// Whoever owns nothing else.
const NOBODY: u32 = 65_534;
const FILE: &str = "LARDER_FAULTS_FILE";

pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|found| std::os::unix::fs::MetadataExt::uid(&found) == 0)
}

/// Says that a fault cannot be injected here: a container may forbid to mount, for example.
pub(crate) fn skip(why: &str) {
    // As a line of the test runner's own: a captured one is not seen in a run that passes.
    std::io::stderr().write_all(format!("SKIPPED: {why}\n").as_bytes()).unwrap();
}

/// The file that a test in a process of its own is about; `None` in any other.
pub(crate) fn given_file() -> Option<PathBuf> {
    env::var_os(FILE).map(PathBuf::from)
}

/// A directory, with a copy of this binary, that nobody else than `NOBODY` need read.
pub(crate) struct Place {
    dir: TempDir,
    binary: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The build's directory may be closed to others.
        let binary = dir.path().join("faults");
        fs::copy(env::current_exe().unwrap(), &binary).unwrap();
        fs::set_permissions(&binary, PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        Self { dir, binary }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("data/cache.db")
    }

    /// Gives the directory of the data, and what is in it, to whom the child runs as.
    fn give_away(&self) {
        let data = self.dir.path().join("data");
        for file in fs::read_dir(&data).unwrap() {
            chown(file.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        chown(data, Some(NOBODY), Some(NOBODY)).unwrap();
    }

    /// Runs an ignored test of this binary, by its full name, without root's rights.
    pub(crate) fn run_without_rights(&self, test: &str) {
        if !is_root() {
            return self.run(Command::new(&self.binary), test);
        }
        self.give_away();
        let mut command = Command::new("setpriv");
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(&self.binary);
        self.run(command, test);
    }

    /// Runs such a test beside others.
    pub(crate) fn run_beside(&self, test: &str) {
        self.run(Command::new(&self.binary), test);
    }

    /// The same with files of so many bytes at most. A signal would end the process, unless it is
    /// ignored by who starts it.
    pub(crate) fn run_with_file_limit(&self, bytes: u64, test: &str) {
        let mut command = Command::new("sh");
        let script = r#"limit=$1; shift; trap "" XFSZ; exec prlimit --fsize="$limit:" -- "$@""#;
        command.args(["-c", script, "sh"]).arg(bytes.to_string()).arg(&self.binary);
        self.run(command, test);
    }

    /// The same with so many open files at most.
    pub(crate) fn run_with_descriptors(&self, most: u32, test: &str) {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={most}:{most}")).arg("--").arg(&self.binary);
        self.run(command, test);
    }

    /// The same while strace does something at some of its system calls; whether the test ended by
    /// itself, and was not killed.
    pub(crate) fn run_injected(&self, calls: &str, what: &str, test: &str) -> bool {
        let mut command = Command::new("strace");
        command
            .args(["-f", "-qq", "-o", "/dev/null", "-e"])
            .args([format!("trace={calls}"), "-e".to_owned(), format!("inject={calls}:{what}")])
            .arg(&self.binary);
        let (done, said) = self.output(command, test);
        if done.signal() == Some(9) {
            return false;
        }
        assert!(done.success() && said.contains("1 passed"), "{test}, {calls}:{what}: {said}");
        true
    }

    fn run(&self, command: Command, test: &str) {
        let (done, said) = self.output(command, test);
        assert!(done.success() && said.contains("1 passed"), "{test}: {said}");
    }

    fn output(&self, mut command: Command, test: &str) -> (ExitStatus, String) {
        command
            .args([test, "--exact", "--ignored", "--nocapture"])
            .env(FILE, self.file())
            .env("TMPDIR", self.dir.path())
            .stdin(Stdio::null());
        let done = command.output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status, format!("{}\n{}", said(&done.stdout), said(&done.stderr)))
    }
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}
