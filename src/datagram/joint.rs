//! [`DatagramJoint`], between a datagram protocol and its transport.
//!
//! Only this file calls a [`DatagramProtocol`]:
//!
//! 1. the protocol is called only while the joint holds it, and `stop_protocol` takes it out;
//! 2. each call is guarded: an `Err` or a panic is logged, and the port goes on;
//! 3. no borrow of the state is held during a call, and no borrow of the protocol outside of one;
//! 4. after a stop, nothing but `stop_protocol` is called.

use std::cell::{Cell, RefCell};

use super::protocol::DatagramProtocol;
use super::state::DatagramState;
use super::transport::DatagramTransport;
use crate::address::Address;
use crate::failure::{Failure, Result, drop_guarded, guarded, guarded_result};
use crate::log::error;

/// A datagram protocol joined to its transport.
pub(crate) struct DatagramJoint {
    transport: DatagramTransport,
    protocol: RefCell<Option<Box<dyn DatagramProtocol>>>,
    spent: Cell<Spent>,
}

/// The part of the budget of a turn that a port has used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    turn: u64,
    /// Datagrams and refusals.
    pub(crate) datagrams: usize,
    pub(crate) bytes: usize,
}

impl DatagramJoint {
    pub(crate) fn new(transport: DatagramTransport, protocol: Box<dyn DatagramProtocol>) -> Self {
        Self { transport, protocol: RefCell::new(Some(protocol)), spent: Cell::default() }
    }

    /// Returns what was used of the budget of this turn.
    pub(crate) fn spent_in(&self, turn: u64) -> Spent {
        let spent = self.spent.get();
        if spent.turn == turn { spent } else { Spent { turn, ..Spent::default() } }
    }

    pub(crate) fn set_spent(&self, spent: Spent) {
        self.spent.set(spent);
    }

    pub(crate) fn transport(&self) -> &DatagramTransport {
        &self.transport
    }

    /// Returns `true` if received datagrams are to be delivered.
    pub(crate) fn is_receiving(&self) -> bool {
        self.state().is_listening() && !self.state().is_paused()
    }

    /// Makes the first call. Its failure goes to the caller of `listen_udp`.
    pub(crate) fn start(&self) -> Result<()> {
        let mut place = self.protocol.borrow_mut();
        let Some(protocol) = place.as_mut() else { return Ok(()) };
        guarded_result(|| protocol.start_protocol(&self.transport))
    }

    /// Delivers a datagram. `whole` is its length if it was longer than `data`, as far as that is
    /// known.
    pub(crate) fn datagram_received(&self, data: &[u8], truncated: Option<Option<usize>>, peer: &Address) {
        self.state().count(|counts| counts.received += 1);
        let Some(length) = truncated else {
            return self
                .call("datagram_received", |protocol, transport| protocol.datagram_received(transport, data, peer));
        };
        self.state().count(|counts| counts.truncated += 1);
        if self.state().counts().truncated == 1 {
            let (host, most) = (self.transport.host(), self.transport.max_packet_bytes());
            tracing::warn!(%host, %peer, length, most, "a datagram was longer than the port takes; later ones are counted");
        }
        self.call("truncated_datagram_received", |protocol, transport| {
            protocol.truncated_datagram_received(transport, data, length, peer)
        });
    }

    /// Tells of a refusal by the peer that a receive has reported.
    pub(crate) fn connection_refused(&self) {
        if self.state().has_peer() {
            self.call("connection_refused", |protocol, transport| protocol.connection_refused(transport));
        }
    }

    /// Tells of a refusal by the peer that a send has reported, unless it was told.
    pub(crate) fn tell_of_refusal(&self) {
        if self.state().take_refusal() {
            self.connection_refused();
        }
    }

    /// Makes the last call, drops the protocol, and fires the Deferreds of the stop.
    pub(crate) fn stopped(&self) {
        let protocol = self.protocol.borrow_mut().take();
        let mut result = Ok(());
        if let Some(mut protocol) = protocol {
            let told = guarded(|| protocol.stop_protocol(&self.transport));
            // The drop is guarded separately from the call: a drop that panics while a panic
            // unwinds would abort the process.
            let dropped = guarded(move || drop(protocol));
            result = told.and(dropped);
        }
        if let Err(panic) = &result {
            error!(host = %self.transport.host(), %panic, "stop_protocol failed");
        }
        for promise in self.state().stopped() {
            // It may have been cancelled meanwhile.
            let _ = promise.complete(result.clone().map_err(Failure::from));
        }
    }

    /// Drops a protocol that did not start. Nothing more is called.
    pub(crate) fn discard(&self) {
        let protocol = self.protocol.borrow_mut().take();
        drop_guarded("a datagram protocol", protocol);
        drop(self.state().stopped());
    }

    fn state(&self) -> &DatagramState {
        self.transport.state()
    }

    fn call(
        &self,
        callback: &'static str,
        call: impl FnOnce(&mut dyn DatagramProtocol, &DatagramTransport) -> Result<()>,
    ) {
        if !self.state().is_listening() {
            return;
        }
        let mut place = self.protocol.borrow_mut();
        let Some(protocol) = place.as_mut() else { return };
        let result = guarded_result(|| call(&mut **protocol, &self.transport));
        drop(place);
        if let Err(failure) = result {
            let backtrace = failure.backtrace().map(tracing::field::display);
            error!(host = %self.transport.host(), %failure, backtrace, "{callback} failed; the port goes on");
        }
    }
}

impl Drop for DatagramJoint {
    /// A protocol is left only if the port was never stopped: its reactor was dropped in a forked
    /// child, or did not take it.
    fn drop(&mut self) {
        drop_guarded("a datagram protocol", self.protocol.get_mut().take());
    }
}
