//! Counting allocations, which the counting allocator of this program does by thread.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

/// Allocations per operation.
pub(crate) fn per_operation(times: u64, mut operation: impl FnMut()) -> f64 {
    let counted = allocation_counter::measure(|| (0..times).for_each(|_| operation()));
    counted.count_total as f64 / times as f64
}

/// Bytes that are still allocated when `work` has ended, and what it returns.
pub(crate) fn held<T>(work: impl FnOnce() -> T) -> (i64, T) {
    let mut kept = None;
    let counted = allocation_counter::measure(|| kept = Some(work()));
    let Some(kept) = kept else { unreachable!("it has been called") };
    (counted.bytes_current, kept)
}

/// The output of a future that is ready at once.
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
