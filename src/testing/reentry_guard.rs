//! Rejects tests that start a turn from inside a callback, which no reactor does.

use std::cell::Cell;

/// Marks a turn as running for its lifetime.
pub(super) struct ReentryGuard<'a>(&'a Cell<bool>);

impl<'a> ReentryGuard<'a> {
    #[track_caller]
    pub(super) fn enter(busy: &'a Cell<bool>) -> Self {
        assert!(
            !busy.replace(true),
            "a callback tried to drive a connection in the middle of a turn: a reactor does nothing before the \
             callback has returned, so drive it from the test afterwards"
        );
        Self(busy)
    }
}

impl Drop for ReentryGuard<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
