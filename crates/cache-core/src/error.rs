//! What went wrong in a tier: what, where, and why.

use std::{error::Error as StdError, fmt, result};

use crate::{Escaped, Key};

/// Any error that can be a cause.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Result of a tier's operation.
pub type Result<T, E = Error> = result::Result<T, E>;

/// What a tier could not do. A miss is no error: an error means "could not tell".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The tier, or something it needs, cannot be reached or is busy; trying later may help.
    Unavailable,
    /// The tier did not answer in time; what was asked may still happen.
    Timeout,
    /// Something stored is damaged.
    Corrupt,
    /// The tier refuses: full, read-only, not permitted.
    Refused,
    /// What the tier was pointed at is not, or no longer, something it may use.
    Unusable,
    /// The tier has been closed.
    Closed,
    /// The tier's own logic failed.
    Internal,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anybody's help.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::Corrupt => "corrupt",
            Self::Refused => "refused",
            Self::Unusable => "unusable",
            Self::Closed => "closed",
            Self::Internal => "internal error",
        })
    }
}

/// The operation that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Opening the tier.
    Open,
    /// Reading.
    Get,
    /// Storing.
    Put,
    /// Removing one or several keys.
    Remove,
    /// Setting a barrier.
    Bar,
    /// Looking at what is stored.
    Inspect,
    /// Agreeing on who loads.
    Lease,
    /// Removing what has expired.
    Expire,
    /// Closing.
    Close,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Get => "get",
            Self::Put => "put",
            Self::Remove => "remove",
            Self::Bar => "invalidate",
            Self::Inspect => "inspect",
            Self::Lease => "lease",
            Self::Expire => "expire",
            Self::Close => "close",
        })
    }
}

/// An operation failed on a tier.
///
/// `Display` names operation, tier, key and kind; the cause is in [`StdError::source`].
#[derive(Debug, thiserror::Error)]
pub struct Error {
    kind: ErrorKind,
    op: Op,
    tier: Box<str>,
    key: Option<Key>,
    #[source]
    source: Option<BoxError>,
}

impl Error {
    /// `op` failed on the tier named `tier`.
    pub fn new(kind: ErrorKind, op: Op, tier: impl Into<Box<str>>) -> Self {
        Self { kind, op, tier: tier.into(), key: None, source: None }
    }

    /// Says which key it was about.
    #[must_use]
    pub fn with_key(mut self, key: &Key) -> Self {
        self.key = Some(key.clone());
        self
    }

    /// Says why.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operation that failed.
    pub fn op(&self) -> Op {
        self.op
    }

    /// Name of the tier.
    pub fn tier(&self) -> &str {
        &self.tier
    }

    /// The key it was about, if it was about one.
    pub fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed on tier `{}`", self.op, self.tier)?;
        if let Some(key) = &self.key {
            write!(f, " for key `{key}`")?;
        }
        write!(f, ": {}", self.kind)
    }
}

/// Displays an error with all its causes, escaped, on one line.
#[derive(Clone, Copy, Debug)]
pub struct Chained<'a>(pub &'a dyn StdError);

impl fmt::Display for Chained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        write!(f, "{}", Escaped(&said))?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many wrappers end with the text of their cause.
            if !said.ends_with(&text) {
                write!(f, ": {}", Escaped(&text))?;
            }
            said = text;
            next = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_operation_tier_key_and_kind_and_keeps_its_cause() {
        let error = Error::new(ErrorKind::Unavailable, Op::Get, "sqlite")
            .with_key(&Key::new("a:\u{1b}b"))
            .with_source("disk on fire");
        assert_eq!(
            error.to_string(),
            "get failed on tier `sqlite` for key `a:\\u{1b}b`: unavailable"
        );
        assert_eq!(error.source().unwrap().to_string(), "disk on fire");
        assert!(error.kind().is_retryable());
        assert!(Chained(&error).to_string().ends_with("`: unavailable: disk on fire"));
    }
}
