//! A child process as the peer of a connection (Twisted: `ProcessEndpoint`): its standard input and
//! output are one stream.
//!
//! | event | effect |
//! |---|---|
//! | the child writes to its standard output | received bytes |
//! | the child closes its standard input, or does not read it | written bytes are dropped, as in Twisted |
//! | the child closes its standard output | nothing yet: a descriptor of this program keeps it open |
//! | the child exits | that descriptor is closed; the end comes behind the last byte of all processes that write to it |
//! | it has failed | the end is [`ConnectionClosed::Lost`](crate::error::ConnectionClosed::Lost), with [`ProcessTerminated`] |
//! | the connection is over | the pipes are closed; the engine still waits for the exit |

use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use super::pipe;
use crate::address::Address;
use crate::deferred::{Deferred, Promise};
use crate::error::{ConnectError, ProcessTerminated, SpawnError, SpawnStep};
use crate::failure::{Failure, Result, guarded};
use crate::log::error;
use crate::process::{
    ChildDescriptor, Command, ProcessProtocol, ProcessStatus, ProcessTransport, StandardErrorBehavior,
};
use crate::protocol::{AnyConnection, BoxedFactory, ErasedJoint};
use crate::reactor::backend::{EndError, PipeEnds};
use crate::reactor::{Core, Reactor};
use crate::transport::{DiscardMode, QueueLimit};

/// A call with a process that has started.
pub(crate) type OnStart = Rc<dyn Fn(&ProcessTransport)>;

/// A connection to a process that is yet to start.
pub(crate) struct ProcessConnect {
    pub(crate) command: Command,
    pub(crate) standard_error: StandardErrorBehavior,
    pub(crate) queue_limit: Option<QueueLimit>,
    /// Called with the process, before `connection_made`.
    pub(crate) started: Option<OnStart>,
}

impl Reactor {
    /// Builds a protocol, starts a process, and joins both. This happens at the end of the turn,
    /// because this may be inside a callback, and building a protocol is another one.
    ///
    /// The Deferred fires after `connection_made`, or fails with a [`SpawnError`], a
    /// [`ConnectError`] or the failure of the factory. Cancelling it before the end of the turn
    /// starts nothing.
    pub(crate) fn connect_process_boxed(
        &self,
        start: ProcessConnect,
        factory: BoxedFactory,
    ) -> Deferred<AnyConnection> {
        let (promise, connection) = Promise::new();
        let core: Weak<Core> = Rc::downgrade(&self.0);
        self.0.at_end_of_turn(move |_| {
            if let Some(core) = core.upgrade().filter(|_| !promise.is_called()) {
                core.connect_process(&start, &factory, &promise);
            }
        });
        connection
    }
}

impl Core {
    fn connect_process(
        self: &Rc<Self>,
        start: &ProcessConnect,
        factory: &BoxedFactory,
        promise: &Promise<AnyConnection>,
    ) {
        // Without a caller that waits any more, the results of a cancelled promise go nowhere.
        let fail = |failure: Failure| drop(promise.errback(failure));
        let joint = match self.start_connected(start, factory) {
            Ok(joint) => joint,
            Err(failure) => return fail(failure),
        };
        // The first call is made here, and not at the end of the turn.
        let is_unmade = joint.transport().stream().take_unmade();
        let made = if is_unmade { joint.connection_made() } else { Ok(()) };
        joint.transport().mark_dirty();
        // The Deferred may be cancelled inside of these calls.
        match made {
            Ok(()) if promise.is_called() => joint.transport().lose_connection(),
            Ok(()) => drop(promise.callback(AnyConnection(joint))),
            Err(failure) => fail(failure),
        }
    }

    /// Builds the protocol, and starts the process. On a failure neither is left.
    fn start_connected(self: &Rc<Self>, start: &ProcessConnect, factory: &BoxedFactory) -> Result<Rc<dyn ErasedJoint>> {
        self.may_spawn(start.command.settings())?;
        let setup = |source| {
            let program = start.command.program().to_string_lossy().into_owned();
            Failure::new(SpawnError::Setup { program, step: SpawnStep::Pipes, source })
        };
        if start.command.settings().terminal.is_some() {
            return Err(setup(io::Error::other("a connection to a process is over pipes, and no terminal")));
        }
        let (to_child, input) = pipe::to_write().map_err(setup)?;
        let (from_child, output) = pipe::to_read().map_err(setup)?;
        let end = EndError::default();
        let ends =
            PipeEnds { read: from_child.read, write: to_child.write, is_shared: false, of_child: Some(end.clone()) };
        let joint = self.join_ends(ends, start.queue_limit, |transport| match factory.build(transport) {
            Ok(Some(joint)) => Ok((Rc::clone(&joint), joint)),
            Ok(None) => Err(ConnectError::NoProtocol { address: Address::Pipe }.into()),
            Err(panic) => Err(Failure::from(panic)),
        })?;
        let output = Arc::new(output);
        let mut command = start.command.clone();
        command
            .descriptor(0, ChildDescriptor::share(input))
            .descriptor(1, ChildDescriptor::Shared(Arc::clone(&output)))
            .descriptor(2, start.standard_error.descriptor());
        let peer = PeerProcess { end, output: Some(output) };
        match self.spawn_process(command.settings(), Box::new(peer)) {
            Ok(process) => {
                let called = start.started.as_ref().map_or(Ok(()), |started| guarded(|| started(&process)));
                if let Err(failure) = called {
                    error!(pid = process.pid(), %failure, "the call for a started process failed; it goes on");
                }
                Ok(joint)
            }
            Err(error) => {
                joint.transport().discard(DiscardMode::End);
                Err(error.into())
            }
        }
    }
}

/// The protocol of a process that is the peer of a connection.
struct PeerProcess {
    end: EndError,
    /// Keeps the output open until the exit.
    output: Option<Arc<OwnedFd>>,
}

impl ProcessProtocol for PeerProcess {
    /// Logs the standard error, which is the only output that comes here.
    fn child_data_received(&mut self, process: &ProcessTransport, _descriptor: i32, data: &[u8]) -> Result<()> {
        for line in data.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            let text = String::from_utf8_lossy(line);
            tracing::info!(pid = process.pid(), ?text, "a child process wrote to its standard error");
        }
        Ok(())
    }

    fn process_exited(&mut self, _process: &ProcessTransport, status: &ProcessStatus) -> Result<()> {
        if !status.is_success() {
            let signal = status.signal().map(|signal| signal.number());
            let terminated = ProcessTerminated { code: status.code(), signal, status: status.to_string() };
            self.end.set(io::Error::other(terminated));
        }
        self.output = None;
        Ok(())
    }
}
