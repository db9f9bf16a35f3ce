//! The lock of the flight table, in one place so that a test can put another one there: one that
//! tries all schedules.

pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};
