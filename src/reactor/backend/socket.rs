//! The socket calls of the backends, each as thin as possible. Results are sorted by the reaction
//! of a backend. No call waits, in any mode of the descriptor, except `accept`, whose listener has
//! to be nonblocking. Interrupted calls are repeated here, and nowhere else. In unit tests each
//! call can be made to fail or to fall short (`faults`). `system.rs` has the calls that differ
//! between systems.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, Shutdown, SocketAddrAny, SocketType, sockopt,
};

use super::socket_file::SocketFile;
use super::system::{self, SENDING};
use super::{ConnectRefusal, IncomingSocket, ListenRefusal};
use super::{ConnectionOptions, DialOptions, PortOptions};
use crate::address::{Address, UnixAddress};
use crate::transport::driver::{Credentials, SocketOption};
use crate::transport::outgoing::Attached;
use crate::transport::send_queue::{MAX_SLICES, SendQueue};

/// Descriptors for which a receive has room, at least. 64, as many as Twisted. A peer that sends
/// more with one byte is hostile.
const DESCRIPTORS: usize = 64;

/// Connections that are accepted when a port stops, at most. 65,536: no usual system lets more
/// wait. The limit keeps peers that connect as fast as they are accepted from holding up the loop.
const MOST_WAITING: usize = 1 << 16;

/// The result of an accept.
pub(super) enum Accept {
    Connection(OwnedFd, Address),
    /// No connection is waiting.
    Empty,
    /// This connection is lost; the next accept may succeed.
    Skip,
    /// This process has no descriptor left.
    NoDescriptors,
    /// The failure concerns the listener.
    Failed(io::Error),
}

/// The result of a receive.
pub(super) enum Receive {
    /// This many bytes, which filled all the room: there may be more.
    Full(usize),
    /// This many bytes, and no more are there.
    Bytes(usize),
    End,
    /// There are no bytes.
    Empty,
    /// The system lacks memory at the moment.
    Starved,
    Failed(io::Error),
}

/// The result of a send.
pub(super) enum Send {
    /// The socket took this many bytes.
    Bytes(usize),
    /// The socket is full.
    Full,
    /// The system lacks memory at the moment.
    Starved,
    Failed(io::Error),
}

/// Makes a listening socket. Returns it with its address, and with its file if it is a UNIX socket
/// with a path.
pub(super) fn listen(
    address: &Address,
    options: &PortOptions,
) -> Result<(OwnedFd, Address, Option<SocketFile>), ListenRefusal> {
    let socket = system::nonblocking_socket(family(address), SocketType::STREAM)?;
    let mut file = None;
    if let Some(path) = address.unix().and_then(UnixAddress::as_path) {
        file = Some(SocketFile::bind(&socket, path, options.mode, options.lock)?);
    } else {
        if let Some(SocketAddr::V6(_)) = address.socket_addr()
            && let Some(only) = options.ipv6_only
        {
            sockopt::set_ipv6_v6only(&socket, only)?;
        }
        if address.unix().is_none() {
            sockopt::set_socket_reuseaddr(&socket, options.connections.reuse_address)?;
            set_tcp_options(&socket, &options.connections)?;
        }
        set_buffers(&socket, &options.connections)?;
        rustix::net::bind(&socket, &system_address(address)?)?;
    }
    rustix::net::listen(&socket, i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let host = local_address(&socket)?;
    Ok((socket, host, file))
}

/// Sets the TCP options. Accepted sockets inherit them.
fn set_tcp_options(socket: &OwnedFd, options: &ConnectionOptions) -> rustix::io::Result<()> {
    // It is off by default.
    if options.reuse_port {
        sockopt::set_socket_reuseport(socket, true)?;
    }
    if options.no_delay { sockopt::set_tcp_nodelay(socket, true) } else { Ok(()) }
}

/// Sets the sizes of the system's buffers. Accepted TCP sockets inherit them. Accepted UNIX sockets
/// do not.
pub(super) fn set_buffers(socket: &OwnedFd, options: &ConnectionOptions) -> rustix::io::Result<()> {
    if let Some(bytes) = options.receive_buffer {
        set_receive_buffer(socket.as_fd(), bytes)?;
    }
    if let Some(bytes) = options.send_buffer {
        set_send_buffer(socket.as_fd(), bytes)?;
    }
    Ok(())
}

/// Sets the size of the receive buffer. The system takes 31 bits, and has a maximum that is far
/// below.
pub(super) fn set_receive_buffer(socket: BorrowedFd<'_>, bytes: u32) -> rustix::io::Result<()> {
    sockopt::set_socket_recv_buffer_size(socket, bytes.min(i32::MAX as u32) as usize)
}

/// Sets the size of the send buffer, in the same way.
pub(super) fn set_send_buffer(socket: BorrowedFd<'_>, bytes: u32) -> rustix::io::Result<()> {
    sockopt::set_socket_send_buffer_size(socket, bytes.min(i32::MAX as u32) as usize)
}

/// Returns the index of the network interface with this name.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    system::interface_index(name)
}

