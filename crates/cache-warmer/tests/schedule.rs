//! Schedules and what runs on them, through the public interface.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail like the test itself")]

#[path = "schedule/nodes.rs"]
mod nodes;
#[path = "schedule/runs.rs"]
mod runs;
#[path = "schedule/times.rs"]
mod times;
#[path = "schedule/world.rs"]
mod world;
