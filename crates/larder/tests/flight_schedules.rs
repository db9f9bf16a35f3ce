//! The flight table under many schedules: nobody waits for ever, nobody works while there is work
//! to join, nothing stays behind in the table.
//!
//! `shuttle` runs every scenario under 10,000 random schedules and 10,000 of PCT, which looks for
//! bugs that take three steps in a certain order. `LARDER_SCHEDULES` is another number. Who waits
//! for ever is found as a deadlock.
//!
//! The table is compiled into this test once more, with another lock: one where the scheduler may
//! switch tasks. Its channels are tokio's own. All tasks run on one thread, so that whatever is done
//! with a channel is one step; the lock and the scenarios switch in between.
//!
//! A failure prints its schedule. This runs it again, and nothing else:
//!
//! ```text
//! LARDER_SCHEDULE=9102... cargo test -p larder --test flight_schedules -- --exact sharing::one_load
//! ```
//!
//! The schedule may be given in several lines, as it is printed. A test can do the same with
//! `shuttle::replay(|| block_on(one_load()), "9102...")`. A failing random schedule prints its seed
//! too, for `SHUTTLE_RANDOM_SEED`: all schedules from that one on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "flight_schedules/endings.rs"]
mod endings;
// No attribute hides what is not used here: what the table offers belongs into a scenario.
#[path = "../src/flight.rs"]
mod flight;
#[path = "flight_schedules/sharing.rs"]
mod sharing;
#[path = "flight_schedules/sync.rs"]
mod sync;
#[path = "flight_schedules/world.rs"]
mod world;

use std::{env, future::Future, time::Duration};

use shuttle::{future::block_on, thread};

/// How many schedules each scheduler tries, unless the environment says otherwise.
const SCHEDULES: usize = 10_000;

/// How many steps in a certain order it takes to show the bugs that PCT looks for.
const DEPTH: usize = 3;

/// Runs a scenario under many schedules, or under the one that is to be seen again.
fn check<F: Future<Output = ()> + 'static>(scenario: fn() -> F) {
    let run = move || block_on(scenario());
    if let Ok(schedule) = env::var("LARDER_SCHEDULE") {
        shuttle::replay(run, &schedule);
        return;
    }
    let schedules =
        env::var("LARDER_SCHEDULES").map_or(SCHEDULES, |number| number.parse().unwrap());
    shuttle::check_random(run, schedules);
    shuttle::check_pct(run, schedules, DEPTH);
    // Or else a failure could not be run again.
    shuttle::check_uncontrolled_nondeterminism(run, schedules.div_ceil(100));
}

/// Lets another task go first. Not a yield: PCT takes that as a wish to be the last.
fn step() {
    thread::sleep(Duration::ZERO);
}