/// Accepts a waiting connection. The listener has to be nonblocking.
pub(super) fn accept(listener: BorrowedFd<'_>) -> Accept {
    loop {
        #[cfg(test)]
        let accepted = faults::call(faults::SystemCall::Accept, || system::accept(listener));
        #[cfg(not(test))]
        let accepted = system::accept(listener);
        return match accepted {
            // The address comes with the connection: a socket whose peer has reset it has no
            // address any more.
            Ok((socket, peer)) => match peer.and_then(|peer| system::our_address(peer).ok()) {
                Some(peer) => Accept::Connection(socket, peer),
                None => Accept::Skip,
            },
            Err(Errno::INTR) => continue,
            Err(error) => not_accepted(error),
        };
    }
}

/// Accepts all waiting connections. The listener has to be nonblocking.
pub(super) fn accept_waiting(listener: BorrowedFd<'_>) -> impl Iterator<Item = (OwnedFd, Address)> {
    (0..MOST_WAITING)
        .map_while(move |_| match accept(listener) {
            Accept::Connection(socket, peer) => Some(Some((socket, peer))),
            Accept::Skip => Some(None),
            Accept::Empty | Accept::NoDescriptors | Accept::Failed(_) => None,
        })
        .flatten()
}

/// Returns `true` if a connection waits to be accepted.
pub(super) fn has_waiting(listener: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(&listener, PollFlags::IN)];
    matches!(rustix::event::poll(&mut asked, Some(&Timespec::default())), Ok(1))
}

/// Sorts the error of an accept.
pub(super) fn not_accepted(error: Errno) -> Accept {
    match error {
        Errno::AGAIN => Accept::Empty,
        Errno::MFILE => Accept::NoDescriptors,
        // accept(2): errors of the waiting connection, not of the listener.
        Errno::CONNABORTED
        | Errno::PROTO
        | Errno::PERM
        | Errno::NETDOWN
        | Errno::NOPROTOOPT
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::OPNOTSUPP
        | Errno::NETUNREACH
        | Errno::TIMEDOUT
        | Errno::INTR => Accept::Skip,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Errno::NONET => Accept::Skip,
        error => Accept::Failed(error.into()),
    }
}

