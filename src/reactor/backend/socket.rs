//! The socket calls of the backends, each as thin as it can be: what the system says, sorted into what a backend does
//! about it. None waits, whatever the descriptor was set to, but
//! for `accept`, whose listener has to be set so. Interrupted calls are repeated here, and nowhere else. In unit tests each call can be made to fail or to fall
//! short (`faults`).

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, UCred, sockopt,
};

use super::socket_file::SocketFile;
use super::{ConnectRefusal, IncomingSocket, ListenRefusal};
use super::{ConnectionOptions, DialOptions, PortOptions};
use crate::address::{Address, UnixAddress};
use crate::transport::driver::{Credentials, SocketOption};
use crate::transport::outgoing::Attached;
use crate::transport::send_queue::{MAX_SLICES, SendQueue};

/// Descriptors for which a receive has room, at least. 64, as many as Twisted; a peer that sends more with one byte is no friend.
const DESCRIPTORS: usize = 64;

/// Connections that are accepted when a port stops. 65,536: no usual system lets more wait, and peers that connect as fast as they are
/// accepted are not to keep the loop.
const MOST_WAITING: usize = 1 << 16;

/// A lost peer is an error, never a signal; and no call waits.
const SENDING: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// What one accept brought.
pub(super) enum Accept {
    Connection(OwnedFd, Address),
    /// No more are waiting.
    Empty,
    /// That one is lost; the next may be well.
    Skip,
    /// No descriptors in this process.
    NoDescriptors,
    /// It is not the connection's fault.
    Failed(io::Error),
}

/// What one receive brought.
pub(super) enum Receive {
    /// This many bytes, which filled all the room there was: there may be more.
    Full(usize),
    /// This many bytes, and there are no more.
    Bytes(usize),
    End,
    /// Nothing is there.
    Empty,
    /// The system lacks memory at the moment.
    Starved,
    Failed(io::Error),
}

/// What one send did.
pub(super) enum Send {
    /// Taken, this many bytes.
    Bytes(usize),
    /// The socket is full.
    Full,
    /// The system lacks memory at the moment.
    Starved,
    Failed(io::Error),
}

/// A listening socket, its address, and the file that it leaves, if it is a UNIX socket with a path.
pub(super) fn listen(
    address: &Address,
    options: &PortOptions,
) -> Result<(OwnedFd, Address, Option<SocketFile>), ListenRefusal> {
    let socket = rustix::net::socket_with(family(address), SocketType::STREAM, FLAGS, None)?;
    let mut file = None;
    if let Some(path) = address.unix().and_then(UnixAddress::as_path) {
        let mut made = SocketFile::before_bind(path, options.lock)?;
        // The file is never open to more than was asked for, and in the end to just that, whatever the umask says.
        let mode = Mode::from_raw_mode(options.mode);
        rustix::fs::fchmod(&socket, mode)?;
        rustix::net::bind(&socket, &system_address(address)?)?;
        made.bound();
        rustix::fs::chmod(path, mode)?;
        file = Some(made);
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

/// Sets what is of TCP. Accepted sockets inherit it.
fn set_tcp_options(socket: &OwnedFd, options: &ConnectionOptions) -> rustix::io::Result<()> {
    // Off is the system's way.
    if options.reuse_port {
        sockopt::set_socket_reuseport(socket, true)?;
    }
    if options.no_delay { sockopt::set_tcp_nodelay(socket, true) } else { Ok(()) }
}

/// Sets the sizes of the system's buffers. Accepted TCP sockets inherit them, accepted UNIX sockets do not.
pub(super) fn set_buffers(socket: &OwnedFd, options: &ConnectionOptions) -> rustix::io::Result<()> {
    if let Some(bytes) = options.receive_buffer {
        sockopt::set_socket_recv_buffer_size(socket, bytes as usize)?;
    }
    if let Some(bytes) = options.send_buffer {
        sockopt::set_socket_send_buffer_size(socket, bytes as usize)?;
    }
    Ok(())
}

/// The number of the network interface that has this name.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    #[cfg(target_os = "linux")]
    {
        let any = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(rustix::net::netdevice::name_to_index(&any, name)?)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = name;
        Err(io::ErrorKind::Unsupported.into())
    }
}

pub(super) fn accept(listener: BorrowedFd<'_>) -> Accept {
    loop {
        #[cfg(test)]
        let accepted = faults::call(faults::SystemCall::Accept, || rustix::net::acceptfrom_with(listener, FLAGS));
        #[cfg(not(test))]
        let accepted = rustix::net::acceptfrom_with(listener, FLAGS);
        return match accepted {
            // The address comes with the connection: a peer that has reset it already has none to ask for any more.
            Ok((socket, peer)) => match peer.and_then(|peer| our_address(peer).ok()) {
                Some(peer) => Accept::Connection(socket, peer),
                None => Accept::Skip,
            },
            Err(Errno::INTR) => continue,
            Err(error) => not_accepted(error),
        };
    }
}

/// Accepts all connections that wait. The listener has to be one that does not wait.
pub(super) fn accept_waiting(listener: BorrowedFd<'_>) -> impl Iterator<Item = (OwnedFd, Address)> {
    (0..MOST_WAITING)
        .map_while(move |_| match accept(listener) {
            Accept::Connection(socket, peer) => Some(Some((socket, peer))),
            Accept::Skip => Some(None),
            Accept::Empty | Accept::NoDescriptors | Accept::Failed(_) => None,
        })
        .flatten()
}

/// Whether a connection waits to be accepted.
pub(super) fn has_waiting(listener: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(&listener, PollFlags::IN)];
    matches!(rustix::event::poll(&mut asked, Some(&Timespec::default())), Ok(1))
}

