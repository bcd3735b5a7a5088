//! [`Accepting`]: a port whose connections the ring accepts. While descriptors are short, it
//! accepts by readiness, because waiting connections have to be shed.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::ring::{Kind, Ring};
use crate::log::error;
use crate::reactor::backend::readiness::Listener;
use crate::reactor::backend::socket::{self, Accept};
use crate::reactor::backend::table::Requeue;
use crate::reactor::backend::{Completion, Incoming, IncomingSocket};
use crate::transport::id::Id;

/// A port on the ring: see the module.
pub(super) struct Accepting {
    listener: Listener,
    /// Accepted connections that were not handed over yet.
    arrived: VecDeque<OwnedFd>,
    /// The error that has stopped accepting, if it was not reported yet.
    failure: Option<io::Error>,
    /// The kernel has a multishot accept.
    many: bool,
    /// Descriptors are short: the listener is polled.
    polled: bool,
    /// A request is under way.
    armed: bool,
    /// Accepting is suspended on request. Accepted connections wait here.
    paused: bool,
    /// The socket has other descriptors, perhaps in other processes. It stays nonblocking, so that
    /// no accept of theirs waits, and is polled.
    shared: bool,
}

impl Accepting {
    pub(super) fn new(listener: Listener) -> Self {
        Self {
            listener,
            arrived: VecDeque::new(),
            failure: None,
            many: true,
            polled: false,
            armed: false,
            paused: false,
            shared: false,
        }
    }

    /// Makes a port of a nonblocking listener whose socket other processes may share.
    pub(super) fn polled(listener: Listener) -> Self {
        Self { polled: true, shared: true, ..Self::new(listener) }
    }

    /// Polls the socket from now on, because there is another descriptor of it. All descriptors
    /// share the blocking mode, and only a poll works with a nonblocking socket.
    ///
    /// The port is to be visited after that: connections may have been accepted.
    pub(super) fn share(&mut self, id: Id, ring: &mut Ring) -> io::Result<()> {
        if mem::replace(&mut self.shared, true) {
            return Ok(());
        }
        socket::set_blocking(self.listener.socket.as_fd(), false)?;
        if !mem::replace(&mut self.polled, true) {
            self.arrived.extend(ring.end_accept(id));
            (self.armed, self.listener.waiting) = (false, true);
        }
        Ok(())
    }

    /// Leaves the waiting connections to the other descriptors of the socket when this one closes.
    pub(super) fn leave_waiting(&mut self) {
        self.listener.leave_waiting();
    }

    /// Leaves the file behind when the socket is closed.
    pub(super) fn leave_file(&mut self) -> io::Result<()> {
        self.listener.leave_file()
    }

