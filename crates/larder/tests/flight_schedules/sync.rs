//! The table's lock as the tests have it: the scheduler may switch before it is taken, before it is
//! released and, other than with shuttle's own, after it.

use std::ops::{Deref, DerefMut};

pub(crate) use std::sync::PoisonError;

use shuttle::sync;

use crate::step;

#[derive(Debug)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

// What is done after the release, to a channel for example, is another step. The fields are dropped
// in this order.
#[derive(Debug)]
pub(crate) struct MutexGuard<'a, T> {
    guard: sync::MutexGuard<'a, T>,
    _released: Released,
}

#[derive(Debug)]
struct Released;

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> std::sync::LockResult<MutexGuard<'_, T>> {
        let guarded = |guard| MutexGuard { guard, _released: Released };
        self.0
            .lock()
            .map(guarded)
            .map_err(|poisoned| PoisonError::new(guarded(poisoned.into_inner())))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

impl Drop for Released {
    fn drop(&mut self) {
        step();
    }
}
