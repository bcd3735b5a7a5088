//! Ports that accept nothing for a while (Twisted: `stopReading` of a port).
//!
//! A port is held for one or more reasons, and accepts again when none is left:
//!
//! | reason | begins | ends |
//! |---|---|---|
//! | [`Hold::Program`] | [`Port::pause_accepting`] | [`Port::resume_accepting`] |
//! | [`Hold::Queue`] | the queue of accepted streams is full (`streams`) | one of them is taken |
//! | [`Hold::Full`] | the last permitted connection is open | one of them is closed |
//! | [`Hold::Rate`] | as many were accepted as a second permits | a timer |
//! | [`Hold::Failure`] | accepting failed, and the backend has suspended itself | a timer |
//!
//! The backend is told of the first reason and of the end of the last. A port that begins to listen
//! is not held.

use super::listener::{ListenerState, PortCore};
use super::port::Port;
use crate::reactor::Core;
use crate::transport::id::Id;

/// A reason to accept nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Hold {
    Program = 1,
    Full = 2,
    Rate = 4,
    Failure = 8,
    Queue = 16,
}

impl Port {
    /// Stops accepting, and goes on listening (Twisted: `stopReading`). From now on no connection
    /// is handed to the factory. New ones wait in the system's queue, up to the
    /// [backlog](crate::ListenOptions::backlog), and their peers believe that they are connected.
    ///
    /// Use it while the program has no room for more. A port that is full for long had better be
    /// [stopped](Self::stop_listening), so that peers are refused and can go elsewhere. Pausing
    /// twice is as good as once, and a port that starts to listen again accepts. A port that stops
    /// serves the connections that wait.
    ///
    /// Returns `false`, and does nothing, if the port does not listen, or has no socket of its own:
    /// in a [`ReactorGroup`](crate::reactor::ReactorGroup) that hands connections over, pause the
    /// port of the group instead.
    ///
    /// ```
    /// # use ropewalk::{ListenOptions, Protocol, Reactor, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    /// # fn main() -> Result<()> {
    /// let reactor = Reactor::new()?;
    /// let port = reactor.listen_tcp("127.0.0.1:0".parse()?, &ListenOptions::new(), |_| Some(Echo))?;
    /// assert!(port.pause_accepting() && port.is_paused());
    /// assert!(port.resume_accepting() && !port.is_paused());
    /// # Ok(())
    /// # }
    /// ```
    pub fn pause_accepting(&self) -> bool {
        self.core().is_some_and(|core| core.hold_port(self.port_core(), Hold::Program))
    }

    /// Accepts again after [`pause_accepting`](Self::pause_accepting) (Twisted: `startReading`):
    /// the connections that wait, from the next turn on, and then new ones. A port that has reached
    /// its [limits](crate::policies::ConnectionLimits), or that has just failed to accept, goes on
    /// waiting for that.
    ///
    /// Returns `false`, and does nothing, under the same conditions as `pause_accepting`.
    pub fn resume_accepting(&self) -> bool {
        self.core().is_some_and(|core| core.release_port(self.port_core(), Hold::Program))
    }

    /// Stops or resumes accepting on account of a queue of accepted connections, as
    /// [`pause_accepting`](Self::pause_accepting) does on account of the program.
    #[cfg_attr(not(feature = "async"), allow(dead_code, reason = "only byte streams have such a queue"))]
    pub(crate) fn hold_for_queue(&self, is_full: bool) -> bool {
        self.core().is_some_and(|core| match is_full {
            true => core.hold_port(self.port_core(), Hold::Queue),
            false => core.release_port(self.port_core(), Hold::Queue),
        })
    }

    /// Returns `true` if the port listens and accepts nothing for the time being, for any reason:
    /// [`pause_accepting`](Self::pause_accepting), its limits, or a failure of the system.
    pub fn is_paused(&self) -> bool {
        self.port_core().listening_id().is_some() && self.port_core().holds.get() != 0
    }
}

impl Core {
    /// Holds a port for a reason. Returns `false` if the port does not listen on a socket.
    pub(super) fn hold_port(&self, port: &PortCore, reason: Hold) -> bool {
        let Some(id) = port.listening_id() else { return false };
        let holds = port.holds.get();
        port.holds.set(holds | reason as u8);
        // A backend that has suspended itself may still have accepted connections to hand over.
        let is_first = holds & !(Hold::Failure as u8) == 0;
        if is_first && reason != Hold::Failure {
            self.when_awake(move |core| core.tell_of_holds(id));
        }
        true
    }

    /// Ends a reason to hold a port. Returns `false` if the port does not listen on a socket.
    pub(super) fn release_port(&self, port: &PortCore, reason: Hold) -> bool {
        let Some(id) = port.listening_id() else { return false };
        let holds = port.holds.get();
        port.holds.set(holds & !(reason as u8));
        if holds == reason as u8 {
            self.when_awake(move |core| core.tell_of_holds(id));
        }
        true
    }

    /// Ends a reason to hold the port that `id` names, if there still is one.
    pub(super) fn release_port_of(&self, id: Id, reason: Hold) {
        if let Some(port) = self.port(id) {
            self.release_port(&port, reason);
        }
    }

    /// Tells the backend if a port accepts. Several changes while the loop waits come to one.
    fn tell_of_holds(&self, id: Id) {
        let Some(port) = self.port(id) else { return };
        self.threads.wake_host();
        let mut backend = self.backend.borrow_mut();
        if port.holds.get() == 0 { backend.accept(id) } else { backend.pause_accept(id) }
    }
}

impl PortCore {
    /// Returns the id of the port's socket, while it listens on one.
    pub(super) fn listening_id(&self) -> Option<Id> {
        match &*self.state.borrow() {
            ListenerState::Listening(id) if !self.has_no_socket() => Some(*id),
            _ => None,
        }
    }
}
