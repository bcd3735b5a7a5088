//! [`StandardIo`]: the standard input and output of the program as one connection (Twisted:
//! `twisted.internet.stdio.StandardIO`).

use std::io::{self, stdin, stdout};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;

use super::backend::PipeEnds;
use super::{Port, Reactor};
use crate::error::{AdoptError, ListenError, StandardIoError, StandardStream};
use crate::protocol::{BoxedFactory, Connection, Protocol};
use crate::transport::QueueLimit;

/// Standard input and output as one connection (Twisted: `StandardIO`).
///
/// The descriptors may be of pipes, terminals, sockets, regular files or devices. Their flags stay
/// as they are, because other processes have the same open files: a shell, the other programs of a
/// pipeline. A file that cannot be polled is read and written in threads.
///
/// The connection is as any other: its queue, limits, producers and half-closes work as over TCP.
/// The end of the input is the peer's end. A protocol without [`half_close`](Protocol::half_close)
/// is lost behind the bytes that it has written. An output without a reader loses the connection.
/// Both its addresses are [`Address::Pipe`](crate::Address::Pipe). There is no close timeout unless
/// the program sets one: a user may read slowly.
///
/// The connection has duplicates of the descriptors. Standard output stays open until the process
/// ends, so its reader sees the end then, and `println!` works on.
///
/// ```no_run
/// use ropewalk::reactor::StandardIo;
/// use ropewalk::{Failure, Protocol, Reactor, Result, Transport};
///
/// /// Writes its input in capital letters.
/// struct Shout(Reactor);
///
/// impl Protocol for Shout {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(&data.to_ascii_uppercase());
///         Ok(())
///     }
///
///     fn connection_lost(&mut self, _transport: &Transport, _reason: &Failure) {
///         let _ = self.0.stop();
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let reactor = Reactor::new()?;
/// StandardIo::new(&reactor).join(Shout(reactor.clone()))?;
/// reactor.run()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct StandardIo {
    reactor: Reactor,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    limit: Option<QueueLimit>,
}

impl StandardIo {
    /// Names the standard input and output of this process.
    pub fn new(reactor: &Reactor) -> Self {
        Self { reactor: reactor.clone(), input: None, output: None, limit: None }
    }

    /// Reads another descriptor instead of standard input (Twisted: `stdin`). Its flags stay.
    pub fn input(mut self, descriptor: impl Into<OwnedFd>) -> Self {
        self.input = Some(descriptor.into());
        self
    }

    /// Writes another descriptor instead of standard output (Twisted: `stdout`). Its flags stay. It
    /// is closed with the write direction, so that its reader sees the end.
    pub fn output(mut self, descriptor: impl Into<OwnedFd>) -> Self {
        self.output = Some(descriptor.into());
        self
    }

    /// Limits the queue of the connection.
    pub fn queue_limit(mut self, limit: QueueLimit) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Joins a protocol. `connection_made` is called at the end of the turn, as for
    /// [`Reactor::adopt_stream`].
    ///
    /// # Errors
    /// [`StandardIoError::InUse`] while an earlier connection of this reactor has standard input
    /// and output. [`StandardIoError::Unusable`] names a descriptor that is closed, or not open for
    /// its direction. [`StandardIoError::NotJoined`] has the reason of the reactor or the system.
    pub fn join<P: Protocol>(self, protocol: P) -> Result<Connection<P>, StandardIoError> {
        let (reactor, limit, is_standard) = (self.reactor.clone(), self.limit, self.is_standard());
        let connection = reactor.join_descriptors(self.into_ends()?, limit, protocol)?;
        if is_standard {
            reactor.0.set_standard_io(connection.transport().id());
        }
        Ok(connection)
    }

    fn is_standard(&self) -> bool {
        self.input.is_none() || self.output.is_none()
    }

    fn into_ends(self) -> Result<PipeEnds, StandardIoError> {
        if self.is_standard() && self.reactor.0.has_standard_io() {
            return Err(StandardIoError::InUse);
        }
        let read = usable(self.input, StandardStream::Input, stdin().as_fd())?;
        let write = usable(self.output, StandardStream::Output, stdout().as_fd())?;
        Ok(PipeEnds { read: Some(read), write: Some(write), is_shared: true, of_child: None })
    }
}

impl Reactor {
    /// Listens on standard input and output: builds one protocol for them, at once.
    ///
    /// # Errors
    /// [`ListenError::Adopt`]: `Taken` while a connection has the streams, `System` if one of them
    /// is closed or not open for its direction, `Unsupported` on a simulated network. Otherwise the
    /// error of the reactor or of the factory.
    pub(crate) fn listen_on_standard_io(&self, factory: BoxedFactory) -> Result<Port, ListenError> {
        let ends = StandardIo::new(self).into_ends().map_err(|error| match error {
            StandardIoError::InUse => ListenError::from(AdoptError::Taken),
            StandardIoError::Unusable { source, .. } => AdoptError::System(source).into(),
            StandardIoError::NotJoined(error) => AdoptError::System(io::Error::other(error)).into(),
        })?;
        let (port, transport) = self.0.listen_once(ends, factory)?;
        self.0.set_standard_io(transport.id());
        Ok(port)
    }
}

/// Returns the given descriptor, or a duplicate of the standard one, if it is open for its
/// direction.
fn usable(
    given: Option<OwnedFd>,
    stream: StandardStream,
    standard: BorrowedFd<'_>,
) -> Result<OwnedFd, StandardIoError> {
    let unusable = |source: io::Error| StandardIoError::Unusable { stream, source };
    let descriptor = given.map_or_else(|| standard.try_clone_to_owned(), Ok).map_err(unusable)?;
    let flags = rustix::fs::fcntl_getfl(&descriptor).map_err(|error| unusable(error.into()))?;
    let wrong = match stream {
        StandardStream::Input => OFlags::WRONLY,
        StandardStream::Output => OFlags::RDONLY,
    };
    if flags & OFlags::RWMODE == wrong {
        return Err(unusable(rustix::io::Errno::BADF.into()));
    }
    Ok(descriptor)
}
