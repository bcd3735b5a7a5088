//! [`WatchCallbacks`]: a [`Watcher`] of closures.

use std::fmt;

use super::watch::{WatchHandle, Watcher};
use crate::failure::{Failure, Result};

/// The callbacks of a watched descriptor as closures, for
/// [`Reactor::watch`](super::Reactor::watch). A callback for each kind of readiness that the watch
/// is interested in must be there: without it, the watch ends at the event with
/// [`WatchError::NoCallback`](crate::error::WatchError::NoCallback).
///
/// ```
/// use ropewalk::reactor::WatchCallbacks;
///
/// let callbacks = WatchCallbacks::new()
///     .on_read(|watch| {
///         println!("{} is readable", watch.raw_fd());
///         watch.pause_reading()?;
///         Ok(())
///     })
///     .on_lost(|reason| println!("the watch has ended: {reason}"));
/// # drop(callbacks);
/// ```
#[derive(Default)]
#[must_use = "callbacks are called by a watch"]
pub struct WatchCallbacks {
    read: Option<ReadyCallback>,
    write: Option<ReadyCallback>,
    urgent: Option<ReadyCallback>,
    lost: Option<LostCallback>,
}

/// A callback for one kind of readiness.
type ReadyCallback = Box<dyn FnMut(&WatchHandle) -> Result<()>>;

/// The callback for the end of a watch.
type LostCallback = Box<dyn FnOnce(&Failure)>;

impl WatchCallbacks {
    /// Makes an object without callbacks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the callback for something to read: [`Watcher::do_read`].
    pub fn on_read(mut self, call: impl FnMut(&WatchHandle) -> Result<()> + 'static) -> Self {
        self.read = Some(Box::new(call));
        self
    }

    /// Sets the callback for room to write: [`Watcher::do_write`].
    pub fn on_write(mut self, call: impl FnMut(&WatchHandle) -> Result<()> + 'static) -> Self {
        self.write = Some(Box::new(call));
        self
    }

    /// Sets the callback for urgent data: [`Watcher::do_read_urgent`].
    pub fn on_urgent(mut self, call: impl FnMut(&WatchHandle) -> Result<()> + 'static) -> Self {
        self.urgent = Some(Box::new(call));
        self
    }

    /// Sets the callback for the end of the watch: [`Watcher::connection_lost`].
    pub fn on_lost(mut self, call: impl FnOnce(&Failure) + 'static) -> Self {
        self.lost = Some(Box::new(call));
        self
    }
}

/// The default of a callback that is not set.
struct NoCallbacks;

impl Watcher for NoCallbacks {}

impl Watcher for WatchCallbacks {
    fn do_read(&mut self, watch: &WatchHandle) -> Result<()> {
        self.read.as_mut().map_or_else(|| NoCallbacks.do_read(watch), |call| call(watch))
    }

    fn do_write(&mut self, watch: &WatchHandle) -> Result<()> {
        self.write.as_mut().map_or_else(|| NoCallbacks.do_write(watch), |call| call(watch))
    }

    fn do_read_urgent(&mut self, watch: &WatchHandle) -> Result<()> {
        self.urgent.as_mut().map_or_else(|| NoCallbacks.do_read_urgent(watch), |call| call(watch))
    }

    fn connection_lost(&mut self, reason: &Failure) {
        if let Some(call) = self.lost.take() {
            call(reason);
        }
    }
}

impl fmt::Debug for WatchCallbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchCallbacks")
            .field("read", &self.read.is_some())
            .field("write", &self.write.is_some())
            .field("urgent", &self.urgent.is_some())
            .field("lost", &self.lost.is_some())
            .finish()
    }
}