    /// Returns the socket.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.listener.socket.as_fd()
    }

    /// Starts an accept or a poll, unless one is under way or accepting is suspended.
    pub(super) fn arm(&mut self, id: Id, ring: &mut Ring) {
        if !self.listener.accepting || mem::replace(&mut self.armed, true) {
            return;
        }
        let socket = self.listener.socket.as_raw_fd();
        if self.polled {
            ring.poll(Kind::Poll, id, socket, PollFlags::IN, false);
        } else {
            ring.accept(id, socket, self.many);
        }
    }

    /// Goes on with another ring, in a forked child.
    pub(super) fn adopt(&mut self, id: Id, ring: &mut Ring) {
        self.listener.adopt();
        self.armed = false;
        self.arm(id, ring);
    }

    /// Suspends accepting. Connections that the kernel has accepted by now are kept.
    pub(super) fn pause(&mut self, id: Id, ring: &mut Ring) {
        (self.paused, self.listener.accepting) = (true, false);
        // A poll accepts nothing. It may stay.
        if !self.polled && self.armed {
            self.arrived.extend(ring.end_accept(id));
            self.armed = false;
        }
    }

    /// Resumes accepting after a pause or a failure. Connections may have arrived meanwhile.
    pub(super) fn resume(&mut self, id: Id, ring: &mut Ring) {
        self.paused = false;
        self.listener.resume();
        if self.polled {
            // The descriptors that were given up for this are about to be closed.
            ring.flush();
        } else {
            self.arm(id, ring);
        }
    }

    /// Records that a connection waits, as the poll has reported.
    pub(super) fn note(&mut self) {
        self.armed = false;
        self.listener.waiting = true;
    }

    /// Handles the outcome of an accept.
    #[inline(always)]
    pub(super) fn arrived(&mut self, id: Id, socket: Result<OwnedFd, Errno>, goes_on: bool, ring: &mut Ring) {
        if socket.as_ref().is_err_and(|error| *error == Errno::CANCELED) {
            // The accept was given up, and another one may be under way.
            return;
        }
        // A poll has taken the place of a cancelled accept.
        if !self.polled {
            self.armed = goes_on;
        }
        match socket {
            Ok(socket) => self.arrived.push_back(socket),
            Err(Errno::INVAL) if self.many => {
                tracing::warn!("the system has no multishot accept: connections are accepted one at a time");
                self.many = false;
            }
            Err(error) => match socket::not_accepted(error) {
                Accept::NoDescriptors => self.poll(ring),
                Accept::Failed(error) => self.fail(error),
                Accept::Empty | Accept::Skip | Accept::Connection(..) => {}
            },
        }
        if !self.polled {
            self.arm(id, ring);
        }
    }

    /// Handles a lack of descriptors: from here on, plain calls accept from the listener.
    fn poll(&mut self, ring: &mut Ring) {
        // Some descriptors may be about to be closed.
        ring.flush();
        match socket::set_blocking(self.listener.socket.as_fd(), false) {
            Ok(()) => (self.polled, self.listener.waiting) = (true, true),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: io::Error) {
        self.listener.accepting = false;
        self.failure = Some(error);
    }

    /// Returns the next event of this port, and when to visit it again.
    #[inline(always)]
    pub(super) fn next(
        &mut self,
        id: Id,
        turn: u32,
        reserve: &mut Option<OwnedFd>,
        ring: &mut Ring,
    ) -> (Option<Completion>, Requeue) {
        while !self.paused && !self.arrived.is_empty() {
            if !self.listener.may_accept(turn) {
                return (None, Requeue::NextTurn);
            }
            // A peer that is already gone has no address any more.
            if let Some(socket) = self.arrived.pop_front()
                && let Ok(peer) = socket::peer_address(&socket)
                && let Some(incoming) = self.listener.incoming(socket, peer)
            {
                return (Some(Completion::Accepted(incoming)), Requeue::Now);
            }
        }
        if let Some(error) = self.failure.take() {
            return (Some(Completion::AcceptFailed(error)), Requeue::No);
        }
        if self.polled { self.next_polled(id, turn, reserve, ring) } else { (None, Requeue::No) }
    }

    fn next_polled(
        &mut self,
        id: Id,
        turn: u32,
        reserve: &mut Option<OwnedFd>,
        ring: &mut Ring,
    ) -> (Option<Completion>, Requeue) {
        let (completion, requeue) = self.listener.next(turn, reserve);
        if let Some(Completion::Accepted(incoming)) = &completion
            && !is_made_blocking(incoming)
        {
            return (None, requeue);
        }
        if requeue != Requeue::No {
            return (completion, requeue);
        }
        if !self.shared
            && !self.listener.short
            && !self.armed
            && socket::set_blocking(self.listener.socket.as_fd(), true).is_ok()
        {
            self.polled = false;
        }
        self.arm(id, ring);
        (completion, requeue)
    }

    /// Closes the port, so that its address is free. Returns the accepted connections that were not
    /// handed over.
    pub(super) fn close(mut self, id: Id, ring: &mut Ring) -> Vec<Incoming> {
        if self.polled {
            ring.cancel(Kind::Poll, id);
        }
        // This includes a connection that was accepted before the port was polled.
        let accepted = self.arrived.into_iter().chain(ring.end_accept(id));
        let with_peers = accepted.filter_map(|socket| Some((socket::peer_address(&socket).ok()?, socket)));
        let mut waiting: Vec<Incoming> =
            with_peers.filter_map(|(peer, socket)| self.listener.incoming(socket, peer)).collect();
        match socket::set_blocking(self.listener.socket.as_fd(), false) {
            Ok(()) => waiting.extend(self.listener.waiting_connections().into_iter().filter(is_made_blocking)),
            Err(error) => error!(%error, "cannot accept the waiting connections of a closed port; they are reset"),
        }
        waiting
    }
}

