//! Changes told to a program.

use std::{fmt, pin::pin, process::Stdio, time::Duration};

use futures_util::future::{Either, join, maybe_done, select};
use larder::Escaped;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    process::Child,
    time::timeout,
};

use super::{NotifyError, NotifyLimits};

/// How much of a command's standard error is kept, in bytes.
const TAIL: usize = 1 << 10;
/// How long its standard error is still read once it has ended: others may hold it open.
const GRACE: Duration = Duration::from_millis(500);

/// A program that is told of changes: started for each, with the change as one line of JSON on its
/// standard input.
///
/// No shell is between: arguments are handed over as they are. It has this process's environment
/// and directory; what it writes to its standard output is dropped. It need not read its input.
/// Exit status 0 is a success.
///
/// On Unix it has a process group of its own, and what it has started is killed with it when it runs
/// too long; elsewhere only itself.
///
/// `Debug` shows no arguments: they may hold keys.
#[derive(Clone)]
pub struct Command {
    program: String,
    args: Vec<String>,
}

impl Command {
    /// Runs `program`, a path or a name that is looked for as the system does, with `args`.
    pub fn new(
        program: impl Into<String>,
        args: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self { program: program.into(), args: args.into_iter().map(Into::into).collect() }
    }

    pub(super) fn name(&self) -> String {
        Escaped(&self.program).to_string()
    }

    /// Runs it until it ends, or for as long as it may.
    pub(super) async fn run(&self, body: &[u8], limits: &NotifyLimits) -> Result<(), NotifyError> {
        let mut child =
            self.start().map_err(|source| NotifyError::Start { program: self.name(), source })?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        // Declared after the child, and so dropped before it is reaped.
        let mut group = Group::of(&child);
        let mut tail = Vec::new();
        let limit = limits.command_timeout;
        let ended = {
            let mut talk = pin!(maybe_done(join(feed(stdin, body), drain(stderr, &mut tail))));
            let wait = async {
                match select(pin!(child.wait()), talk.as_mut()).await {
                    Either::Left((ended, _)) => ended,
                    Either::Right(((), wait)) => wait.await,
                }
            };
            let ended = timeout(limit, wait).await;
            if ended.is_ok() {
                group.forget();
            } else {
                group.kill();
                // What cannot be killed either is left behind.
                _ = child.start_kill();
                _ = timeout(GRACE, child.wait()).await;
            }
            _ = timeout(GRACE, talk).await;
            ended
        };
        let (program, stderr) = (self.name(), String::from_utf8_lossy(&tail).into_owned());
        match ended {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => {
                Err(NotifyError::Failed { program, status: status.to_string(), stderr })
            }
            Ok(Err(error)) => {
                let status = format!("an unknown status: {error}");
                Err(NotifyError::Failed { program, status, stderr })
            }
            Err(_elapsed) => Err(NotifyError::TimedOut { program, limit, stderr }),
        }
    }

    fn start(&self) -> std::io::Result<Child> {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        command.spawn()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("args", &self.args.len())
            .finish()
    }
}

/// Writes the change. A command that does not want to read it is no failure.
async fn feed(stdin: Option<impl AsyncWrite + Unpin>, body: &[u8]) {
    if let Some(mut stdin) = stdin
        && stdin.write_all(body).await.is_ok()
    {
        _ = stdin.write_all(b"\n").await;
        _ = stdin.shutdown().await;
    }
}

/// Reads to the end, and keeps the end.
async fn drain(stderr: Option<impl AsyncRead + Unpin>, tail: &mut Vec<u8>) {
    let Some(mut stderr) = stderr else { return };
    let mut chunk = [0; 4 * TAIL];
    while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
        tail.extend_from_slice(chunk.get(..length).unwrap_or_default());
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
}

/// The processes of a command that has not ended, killed when this is dropped.
struct Group {
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
}

#[cfg(unix)]
impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { id: id.and_then(rustix::process::Pid::from_raw) }
    }

    /// Its number may soon be that of another.
    fn forget(&mut self) {
        self.id = None;
    }

    fn kill(&mut self) {
        if let Some(id) = self.id.take() {
            // It may just have ended.
            _ = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(not(unix))]
impl Group {
    fn of(_child: &Child) -> Self {
        Self {}
    }

    fn forget(&mut self) {}

    fn kill(&mut self) {}
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
