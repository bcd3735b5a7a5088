//! UNIX sockets (Twisted: `IReactorUNIX`, `listenUNIX`, `connectUNIX`): the file of a listening
//! socket, and its lock.
//!
//! A socket's file outlives the socket. So a port removes the file when it stops, if that is still
//! the file it made. With [`want_pid`](UnixListenOptions::want_pid) there is a lock beside the
//! file. The holder of the lock may remove a file that a dead process has left.

use crate::address::UnixAddress;
use crate::deferred::Deferred;
use crate::error::{ConnectError, ListenError};
use crate::locks::FilesystemLock;
use crate::protocol::{AnyConnection, BoxedFactory, Connection, Factory};
use crate::reactor::backend::lock_of;
use crate::reactor::{Destination, Port, Reactor, UnixConnectOptions, UnixListenOptions};

impl Reactor {
    /// Listens on a UNIX socket, and has `factory` build a protocol for each connection (Twisted:
    /// `listenUNIX`).
    ///
    /// The socket is bound and the factory started when this returns. The file of a path is removed
    /// when the port stops, and when the reactor closes.
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
    /// [`ListenError`]: the path exists already, or cannot be made; another process holds its lock;
    /// the factory did not start; the reactor is stopping.
    pub fn listen_unix(
        &self,
        address: &UnixAddress,
        options: &UnixListenOptions,
        factory: impl Factory,
    ) -> Result<Port, ListenError> {
        self.listen_unix_boxed(address, options, BoxedFactory::new(factory))
    }

    /// Does the same as [`listen_unix`](Self::listen_unix), for endpoints, which do not know the
    /// factory's type.
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

    /// Connects to a UNIX socket, and joins the protocol that `factory` builds to the connection
    /// (Twisted: `connectUNIX`, with an endpoint's Deferred). Otherwise as
    /// [`connect_tcp`](Self::connect_tcp).
    pub fn connect_unix<F: Factory>(
        &self,
        address: &UnixAddress,
        options: &UnixConnectOptions,
        factory: F,
    ) -> Deferred<Connection<F::Protocol>> {
        self.connect_unix_boxed(address, options, BoxedFactory::new(factory)).add_callback(AnyConnection::expect)
    }

    /// Does the same as [`connect_unix`](Self::connect_unix), for endpoints, which do not know the
    /// factory's type.
    pub fn connect_unix_boxed(
        &self,
        address: &UnixAddress,
        options: &UnixConnectOptions,
        factory: BoxedFactory,
    ) -> Deferred<AnyConnection> {
        if let (true, Some(path)) = (options.check_pid, address.as_path()) {
            // A lock that cannot be examined counts as not held.
            let held = FilesystemLock::is_held(lock_of(path)).unwrap_or(false);
            if !held {
                return Deferred::fail(ConnectError::NotLocked { address: address.clone().into() });
            }
        }
        self.connect_to(Destination::Address(address.clone().into()), &options.connect, factory)
    }
}