/// Makes an accepted socket blocking, as the ring needs it. If that fails, the socket is to be
/// closed.
fn is_made_blocking(incoming: &Incoming) -> bool {
    let IncomingSocket::Descriptor { socket, .. } = &incoming.socket else { return false };
    let made = socket::set_blocking(socket.as_fd(), true);
    if let Err(error) = &made {
        error!(%error, "cannot make an accepted socket blocking for the ring; the connection is closed");
    }
    made.is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;
    use crate::reactor::backend::PortOptions;

    /// If the kernel refuses a multishot accept, connections are accepted one at a time, each after
    /// the previous one.
    #[test]
    fn connections_are_accepted_one_at_a_time_where_it_must_be() {
        let Ok(mut ring) = Ring::new() else { return println!("skipped: no io_uring here") };
        let id = Id { slot: 7, generation: 1 };
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let Ok((socket, bound, file)) = socket::listen(&any, &PortOptions::new()) else { panic!("a port") };
        socket::set_blocking(socket.as_fd(), true).unwrap();
        let mut port = Accepting::new(Listener::new(socket, &bound, file, &PortOptions::new()));
        port.arrived(id, Err(Errno::INVAL), false, &mut ring);
        let peers: Vec<_> = (0..3).map(|_| TcpStream::connect(bound.socket_addr().unwrap()).unwrap()).collect();
        for n in 1..=3 {
            ring.enter(Some(Duration::from_secs(30))).unwrap();
            let Some(done) = ring.next() else { panic!("no connection was accepted") };
            assert!(!done.goes_on() && ring.next().is_none(), "one at a time");
            port.arrived(id, done.into_socket(), false, &mut ring);
            assert_eq!(port.arrived.len(), n);
        }
        let (mut reserve, mut turn) = (None, 0);
        for peer in &peers {
            turn += 1;
            let (Some(Completion::Accepted(incoming)), _) = port.next(id, turn, &mut reserve, &mut ring) else {
                panic!("no connection is handed over")
            };
            assert_eq!(incoming.ends.peer().socket_addr(), Some(peer.local_addr().unwrap()));
        }
        assert!(port.close(id, &mut ring).is_empty());
    }

    /// A plain accept that is refused in the same way is a failure, and is not repeated.
    #[test]
    fn an_accept_that_is_refused_twice_has_failed() {
        let Ok(mut ring) = Ring::new() else { return println!("skipped: no io_uring here") };
        let id = Id { slot: 7, generation: 1 };
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let Ok((socket, bound, file)) = socket::listen(&any, &PortOptions::new()) else { panic!("a port") };
        let mut port = Accepting::new(Listener::new(socket, &bound, file, &PortOptions::new()));
        port.arrived(id, Err(Errno::INVAL), false, &mut ring);
        assert!(port.next(id, 1, &mut None, &mut ring).0.is_none());
        port.arrived(id, Err(Errno::INVAL), false, &mut ring);
        let (completion, requeue) = port.next(id, 1, &mut None, &mut ring);
        assert!(matches!(completion, Some(Completion::AcceptFailed(_))) && requeue == Requeue::No && !port.armed);
        assert!(port.close(id, &mut ring).is_empty());
    }
}