/// Starts a connection. Returns its socket, and `true` if it is established already.
pub(super) fn connect(to: &Address, options: &DialOptions) -> Result<(OwnedFd, bool), ConnectRefusal> {
    let address = system_address(to).map_err(ConnectRefusal::Socket)?;
    let socket = system::nonblocking_socket(family(to), SocketType::STREAM).map_err(|error| match error {
        Errno::MFILE => ConnectRefusal::NoDescriptors(error.into()),
        error => ConnectRefusal::Socket(error.into()),
    })?;
    let tcp = if to.unix().is_none() { set_tcp_options(&socket, &options.connection) } else { Ok(()) };
    tcp.and_then(|()| set_buffers(&socket, &options.connection))
        .map_err(|error| ConnectRefusal::Socket(error.into()))?;
    if let Some(from) = options.from {
        sockopt::set_socket_reuseaddr(&socket, options.connection.reuse_address)
            .and_then(|()| rustix::net::bind(&socket, &from))
            .map_err(|error| ConnectRefusal::Bind(error.into()))?;
    }
    #[cfg(test)]
    let begun = faults::call(faults::SystemCall::Connect, || rustix::net::connect(&socket, &address));
    #[cfg(not(test))]
    let begun = rustix::net::connect(&socket, &address);
    match begun {
        Ok(()) => Ok((socket, true)),
        // An interrupted attempt goes on by itself.
        Err(Errno::INPROGRESS | Errno::INTR) => Ok((socket, false)),
        // The queue of the UNIX listener is full. There is no event to wait for.
        Err(Errno::AGAIN) if to.unix().is_some() => Err(ConnectRefusal::Busy),
        // The bind succeeded, but the local address already has a connection to this very peer.
        Err(error @ (Errno::ADDRINUSE | Errno::ADDRNOTAVAIL)) if options.from.is_some() => {
            Err(ConnectRefusal::Bind(error.into()))
        }
        Err(error) => Err(ConnectRefusal::Socket(error.into())),
    }
}

/// Returns the outcome of a connection attempt, or `None` while it is under way.
pub(super) fn connected(socket: BorrowedFd<'_>) -> Option<io::Result<Address>> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => {}
        Ok(Err(error)) | Err(error) => return Some(Err(error.into())),
    }
    match rustix::net::getpeername(socket) {
        Ok(_) => Some(local_address(socket)),
        Err(Errno::NOTCONN) => None,
        Err(error) => Some(Err(error.into())),
    }
}

/// Receives bytes.
#[inline(always)]
pub(super) fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Receive {
    #[cfg(test)]
    let room = faults::shorten(faults::SystemCall::Receive, buffer.len());
    #[cfg(test)]
    let buffer = &mut buffer[..room];
    loop {
        #[cfg(test)]
        let received =
            faults::call(faults::SystemCall::Receive, || rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT));
        #[cfg(not(test))]
        let received = rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT);
        return match received {
            Ok((_, 0)) => Receive::End,
            Ok((_, count)) if count == buffer.len() => Receive::Full(count),
            Ok((_, count)) => Receive::Bytes(count),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => Receive::Empty,
            Err(Errno::NOBUFS | Errno::NOMEM) => Receive::Starved,
            Err(error) => Receive::Failed(error.into()),
        };
    }
}

/// Like [`receive`], and takes the descriptors that come with the bytes. The system closes
/// descriptors that find no room.
#[inline(never)]
pub(super) fn receive_attached(socket: BorrowedFd<'_>, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Receive {
    let length = buffer.len();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(buffer)];
        let received = rustix::net::recvmsg(socket, &mut into, &mut control, system::RECEIVING);
        let received = match received {
            Ok(received) => received,
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => return Receive::Empty,
            Err(Errno::NOBUFS | Errno::NOMEM) => return Receive::Starved,
            Err(error) => return Receive::Failed(error.into()),
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        #[cfg(target_vendor = "apple")]
        system::close_on_exec(descriptors);
        let lost = received.flags.contains(ReturnFlags::CTRUNC);
        if lost {
            let (taken, most) = (descriptors.len(), DESCRIPTORS);
            tracing::warn!(
                taken,
                most,
                "a peer sent more descriptors at once than a receive takes, or than this process may have"
            );
        }
        // A receive ends behind bytes with descriptors, so a short receive does not prove that the
        // socket is drained.
        return match received.bytes {
            0 => Receive::End,
            count if count == length || lost || !descriptors.is_empty() => Receive::Full(count),
            count => Receive::Bytes(count),
        };
    }
}

