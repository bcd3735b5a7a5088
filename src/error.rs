//! The errors of the engine (Twisted: `twisted.internet.error`).
//!
//! There is one type for each question that a caller asks:
//!
//! | question | type |
//! |---|---|
//! | why did the connection end | [`ConnectionClosed`] |
//! | why is there no connection | [`ConnectError`] |
//! | why does the port not listen | [`ListenError`] |
//! | why is the datagram not sent | [`DatagramError`] |
//! | why is the descriptor not adopted | [`AdoptError`], in [`NotAdopted`] |
//! | why is there no such inherited descriptor | [`InheritedError`] |
//! | why did the reactor refuse the call | [`ReactorError`] |
//! | why is the signal not handled | [`SignalError`] |
//! | why is the descriptor not watched, or no longer | [`WatchError`] |
//! | why did the timer refuse the call | [`TimerError`] |
//! | why is the protocol out of reach | [`Unavailable`] |
//! | why is the lock not taken, or not released | [`FilesystemLockError`] |
//!
//! Callbacks meet all of them inside a [`Failure`], and find them with [`Failure::check`].

mod adopt;
mod closed;
mod datagram;
mod group;
mod process;
mod remote;
mod standard_io;
mod time_limit;

use std::error::Error as _;
use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

pub use self::adopt::{AdoptError, InheritedError, NotAdopted};
pub use self::closed::ConnectionClosed;
pub use self::datagram::{ConnectDatagramError, DatagramError};
pub use self::group::GroupError;
pub use self::process::{ProcessError, ProcessOutputError, ProcessTerminated, SpawnError, SpawnStep};
pub use self::remote::{Undelivered, UndeliveredReason};
pub use self::standard_io::{StandardIoError, StandardStream};
pub use self::time_limit::TimeLimit;
use crate::address::Address;
pub use crate::address::BadHostName;
use crate::failure::Failure;

/// The reason why there is no connection (Twisted: `ConnectError` and its subclasses,
/// `DNSLookupError`, `NoProtocol`, `ConnectingCancelledError`).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address has no listener (Twisted: `ConnectionRefusedError`).
    #[error("{address} refused the connection")]
    Refused {
        /// The address to connect to.
        address: Address,
    },
    /// There is no route to that network or host (Twisted: `NoRouteError`).
    #[error("{address} is unreachable")]
    Unreachable {
        /// The address to connect to.
        address: Address,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The peer did not answer within the timeout of this attempt (Twisted: `TimeoutError`).
    #[error("{address} did not answer within {after:?}")]
    NoAnswer {
        /// The address to connect to.
        address: Address,
        /// The timeout.
        after: Duration,
    },
    /// The peer did not answer within the limits of the operating system (Twisted:
    /// `TCPTimedOutError`).
    #[error("{address} did not answer within the limits of the operating system")]
    TcpTimedOut {
        /// The address to connect to.
        address: Address,
    },
    /// The local address cannot be used (Twisted: `ConnectBindError`).
    #[error("cannot connect from {local}")]
    Bind {
        /// The requested local address.
        local: Address,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The name did not resolve (Twisted: `DNSLookupError`).
    #[error("no address is known for {host:?}: {reason}")]
    Lookup {
        /// The name.
        host: String,
        /// The resolver's message.
        reason: String,
    },
    /// The name is malformed, so no resolver was asked for it (Twisted: `ValueError`, "invalid
    /// hostname").
    #[error("{host:?} cannot be looked up: it is not {source}")]
    BadHostName {
        /// The whole name.
        host: String,
        /// The rule that the name breaks.
        source: BadHostName,
    },
    /// The address, or the local address, belongs to a network interface that does not exist.
    #[error("there is no network interface {name:?}")]
    UnknownInterface {
        /// The name of the interface.
        name: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// None of the addresses of a name could be reached (Twisted: the error of the last one).
    #[error("no address of {to} can be reached: {}", EachAttempt(.attempts))]
    AllFailed {
        /// The name.
        to: String,
        /// Every address that was tried, with its error, in the order in which the attempts began.
        attempts: Vec<FailedAttempt>,
    },
    /// The attempt was cancelled (Twisted: `ConnectingCancelledError`, `UserError`).
    #[error("connecting to {to} was cancelled")]
    ConnectingCancelled {
        /// The address to connect to, or a name that is not resolved yet.
        to: String,
    },
    /// The lock of a UNIX socket is free, so the socket is taken to have no listener (Twisted:
    /// `BadFileError`).
    #[error("the lock of {address} is free: the socket has no listener")]
    NotLocked {
        /// The socket.
        address: Address,
    },
    /// The factory returned no protocol, so the connection was closed again (Twisted:
    /// `NoProtocol`).
    #[error("the factory built no protocol for {address}")]
    NoProtocol {
        /// The peer.
        address: Address,
    },
    /// The descriptor is no connection that can be adopted.
    #[error("there is no connection to adopt")]
    Adopt(#[from] AdoptError),
    /// The reactor stopped before the peer answered.
    #[error("the reactor stopped while connecting to {to}")]
    ReactorStopped {
        /// The address or name to connect to.
        to: String,
    },
    /// The reactor belongs to the parent of this process.
    #[error("no connection to {to} from here: the reactor belongs to the process that this one was forked from")]
    ForkedChild {
        /// The address or name to connect to.
        to: String,
    },
    /// Any other error (Twisted: `ConnectError`).
    #[error("cannot connect to {address}")]
    Other {
        /// The address to connect to.
        address: Address,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl ConnectError {
    /// Classifies an error of the operating system for an attempt to connect.
    pub(crate) fn from_io(address: Address, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { address },
            io::ErrorKind::TimedOut => Self::TcpTimedOut { address },
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Self::Unreachable { address, source },
            _ => Self::Other { address, source },
        }
    }
}

/// A failed attempt to connect to one address of a name: see [`ConnectError::AllFailed`].
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// The address.
    pub address: Address,
    /// The reason why there is no connection to it.
    pub error: ConnectError,
}

/// Displays the error of every attempt, with its cause, on one line.
struct EachAttempt<'a>(&'a [FailedAttempt]);

impl fmt::Display for EachAttempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, FailedAttempt { address, error }) in self.0.iter().enumerate() {
            let (separator, said, address) = (if at == 0 { "" } else { "; " }, error.to_string(), address.to_string());
            f.write_str(separator)?;
            if !said.contains(&address) {
                write!(f, "{address}: ")?;
            }
            f.write_str(&said)?;
            if let Some(cause) = error.source() {
                write!(f, ": {cause}")?;
            }
        }
        Ok(())
    }
}

