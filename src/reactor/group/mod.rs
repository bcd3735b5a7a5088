//! [`ReactorGroup`]: reactors on several threads behind the same ports. (Twisted has no such thing:
//! its programs start several processes, and pass them the port by `adoptStreamPort`.)
//!
//! A group has *members*: a reactor each, on a thread of its own, with factories and protocols of
//! its own. The group's own reactor serves no connection. It handles signals, hands accepted
//! connections to the members, and watches them end.
//!
//! | file | holds |
//! |---|---|
//! | `builder.rs` | the settings |
//! | `leader.rs` | the group's own reactor: start, ports, stop |
//! | `member.rs` | a reactor on a thread of its own, and its drain |
//! | `ends.rs` | the ends of the members, as they are reported to the leader |
//!
//! | step | the leader | a member |
//! |---|---|---|
//! | 1 | builds its reactor, binds the ports ([`PortSharing::HandOver`]) | |
//! | 2 | starts the threads | builds its reactor |
//! | 3 | asks one member after the other | calls the program's `setup`, makes factories and ports |
//! | 4 | runs; accepts and hands over | runs |
//! | 5 | at a stop: closes the ports, tells all members to stop | drains, then closes everything |
//! | 6 | ends when the last member has ended | ends its thread |
//!
//! A failure in the steps 1 to 3 ends all threads before the start returns it. From step 5 on, one
//! deadline counts. A second signal, or the deadline, ends the loops of the members at once.

mod builder;
mod ends;
mod leader;
mod member;

use std::fmt;
use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use self::builder::{GroupBuilder, OnMemberFailure, PortSharing};
pub use self::ends::{GroupReport, MemberEnd};
pub use self::member::Member;
use super::{Port, Remote, Snapshot};
use crate::address::Address;
use crate::error::{GroupError, OwnThread};
use crate::failure::{Result, guarded};
use crate::log::error;

/// Reactors on several threads behind the same ports. From [`GroupBuilder::start`].
///
/// The handle may be moved to any thread. Dropping it stops the group, and waits for its end, which
/// takes no longer than the [time limit](GroupBuilder::stop_timeout) and two seconds.
///
/// ```
/// use ropewalk::reactor::ReactorGroup;
/// use ropewalk::for_protocol;
/// # use ropewalk::{Protocol, Result, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
///
/// # fn main() -> Result<()> {
/// let group = ReactorGroup::builder()
///     .threads(2)
///     .signals(false)
///     .listen("tcp:0:interface=127.0.0.1", |_member| Ok(for_protocol(|_peer| Echo)))
///     .start()?;
/// println!("listening on {}", group.addresses()[0]);
/// group.stop();
/// assert!(group.join()?.is_success());
/// # Ok(())
/// # }
/// ```
#[must_use = "a group stops when it is dropped"]
pub struct ReactorGroup {
    remote: GroupRemote,
    /// `None` once it was joined.
    leader: Option<JoinHandle<Result<GroupReport, GroupError>>>,
}

impl ReactorGroup {
    /// Returns a builder. It has one thread for each processor that this process may use, and no
    /// port.
    pub fn builder() -> GroupBuilder {
        GroupBuilder::new()
    }

    /// Returns the addresses of the group's ports, in the order in which they were added to the
    /// builder. A port 0 was resolved once, and all members share it.
    pub fn addresses(&self) -> &[Address] {
        self.remote.addresses()
    }

    /// Returns a handle for other threads, the members' included.
    pub fn remote(&self) -> &GroupRemote {
        &self.remote
    }

    /// Stops the group, as a first SIGTERM does: see [`GroupBuilder::stop_timeout`]. It does not
    /// wait for the end.
    pub fn stop(&self) {
        self.remote.stop();
    }

    /// Waits for the end of the group, without stopping it. Blocks this thread: do not call it on a
    /// thread of the group.
    ///
    /// # Errors
    /// [`GroupError::Reactor`] if the group's own reactor failed, and [`GroupError::Panicked`] if
    /// its thread panicked. The members have ended all the same.
    pub fn join(mut self) -> Result<GroupReport, GroupError> {
        self.end()
    }

    fn end(&mut self) -> Result<GroupReport, GroupError> {
        match self.leader.take() {
            Some(leader) => {
                let joined = guarded(|| leader.join().unwrap_or_else(|payload| resume_unwind(payload)));
                joined.unwrap_or_else(|panic| Err(GroupError::Panicked(panic)))
            }
            None => Ok(GroupReport::default()),
        }
    }
}

