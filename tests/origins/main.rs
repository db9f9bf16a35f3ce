//! Sources over HTTP, against a real server: what it sees is what was asked of it, and when.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

mod answers;
mod batches;
mod clients;
mod limits;
mod ranges;
mod retries;
mod server;
mod versions;