/// What it means that nobody was accepted.
pub(super) fn not_accepted(error: Errno) -> Accept {
    match error {
        Errno::AGAIN => Accept::Empty,
        Errno::MFILE => Accept::NoDescriptors,
        // accept(2): errors of the connection that waited, not of the listener.
        Errno::CONNABORTED
        | Errno::PROTO
        | Errno::PERM
        | Errno::NETDOWN
        | Errno::NOPROTOOPT
        | Errno::HOSTDOWN
        | Errno::NONET
        | Errno::HOSTUNREACH
        | Errno::OPNOTSUPP
        | Errno::NETUNREACH
        | Errno::TIMEDOUT
        | Errno::INTR => Accept::Skip,
        error => Accept::Failed(error.into()),
    }
}

/// Begins a connection. `true`: it is there already.
pub(super) fn connect(to: &Address, options: &DialOptions) -> Result<(OwnedFd, bool), ConnectRefusal> {
    let address = system_address(to).map_err(ConnectRefusal::Socket)?;
    let socket =
        rustix::net::socket_with(family(to), SocketType::STREAM, FLAGS, None).map_err(|error| match error {
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
        // Interrupted, it goes on by itself.
        Err(Errno::INPROGRESS | Errno::INTR) => Ok((socket, false)),
        // A UNIX socket whose listener has its queue full: there is nothing that could be waited for.
        Err(Errno::AGAIN) if to.unix().is_some() => Err(ConnectRefusal::Busy),
        // The local address was free to be bound, but has a connection to that very peer already.
        Err(error @ (Errno::ADDRINUSE | Errno::ADDRNOTAVAIL)) if options.from.is_some() => {
            Err(ConnectRefusal::Bind(error.into()))
        }
        Err(error) => Err(ConnectRefusal::Socket(error.into())),
    }
}

/// What became of a connection that was begun: `None` while it is still under way.
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

/// As [`receive`], and takes the descriptors that come with the bytes. What is beyond the room for them, the system closes.
#[inline(never)]
pub(super) fn receive_attached(socket: BorrowedFd<'_>, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> Receive {
    let length = buffer.len();
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(buffer)];
        let received =
            rustix::net::recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT);
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
        let lost = received.flags.contains(ReturnFlags::CTRUNC);
        if lost {
            let (taken, most) = (descriptors.len(), DESCRIPTORS);
            tracing::warn!(
                taken,
                most,
                "a peer sent more descriptors at a time than are taken, or than this process may have"
            );
        }
        // A receive ends behind bytes that had descriptors with them, so one that fell short proves nothing.
        return match received.bytes {
            0 => Receive::End,
            count if count == length || lost || !descriptors.is_empty() => Receive::Full(count),
            count => Receive::Bytes(count),
        };
    }
}

/// Sends from the front of a queue, with the descriptor that leaves with its first byte, if one does; those that are behind it
/// come closer. A lost peer is an error, never a signal.
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
        return send(socket, queue.front());
    }
    sent(|| {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let filled = queue.slices(&mut slices);
        rustix::net::sendmsg(socket, &slices[..filled], &mut SendAncillaryBuffer::default(), SENDING)
    })
}

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

