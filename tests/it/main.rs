//! Whole chains.
#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

mod config;
mod dictionaries;
mod flight;
mod harness;
mod invalidation;
mod lifetime;
mod log;
mod outage;
mod packing;
mod peers;
mod promotion;
mod restart;
mod soak;
mod statistics;
mod typed;
