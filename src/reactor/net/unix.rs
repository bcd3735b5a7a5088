//! UNIX sockets (Twisted: `IReactorUNIX`, `listenUNIX`, `connectUNIX`): the file that a listening one leaves, and its lock.
//!
//! A socket's file outlives the socket. So whoever listens removes it in the end, if it is still the one that was made; and with
//! [`want_pid`](UnixListenOptions::want_pid) there is a lock beside it: whoever holds that may remove a file that somebody who
//! died has left.

use crate::address::UnixAddress;
use crate::deferred::Deferred;
use crate::error::{ConnectError, ListenError};
use crate::locks::FilesystemLock;
use crate::protocol::{AnyConnection, BoxedFactory, Connection, Factory};
use crate::reactor::backend::lock_of;
use crate::reactor::{Destination, Port, Reactor, UnixConnectOptions, UnixListenOptions};

impl Reactor {
    /// Listens on a UNIX socket, and has `factory` build a protocol for each connection (Twisted: `listenUNIX`). The socket is
    /// bound and the factory started when this returns. The file of a path is removed when the port stops, and when the reactor
    /// goes.
    ///
    /// ```
    /// use ropewalk::address::UnixAddress;
    /// use ropewalk::reactor::UnixListenOptions;
    /// # use ropewalk::{Protocol, Reactor, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    /// # fn main() -> Result<()> {
    /// # let path = std::env::temp_dir().join(format!("ropewalk-listen-{}.sock", std::process::id()));
    /// let reactor = Reactor::new()?;
    /// let options = UnixListenOptions::new().mode(0o600);
    /// let port = reactor.listen_unix(&UnixAddress::path(path)?, &options, |_| Some(Echo))?;
    /// # drop(port);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ListenError`]: the path is there already, or can't be made; somebody else holds its lock; the factory did not start;
    /// the reactor is stopping.
    pub fn listen_unix(
        &self,
        address: &UnixAddress,
        options: &UnixListenOptions,
        factory: impl Factory,
    ) -> Result<Port, ListenError> {
        self.listen_unix_boxed(address, options, BoxedFactory::new(factory))
    }

    /// [`listen_unix`](Self::listen_unix) for endpoints, which do not know the factory's type.
    ///
    /// # Errors
    /// As `listen_unix`.
    pub fn listen_unix_boxed(
        &self,
        address: &UnixAddress,
        options: &UnixListenOptions,
        factory: BoxedFactory,
    ) -> Result<Port, ListenError> {
        self.0.listen(address.clone().into(), options.port.clone(), factory)
    }

    /// Connects to a UNIX socket, and joins the protocol that `factory` builds to the connection (Twisted: `connectUNIX`, with an
    /// endpoint's Deferred). As [`connect_tcp`](Self::connect_tcp) otherwise.
    pub fn connect_unix<F: Factory>(
        &self,
        address: &UnixAddress,
        options: &UnixConnectOptions,
        factory: F,
    ) -> Deferred<Connection<F::Protocol>> {
        self.connect_unix_boxed(address, options, BoxedFactory::new(factory)).add_callback(AnyConnection::expect)
    }

    /// [`connect_unix`](Self::connect_unix) for endpoints, which do not know the factory's type.
    pub fn connect_unix_boxed(
        &self,
        address: &UnixAddress,
        options: &UnixConnectOptions,
        factory: BoxedFactory,
    ) -> Deferred<AnyConnection> {
        if let (true, Some(path)) = (options.check_pid, address.as_path()) {
            // A lock that can't be looked at is held by nobody that we know of.
            let held = FilesystemLock::is_held(lock_of(path)).unwrap_or(false);
            if !held {
                return Deferred::fail(ConnectError::NotLocked { address: address.clone().into() });
            }
        }
        self.connect_to(Destination::Address(address.clone().into()), &options.connect, factory)
    }
}