/// As [`send`], but a TCP socket keeps the last of it for what is sent next, or until [`uncork`].
pub(super) fn send_and_wait_for_more(socket: BorrowedFd<'_>, data: &[u8]) -> Send {
    sent(|| rustix::net::send(socket, data, SENDING.union(SendFlags::MORE)))
}

/// Has a TCP socket send what it keeps. Others keep nothing.
pub(super) fn uncork(socket: BorrowedFd<'_>) {
    // Clearing it sends what waits, also where it was not set. A UNIX socket refuses.
    let _ = sockopt::set_tcp_cork(socket, false);
}

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

/// `None`: it was interrupted, and is to be repeated.
#[inline(always)]
fn sort_sent(result: rustix::io::Result<usize>) -> Option<Send> {
    Some(match result {
        Ok(count) => Send::Bytes(count),
        Err(Errno::INTR) => return None,
        Err(Errno::AGAIN) => Send::Full,
        // The last: more descriptors are under way than this process may have.
        Err(Errno::NOBUFS | Errno::NOMEM | Errno::TOOMANYREFS) => Send::Starved,
        Err(error) => Send::Failed(error.into()),
    })
}

/// The error that waits on a socket, if any.
pub(super) fn pending_error(socket: BorrowedFd<'_>) -> Option<io::Error> {
    match sockopt::socket_error(socket) {
        Ok(Ok(())) => None,
        Ok(Err(error)) | Err(error) => Some(error.into()),
    }
}

/// Whether received bytes wait on a socket.
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

/// Ends our side. A peer that is gone already makes this fail; the next receive says so.
pub(super) fn shut_down_writing(socket: BorrowedFd<'_>) {
    if let Err(error) = rustix::net::shutdown(socket, Shutdown::Write) {
        tracing::trace!(%error, "shutdown failed");
    }
}

/// Makes the coming close a reset.
pub(super) fn reset_on_close(socket: BorrowedFd<'_>) {
    if let Err(error) = sockopt::set_socket_linger(socket, Some(Duration::ZERO)) {
        tracing::debug!(%error, "cannot set SO_LINGER; the connection is closed without a reset");
    }
}

/// Resets an accepted connection.
pub(super) fn refuse(socket: &IncomingSocket) {
    if let IncomingSocket::Descriptor { socket, .. } = socket {
        reset_on_close(socket.as_fd());
    }
}

pub(super) fn set_option(socket: BorrowedFd<'_>, option: SocketOption) -> io::Result<()> {
    match option {
        SocketOption::NoDelay(on) => sockopt::set_tcp_nodelay(socket, on)?,
        SocketOption::KeepAlive(on) => sockopt::set_socket_keepalive(socket, on)?,
        SocketOption::KeepAliveTimes(idle, interval, count) => {
            sockopt::set_tcp_keepidle(socket, idle)?;
            sockopt::set_tcp_keepintvl(socket, interval)?;
            sockopt::set_tcp_keepcnt(socket, count)?;
        }
        SocketOption::UserTimeout(timeout) => {
            // Rounded up, for zero means something else; and no more than the system takes, 31 bits.
            let millis = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128);
            sockopt::set_tcp_user_timeout(socket, millis as u32)?;
        }
        #[cfg(any(target_os = "linux", target_os = "android"))]
        SocketOption::QuickAck => sockopt::set_tcp_quickack(socket, true)?,
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        SocketOption::QuickAck => return Err(io::ErrorKind::Unsupported.into()),
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
    let UCred { pid, uid, gid } = sockopt::socket_peercred(socket)?;
    Ok(Credentials { pid: pid.as_raw_nonzero().get(), uid: uid.as_raw(), gid: gid.as_raw() })
}

pub(super) fn local_address(socket: impl AsFd) -> io::Result<Address> {
    our_address(rustix::net::getsockname(socket)?)
}

#[cfg(feature = "io-uring")]
pub(super) fn peer_address(socket: impl AsFd) -> io::Result<Address> {
    our_address(rustix::net::getpeername(socket)?.ok_or(Errno::NOTCONN)?)
}

