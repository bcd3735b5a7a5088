//! Connections that are closed at once, and whose protocols are told nothing
//! ([`Transport::discard`](crate::Transport::discard)).

use crate::reactor::{Core, Slot};
use crate::transport::DiscardMode;
use crate::transport::id::Id;

impl Core {
    /// Closes the socket of a connection, and frees its slot. Events and notices of it that are
    /// under way find no joint any more.
    pub(in crate::reactor) fn discard_connection(&self, id: Id, mode: DiscardMode) {
        // In a forked child, the socket and the protocol are the parent's.
        if self.is_forked_child() {
            return;
        }
        let mut slots = self.slots.borrow_mut();
        let is_connection = match slots.get(id) {
            Some(Slot::Connected(_) | Slot::Client(_) | Slot::Counted(_) | Slot::Lingering(_)) => true,
            Some(
                Slot::Reserved
                | Slot::Port(_)
                | Slot::Connecting(_)
                | Slot::Signals
                | Slot::Datagrams(_)
                | Slot::Watched(_),
            )
            | None => false,
        };
        let slot = if is_connection { slots.remove(id) } else { None };
        drop(slots);
        let (joint, factory, counted) = match slot {
            Some(Slot::Connected(joint)) => (joint, None, None),
            Some(Slot::Client(client)) => (client.0, Some(client.1), None),
            Some(Slot::Counted(counted)) => (counted.0, None, Some(counted.1)),
            Some(Slot::Lingering(lingering)) => {
                lingering.cancel_timer();
                return self.close_discarded(id, true, mode);
            }
            _ => return,
        };
        let (was_shut, had_deadline) = {
            let stream = joint.transport().stream();
            (stream.is_shut(), stream.has_deadline())
        };
        if had_deadline {
            self.disarm_deadline(id);
        }
        // The protocol and its values are the program's. They are dropped when the socket is
        // closed.
        joint.transport().observe_discard();
        self.close_discarded(id, was_shut, mode);
        if let Some(factory) = factory {
            // This may be inside a callback, and `do_stop` is another one.
            self.at_end_of_turn(move |_| factory.stop());
        }
        if let Some(counted) = counted {
            // The last one fires the Deferred of a member's drain.
            self.at_end_of_turn(move |_| drop(counted));
        }
        joint.discard();
    }

    /// Closes the socket. An end is sent before, because other descriptors may keep the socket
    /// open.
    fn close_discarded(&self, id: Id, was_shut: bool, mode: DiscardMode) {
        self.when_awake(move |core| {
            let mut backend = core.backend.borrow_mut();
            if mode == DiscardMode::End && !was_shut {
                backend.end_shared(id);
            }
            backend.close(id, mode == DiscardMode::Reset);
            // There may be no other turn, and the peer is to be told now.
            backend.flush();
        });
    }
}
