//! The SQLite tier under real faults: bits flipped on disk, files replaced, no room, no rights.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

mod bounded;
mod child;
mod damage;
mod file;
mod formats;
mod injected;
mod rights;
mod room;
mod support;
