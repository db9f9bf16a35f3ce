//! Why somebody cannot be told.

use std::{io, time::Duration};

/// A webhook that cannot be called as it is written. Holds no part of its address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifierError {
    /// The text is no URL.
    #[error("the webhook's address is no URL: {0}; write it like `https://hooks.example/path`")]
    Url(String),
    /// The URL is not one of HTTP.
    #[error("the webhook's address begins with `{}:`; only `https:` and `http:` can be called",
            larder::Escaped(.0))]
    Scheme(String),
    /// The secret is empty: whoever knows that could sign.
    #[error("the webhook's secret is empty; give one, or none at all to send without a signature")]
    EmptySecret,
    /// The HTTP client or the signature could not be set up.
    #[error("the webhook cannot be set up: {0}; check the certificates of this machine")]
    Client(String),
}

/// Somebody could not be told of a change.
///
/// Its text holds neither path, query, user info nor secret of a webhook, nor the arguments of a
/// command.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The change has no form as JSON.
    #[error("the change cannot be written as JSON: {0}")]
    Json(String),
    /// No answer came from the webhook.
    #[error(
        "POST to {server}: {cause}, in attempt {attempts} of {attempts}; \
             check that the server runs and can be reached"
    )]
    Unreachable {
        /// Scheme, host and port.
        server: String,
        /// How often it was tried.
        attempts: u32,
        /// What went wrong the last time.
        cause: String,
    },
    /// The webhook answered with a status that is no success.
    #[error("POST to {server}: HTTP {status}, in attempt {attempts} of {most}{hint}")]
    Refused {
        /// Scheme, host and port.
        server: String,
        /// The status of the last answer.
        status: u16,
        /// How often it was tried.
        attempts: u32,
        /// How often it would have been tried.
        most: u32,
        /// What to do about it.
        hint: &'static str,
    },
    /// The command could not be started.
    #[error(
        "the command `{program}` cannot be started: {source}; \
             check that it exists and may be run, or give its full path"
    )]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// The command has failed, or the system could not say.
    #[error("the command `{program}` ended with {status}{}", Said(.stderr))]
    Failed {
        /// The program.
        program: String,
        /// Its exit status or signal.
        status: String,
        /// The last KiB of what it wrote to its standard error.
        stderr: String,
    },
    /// The command ran too long.
    #[error("the command `{program}` was killed after {limit:?}; let it do slow work \
             in the background{}", Said(.stderr))]
    TimedOut {
        /// The program.
        program: String,
        /// How long it might run.
        limit: Duration,
        /// The last KiB of what it wrote to its standard error.
        stderr: String,
    },
}

/// What a command said last.
struct Said<'e>(&'e str);

impl std::fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.trim() {
            "" => f.write_str("; it wrote nothing to its standard error"),
            said => write!(f, "; its standard error ends with: {}", larder::Escaped(said)),
        }
    }
}
