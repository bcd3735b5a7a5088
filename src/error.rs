//! The errors of the engine (Twisted: `twisted.internet.error`).
//!
//! One type for each question that a caller asks: why did the connection end ([`ConnectionClosed`]), why was there none
//! ([`ConnectError`]), why can't I listen ([`ListenError`]), what is wrong with the reactor ([`ReactorError`]), with a
//! timer ([`TimerError`]), with a protocol that I want to reach ([`Unavailable`]), with a lock ([`FilesystemLockError`]). All travel inside a
//! [`Failure`] where callbacks meet them, and [`Failure::check`] finds them.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::address::Address;
pub use crate::address::BadHostName;
use crate::failure::Failure;

/// Why a connection ended: the reason that `connection_lost` is given, unless a callback of the protocol failed (then it
/// is that failure).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectionClosed {
    /// Closed in an orderly way by either side (Twisted: `ConnectionDone`).
    #[error("the connection was closed cleanly")]
    Done,
    /// The peer reset the connection (Twisted: `ConnectionLost`).
    #[error("the peer reset the connection ({unsent} bytes were still to be sent)")]
    Reset {
        /// Bytes that were written and had not been handed to the operating system.
        unsent: usize,
    },
    /// The operating system gave the peer up: no answer within its limits or those of keep-alive (Twisted:
    /// `ConnectionLost`).
    #[error("the peer no longer answers ({unsent} bytes were still to be sent)")]
    TcpTimedOut {
        /// Bytes that were written and had not been handed to the operating system.
        unsent: usize,
    },
    /// Any other network error (Twisted: `ConnectionLost`).
    #[error("the connection was lost ({unsent} bytes were still to be sent)")]
    Lost {
        /// What the operating system said.
        source: io::Error,
        /// Bytes that were written and had not been handed to the operating system.
        unsent: usize,
    },
    /// The peer ended the connection without ending TLS, so it may be that not all came of what it had to say (Twisted:
    /// `ConnectionLost`).
    #[error("the peer ended the connection without ending TLS: what came may be cut short")]
    Truncated,
    /// This side called `abort_connection` (Twisted: `ConnectionAborted`).
    #[error("the connection was aborted")]
    Aborted,
    /// `lose_connection` was called, and the peer took nothing of what was queued for the whole close timeout
    /// (Twisted waits without limit).
    #[error(
        "the peer took nothing for {after:?} while the connection was closing ({unsent} bytes were still to be sent)"
    )]
    CloseTimedOut {
        /// The close timeout.
        after: Duration,
        /// Bytes that were written and had not been handed to the operating system.
        unsent: usize,
    },
    /// More bytes would have been queued than the limit of the queue allows, because the peer took less than was written: see
    /// [`QueueLimit`](crate::transport::QueueLimit) (Twisted has no limit).
    #[error("the peer took too little of what was written: {unsent} bytes were to be sent, and {limit} may be queued")]
    QueueLimit {
        /// The limit.
        limit: u32,
        /// Bytes that had not been handed to the operating system, with those of the write that passed the limit.
        unsent: usize,
    },
    /// The reactor stopped under the connection (Twisted: `ConnectionLost`).
    #[error("the reactor stopped")]
    ReactorStopped,
}

thread_local! {
    /// The reason of most ends, which they share: a connection that ends cleanly allocates nothing for it.
    static DONE: Failure = Failure::untraced(ConnectionClosed::Done);
}

impl ConnectionClosed {
    /// [`Done`](Self::Done) as a failure.
    pub(crate) fn done() -> Failure {
        // A thread that ends drops its own before those who may still ask for it.
        DONE.try_with(Failure::clone).unwrap_or_else(|_| Failure::untraced(Self::Done))
    }

    /// Sorts a network error into its kind.
    pub(crate) fn from_io(source: io::Error, unsent: usize) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Self::Reset { unsent },
            io::ErrorKind::TimedOut => Self::TcpTimedOut { unsent },
            _ => Self::Lost { source, unsent },
        }
    }
}

