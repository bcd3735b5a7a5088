//! [`Reactor::adopt_stream`]: connections whose addresses and protocol the program has already, as
//! a program does that accepts by itself (Twisted: `tcp.Server`, which a port makes of an accepted
//! socket). A socket of [`Reactor::accept_from`] needs no examination
//! ([`Reactor::adopt_accepted`]).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use super::admission::apply_policies;
use super::adopt::AdoptOptions;
use crate::address::{Address, AddressPair};
use crate::error::{AdoptError, ConnectError, NotAdopted};
use crate::failure::{Failure, Result};
use crate::protocol::{Connection, Protocol};
use crate::reactor::backend::{AdoptedOptions, accept_from, prepare_named};
use crate::reactor::{Core, Reactor, Slot};
use crate::transport::Transport;
use crate::transport::id::Id;

impl Reactor {
    /// Takes over a connected stream socket, and joins `protocol` to it, at once. `host` and `peer`
    /// are the addresses of the two ends, which the program knows already: from its own `accept`,
    /// from the owner of the socket, or because it made them up.
    ///
    /// The connection can be used when this returns. `connection_made` is called at the end of the
    /// turn, before any other callback, or at the end of the next turn if none is under way. Until
    /// then nothing is received or sent, except for large writes. The socket is made close-on-exec,
    /// its blocking mode is set to that of the backend, and its options are those of `options`;
    /// `family` is compared with `host`. It is closed with the connection.
    ///
    /// In comparison with [`adopt_stream_connection`](Self::adopt_stream_connection), neither the
    /// family nor the addresses are asked for. So the socket may be of any family, and a socket
    /// that is not connected is found out by its first receive, which loses the connection. UNIX
    /// sockets need UNIX addresses, since other sockets pass no descriptors.
    ///
    /// While the loop [waits](Self::is_waiting), the socket is taken over when the wait has ended.
    /// An error of that is the reason of the connection's end.
    ///
    /// ```
    /// use std::net::TcpListener;
    /// use ropewalk::{Address, Protocol, Reactor, Result, Transport};
    /// use ropewalk::reactor::AdoptOptions;
    ///
    /// struct Greeter;
    ///
    /// impl Protocol for Greeter {
    ///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
    ///         transport.write(b"hello");
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<()> {
    /// let reactor = Reactor::new()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let host = listener.local_addr()?;
    /// let _client = std::net::TcpStream::connect(host)?;
    /// let (socket, peer) = listener.accept()?;
    /// let greeter = reactor.adopt_stream(socket, host, peer, &AdoptOptions::new(), Greeter)?;
    /// assert_eq!(greeter.transport().peer(), Address::from(peer));
    /// # reactor.iterate(std::time::Duration::ZERO)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The descriptor comes back with a [`ConnectError`], and the protocol is dropped.
    /// [`ConnectError::Adopt`] says why it is no stream socket; on a simulated network it is
    /// [`AdoptError::Unsupported`]. [`ConnectError::ReactorStopped`] while the reactor stops and
    /// after its end, [`ConnectError::ForkedChild`].
    pub fn adopt_stream<P: Protocol>(
        &self,
        socket: impl Into<OwnedFd>,
        host: impl Into<Address>,
        peer: impl Into<Address>,
        options: &AdoptOptions,
        protocol: P,
    ) -> Result<Connection<P>, NotAdopted<ConnectError>> {
        let (socket, ends) = (socket.into(), AddressPair::new(host.into(), peer.into()));
        let prepared =
            self.0.may_adopt().and_then(|()| Ok(prepare_named(socket.as_fd(), &ends.host(), options.adopted())?));
        match prepared {
            Ok(()) => self.0.adopt_stream(socket, ends, options.adopted(), protocol),
            Err(error) => Err(NotAdopted::new(socket, error)),
        }
    }

    /// Accepts a connection that waits at a listening socket of the program's, which has to be
    /// nonblocking. The loop does not serve it until [`adopt_accepted`](Self::adopt_accepted).
    ///
    /// A program that decides by itself when to accept, and how many connections, watches its
    /// listener ([`watch`](Self::watch)) and calls this (Twisted: `tcp.Port.doRead`). Any other
    /// uses a port.
    ///
    /// # Errors
    /// The system's: [`WouldBlock`](io::ErrorKind::WouldBlock) if no connection waits, `EMFILE` if
    /// the process has no descriptor left. `ECONNABORTED` is also the error for a peer that is
    /// gone already, if the system does not tell its address.
    pub fn accept_from(&self, listener: impl AsFd) -> io::Result<AcceptedSocket> {
        let (socket, peer) = accept_from(listener.as_fd())?;
        Ok(AcceptedSocket { socket, peer })
    }

    /// Takes over a connection of [`accept_from`](Self::accept_from), and joins `protocol` to it,
    /// as [`adopt_stream`](Self::adopt_stream) does. `host` is the address of this end.
    ///
    /// In comparison, it makes no system calls to examine and prepare the socket, because the kind
    /// and the mode of the socket are known.
    ///
    /// ```
    /// use std::net::TcpListener;
    /// # use ropewalk::{Protocol, Reactor, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    ///
    /// # fn main() -> Result<()> {
    /// let reactor = Reactor::new()?;
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// listener.set_nonblocking(true)?;
    /// let host = listener.local_addr()?;
    /// let client = std::net::TcpStream::connect(host)?;
    /// let accepted = reactor.accept_from(&listener)?;
    /// let echo = reactor.adopt_accepted(accepted, host, Echo)?;
    /// assert_eq!(echo.transport().peer().socket_addr(), Some(client.local_addr()?));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As of [`adopt_stream`](Self::adopt_stream). The connection is closed, and the protocol is
    /// dropped.
    pub fn adopt_accepted<P: Protocol>(
        &self,
        accepted: AcceptedSocket,
        host: impl Into<Address>,
        protocol: P,
    ) -> Result<Connection<P>, ConnectError> {
        self.0.may_adopt()?;
        let ends = AddressPair::new(host.into(), accepted.peer);
        let options = AdoptedOptions::new();
        let adopted = self.0.adopt_stream(accepted.socket, ends, &options, protocol);
        adopted.map_err(|refused| refused.error)
    }
}

/// A connection that [`Reactor::accept_from`] has accepted. Dropping it closes the connection.
#[derive(Debug)]
pub struct AcceptedSocket {
    socket: OwnedFd,
    peer: Address,
}

impl AcceptedSocket {
    /// Returns the address of the other end.
    pub fn peer(&self) -> &Address {
        &self.peer
    }
}

impl AsFd for AcceptedSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The socket is nonblocking and close-on-exec.
impl From<AcceptedSocket> for OwnedFd {
    fn from(accepted: AcceptedSocket) -> Self {
        accepted.socket
    }
}

impl Core {
    /// Joins a prepared socket to a protocol.
    fn adopt_stream<P: Protocol>(
        &self,
        socket: OwnedFd,
        ends: AddressPair,
        options: &AdoptedOptions,
        protocol: P,
    ) -> Result<Connection<P>, NotAdopted<ConnectError>> {
        let is_unix = ends.host().unix().is_some();
        let id = self.slots.borrow_mut().insert(Slot::Reserved);
        let transport = Transport::new(id, Rc::clone(&self.context), ends);
        transport.begin_with_limit(options.connections.queue_limit);
        apply_policies(options.policies.begin, &transport);
        transport.stream().begin_unmade();
        // The program is asked if its protocol handles half-closes.
        let joined = catch_unwind(AssertUnwindSafe(|| Connection::join(protocol, transport)));
        let (connection, joint) = match joined {
            Ok(joined) => joined,
            Err(panic) => {
                self.slots.borrow_mut().remove(id);
                resume_unwind(panic);
            }
        };
        let adopted = match self.backend_for_request() {
            Ok(mut backend) => backend.adopt_stream(id, socket, is_unix),
            Err(_) => {
                self.when_awake(move |core| core.adopt_awake(id, socket, is_unix));
                Ok(())
            }
        };
        if let Err((socket, error)) = adopted {
            self.slots.borrow_mut().remove(id);
            return Err(NotAdopted::new(socket, AdoptError::of_backend(error).into()));
        }
        if let Some(slot) = self.slots.borrow_mut().get_mut(id) {
            *slot = Slot::Connected(Rc::clone(&joint));
        }
        joint.transport().mark_dirty();
        Ok(connection)
    }

    /// Checks that the reactor takes connections.
    pub(super) fn may_adopt(&self) -> Result<(), ConnectError> {
        let to = || "an adopted socket".to_owned();
        if self.is_closed() || self.run.is_closing() {
            return Err(ConnectError::ReactorStopped { to: to() });
        }
        if self.is_ours() { Ok(()) } else { Err(ConnectError::ForkedChild { to: to() }) }
    }

    /// Takes over a socket that was handed over while the loop waited.
    fn adopt_awake(&self, id: Id, socket: OwnedFd, is_unix: bool) {
        // It may have been discarded meanwhile. The socket is closed then.
        let Some(joint) = self.joint(id) else { return };
        let adopted = self.backend.borrow_mut().adopt_stream(id, socket, is_unix);
        if let Err((_, error)) = adopted {
            joint.transport().update(|stream| stream.fail(Failure::untraced(AdoptError::of_backend(error))));
        }
    }
}
