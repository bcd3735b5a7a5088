//! What keeps a test from turning the wheel from inside a callback, which no reactor would do.

use std::cell::Cell;

/// Somebody is turning, for as long as it lives.
pub(super) struct ReentryGuard<'a>(&'a Cell<bool>);

impl<'a> ReentryGuard<'a> {
    #[track_caller]
    pub(super) fn enter(busy: &'a Cell<bool>) -> Self {
        assert!(
            !busy.replace(true),
            "a callback tried to make something happen to a connection that is in the middle of a turn: in a reactor \
             nothing happens before the callback has returned, so let the test do it then"
        );
        Self(busy)
    }
}

impl Drop for ReentryGuard<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}
