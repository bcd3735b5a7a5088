//! The socket below a [`Transport`]: its options, its peer's credentials, its descriptor (Twisted:
//! `ITCPTransport`, `getHandle`, `fileno`). The requests go to the driver of the connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use super::Transport;
use super::driver::{Credentials, SocketOption};

impl Transport {
    /// Turns Nagle's algorithm off (`true`) or on (Twisted: `setTcpNoDelay`). It is off by default;
    /// an option of the port, the attempt or the endpoint can turn it on: see
    /// [`ListenOptions::tcp_no_delay`](crate::ListenOptions::tcp_no_delay).
    ///
    /// # Errors
    /// The error of the operating system; `NotConnected` once the connection is over.
    pub fn set_tcp_no_delay(&self, on: bool) -> io::Result<()> {
        self.set_option(SocketOption::NoDelay(on))
    }

    /// Returns `true` if Nagle's algorithm is off (Twisted: `getTcpNoDelay`).
    ///
    /// # Errors
    /// The error of the operating system; `NotConnected` once the connection is over.
    pub fn tcp_no_delay(&self) -> io::Result<bool> {
        self.driver()?.no_delay(self.0.id)
    }

    /// Turns keep-alive probes on or off (Twisted: `setTcpKeepAlive`).
    ///
    /// # Errors
    /// The error of the operating system; `NotConnected` once the connection is over.
    pub fn set_tcp_keep_alive(&self, on: bool) -> io::Result<()> {
        self.set_option(SocketOption::KeepAlive(on))
    }

    /// Returns `true` if keep-alive probes are on (Twisted: `getTcpKeepAlive`).
    ///
    /// # Errors
    /// The error of the operating system; `NotConnected` once the connection is over.
    pub fn tcp_keep_alive(&self) -> io::Result<bool> {
        self.driver()?.keep_alive(self.0.id)
    }

    /// Sets the times of keep-alive probes: the first after `idle` without traffic, then one every
    /// `interval`, `count` times. Then the connection is lost as `TcpTimedOut`. The times are whole
    /// seconds; the operating system's limits apply.
    ///
    /// # Errors
    /// The error of the operating system; `NotConnected` once the connection is over.
    pub fn set_tcp_keep_alive_times(&self, idle: Duration, interval: Duration, count: u32) -> io::Result<()> {
        self.set_option(SocketOption::KeepAliveTimes(idle, interval, count))
    }

    /// Sets the time that sent bytes may stay unacknowledged before the connection is lost as
    /// `TcpTimedOut` (`TCP_USER_TIMEOUT`, in milliseconds; Linux only). Zero is the system's
    /// default.
    ///
    /// # Errors
    /// The error of the operating system; `NotConnected` once the connection is over; `Unsupported`
    /// on other systems than Linux.
    pub fn set_tcp_user_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_option(SocketOption::UserTimeout(timeout))
    }

    /// Returns the process, user and group at the other end, as the system knows them
    /// (`SO_PEERCRED`; Linux only). It works on a UNIX socket only.
    ///
    /// # Errors
    /// The error of the operating system; `NotConnected` once the connection is over; `Unsupported`
    /// on any socket but a UNIX socket, and on other systems than Linux.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        if self.peer().unix().is_none() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.driver()?.peer_credentials(self.0.id)
    }

    /// Returns the descriptor, for options without a method here (Twisted: `getHandle`). `None` if
    /// the connection is over or the loop waits (`Reactor::is_waiting`). It belongs to the reactor:
    /// do not read, write or close it.
    pub fn raw_fd(&self) -> Option<RawFd> {
        self.driver().ok()?.raw_fd(self.0.id)
    }

    /// Returns a second descriptor of the socket, for another process or library (Twisted:
    /// `fileno`, which the program duplicates). It is close-on-exec, and the caller's to close.
    ///
    /// It is the same connection: the peer sees an end when both are closed, or when this end is
    /// [closed](Self::lose_connection), because that ends the connection for both. Bytes go to the
    /// descriptor that reads them first, and TLS stays here. Do not change whether it blocks: that
    /// is one setting for both.
    ///
    /// # Errors
    /// The connection is over (`NotConnected`), the process has no descriptor left, or there is no
    /// socket (`Unsupported`): the connection is simulated, or one of the test kit.
    ///
    /// ```
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// /// Looks at an option of its socket.
    /// struct Curious;
    ///
    /// impl Protocol for Curious {
    ///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
    ///         let socket = std::net::TcpStream::from(transport.duplicate()?);
    ///         println!("packets leave with a TTL of {}", socket.ttl()?);
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    /// ```
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.driver()?.duplicate(self.0.id, true)
    }

    /// Calls `call` with a descriptor of the socket, for options that have no method here (Twisted:
    /// `socket`). It is a duplicate that is closed after the call: do not duplicate it further, but
    /// use [`duplicate`](Self::duplicate).
    ///
    /// # Errors
    /// As [`duplicate`](Self::duplicate).
    pub fn with_descriptor<R>(&self, call: impl FnOnce(BorrowedFd<'_>) -> R) -> io::Result<R> {
        let duplicate = self.driver()?.duplicate(self.0.id, false)?;
        Ok(call(duplicate.as_fd()))
    }

    pub(super) fn set_option(&self, option: SocketOption) -> io::Result<()> {
        self.driver()?.set_option(self.0.id, option)
    }
}