/// Whether calls on a socket, and requests to a ring, wait.
#[cfg(feature = "io-uring")]
pub(super) fn set_blocking(socket: BorrowedFd<'_>, blocking: bool) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(socket, !blocking)?)
}

fn our_address(address: SocketAddrAny) -> io::Result<Address> {
    if address.address_family() != AddressFamily::UNIX {
        return Ok(SocketAddr::try_from(address)?.into());
    }
    let address = SocketAddrUnix::try_from(address)?;
    // The longest path that there may be comes with the NUL behind it.
    let path = address.path_bytes().map(|path| path.strip_suffix(b"\0").unwrap_or(path));
    let named = match (path, address.abstract_name()) {
        (Some(path), _) if !path.is_empty() => UnixAddress::path(OsStr::from_bytes(path)),
        (_, Some(name)) if !name.is_empty() => UnixAddress::abstract_name(name),
        _ => Ok(UnixAddress::unnamed()),
    };
    // What the system has taken for an address is one.
    Ok(named.map_err(io::Error::other)?.into())
}

fn system_address(address: &Address) -> io::Result<SocketAddrAny> {
    Ok(match address {
        Address::Inet(address) => (*address).into(),
        Address::Unix(unix) => match (unix.as_path(), unix.as_abstract_name()) {
            (Some(path), _) => SocketAddrUnix::new(path)?.into(),
            (_, Some(name)) => SocketAddrUnix::new_abstract_name(name)?.into(),
            (None, None) => return Err(io::ErrorKind::InvalidInput.into()),
        },
    })
}

/// A descriptor kept back, to be given up when there are no others. A socket, for which no file needs to be there.
pub(super) fn reserve() -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

fn family(address: &Address) -> AddressFamily {
    match address {
        Address::Inet(SocketAddr::V4(_)) => AddressFamily::INET,
        Address::Inet(SocketAddr::V6(_)) => AddressFamily::INET6,
        Address::Unix(_) => AddressFamily::UNIX,
    }
}

/// Faults to order, for tests of this crate: the next calls of a kind fail, or are cut short. So do requests to a ring, whose
/// completions then say so (`uring/faults.rs`).
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
        // Requests to a ring.
        #[cfg(feature = "io-uring")]
        RingAccept,
        #[cfg(feature = "io-uring")]
        RingReceive,
        #[cfg(feature = "io-uring")]
        RingSend,
        #[cfg(feature = "io-uring")]
        RingPoll,
    }

    /// What happens to one call.
    #[derive(Debug, Clone, Copy)]
    pub(in crate::reactor) enum Fault {
        Fails(Errno),
        /// It is offered no more than this many bytes.
        Short(usize),
        /// A request to a ring comes to nothing at once, and does not go on.
        #[cfg(feature = "io-uring")]
        Ends,
        /// A poll by a ring that would go on tells of one event only.
        #[cfg(feature = "io-uring")]
        Once,
    }

    thread_local! {
        static PLAN: RefCell<[VecDeque<Fault>; 9]> = RefCell::default();
    }

    /// The next calls of that kind on this thread meet these faults, one each.
    pub(in crate::reactor) fn plan(call: SystemCall, faults: impl IntoIterator<Item = Fault>) {
        PLAN.with_borrow_mut(|plan| plan[call as usize].extend(faults));
    }

    /// How many planned faults are still to come.
    pub(in crate::reactor) fn left(call: SystemCall) -> usize {
        PLAN.with_borrow(|plan| plan[call as usize].len())
    }

    /// Takes back what was planned and not met.
    pub(in crate::reactor) fn clear() {
        PLAN.take();
    }

    /// The next fault of a kind, if `takes` says that it is met here.
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

    /// The outcome of a request to a ring that is not made, because it meets a fault.
    #[cfg(feature = "io-uring")]
    pub(in crate::reactor::backend) fn request(call: SystemCall) -> Option<i32> {
        match take(call, |fault| !matches!(fault, Fault::Short(_) | Fault::Once)) {
            Some(Fault::Fails(error)) => Some(-error.raw_os_error()),
            Some(Fault::Ends) => Some(0),
            _ => None,
        }
    }

    /// True if a poll by a ring goes on, that would.
    #[cfg(feature = "io-uring")]
    pub(in crate::reactor::backend) fn goes_on() -> bool {
        take(SystemCall::RingPoll, |fault| matches!(fault, Fault::Once)).is_none()
    }
}
