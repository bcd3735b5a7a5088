//! The network: ports, connections and connection attempts, between protocols and the backend.
//!
//! | file | holds |
//! |---|---|
//! | `connections.rs` | completions for protocols, requests to sockets, ends of connections |
//! | `discard.rs` | connections that end at once, without a call |
//! | `lingering.rs`, `lingering_socket.rs` | sockets that are read on after their close |
//! | `port.rs`, `listener.rs` | listening |
//! | `admission.rs`, `port_extras.rs` | ports with limits, policies, or a part in a group |
//! | `hold.rs` | ports that accept nothing for a while |
//! | `connect.rs`, `dial.rs` | connecting |
//! | `adopt.rs` | both, of sockets that the program hands over |
//! | `adopt_stream.rs` | a connection whose addresses and protocol the program has already |
//! | `join_descriptors.rs` | a connection over pipes or a terminal |
//! | `unix.rs` | the same over UNIX sockets |
//! | `shared.rs`, `port_role.rs` | ports that the reactors of a group share |
//! | `options.rs` | the options of both |
//! | `udp.rs` | UDP ports |
//! | `resolver.rs` | host names, and interfaces by name |

mod admission;
pub(in crate::reactor) mod adopt;
pub(in crate::reactor) mod adopt_stream;
pub(in crate::reactor) mod connect;
pub(in crate::reactor) mod connections;
pub(in crate::reactor) mod dial;
pub(in crate::reactor) mod discard;
mod hold;
pub(in crate::reactor) mod join_descriptors;
pub(in crate::reactor) mod lingering;
pub(in crate::reactor) mod lingering_socket;
pub(in crate::reactor) mod listener;
pub(in crate::reactor) mod options;
pub(in crate::reactor) mod port;
mod port_extras;
pub(in crate::reactor) mod port_role;
pub(in crate::reactor) mod resolver;
pub(in crate::reactor) mod shared;
mod udp;
pub(in crate::reactor) mod unix;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};

use self::listener::PortCore;
use self::port_role::PortRole;
use crate::failure::drop_guarded;
use crate::time::DelayedCall;
use crate::transport::Transport;
use crate::transport::id::Id;

/// The network state of a reactor, beside the table of watched items. An `N` looks up names.
pub(super) struct Net<N: ?Sized> {
    /// The deadlines of open connections.
    deadlines: RefCell<HashMap<Id, DelayedCall>>,
    /// Lingering sockets, the oldest first. Some may have ended.
    lingering: RefCell<VecDeque<Id>>,
    /// The second dirty list, kept for its capacity.
    settled: Cell<Vec<Transport>>,
    /// `None` once the reactor is closed.
    resolver: RefCell<Option<Rc<N>>>,
    /// The role of the port that is made next, in a group of reactors.
    role: RefCell<Option<PortRole>>,
    /// The ports that hand connections over or receive them, by their numbers in the group.
    shared: RefCell<Vec<Weak<PortCore>>>,
    /// The buffer for received datagrams, as long as the longest that was asked for.
    datagram_room: Cell<Vec<u8>>,
}

impl<N: ?Sized> Net<N> {
    pub(super) fn new(resolver: Rc<N>) -> Self {
        Self {
            deadlines: RefCell::default(),
            lingering: RefCell::default(),
            settled: Cell::default(),
            resolver: RefCell::new(Some(resolver)),
            role: RefCell::default(),
            shared: RefCell::default(),
            datagram_room: Cell::default(),
        }
    }

    /// Takes the buffer for received datagrams, with at least `length` bytes.
    fn take_datagram_room(&self, length: usize) -> Vec<u8> {
        let mut room = self.datagram_room.take();
        if room.len() < length {
            room.resize(length, 0);
        }
        room
    }

    fn give_datagram_room(&self, room: Vec<u8>) {
        self.datagram_room.set(room);
    }

    /// Returns the number of connections with a deadline.
    #[cfg(test)]
    pub(super) fn deadlines(&self) -> usize {
        self.deadlines.borrow().len()
    }

    /// Adds the next port that a group shares by handing connections over.
    fn add_shared_port(&self, port: &Rc<PortCore>) {
        self.shared.borrow_mut().push(Rc::downgrade(port));
    }

    /// Returns such a port by its number.
    fn shared_port(&self, number: usize) -> Option<Rc<PortCore>> {
        self.shared.borrow().get(number).and_then(Weak::upgrade)
    }

    /// Drops the program's resolver.
    pub(super) fn close(&self) {
        let resolver = self.resolver.take();
        drop_guarded("a resolver", resolver);
    }
}
