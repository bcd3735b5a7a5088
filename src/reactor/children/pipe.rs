//! [`PipeProtocol`]: a pipe of a child process, as a connection. Queues, limits, producers and
//! flow control are those of every [`Transport`].
//!
//! A pipe is a pair of UNIX sockets, so that both backends treat it as any stream.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::{Rc, Weak};

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::address::{Address, AddressPair, UnixAddress};
use crate::failure::{Failure, Result};
use crate::process::{PipeDirection, ProcessJoint};
use crate::protocol::Protocol;
use crate::reactor::Core;
use crate::reactor::backend::{AdoptedOptions, prepare_named};
use crate::transport::Transport;

/// The two ends of a new pipe.
pub(super) struct PipeEnds {
    pub(super) ours: OwnedFd,
    pub(super) theirs: OwnedFd,
}

/// Makes a pipe. Both ends are close-on-exec.
pub(super) fn open(direction: PipeDirection) -> io::Result<PipeEnds> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A child that reads from its output sees its end at once.
    if direction == PipeDirection::Read {
        shutdown(&ours, Shutdown::Write)?;
    }
    Ok(PipeEnds { ours, theirs })
}

/// Passes the events of a pipe to the process.
pub(super) struct PipeProtocol {
    core: Weak<Core>,
    joint: Rc<ProcessJoint>,
    descriptor: i32,
    direction: PipeDirection,
    is_over: bool,
}

impl Protocol for PipeProtocol {
    fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
        if self.direction == PipeDirection::Read {
            self.joint.data_received(self.descriptor, data);
        }
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, _: &Failure) {
        self.is_over = true;
        self.joint.pipe_lost(self.descriptor);
    }
}

impl Drop for PipeProtocol {
    /// A pipe that was discarded has ended without a call. This may be inside a callback of the
    /// process, so that it is told later.
    fn drop(&mut self) {
        let Some(core) = self.core.upgrade() else { return };
        if !self.is_over && !core.is_forked_child() {
            let (joint, descriptor) = (Rc::clone(&self.joint), self.descriptor);
            core.at_end_of_turn(move |_| joint.pipe_lost(descriptor));
        }
    }
}

impl Core {
    /// Makes a connection of our end of a pipe.
    pub(super) fn join_pipe(
        self: &Rc<Self>,
        ours: OwnedFd,
        joint: &Rc<ProcessJoint>,
        descriptor: i32,
        direction: PipeDirection,
    ) -> io::Result<Transport> {
        let options = AdoptedOptions::new();
        let unnamed = Address::Unix(UnixAddress::unnamed());
        prepare_named(ours.as_fd(), &unnamed, &options).map_err(io::Error::other)?;
        let ends = AddressPair::new(unnamed.clone(), unnamed);
        let core = Rc::downgrade(self);
        let protocol = PipeProtocol { core, joint: Rc::clone(joint), descriptor, direction, is_over: false };
        let adopted = self.adopt_stream(ours, ends, &options, protocol);
        let connection = adopted.map_err(|refused| io::Error::other(refused.error))?;
        Ok(connection.transport().clone())
    }
}