/// The reason why a port does not listen (Twisted: `CannotListenError`).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The operating system refused the address: it is in use, is not local, or is not allowed.
    #[error("cannot listen on {address}")]
    Bind {
        /// The requested address.
        address: Address,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another holder has the lock of a UNIX socket (Twisted: `CannotListenError`, "Cannot acquire
    /// lock").
    #[error("the lock of {address} is held already")]
    Locked {
        /// The socket.
        address: Address,
    },
    /// An option of the port is for IPv6 addresses only, and the address is not one.
    #[error("{option} is for IPv6, and {address} is no IPv6 address")]
    NotIpv6 {
        /// The requested address.
        address: Address,
        /// The option, by the name of its method in [`ListenOptions`](crate::ListenOptions).
        option: &'static str,
    },
    /// The address belongs to a network interface that does not exist.
    #[error("there is no network interface {name:?}")]
    UnknownInterface {
        /// The name of the interface.
        name: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// `start_listening` was called on a port that already listens.
    #[error("already listening on {address}")]
    AlreadyListening {
        /// The address of the port.
        address: Address,
    },
    /// The descriptor is no port that can be adopted.
    #[error("there is no port to adopt")]
    Adopt(#[from] AdoptError),
    /// This process has not inherited the descriptor that an endpoint names.
    #[error("there is no inherited descriptor to adopt")]
    Inherited(#[from] InheritedError),
    /// The reactors of a group cannot share this address by `SO_REUSEPORT`, which is for TCP. They
    /// can share it by [`PortSharing::HandOver`](crate::reactor::PortSharing).
    #[error("the reactors of a group cannot have a socket each on {address}")]
    NotShareable {
        /// The requested address.
        address: Address,
    },
    /// The factory's `do_start` panicked, so the port does not listen.
    #[error("the factory did not start")]
    Factory(#[source] crate::failure::Panicked),
    /// The datagram protocol's `start_protocol` failed, so the port was closed again.
    #[error("the datagram protocol did not start: {0}")]
    Protocol(Failure),
    /// The reactor is stopping, and is closing its ports.
    #[error("the reactor is stopping")]
    ReactorStopping,
    /// The reactor was closed or dropped.
    #[error("the reactor is gone")]
    ReactorGone,
    /// The reactor belongs to the parent of this process.
    #[error("the reactor belongs to the process that this one was forked from")]
    ForkedChild,
}

/// The reason why the reactor cannot be built, or refuses a call.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReactorError {
    /// `run`, `begin_run`, `iterate` or `close` was called from inside the loop or while a run is
    /// under way, or `step` from inside the loop (Twisted: `ReactorAlreadyRunning`).
    #[error("the reactor is already running")]
    AlreadyRunning,
    /// The reactor was closed.
    #[error("the reactor is closed")]
    Closed,
    /// The reactor belongs to the parent of this process, which forked after its loop was entered.
    #[error("the reactor belongs to the process that this one was forked from")]
    ForkedChild,
    /// `stop` or `crash` was called while the reactor does not run, `stop` a second time, or `step`
    /// after the end of its run (Twisted: `ReactorNotRunning`).
    #[error("the reactor is not running")]
    NotRunning,
    /// The poller failed, which ends the loop. Every connection is lost, and its protocol was
    /// called.
    #[error("the poller failed")]
    Poll(#[source] io::Error),
    /// The reactor could not be built: there is no poller, or no signal handler. Or a host asked
    /// for a poller's descriptor, and there is none.
    #[error("the reactor cannot be set up")]
    Setup(#[source] io::Error),
}

/// The reason why a signal cannot be handled, from
/// [`Reactor::on_signal`](crate::Reactor::on_signal).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignalError {
    /// The system lets no program handle the signal (SIGKILL, SIGSTOP), or no program can go on
    /// after it (SIGILL, SIGFPE, SIGSEGV).
    #[error("signal {signal} cannot be handled by a program")]
    Forbidden {
        /// The signal's number.
        signal: i32,
    },
    /// There is no such signal, or it is a real-time signal, whose default action could not be
    /// restored.
    #[error("{signal} is not a signal that can be handled: expected one of the system's standard signals")]
    Unknown {
        /// The number.
        signal: i32,
    },
    /// The system refused to install a handler, or the reactor is on a simulated network, which has
    /// no signals.
    #[error("a handler for signal {signal} cannot be installed")]
    Install {
        /// The signal's number.
        signal: i32,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// The reason why a foreign descriptor is not watched, or not any longer. See
/// [`Reactor::watch`](crate::Reactor::watch).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WatchError {
    /// There is no such descriptor. If it was watched, its owner has closed it.
    #[error("descriptor {descriptor} is not open")]
    Closed {
        /// The descriptor's number.
        descriptor: RawFd,
    },
    /// The watched descriptor was closed by its owner, and its number belongs to another file. Only
    /// Linux notices that (Twisted: `ConnectionFdescWentAway`).
    #[error("descriptor {descriptor} was closed while it was watched, and its number belongs to another file")]
    Replaced {
        /// The descriptor's number.
        descriptor: RawFd,
    },
    /// The system can't wait for this kind of file, because it is always ready: a regular file, a
    /// directory, `/dev/null`. Read it in a thread.
    #[error("descriptor {descriptor} cannot be waited for: it is a file or the like")]
    NotPollable {
        /// The descriptor's number.
        descriptor: RawFd,
    },
    /// This reactor watches the descriptor already.
    #[error("descriptor {descriptor} is watched already")]
    AlreadyWatched {
        /// The descriptor's number.
        descriptor: RawFd,
    },
    /// The system has no such interest: urgent data is for Linux.
    #[error("the system cannot wait for that at descriptor {descriptor}")]
    Unsupported {
        /// The descriptor's number.
        descriptor: RawFd,
    },
    /// The watch has an interest for which its watcher has no callback.
    #[error("descriptor {descriptor} is ready, and its watcher has no `{callback}`")]
    NoCallback {
        /// The descriptor's number.
        descriptor: RawFd,
        /// The name of the callback.
        callback: &'static str,
    },
    /// Another error of the operating system.
    #[error("descriptor {descriptor} cannot be watched")]
    System {
        /// The descriptor's number.
        descriptor: RawFd,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The watch has ended before.
    #[error("the watch has ended")]
    Ended,
    /// The reactor stops: its watches end, and it takes no others.
    #[error("the reactor stopped")]
    ReactorStopped,
    /// The reactor was closed or dropped.
    #[error("the reactor is gone")]
    ReactorGone,
    /// The reactor belongs to the parent of this process.
    #[error("the reactor belongs to the process that this one was forked from")]
    ForkedChild,
}

/// The reactor is gone, and the call that was to run on it was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the reactor is gone")]
pub struct ReactorGone;

/// The system refused a new thread, and the pool has no other thread to run the job.
#[derive(Debug, Error)]
#[error("there is no thread for the job")]
pub struct NoThread(#[source] pub io::Error);

/// The thread pool was stopped, and takes no more jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the thread pool was stopped")]
pub struct PoolStopped;

/// `blocking_call_from_thread` was called on the reactor's own thread, which would wait for itself
/// for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the reactor's own thread cannot wait for the reactor")]
pub struct OwnThread;

/// The request needs the system, and the loop waits in it: between the functions of
/// [`Builder::around_wait`](crate::reactor::Builder::around_wait), where another thread of an
/// interpreter has made the request. Make it on the loop's thread:
/// [`Remote::call_from_thread`](crate::reactor::Remote::call_from_thread).
///
/// It is the source of an [`io::Error`] of the kind `ResourceBusy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the loop waits, so the system can't be asked now")]
pub struct LoopWaits;

impl From<LoopWaits> for io::Error {
    fn from(waits: LoopWaits) -> Self {
        Self::new(io::ErrorKind::ResourceBusy, waits)
    }
}

/// The reason why a lock in the file system cannot be taken or released.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FilesystemLockError {
    /// The operating system refused: there is no such folder, access is not allowed, or the file
    /// cannot be locked (Twisted: `OSError`).
    #[error("cannot use the lock file {path:?}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// `unlock` was called on a value that does not hold the lock (Twisted: `ValueError`).
    #[error("the lock {path:?} is not held")]
    NotHeld {
        /// The lock file.
        path: PathBuf,
    },
    /// `defer_until_locked` was called while an earlier call still waits (Twisted:
    /// `AlreadyTryingToLockError`).
    #[error("a wait for the lock {path:?} is already in progress")]
    AlreadyTrying {
        /// The lock file.
        path: PathBuf,
    },
    /// Another holder had the lock for the whole timeout (Twisted: `TimeoutError`).
    #[error("the lock {path:?} was held by another holder for {after:?}")]
    StillHeld {
        /// The lock file.
        path: PathBuf,
        /// The timeout.
        after: Duration,
    },
}

/// The reason why a timer can no longer be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TimerError {
    /// The call has run, or is running (Twisted: `AlreadyCalled`).
    #[error("the call was already made")]
    AlreadyCalled,
    /// The call was cancelled (Twisted: `AlreadyCancelled`).
    #[error("the call was already cancelled")]
    AlreadyCancelled,
}

/// The reason why a protocol cannot be reached through its
/// [`Connection`](crate::protocol::Connection).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// A call of the same protocol or factory is running, further up the stack.
    #[error("one of its own calls is still running")]
    Busy,
    /// The connection is over, and the protocol was dropped.
    #[error("the connection is over")]
    Gone,
    /// The connection has a protocol of a type other than the requested one.
    #[error("the connection's protocol is of another type")]
    OtherProtocol,
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn is_done(failure: &Failure) -> bool {
        matches!(failure.check(), Some(ConnectionClosed::Done)) && failure.backtrace().is_none()
    }

    #[test]
    fn clean_ends_of_a_thread_share_their_failure() {
        let [first, second] = [ConnectionClosed::done(), ConnectionClosed::done()];
        assert!(is_done(&first));
        assert!(std::ptr::addr_eq(first.error(), second.error()));
        let other = thread::spawn(ConnectionClosed::done).join().unwrap();
        assert!(is_done(&other) && !std::ptr::addr_eq(first.error(), other.error()));
    }

    /// A reactor in thread-local storage may be dropped before or after the failure. The system
    /// decides on the order.
    #[test]
    fn connections_end_while_their_thread_does() {
        struct Connection(mpsc::Sender<bool>);

        impl Drop for Connection {
            fn drop(&mut self) {
                self.0.send(is_done(&ConnectionClosed::done())).unwrap();
            }
        }
        thread_local! {
            static BEFORE: RefCell<Option<Connection>> = const { RefCell::new(None) };
            static BEHIND: RefCell<Option<Connection>> = const { RefCell::new(None) };
        }
        let (sender, told) = mpsc::channel();
        let other = sender.clone();
        let ending = thread::spawn(move || {
            BEFORE.set(Some(Connection(sender)));
            drop(ConnectionClosed::done());
            BEHIND.set(Some(Connection(other)));
        });
        ending.join().unwrap();
        assert_eq!(told.iter().collect::<Vec<_>>(), [true, true]);
    }
}