/// Sends from the front of a queue, with the descriptor that leaves with its first byte, if there
/// is one. The distances of later descriptors are reduced. A lost peer is an error, never a signal.
pub(super) fn send_queue(socket: BorrowedFd<'_>, queue: &SendQueue, attached: Option<&mut Attached>) -> Send {
    let Some(attached) = attached else { return send_bytes(socket, queue) };
    let front = queue.front();
    let next = attached.iter().map(|(ahead, _)| *ahead).find(|ahead| *ahead > 0);
    let data = &front[..front.len().min(next.unwrap_or(usize::MAX))];
    let outcome = match attached.front() {
        Some((0, descriptor)) => send_with(socket, data, descriptor.as_fd()),
        _ => send(socket, data),
    };
    if let Send::Bytes(count) = outcome {
        if matches!(attached.front(), Some((0, _))) {
            attached.pop_front();
        }
        for (ahead, _) in attached {
            *ahead -= count;
        }
    }
    outcome
}

fn send_with(socket: BorrowedFd<'_>, data: &[u8], descriptor: BorrowedFd<'_>) -> Send {
    let descriptors = [descriptor];
    sent(|| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(Errno::NOBUFS);
        }
        rustix::net::sendmsg(socket, &[IoSlice::new(data)], &mut control, SENDING)
    })
}

fn send_bytes(socket: BorrowedFd<'_>, queue: &SendQueue) -> Send {
    if queue.is_single() {
        return send(socket, queue.single());
    }
    sent(|| {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let filled = queue.slices(&mut slices);
        rustix::net::sendmsg(socket, &slices[..filled], &mut SendAncillaryBuffer::default(), SENDING)
    })
}

/// Sends bytes. A lost peer is an error, never a signal.
#[inline(always)]
pub(super) fn send(socket: BorrowedFd<'_>, data: &[u8]) -> Send {
    #[cfg(test)]
    let data = &data[..faults::shorten(faults::SystemCall::Send, data.len())];
    loop {
        // No closure around the call: it would stand in a frame of its own.
        #[cfg(test)]
        let result = faults::call(faults::SystemCall::Send, || rustix::net::send(socket, data, SENDING));
        #[cfg(not(test))]
        let result = rustix::net::send(socket, data, SENDING);
        if let Some(sent) = sort_sent(result) {
            return sent;
        }
    }
}

/// Like [`send`], but a TCP socket holds back the last bytes until the next send or [`uncork`], on
/// systems that can.
pub(super) fn send_and_wait_for_more(socket: BorrowedFd<'_>, data: &[u8]) -> Send {
    sent(|| rustix::net::send(socket, data, system::HOLDING_BACK))
}

/// Makes a TCP socket send the bytes that it holds back. Other sockets hold back none.
pub(super) fn uncork(socket: BorrowedFd<'_>) {
    system::uncork(socket);
}

/// Repeats a send until it is not interrupted.
fn sent(mut call: impl FnMut() -> rustix::io::Result<usize>) -> Send {
    loop {
        #[cfg(test)]
        let result = faults::call(faults::SystemCall::Send, &mut call);
        #[cfg(not(test))]
        let result = call();
        if let Some(sent) = sort_sent(result) {
            return sent;
        }
    }
}

/// Sorts the result of a send. Returns `None` if it was interrupted, and is to be repeated.
#[inline(always)]
fn sort_sent(result: rustix::io::Result<usize>) -> Option<Send> {
    Some(match result {
        Ok(count) => Send::Bytes(count),
        Err(Errno::INTR) => return None,
        Err(Errno::AGAIN) => Send::Full,
        // The last of these: more descriptors are in flight than this process may have.
        Err(Errno::NOBUFS | Errno::NOMEM | Errno::TOOMANYREFS) => Send::Starved,
        Err(error) => Send::Failed(error.into()),
    })
}

