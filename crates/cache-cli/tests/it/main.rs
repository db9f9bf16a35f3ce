//! The `larder` binary, as a child process: what it prints, how it ends, what it leaves behind.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

mod broken;
mod changing;
mod compressing;
mod configuration;
mod demonstration;
mod harness;
mod importing;
mod planning;
mod reading;
mod scheduling;
mod usage;
mod validating;
mod warming;
