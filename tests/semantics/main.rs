//! The promised behaviour, line by line, seen from outside.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod absent;
mod answers;
mod barriers;
mod batches;
mod batches_failures;
mod breaker;
mod closing;
mod expire;
#[path = "../it/harness.rs"]
mod harness;
mod invalidation;
mod keys;
mod lifetimes;
mod loading;
mod loading_failures;
mod loading_timeouts;
#[path = "../it/log.rs"]
mod log;
mod missed;
mod modes;
mod options;
mod ordering;
mod pitfalls;
mod race;
mod refresh;
mod retry_after;
mod scene;
mod scripted;
mod settings;
mod stale;
mod stamps;
mod statistics;
mod strict;
mod tiers;
mod time;
mod tools;
mod versions;