/// Takes the pending error of a socket, if there is one.
pub(super) fn pending_error(socket: BorrowedFd<'_>) -> Option<io::Error> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(error)) | Err(error) => Some(error.into()),
    }
}

/// Returns `true` if received bytes wait on a socket.
pub(super) fn has_unread(socket: BorrowedFd<'_>) -> bool {
    let mut byte = [0];
    loop {
        let peeked = rustix::net::recv(socket, &mut byte, RecvFlags::DONTWAIT | RecvFlags::PEEK);
        match peeked {
            Err(Errno::INTR) => continue,
            peeked => return matches!(peeked, Ok((_, count)) if count > 0),
        }
    }
}

/// Ends our direction. This fails if the peer is already gone; the next receive reports that.
pub(super) fn shut_down_writing(socket: BorrowedFd<'_>) {
    if let Err(error) = rustix::net::shutdown(socket, Shutdown::Write) {
        tracing::trace!(%error, "shutdown failed");
    }
}

/// Makes the following close a reset.
pub(super) fn reset_on_close(socket: BorrowedFd<'_>) {
    if let Err(error) = sockopt::set_socket_linger(socket, Some(Duration::ZERO)) {
        tracing::debug!(%error, "cannot set SO_LINGER; the connection is closed without a reset");
    }
}

/// Makes the close of an accepted connection a reset.
pub(super) fn refuse(socket: &IncomingSocket) {
    if let IncomingSocket::Descriptor { socket, .. } = socket {
        reset_on_close(socket.as_fd());
    }
}

/// Sets a socket option. If the system has no such option, the error is `Unsupported`.
pub(super) fn set_option(socket: BorrowedFd<'_>, option: SocketOption) -> io::Result<()> {
    match option {
        SocketOption::NoDelay(on) => sockopt::set_tcp_nodelay(socket, on)?,
        SocketOption::KeepAlive(on) => sockopt::set_socket_keepalive(socket, on)?,
        SocketOption::KeepAliveTimes(idle, interval, count) => {
            sockopt::set_tcp_keepidle(socket, idle)?;
            sockopt::set_tcp_keepintvl(socket, interval)?;
            sockopt::set_tcp_keepcnt(socket, count)?;
        }
        SocketOption::UserTimeout(timeout) => system::set_user_timeout(socket, timeout)?,
        SocketOption::QuickAck => system::set_quick_ack(socket)?,
    }
    Ok(())
}

pub(super) fn no_delay(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::tcp_nodelay(socket)?)
}

pub(super) fn keep_alive(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_keepalive(socket)?)
}

pub(super) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    system::peer_credentials(socket)
}

pub(super) fn local_address(socket: impl AsFd) -> io::Result<Address> {
    system::our_address(rustix::net::getsockname(socket)?)
}

pub(super) fn peer_address(socket: impl AsFd) -> io::Result<Address> {
    system::our_address(rustix::net::getpeername(socket)?.ok_or(Errno::NOTCONN)?)
}

/// Makes calls on a socket, and requests to a ring, wait or fail at once.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn set_blocking(socket: BorrowedFd<'_>, blocking: bool) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(socket, !blocking)?)
}

fn system_address(address: &Address) -> io::Result<SocketAddrAny> {
    Ok(match address {
        Address::Inet(address) => (*address).into(),
        Address::Unix(name) => system::unix_address(name)?.into(),
        Address::Pipe => return Err(io::ErrorKind::InvalidInput.into()),
    })
}

/// Makes a spare descriptor, to be given up when there are no others. It is a socket, because that
/// needs no file.
pub(super) fn reserve() -> io::Result<OwnedFd> {
    Ok(system::unused_socket(AddressFamily::UNIX, SocketType::STREAM)?)
}

/// Takes a spare descriptor, if there is none yet.
pub(super) fn keep_reserve(kept: &mut Option<OwnedFd>) -> io::Result<()> {
    if kept.is_none() {
        *kept = Some(reserve()?);
    }
    Ok(())
}

