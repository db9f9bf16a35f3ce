//! What a writer tells its parent, a line each: what it begins, before it does; what has returned.
//!
//! Each line is one write to a pipe: what has been written is read, though the writer be dead.

use std::{
    fs::File,
    io::Write,
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    Result,
    names::{Name, Scope},
};

/// An instant that all processes of the machine agree on, in nanoseconds.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::try_from(now).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Sets these keys, all with one write.
    Set(Vec<Name>),
    Forget(Scope),
    Expire(Scope),
}

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// It waits to be told to go on.
    Ready,
    Begins {
        number: u32,
        at: u64,
        work: Work,
    },
    /// Of a set: whether each key was stored; if not, something later was there.
    Returned {
        number: u32,
        at: u64,
        stored: Vec<bool>,
    },
    Failed {
        number: u32,
        error: String,
    },
    /// All is done, and the cache is to be closed.
    Closes,
}

impl Line {
    fn text(&self) -> String {
        match self {
            Self::Ready => "ready".to_owned(),
            Self::Begins { number, at, work } => {
                let (verb, object) = match work {
                    Work::Set(names) => {
                        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
                        ("set", names.join(","))
                    }
                    Work::Forget(scope) => ("forget", scope.to_string()),
                    Work::Expire(scope) => ("expire", scope.to_string()),
                };
                format!("begins {number} {at} {verb} {object}")
            }
            Self::Returned { number, at, stored } => {
                let stored = stored.iter().map(|stored| if *stored { 's' } else { 'n' });
                format!("returned {number} {at} -{}", stored.collect::<String>())
            }
            Self::Failed { number, error } => {
                format!("failed {number} {}", error.replace('\n', " "))
            }
            Self::Closes => "closes".to_owned(),
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::parts(text).ok_or_else(|| format!("a writer said `{text}`"))
    }

    fn parts(text: &str) -> Option<Self> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (number, rest) = match rest.split_once(' ') {
            Some((number, rest)) => (number.parse().ok()?, rest),
            None => (0, rest),
        };
        Some(match verb {
            "ready" => Self::Ready,
            "closes" => Self::Closes,
            "failed" => Self::Failed { number, error: rest.to_owned() },
            "returned" => {
                let (at, stored) = rest.split_once(" -")?;
                let stored = stored.chars().map(|each| each == 's').collect();
                Self::Returned { number, at: at.parse().ok()?, stored }
            }
            "begins" => {
                let mut parts = rest.split(' ');
                let (at, verb, object) = (parts.next()?, parts.next()?, parts.next()?);
                let work = match verb {
                    "set" => {
                        Work::Set(object.split(',').map(str::parse).collect::<Result<_, _>>().ok()?)
                    }
                    "forget" => Work::Forget(object.parse().ok()?),
                    "expire" => Work::Expire(object.parse().ok()?),
                    _ => return None,
                };
                Self::Begins { number, at: at.parse().ok()?, work }
            }
            _ => return None,
        })
    }
}

/// Where lines are written, past all buffers.
pub(crate) struct Out(Mutex<File>);

impl Out {
    pub(crate) fn stdout() -> Result<Self> {
        Ok(Self(Mutex::new(File::from(std::io::stdout().as_fd().try_clone_to_owned()?))))
    }

    /// Fails when nobody reads: then there is no parent any more.
    pub(crate) fn say(&self, line: &Line) -> Result<()> {
        let text = format!("{}\n", line.text());
        let mut out = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(out.write_all(text.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_are_written() {
        let name = |number| Name { source: 1, number };
        let begins = |work| Line::Begins { number: 7, at: 12, work };
        for line in [
            Line::Ready,
            begins(Work::Set(vec![name(3), name(4)])),
            begins(Work::Forget(name(3).group())),
            begins(Work::Expire(Scope::Source(2))),
            Line::Returned { number: 7, at: 13, stored: vec![true, false] },
            Line::Returned { number: 7, at: 13, stored: Vec::new() },
            Line::Failed { number: 7, error: "database is locked".to_owned() },
            Line::Closes,
        ] {
            assert_eq!(Line::parse(&line.text()), Ok(line));
        }
        assert!(Line::parse("begins 7 12 set w0").is_err());
    }
}
