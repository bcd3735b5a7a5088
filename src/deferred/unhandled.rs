//! Failures that reach the end of a chain unhandled (Twisted: "Unhandled error in Deferred").
//!
//! When the last handle of a chain is dropped while its end holds a failure, that failure is
//! reported to the log, at error level, with the source line that made that link of the chain.
//! Tests can [`collect`] such failures instead.

use std::cell::RefCell;
use std::mem;
use std::panic::Location;

use crate::failure::Failure;
use crate::log::error;

/// A failure that no errback handled.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Unhandled {
    /// The failure.
    pub failure: Failure,
    /// The source line that made the link of the chain in which the failure ended.
    pub place: &'static Location<'static>,
}

/// Runs `call`, and collects the failures that go unhandled on this thread meanwhile, instead of
/// logging them. Calls may be nested; the innermost collects.
///
/// ```
/// use ropewalk::{Deferred, deferred::unhandled};
///
/// let ((), unhandled) = unhandled::collect(|| drop(Deferred::<()>::fail("lost")));
/// assert_eq!(unhandled[0].failure.to_string(), "lost");
/// ```
pub fn collect<R>(call: impl FnOnce() -> R) -> (R, Vec<Unhandled>) {
    let collecting = Collecting { outer: COLLECTED.replace(Some(Vec::new())) };
    let result = call();
    let collected = COLLECTED.take().unwrap_or_default();
    drop(collecting);
    (result, collected)
}

/// Reports a failure at the end of a chain.
pub(super) fn report(failure: Failure, place: &'static Location<'static>) {
    if let Some(Unhandled { failure, place }) = uncollected(Unhandled { failure, place }) {
        error!(%failure, %place, "unhandled error in a Deferred");
    }
}

/// Reports the failure of a Deferred that ended with [`or_log`](crate::Deferred::or_log).
pub(super) fn report_as(what: &'static str, failure: Failure, place: &'static Location<'static>) {
    let unhandled = Unhandled { failure: failure.clone().context(what), place };
    if uncollected(unhandled).is_some() {
        error!(%failure, %place, "{what} failed");
    }
}

/// Returns the failure if no collector is active on this thread.
fn uncollected(unhandled: Unhandled) -> Option<Unhandled> {
    let mut unhandled = Some(unhandled);
    // A thread that is exiting has no collector any more.
    let _ = COLLECTED.try_with(|collected| {
        if let Some(collected) = &mut *collected.borrow_mut() {
            collected.extend(unhandled.take());
        }
    });
    unhandled
}

thread_local! {
    static COLLECTED: RefCell<Option<Vec<Unhandled>>> = const { RefCell::new(None) };
}

/// Restores the outer collector, even if the call panics.
struct Collecting {
    outer: Option<Vec<Unhandled>>,
}

impl Drop for Collecting {
    fn drop(&mut self) {
        COLLECTED.set(mem::take(&mut self.outer));
    }
}
