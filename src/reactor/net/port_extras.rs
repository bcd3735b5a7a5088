//! [`PortExtras`]: a port's part in a group, its limits and its policies. `admission.rs` uses them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::port_role::TakenRole;
use crate::policies::{Gate, RoomCall, SharedPolicies};
use crate::reactor::backend::{Incoming, PortOptions, PortPolicies};
use crate::transport::Transport;

/// Schedules the end of a pause.
type ReleaseCall = Rc<dyn Fn(Duration)>;

/// See the module.
#[derive(Default)]
pub(super) struct PortExtras {
    pub(super) role: Option<TakenRole>,
    pub(super) gate: Option<Arc<Gate>>,
    policies: Option<SharedPolicies>,
    /// Connections that were accepted when another port of the gate had taken the last place.
    pub(super) waiting: RefCell<VecDeque<Incoming>>,
    /// Tells this port that its gate has room.
    room: RefCell<Option<RoomCall>>,
    /// Ends the pause of a port that has accepted as many connections as a second permits.
    release: RefCell<Option<ReleaseCall>>,
}

impl PortExtras {
    /// Makes the extras of a port with these options, if it has any.
    pub(super) fn of(options: &PortOptions) -> Option<Box<Self>> {
        let PortPolicies { limits, begin } = options.policies;
        let gate = (!limits.is_empty()).then(|| Gate::new(limits));
        let policies = (!begin.is_empty()).then(|| begin.share());
        let has_any = gate.is_some() || policies.is_some();
        has_any.then(|| Box::new(Self { gate, policies, ..Self::default() }))
    }

    /// Applies the policies of the port to a connection that begins.
    pub(super) fn begin(&self, transport: &Transport) {
        if let Some(policies) = &self.policies {
            policies.apply(transport);
        }
    }

    /// Sets the function that tells this port of room.
    pub(super) fn set_room(&self, call: RoomCall) {
        self.room.replace(Some(call));
    }

    /// Returns the gate, and the function that it calls when it has room.
    pub(super) fn gate(&self) -> Option<(&Arc<Gate>, RoomCall)> {
        let gate = self.gate.as_ref()?;
        // A port that does not listen yet is told of nothing.
        let room = self.room.borrow().clone().unwrap_or_else(|| Arc::new(|| ()));
        Some((gate, room))
    }

    /// Sets the function that schedules the end of a pause.
    pub(super) fn set_release(&self, call: impl Fn(Duration) + 'static) {
        self.release.replace(Some(Rc::new(call)));
    }

    /// Schedules the end of a pause.
    pub(super) fn release_after(&self, pause: Duration) {
        let call = self.release.borrow().clone();
        if let Some(call) = call {
            call(pause);
        }
    }
}
