//! Jobs.

use std::time::Duration;

use larder::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use crate::schedule::{Schedule, ScheduleError};

/// Longest name, in characters.
const LONGEST_NAME: usize = 64;

/// Something that is to be run on a schedule.
#[derive(Clone, Debug)]
pub struct Job {
    name: String,
    schedule: Schedule,
    jitter: Duration,
}

impl Job {
    /// A job, without jitter.
    ///
    /// What has been run is remembered by the job's name: one that gets another name is another job.
    ///
    /// # Errors
    /// [`ScheduleError::JobName`] if the name is not 1 to 64 of the letters a to z (small or capital),
    /// digits, `-` and `_`.
    pub fn new(name: impl Into<String>, schedule: Schedule) -> Result<Self, ScheduleError> {
        let name = name.into();
        let sound = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(sound) {
            return Err(ScheduleError::JobName { name });
        }
        Ok(Self { name, schedule, jitter: Duration::ZERO })
    }

    /// Delays each run by less than this, so that what is due at one time does not begin at one time.
    /// Default: zero.
    #[must_use]
    pub fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When it is due.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// When the run begins that is due at `due`: not before, and before the next is due. The delay
    /// follows from the job's name and `due` alone, so that all nodes agree.
    pub fn begins(&self, due: Timestamp) -> Timestamp {
        let next = self.schedule.next_after(due).unwrap_or(Timestamp::NEVER);
        let room = self.jitter.min(next.saturating_since(due)).as_millis();
        let mut seed = self.name.clone().into_bytes();
        seed.extend(due.as_millis().to_le_bytes());
        let share = u128::from(xxh3_64(&seed));
        // Less than the room, as the share is less than 2^64.
        let delay = room.saturating_mul(share) >> 64;
        due.saturating_add(Duration::from_millis(u64::try_from(delay).unwrap_or(0)))
    }
}
