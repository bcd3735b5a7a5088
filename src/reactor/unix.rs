//! UNIX sockets (Twisted: `IReactorUNIX`, `listenUNIX`, `connectUNIX`): the file that a listening one leaves, and its lock.
//!
//! A socket's file outlives the socket. So whoever listens removes it in the end, if it is still the one that was made; and with
//! [`want_pid`](UnixListenOptions::want_pid) there is a lock beside it: whoever holds that may remove a file that somebody who
//! died has left.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use rustix::process::{Pid, getpid};

use super::backend::ListenRefusal;
use super::port::{BACKLOG, PortOptions};
use super::{CONNECT_TIMEOUT, ConnectOptions, Destination, FilesystemLock, Port, Reactor};
use crate::address::UnixAddress;
use crate::deferred::Deferred;
use crate::error::{ConnectError, ListenError};
use crate::protocol::{AnyConnection, BoxedFactory, Connection, Factory};

/// Who may connect to a UNIX socket, unless said otherwise. 0o666, everybody, as Twisted.
const MODE: u32 = 0o666;

/// How a UNIX port listens.
///
/// ```
/// let options = ropewalk::reactor::UnixListenOptions::new().mode(0o600).want_pid(true);
/// ```
#[derive(Debug, Clone)]
pub struct UnixListenOptions {
    backlog: u32,
    mode: u32,
    want_pid: bool,
}

impl UnixListenOptions {
    /// As many waiting connections as the system allows, mode 0o666, no lock.
    pub fn new() -> Self {
        Self { backlog: BACKLOG, mode: MODE, want_pid: false }
    }

    /// How many connections may wait to be accepted; the system has a limit of its own.
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// The permissions of the socket's file, whatever the umask: who may connect. An abstract name has none.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o7777;
        self
    }

    /// Whether to hold a lock, the path with `.lock` behind it, while listening (Twisted: `wantPID`). Then the file of a socket whose
    /// holder died is replaced, and that of one who lives is not. An abstract name needs none.
    pub fn want_pid(mut self, lock: bool) -> Self {
        self.want_pid = lock;
        self
    }
}

impl Default for UnixListenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// How a connection to a UNIX socket is made.
///
/// ```
/// use std::time::Duration;
///
/// let options = ropewalk::reactor::UnixConnectOptions::new().timeout(Some(Duration::from_secs(1))).check_pid(true);
/// ```
#[derive(Debug, Clone)]
pub struct UnixConnectOptions {
    timeout: Option<Duration>,
    check_pid: bool,
}

impl UnixConnectOptions {
    /// Twisted's: 30 s, and no look at a lock.
    pub fn new() -> Self {
        Self { timeout: Some(CONNECT_TIMEOUT), check_pid: false }
    }

    /// How long to wait for a place in the listener's queue; `None` is no limit.
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether to connect only if somebody holds the lock beside the path (Twisted: `checkPID`).
    pub fn check_pid(mut self, check: bool) -> Self {
        self.check_pid = check;
        self
    }
}

impl Default for UnixConnectOptions {
    fn default() -> Self {
        Self::new()
    }
}

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
        let UnixListenOptions { backlog, mode, want_pid } = *options;
        self.0.listen(address.clone().into(), PortOptions { backlog, no_delay: false, mode, lock: want_pid }, factory)
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
        let tcp = ConnectOptions::new().timeout(options.timeout);
        self.connect_to(Destination::Address(address.clone().into()), &tcp, factory)
    }
}

/// The file of a listening socket, and its lock. Dropped, the file is removed, and the lock given back.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Which file it is, once it is bound.
    identity: Option<(u64, u64)>,
    /// Whose it is to remove the file. Forked children have copies of this.
    process: Pid,
    /// Given back after the file was removed.
    lock: Option<FilesystemLock>,
}

impl SocketFile {
    /// Makes way for a socket to be bound to a path.
    pub(super) fn before_bind(path: &Path, lock: bool) -> Result<Self, ListenRefusal> {
        let mut held = None;
        if lock {
            let mut lock = FilesystemLock::new(lock_of(path));
            if !lock.lock().map_err(io::Error::other)? {
                return Err(ListenRefusal::Locked);
            }
            // Whoever made a socket there has died, for we have the lock.
            remove_socket(path, None)?;
            held = Some(lock);
        }
        Ok(Self { path: path.to_owned(), identity: None, process: getpid(), lock: held })
    }

    /// It is this process's to remove the file, and to give the lock back.
    pub(super) fn adopt(&mut self) {
        self.process = getpid();
        if let Some(lock) = &mut self.lock {
            lock.adopt();
        }
    }

    /// The socket was bound.
    pub(super) fn bound(&mut self) {
        self.identity = rustix::fs::lstat(&self.path).ok().map(identity);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(identity) = self.identity
            && self.process == getpid()
            && let Err(error) = remove_socket(&self.path, Some(identity))
        {
            tracing::warn!(%error, path = %self.path.display(), "the file of a UNIX socket stays behind");
        }
    }
}

/// Removes a socket, but nothing else that has its name: what is no socket, or not the one that is meant, stays.
fn remove_socket(path: &Path, meant: Option<(u64, u64)>) -> Result<(), Errno> {
    let stat = match rustix::fs::lstat(path) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
    if !is_socket || meant.is_some_and(|meant| meant != identity(stat)) {
        return Ok(());
    }
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

fn identity(stat: Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn lock_of(path: &Path) -> PathBuf {
    let mut lock = path.as_os_str().to_owned();
    lock.push(".lock");
    lock.into()
}
