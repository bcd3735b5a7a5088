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
mod unix_datagrams;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};

use self::listener::PortCore;
use self::port_role::PortRole;
use crate::failure::drop_guarded;
use crate::reactor::backend::DatagramBatch;
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
    /// The batch for received datagrams, with room for the longest that was asked for.
    batch: Cell<Option<Box<DatagramBatch>>>,
    /// The batches of ports that were paused or have used their budget in the midst of one.
    left_batches: RefCell<Vec<(Id, Box<DatagramBatch>)>>,
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
            batch: Cell::default(),
            left_batches: RefCell::default(),
        }
    }

    /// Takes the batch that a datagram port has left for this turn, or the empty one of all ports.
    fn take_batch(&self, id: Id, most: usize, coalesces: bool) -> Box<DatagramBatch> {
        let mut left = self.left_batches.borrow_mut();
        if let Some(at) = left.iter().position(|(owner, _)| *owner == id) {
            return left.swap_remove(at).1;
        }
        drop(left);
        let mut batch = self.batch.take().unwrap_or_default();
        batch.prepare(most, coalesces);
        batch
    }

    fn give_batch(&self, batch: Box<DatagramBatch>) {
        self.batch.set(Some(batch));
    }

    /// Keeps the datagrams that a port has received, and that are not delivered yet.
    fn leave_batch(&self, id: Id, batch: Box<DatagramBatch>) {
        self.left_batches.borrow_mut().push((id, batch));
    }

    /// Drops the datagrams of a port that has stopped.
    fn drop_batch(&self, id: Id) {
        self.left_batches.borrow_mut().retain(|(owner, _)| *owner != id);
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
