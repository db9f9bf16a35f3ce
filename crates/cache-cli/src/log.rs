//! What the library logs, on standard error.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Starts logging: warnings and hits if the configuration asks for them, more with `-v`.
/// `LARDER_LOG` overrides both, for example `LARDER_LOG=larder=debug`.
pub(crate) fn start(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "warn,larder::hits=info",
        (_, 1) => "info",
        (_, 2) => "debug,hyper=info,reqwest=info,rustls=info",
        _ => "trace",
    };
    let wanted = std::env::var("LARDER_LOG").unwrap_or_default();
    let filter = if wanted.is_empty() { level } else { &wanted };
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|error| {
        crate::output::remark(&format!("warning: LARDER_LOG is not used: {error}\n"));
        EnvFilter::new(level)
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(BesideProgress)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .compact()
        .init();
}

/// Standard error, with progress bars out of the way while a line is written.
struct BesideProgress;

impl MakeWriter<'_> for BesideProgress {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(Vec::new())
    }
}

/// Collects one event; written when it is dropped.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // A closed standard error must not end the program.
        crate::progress::suspended(|| _ = io::stderr().write_all(&self.0));
    }
}
