//! The network: ports, connections and attempts, between protocols and the backend.
//!
//! | file | holds |
//! |---|---|
//! | `connections.rs` | completions handed to protocols, requests handed to sockets, ends |
//! | `lingering.rs`, `lingering_socket.rs` | sockets that are read on after their close |
//! | `port.rs`, `listener.rs` | listening |
//! | `connect.rs`, `dial.rs` | connecting |
//! | `unix.rs` | the same over UNIX sockets |
//! | `options.rs` | the options of both |
//! | `resolver.rs` | names, and interfaces by name |

pub(in crate::reactor) mod connect;
pub(in crate::reactor) mod connections;
pub(in crate::reactor) mod dial;
pub(in crate::reactor) mod lingering;
pub(in crate::reactor) mod lingering_socket;
pub(in crate::reactor) mod listener;
pub(in crate::reactor) mod options;
pub(in crate::reactor) mod port;
pub(in crate::reactor) mod resolver;
pub(in crate::reactor) mod unix;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::failure::drop_guarded;
use crate::time::DelayedCall;
use crate::transport::Transport;
use crate::transport::id::Id;

/// A reactor's part in the network, beside the table of what is watched. Names are looked up by an `N`.
pub(super) struct Net<N: ?Sized> {
    /// Deadlines of connections that are running.
    deadlines: RefCell<HashMap<Id, DelayedCall>>,
    /// Sockets that linger, the oldest first; some may have ended.
    lingering: RefCell<VecDeque<Id>>,
    /// The other dirty list, kept for its capacity.
    settled: Cell<Vec<Transport>>,
    /// None once the reactor is closed.
    resolver: RefCell<Option<Rc<N>>>,
}

impl<N: ?Sized> Net<N> {
    pub(super) fn new(resolver: Rc<N>) -> Self {
        Self {
            deadlines: RefCell::default(),
            lingering: RefCell::default(),
            settled: Cell::default(),
            resolver: RefCell::new(Some(resolver)),
        }
    }

    /// The number of connections that have a deadline.
    #[cfg(test)]
    pub(super) fn deadlines(&self) -> usize {
        self.deadlines.borrow().len()
    }

    /// Drops the program's resolver.
    pub(super) fn close(&self) {
        let resolver = self.resolver.take();
        drop_guarded("a resolver", resolver);
    }
}
