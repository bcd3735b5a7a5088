//! [`PipeProtocol`]: a pipe of a child process, as a connection. Queues, limits, producers and
//! flow control are those of every [`Transport`].
//!
//! A pipe is one of the system's, with one direction, and its end here is nonblocking.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use crate::error::ConnectError;
use crate::failure::{Failure, Result};
use crate::process::ProcessJoint;
use crate::protocol::Protocol;
use crate::reactor::Core;
use crate::reactor::backend::PipeEnds;
use crate::transport::Transport;

/// Makes a pipe from the child. Returns our end, and that of the child. Both are close-on-exec.
pub(super) fn to_read() -> io::Result<(PipeEnds, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((PipeEnds { read: Some(reader.into()), write: None, is_shared: false, of_child: None }, writer.into()))
}

/// Makes a pipe to the child, in the same way.
pub(super) fn to_write() -> io::Result<(PipeEnds, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((PipeEnds { read: None, write: Some(writer.into()), is_shared: false, of_child: None }, reader.into()))
}

/// Passes the events of a pipe to the process.
pub(super) struct PipeProtocol {
    core: Weak<Core>,
    joint: Rc<ProcessJoint>,
    descriptor: i32,
    is_over: bool,
}

impl Protocol for PipeProtocol {
    fn data_received(&mut self, _: &Transport, data: &[u8]) -> Result<()> {
        self.joint.data_received(self.descriptor, data);
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
        ends: PipeEnds,
        joint: &Rc<ProcessJoint>,
        descriptor: i32,
    ) -> Result<Transport, ConnectError> {
        let protocol = PipeProtocol { core: Rc::downgrade(self), joint: Rc::clone(joint), descriptor, is_over: false };
        Ok(self.join_descriptors(ends, None, protocol)?.transport().clone())
    }
}
