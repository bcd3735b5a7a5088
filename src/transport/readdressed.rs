//! Other addresses for a connection whose protocol was not built yet: those of the header that it
//! begins with.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;

use super::stream::Stream;
use super::{Transport, TransportInner};
use crate::address::AddressPair;

impl Transport {
    /// Moves the connection into a new handle with other addresses. This handle is over. So its
    /// addresses never change under a program, which has not been given it.
    pub(crate) fn readdressed(&self, ends: AddressPair) -> Self {
        let (id, context) = (self.0.id, Rc::clone(&self.0.context));
        let stream = self.0.stream.replace(Stream::over());
        let moved = Self(Rc::new(TransportInner { id, context, stream: RefCell::new(stream), ends }));
        // The old handle may be on the dirty list, where it has nothing to do any more.
        moved.stream().clear_dirty();
        moved.keep_policies();
        moved.mark_dirty();
        moved
    }

    /// Returns the value that the preamble of the connection has read.
    pub(crate) fn given_by<T: Any>(&self) -> Option<&T> {
        self.0.ends.given_by()
    }

    /// Records bytes that the engine has taken for itself: the policies count what comes from the
    /// network, and the observer is told.
    pub(crate) fn note_taken(&self, data: &[u8]) {
        let mut stream = self.stream();
        if stream.note_arrival(data.len()) {
            self.mark_stream_dirty(&mut stream);
        }
        drop(stream);
        if let Some(observer) = self.0.context.observer() {
            observer.taken(self.0.id, data);
        }
    }
}