fn family(address: &Address) -> AddressFamily {
    match address {
        Address::Inet(SocketAddr::V4(_)) => AddressFamily::INET,
        Address::Inet(SocketAddr::V6(_)) => AddressFamily::INET6,
        Address::Unix(_) => AddressFamily::UNIX,
        // The system refuses a socket without a family.
        Address::Pipe => AddressFamily::UNSPEC,
    }
}

/// Planned faults, for tests of this crate: the next calls of a kind fail, or are cut short.
/// Requests to a ring fail likewise: their completions carry the fault (`uring/faults.rs`).
#[cfg(test)]
pub(in crate::reactor) mod faults {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use rustix::io::Errno;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::reactor) enum SystemCall {
        Accept,
        Connect,
        Receive,
        Send,
        Wait,
        ReceiveDatagram,
        SendDatagram,
        // Requests to a ring.
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        RingAccept,
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        RingReceive,
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        RingSend,
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        RingPoll,
    }

    /// The fault of one call.
    #[derive(Debug, Clone, Copy)]
    pub(in crate::reactor) enum Fault {
        Fails(Errno),
        /// The call gets at most this many bytes.
        Short(usize),
        /// A request to a ring completes at once without effect, and does not go on.
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        Ends,
        /// A multishot poll of a ring ends after one event.
        #[cfg(all(feature = "io-uring", target_os = "linux"))]
        Once,
    }

    thread_local! {
        static PLAN: RefCell<[VecDeque<Fault>; 11]> = RefCell::default();
    }

    /// Plans faults for the next calls of that kind on this thread, one fault each.
    pub(in crate::reactor) fn plan(call: SystemCall, faults: impl IntoIterator<Item = Fault>) {
        PLAN.with_borrow_mut(|plan| plan[call as usize].extend(faults));
    }

    /// Returns the number of planned faults that no call has met yet.
    pub(in crate::reactor) fn left(call: SystemCall) -> usize {
        PLAN.with_borrow(|plan| plan[call as usize].len())
    }

    /// Discards the faults that no call has met.
    pub(in crate::reactor) fn clear() {
        PLAN.take();
    }

    /// Takes the next fault of a kind, if `takes` accepts it.
    fn take(call: SystemCall, takes: impl FnOnce(&Fault) -> bool) -> Option<Fault> {
        PLAN.with_borrow_mut(|plan| {
            let plan = &mut plan[call as usize];
            if plan.front().is_some_and(takes) { plan.pop_front() } else { None }
        })
    }

    pub(in crate::reactor::backend) fn shorten(call: SystemCall, length: usize) -> usize {
        match take(call, |fault| matches!(fault, Fault::Short(_))) {
            Some(Fault::Short(room)) => length.min(room),
            _ => length,
        }
    }

    pub(in crate::reactor::backend) fn call<T>(
        call: SystemCall,
        real: impl FnOnce() -> rustix::io::Result<T>,
    ) -> rustix::io::Result<T> {
        match take(call, |fault| !matches!(fault, Fault::Short(_))) {
            Some(Fault::Fails(error)) => Err(error),
            _ => real(),
        }
    }

    /// Returns the result of a request to a ring that is not made, because of a planned fault.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(in crate::reactor::backend) fn request(call: SystemCall) -> Option<i32> {
        match take(call, |fault| !matches!(fault, Fault::Short(_) | Fault::Once)) {
            Some(Fault::Fails(error)) => Some(-error.raw_os_error()),
            Some(Fault::Ends) => Some(0),
            _ => None,
        }
    }

    /// Returns `true` unless a fault is planned that ends a multishot poll of a ring.
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    pub(in crate::reactor::backend) fn goes_on() -> bool {
        take(SystemCall::RingPoll, |fault| matches!(fault, Fault::Once)).is_none()
    }
}
