//! [`Watched`]: a watch of a foreign descriptor, as the reactor's table and its loop know it.
//! `watch.rs` implements it.

use std::any::Any;
use std::io;
use std::rc::Rc;

use super::interest::Ready;

/// Reacts to the events of one descriptor. The loop calls the methods, when no callback is on the
/// stack and nothing is borrowed.
pub(super) trait Watched {
    /// Calls the program for a ready descriptor.
    fn ready(self: Rc<Self>, ready: Ready);

    /// Ends the watch of a descriptor that the backend has lost, and tells the program.
    fn lost(self: Rc<Self>, error: io::Error);

    /// Ends the watch because the reactor stops, and tells the program.
    fn reactor_stopped(self: Rc<Self>);

    /// Returns the watch itself.
    fn into_any(self: Rc<Self>) -> Rc<dyn Any>;
}
