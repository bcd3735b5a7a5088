//! Ports with more to do for an accepted connection than to build its protocol: with a part in a
//! group, limits, or policies ([`PortExtras`]). A port without extras pays one comparison for a
//! connection.
//!
//! | port | accepted connection |
//! |---|---|
//! | hands over | goes to another reactor; the pace of accepting is kept here, the limits there |
//! | has limits | is counted, or reset; the last that may be open holds the port (`hold.rs`) |
//! | has policies | begins with them, before its `connection_made` |

use std::rc::Rc;
use std::time::Duration;

use super::hold::Hold;
use super::listener::PortCore;
use super::port_extras::PortExtras;
use super::port_role::CountedGuard;
use crate::address::Address;
use crate::policies::{Admission, ConnectionPolicies};
use crate::reactor::Core;
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
    HandOver,
    Refuse,
}

impl Core {
    /// Decides on a connection of a port with extras.
    pub(super) fn admit(&self, port: &PortCore, extras: &PortExtras, peer: &Address) -> Entry {
        let now = self.timers.seconds();
        if port.hands_over() {
            let pause = extras.gate.as_ref().and_then(|gate| gate.pass_on(now));
            self.pause_between(port, extras, pause);
            return Entry::HandOver;
        }
        let seat = match extras.gate.as_ref().map(|gate| gate.admit(peer, now)) {
            None => None,
            Some(Admission::Admitted { seat, is_full, pause }) => {
                if is_full {
                    self.hold_port(port, Hold::Full);
                }
                self.pause_between(port, extras, pause);
                Some(seat)
            }
            Some(Admission::Refused(reason)) => {
                self.count(|counters| counters.shed += 1);
                port.over_limit(now, reason);
                return Entry::Refuse;
            }
        };
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
        let Some(gate) = &extras.gate else { return };
        if gate.pauses() {
            self.hold_port(port, Hold::Full);
        }
        let (core, weak_gate) = (Rc::downgrade(self), Rc::downgrade(gate));
        gate.when_room(move || {
            let gate = weak_gate.clone();
            if let Some(core) = core.upgrade() {
                // A socket may be closed while the backend, or the table, is borrowed.
                core.at_end_of_turn(move |core| {
                    if gate.upgrade().is_some_and(|gate| !gate.pauses()) {
                        core.release_port_of(id, Hold::Full);
                    }
                });
            }
        });
    }
}
