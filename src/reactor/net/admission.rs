//! Ports with more to do for an accepted connection than to build its protocol: with a part in a
//! group, limits, or policies ([`PortExtras`]). A port without extras pays one comparison for a
//! connection.
//!
//! | port | accepted connection |
//! |---|---|
//! | has limits | is counted, or reset; the last that may be open holds the port (`hold.rs`) |
//! | shares limits | the same; waits here if another port has taken the last place meanwhile |
//! | hands over | goes to another reactor, with its place if the port has limits |
//! | has policies | begins with them, before its `connection_made` |
//!
//! A port of a group is one port: its limits count the connections of all reactors. If it hands
//! over, its limits are those of the group's own reactor. If each reactor has a socket, they share
//! a gate ([`SharedGate`](super::port_role::SharedGate)). A freed place is announced by a call from
//! the thread of the connection, as all of these may be on different threads.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::hold::Hold;
use super::listener::PortCore;
use super::port_extras::PortExtras;
use super::port_role::CountedGuard;
use crate::address::Address;
use crate::policies::{Admission, ConnectionPolicies, Seat};
use crate::reactor::{Core, Reactor};
use crate::time::Clock;
use crate::transport::Transport;
use crate::transport::id::Id;

/// Applies policies to a connection that has no port.
pub(super) fn apply_policies(policies: ConnectionPolicies, transport: &Transport) {
    if !policies.is_empty() {
        policies.share().apply(transport);
    }
}

/// The way of an accepted connection.
pub(super) enum Entry {
    Serve(CountedGuard),
    HandOver(Option<Seat>),
    Wait,
    Refuse,
}

impl Core {
    /// Decides on a connection of a port with extras.
    pub(super) fn admit(&self, port: &PortCore, extras: &PortExtras, peer: &Address) -> Entry {
        let now = self.timers.seconds();
        let seat = match extras.gate().map(|(gate, room)| gate.admit(peer, now, &room)) {
            None => None,
            Some(Admission::Admitted { seat, is_full, pause }) => {
                if is_full {
                    self.hold_port(port, Hold::Full);
                }
                self.pause_between(port, extras, pause);
                Some(seat)
            }
            // A port that stops is not held, and does not wait for room.
            Some(Admission::Full(_)) if self.hold_port(port, Hold::Full) => return Entry::Wait,
            Some(Admission::Full(reason) | Admission::Refused(reason)) => {
                self.count(|counters| counters.shed += 1);
                port.over_limit(now, reason);
                return Entry::Refuse;
            }
        };
        if port.hands_over() {
            return Entry::HandOver(seat);
        }
        Entry::Serve(CountedGuard::new(port.count_open(), seat))
    }

    /// Holds a port that has accepted as many connections as a second permits.
    fn pause_between(&self, port: &PortCore, extras: &PortExtras, pause: Option<Duration>) {
        let Some(pause) = pause else { return };
        if self.hold_port(port, Hold::Rate) {
            extras.release_after(pause);
        }
    }

    /// Prepares the limits of a port that begins to listen: it accepts again when there is room.
    /// Connections of an earlier time may have left none.
    pub(super) fn begin_limits(self: &Rc<Self>, port: &PortCore, id: Id) {
        let Some(extras) = &port.extras else { return };
        let core = Rc::downgrade(self);
        extras.set_release(move |pause| {
            let Some(core) = core.upgrade() else { return };
            let weak = Rc::downgrade(&core);
            core.timers.call_later(pause, move || {
                if let Some(core) = weak.upgrade() {
                    core.release_port_of(id, Hold::Rate);
                }
            });
        });
        if extras.gate.is_none() {
            return;
        }
        let calls = Arc::clone(self.threads.calls());
        extras.set_room(Arc::new(move || {
            // A reactor that is gone has no port.
            let _ = calls.add(Box::new(move |reactor: &Reactor| reactor.0.has_room(id)));
        }));
        if extras.gate().is_some_and(|(gate, room)| gate.pauses(&room)) {
            self.hold_port(port, Hold::Full);
        }
    }

    /// Serves the connections that wait for a place, and accepts again if there is one left.
    fn has_room(&self, id: Id) {
        let Some(port) = self.port(id) else { return };
        let Some(extras) = &port.extras else { return };
        let waiting = extras.waiting.take();
        for incoming in waiting {
            self.admit_incoming(&port, incoming);
        }
        if extras.gate().is_some_and(|(gate, room)| !gate.pauses(&room)) {
            self.release_port(&port, Hold::Full);
        }
    }
}
