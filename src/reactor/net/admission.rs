//! Ports with more to do for an accepted connection than to build its protocol: a part in a group,
//! limits, or policies ([`PortExtras`]). A port without extras pays one comparison for a
//! connection.
//!
//! | port | accepted connection |
//! |---|---|
//! | hands over | goes to another reactor; the pace of accepting is kept here, the limits there |
//! | has limits | is counted, or reset; the last that may be open holds the port (`hold.rs`) |
//! | has policies | begins with them, before its `connection_made` |

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::hold::Hold;
use super::listener::PortCore;
use super::port_role::{OpenGuard, TakenRole};
use crate::address::Address;
use crate::policies::{Admission, ConnectionPolicies, Gate, Seat, SharedPolicies};
use crate::reactor::Core;
use crate::reactor::backend::PortOptions;
use crate::time::Clock;
use crate::transport::Transport;
use crate::transport::id::Id;

/// See the module.
#[derive(Default)]
pub(super) struct PortExtras {
    pub(super) role: Option<TakenRole>,
    gate: Option<Rc<Gate>>,
    policies: Option<SharedPolicies>,
    /// The reactor, once the port listens.
    core: RefCell<Weak<Core>>,
}

impl PortExtras {
    /// Makes the extras of a port with these options, if it has any.
    pub(super) fn of(options: &PortOptions) -> Option<Box<Self>> {
        let connections = &options.connections;
        let gate = (!connections.limits.is_empty()).then(|| Gate::new(connections.limits));
        let policies = (!connections.policies.is_empty()).then(|| connections.policies.share());
        let has_any = gate.is_some() || policies.is_some();
        has_any.then(|| Box::new(Self { gate, policies, ..Self::default() }))
    }

    /// Applies the policies of the port to a connection that begins.
    pub(super) fn begin(&self, transport: &Transport) {
        if let Some(policies) = &self.policies {
            policies.apply(transport);
        }
    }
}

/// Applies policies to a connection that has no port.
pub(super) fn apply_policies(policies: ConnectionPolicies, transport: &Transport) {
    if !policies.is_empty() {
        policies.share().apply(transport);
    }
}

/// Ends the counting of a connection when it is dropped: once its socket is closed.
pub(in crate::reactor) struct CountedGuard {
    group: Option<OpenGuard>,
    _seat: Option<Seat>,
}

impl CountedGuard {
    /// Returns `true` if the connection is one of a shared port.
    pub(super) fn is_of_group(&self) -> bool {
        self.group.is_some()
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
        Entry::Serve(CountedGuard { group: port.count_open(), _seat: seat })
    }

    /// Holds a port that has accepted as many connections as a second permits.
    fn pause_between(&self, port: &PortCore, extras: &PortExtras, pause: Option<Duration>) {
        let (Some(pause), Some(id)) = (pause, port.listening_id()) else { return };
        if self.hold_port(port, Hold::Rate) {
            let core = extras.core.borrow().clone();
            self.timers.call_later(pause, move || {
                if let Some(core) = core.upgrade() {
                    core.release_port_of(id, Hold::Rate);
                }
            });
        }
    }

    /// Prepares the limits of a port that begins to listen: it accepts again when there is room.
    /// Connections of an earlier time may have left none.
    pub(super) fn begin_limits(self: &Rc<Self>, port: &PortCore, id: Id) {
        let Some(extras) = &port.extras else { return };
        extras.core.replace(Rc::downgrade(self));
        let Some(gate) = &extras.gate else { return };
        if gate.pauses() {
            self.hold_port(port, Hold::Full);
        }
        let core = Rc::downgrade(self);
        gate.when_room(move || {
            if let Some(core) = core.upgrade() {
                // A socket may be closed while the backend, or the table, is borrowed.
                core.at_end_of_turn(move |core| core.release_port_of(id, Hold::Full));
            }
        });
    }
}