impl Drop for ReactorGroup {
    fn drop(&mut self) {
        if self.leader.is_some() {
            self.stop();
            if let Err(error) = self.end() {
                error!(%error, "a group of reactors failed");
            }
        }
    }
}

impl fmt::Debug for ReactorGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorGroup").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

/// A handle to a [`ReactorGroup`] for any thread: `Send`, `Sync`, cheap to clone. From
/// [`ReactorGroup::remote`], [`Member::group`] and [`GroupBuilder::started`].
#[derive(Clone)]
pub struct GroupRemote {
    leader: Remote,
    shared: Arc<OnceLock<Started>>,
}

/// The facts about a group that are known once it has started.
struct Started {
    members: Vec<Remote>,
    addresses: Vec<Address>,
}

impl GroupRemote {
    /// Stops the group, as [`ReactorGroup::stop`] does. A group that is stopping goes on with that.
    pub fn stop(&self) {
        // A leader that is gone has ended its group.
        let _ = self.leader.call_from_thread(|reactor| {
            // It may be stopping already.
            let _ = reactor.stop();
        });
    }

    /// Calls `call` with one of the group's ports, on the group's thread, and blocks until it
    /// returns. For a port that moves to another process: [`Port::duplicate`] and
    /// [`Port::leave_socket_file`]. `port` is its index in [`addresses`](Self::addresses).
    ///
    /// ```
    /// use std::os::fd::OwnedFd;
    /// use ropewalk::Result;
    /// use ropewalk::reactor::GroupRemote;
    ///
    /// /// The listening socket, for the process that takes the service over.
    /// fn socket_for_another_process(group: &GroupRemote) -> Result<OwnedFd> {
    ///     group.with_port(0, |port| Ok(port.duplicate()?))
    /// }
    /// ```
    ///
    /// # Errors
    /// - The failure of `call`, or its panic.
    /// - [`GroupError::NoPort`]: there is no such port, or each member has a socket of its own
    ///   ([`PortSharing::ReusePort`]).
    /// - [`OwnThread`](crate::error::OwnThread) on the group's own thread.
    /// - [`ReactorGone`](crate::error::ReactorGone) if the group has ended.
    pub fn with_port<R: Send + 'static>(
        &self,
        port: usize,
        call: impl FnOnce(&Port) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        self.leader.blocking_call_from_thread(move |reactor| -> Result<R> {
            call(&reactor.port_that_hands_over(port).ok_or(GroupError::NoPort { port })?)
        })
    }

    /// Returns the reactors of the members, by their index. Empty until the group has started: in
    /// the functions that set a member up.
    pub fn members(&self) -> &[Remote] {
        self.shared.get().map_or(&[], |started| &started.members)
    }

    /// Returns a snapshot of each member's reactor, by its index. Blocks until all have answered,
    /// or for at most `longest`. A member that has ended, or that a callback keeps busy for so
    /// long, has `None`.
    ///
    /// Bytes and ages are in it for members whose reactors are
    /// [observed](super::Reactor::observe). A function that sets members up asks for that.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::Result;
    /// use ropewalk::reactor::GroupRemote;
    ///
    /// fn open_connections(group: &GroupRemote) -> Result<usize> {
    ///     let members = group.snapshots(Duration::from_secs(1))?;
    ///     Ok(members.iter().flatten().map(|member| member.connections.len()).sum())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`OwnThread`] on the thread of a member, which could not answer meanwhile.
    pub fn snapshots(&self, longest: Duration) -> Result<Vec<Option<Snapshot>>, OwnThread> {
        let members = self.members();
        if members.iter().any(Remote::is_in_reactor_thread) {
            return Err(OwnThread);
        }
        let (sender, receiver) = mpsc::channel();
        for (index, member) in members.iter().enumerate() {
            let sender = sender.clone();
            // A member that has ended drops the call with its sender. The receiver may be gone when
            // a late member answers.
            let _ = member.call_from_thread(move |reactor| {
                let _ = sender.send((index, reactor.snapshot()));
            });
        }
        drop(sender);
        let until = Instant::now() + longest;
        let mut snapshots = vec![None; members.len()];
        while let Ok((index, snapshot)) = receiver.recv_timeout(until.saturating_duration_since(Instant::now())) {
            snapshots[index] = Some(snapshot);
        }
        Ok(snapshots)
    }

    /// Returns the addresses of the group's ports. Empty until the group has started.
    pub fn addresses(&self) -> &[Address] {
        self.shared.get().map_or(&[], |started| &started.addresses)
    }
}

impl fmt::Debug for GroupRemote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupRemote").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}
