//! Telling others of changes.

mod command;
mod error;
mod webhook;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::Change;

pub use self::{
    command::Command,
    error::{NotifierError, NotifyError},
    webhook::Webhook,
};

/// Tells changes to webhooks and commands.
///
/// It tells what it is given: which changes are worth it, who calls decides by
/// [`Change::critical`].
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    targets: Vec<Target>,
    limits: NotifyLimits,
}

/// How long is waited for those who are told, and how often it is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotifyLimits {
    /// Longest time for one call of a webhook. Default: 10 s.
    pub webhook_timeout: Duration,
    /// Most calls of a webhook for one change, at least one. Default: 5.
    pub attempts: u32,
    /// Longest pause after the first call that failed; it doubles with each further one, and the pause
    /// is anything between nothing and it. Default: 1 s.
    pub backoff: Duration,
    /// Longest pause that a server can ask for by `Retry-After`. Default: 60 s.
    pub longest_retry_after: Duration,
    /// Longest time for a command, which is killed then. Default: 60 s.
    pub command_timeout: Duration,
}

impl Default for NotifyLimits {
    fn default() -> Self {
        Self {
            webhook_timeout: Duration::from_secs(10),
            attempts: 5,
            backoff: Duration::from_secs(1),
            longest_retry_after: Duration::from_mins(1),
            command_timeout: Duration::from_mins(1),
        }
    }
}

#[derive(Clone, Debug)]
enum Target {
    Webhook(Webhook),
    Command(Command),
}

impl Notifier {
    /// One that tells nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells this webhook, too.
    #[must_use]
    pub fn webhook(mut self, webhook: Webhook) -> Self {
        self.targets.push(Target::Webhook(webhook));
        self
    }

    /// Tells this command, too.
    #[must_use]
    pub fn command(mut self, command: Command) -> Self {
        self.targets.push(Target::Command(command));
        self
    }

    /// Replaces the limits.
    #[must_use]
    pub fn limits(mut self, limits: NotifyLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether there is nobody to tell.
    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }

    /// Tells everybody at the same time, and says for each who it was and whether it could be told:
    /// `webhook https://hooks.example`, `command notify-team`. One that fails holds up no other.
    ///
    /// With the default limits it can take five minutes when a server asks for pauses. Dropped
    /// before it is done, it makes no further calls, and kills commands that run.
    ///
    /// # Panics
    /// Outside a Tokio runtime with I/O and time.
    pub async fn notify(&self, change: &Change) -> Vec<(String, Result<(), NotifyError>)> {
        let body = serde_json::to_vec(change).map(Bytes::from).map_err(|error| error.to_string());
        let told = self.targets.iter().map(async |target| {
            let told = match &body {
                Ok(body) => target.tell(body, &self.limits).await,
                Err(error) => Err(NotifyError::Json(error.clone())),
            };
            (target.to_string(), told)
        });
        join_all(told).await
    }
}

impl Target {
    async fn tell(&self, body: &Bytes, limits: &NotifyLimits) -> Result<(), NotifyError> {
        match self {
            Self::Webhook(webhook) => webhook.post(body, limits).await,
            Self::Command(command) => command.run(body, limits).await,
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Webhook(webhook) => write!(f, "webhook {}", webhook.server()),
            Self::Command(command) => write!(f, "command {}", command.name()),
        }
    }
}