/// Why there is no connection (Twisted: `ConnectError` and its subclasses, `DNSLookupError`, `NoProtocol`,
/// `ConnectingCancelledError`).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens there (Twisted: `ConnectionRefusedError`).
    #[error("{address} refused the connection")]
    Refused {
        /// Where we wanted to go.
        address: Address,
    },
    /// There is no way to that network or host (Twisted: `NoRouteError`).
    #[error("{address} is unreachable")]
    Unreachable {
        /// Where we wanted to go.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// No answer within the timeout of this attempt (Twisted: `TimeoutError`).
    #[error("{address} did not answer within {after:?}")]
    NoAnswer {
        /// Where we wanted to go.
        address: Address,
        /// The timeout.
        after: Duration,
    },
    /// The operating system gave up waiting for an answer (Twisted: `TCPTimedOutError`).
    #[error("{address} did not answer within the limits of the operating system")]
    TcpTimedOut {
        /// Where we wanted to go.
        address: Address,
    },
    /// The local address could not be had (Twisted: `ConnectBindError`).
    #[error("cannot connect from {local}")]
    Bind {
        /// The address that was asked for.
        local: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// The name did not resolve (Twisted: `DNSLookupError`).
    #[error("no address is known for {host:?}: {reason}")]
    Lookup {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// The name is one that no resolver should be asked for, and none was (Twisted: `ValueError`, "invalid hostname").
    #[error("{host:?} cannot be looked up: it is not {source}")]
    BadHostName {
        /// The name, all of it.
        host: String,
        /// What it should have been.
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
    /// None of the addresses of a name answered (Twisted: the error of the last).
    #[error("no address of {to} can be reached: {}", EachAttempt(.attempts))]
    AllFailed {
        /// The name.
        to: String,
        /// Every address that was tried, in the order in which the attempts began, and what became of it.
        attempts: Vec<FailedAttempt>,
    },
    /// The attempt was cancelled (Twisted: `ConnectingCancelledError`, `UserError`).
    #[error("connecting to {to} was cancelled")]
    ConnectingCancelled {
        /// Where we wanted to go: an address, or a name not yet resolved.
        to: String,
    },
    /// Nobody holds the lock of a UNIX socket, so nobody is taken to listen (Twisted: `BadFileError`).
    #[error("nobody holds the lock of {address}")]
    NotLocked {
        /// The socket.
        address: Address,
    },
    /// The factory returned no protocol, and the connection was closed again (Twisted: `NoProtocol`).
    #[error("the factory built no protocol for {address}")]
    NoProtocol {
        /// The peer.
        address: Address,
    },
    /// The reactor stopped before there was an answer.
    #[error("the reactor stopped while connecting to {to}")]
    ReactorStopped {
        /// Where we wanted to go.
        to: String,
    },
    /// The reactor belongs to the parent of this process.
    #[error("no connection to {to} from here: the reactor belongs to the process that this one was forked from")]
    ForkedChild {
        /// Where we wanted to go.
        to: String,
    },
    /// Any other error (Twisted: `ConnectError`).
    #[error("cannot connect to {address}")]
    Other {
        /// Where we wanted to go.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
}

impl ConnectError {
    /// Sorts what the operating system said of an attempt into its kind.
    pub(crate) fn from_io(address: Address, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { address },
            io::ErrorKind::TimedOut => Self::TcpTimedOut { address },
            io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => Self::Unreachable { address, source },
            _ => Self::Other { address, source },
        }
    }
}

/// One of the addresses of a name that was tried in vain: see [`ConnectError::AllFailed`].
#[derive(Debug)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// The address.
    pub address: Address,
    /// Why there is no connection to it.
    pub error: ConnectError,
}

/// What became of each, with its cause, on one line.
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

/// Why a port cannot listen (Twisted: `CannotListenError`).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The operating system refused the address: in use, not ours, not allowed.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address that was asked for.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// Somebody else holds the lock of a UNIX socket (Twisted: `CannotListenError`, "Cannot acquire lock").
    #[error("somebody else holds the lock of {address}")]
    Locked {
        /// The socket.
        address: Address,
    },
    /// An option of the port is for IPv6 addresses only.
    #[error("{option} is for IPv6, and {address} is no IPv6 address")]
    NotIpv6 {
        /// The address that was asked for.
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
    /// `start_listening` on a port that is listening.
    #[error("already listening on {address}")]
    AlreadyListening {
        /// Where.
        address: Address,
    },
    /// The factory's `do_start` panicked; nothing is listening.
    #[error("the factory did not start")]
    Factory(#[source] crate::failure::Panicked),
    /// The reactor is stopping, and closes its ports.
    #[error("the reactor is stopping")]
    ReactorStopping,
    /// The reactor was closed, or dropped.
    #[error("the reactor is gone")]
    ReactorGone,
    /// The reactor belongs to the parent of this process.
    #[error("the reactor belongs to the process that this one was forked from")]
    ForkedChild,
}

/// What is wrong with the reactor, or with asking it that now.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReactorError {
    /// `run`, `iterate` or `close` from inside the loop (Twisted: `ReactorAlreadyRunning`).
    #[error("the reactor is already running")]
    AlreadyRunning,
    /// The reactor was closed.
    #[error("the reactor is closed")]
    Closed,
    /// The reactor belongs to the parent of this process, which forked after its loop was entered.
    #[error("the reactor belongs to the process that this one was forked from")]
    ForkedChild,
    /// `stop` or `crash` while it does not run, or a second `stop` (Twisted: `ReactorNotRunning`).
    #[error("the reactor is not running")]
    NotRunning,
    /// The poller failed, and with it the loop. Every connection has been told.
    #[error("the poller failed")]
    Poll(#[source] io::Error),
    /// The reactor could not be made: no poller, no signal handlers.
    #[error("the reactor cannot be set up")]
    Setup(#[source] io::Error),
}

/// Why a signal cannot be handled: from [`Reactor::on_signal`](crate::Reactor::on_signal).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SignalError {
    /// The system lets no program handle it (SIGKILL, SIGSTOP), or no program can go on behind it (SIGILL, SIGFPE, SIGSEGV).
    #[error("signal {signal} cannot be handled by a program")]
    Forbidden {
        /// The signal's number.
        signal: i32,
    },
    /// There is no such signal, or it is a real-time signal, whose default action could not be brought back.
    #[error("{signal} is not a signal that can be handled: expected one of the system's standard signals")]
    Unknown {
        /// The number.
        signal: i32,
    },
    /// The system installs no handler, or the reactor is on a simulated network, which has no signals.
    #[error("a handler for signal {signal} cannot be installed")]
    Install {
        /// The signal's number.
        signal: i32,
        /// What the operating system said.
        source: io::Error,
    },
}

/// The reactor is gone, and the call that was to run on it with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the reactor is gone")]
pub struct ReactorGone;

/// The system gives us no thread, and the pool has none that a job could wait for.
#[derive(Debug, Error)]
#[error("there is no thread for the job")]
pub struct NoThread(#[source] pub io::Error);

/// The pool of threads was stopped, and takes no more jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the pool of threads was stopped")]
pub struct PoolStopped;

/// `blocking_call_from_thread` on the reactor's own thread: it would wait for itself for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the reactor's own thread cannot wait for the reactor")]
pub struct OwnThread;

/// Why a lock in the file system cannot be had, or given back.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FilesystemLockError {
    /// The operating system refused: no such folder, not allowed, no file that can be a lock (Twisted: `OSError`).
    #[error("cannot use the lock file {path:?}")]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// `unlock` of a lock that is not held by that value (Twisted: `ValueError`).
    #[error("the lock {path:?} is not held")]
    NotHeld {
        /// The lock file.
        path: PathBuf,
    },
    /// A second `defer_until_locked` while one is under way (Twisted: `AlreadyTryingToLockError`).
    #[error("the lock {path:?} is being waited for already")]
    AlreadyTrying {
        /// The lock file.
        path: PathBuf,
    },
    /// Somebody else held the lock for the whole timeout (Twisted: `TimeoutError`).
    #[error("the lock {path:?} was held by somebody else for {after:?}")]
    StillHeld {
        /// The lock file.
        path: PathBuf,
        /// The timeout.
        after: Duration,
    },
}

/// What can't be done to a timer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TimerError {
    /// It has run, or is running (Twisted: `AlreadyCalled`).
    #[error("the call was already made")]
    AlreadyCalled,
    /// It was cancelled (Twisted: `AlreadyCancelled`).
    #[error("the call was already cancelled")]
    AlreadyCancelled,
}

/// Why a protocol cannot be reached through its [`Connection`](crate::protocol::Connection).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// A call of that protocol or factory is running: it is on the stack above.
    #[error("it is busy in one of its own calls")]
    Busy,
    /// The connection is over, and the protocol was dropped.
    #[error("the connection is over")]
    Gone,
    /// The connection has a protocol, but none of the type that was asked for.
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

    /// A reactor in a thread's own storage may be dropped before or after the failure, in which order is the system's affair.
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
