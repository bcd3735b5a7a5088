//! The backend of a reactor on a simulated network: the third implementation of the reactor's
//! contract. The [`Kernel`] is to it what epoll and sockets are to the first.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, RawFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::backend_invariants::{BackendInvariants, key};
use super::kernel::{Kernel, News, Owner, Sharing, SimulatedRefusal, SocketId};
use crate::address::{Address, AddressPair};
use crate::datagram::{DatagramOption, DatagramQueue, DatagramSend, DatagramSocketOptions, DatagramValue, Destination};
use crate::reactor::{
    Backend, BackendEvent, Completion, ConnectRefusal, ConnectionOptions, DatagramBatch, DatagramReceive,
    DatagramsBound, DialOptions, Inbox, Incoming, IncomingSocket, Interest, ListenRefusal, PortOptions, Progress,
    RECEIVE, Wake,
};
use crate::transport::driver::{Credentials, SocketOption};
use crate::transport::id::Id;
use crate::transport::outgoing::{Outgoing, SendMode};
use crate::transport::send_queue::InFlight;

/// Maximum number of connections accepted per port and turn, as on a real backend.
const ACCEPTS: usize = 64;

/// Maximum number of bytes read before a close, so that the close does not become a reset, as on a
/// real backend.
const LAST_READ: usize = 4 * RECEIVE;

/// Number of closed ids that are remembered, for stale completions of a misbehaving backend.
const GRAVEYARD: usize = 16;

/// The sockets of a reactor, by their ids.
pub(super) type Ids = Rc<RefCell<BTreeMap<u64, SocketId>>>;

/// The simulated backend of one reactor.
pub(super) struct SimulatedBackend {
    kernel: Rc<RefCell<Kernel>>,
    owner: Owner,
    host: IpAddr,
    sockets: BTreeMap<SocketId, Id>,
    ids: Ids,
    /// `TCP_NODELAY` for the streams of a port or an attempt, by its id.
    no_delays: BTreeMap<u64, bool>,
    /// Sent chunks with the number of bytes taken, to be reported in the next turn.
    slow: Vec<(Id, InFlight, usize)>,
    /// Sent chunks to be reported in this turn.
    returned: Vec<(Id, InFlight, usize)>,
    /// Sockets that have had their share of this turn.
    received: Vec<SocketId>,
    accepted: usize,
    dead: VecDeque<Id>,
    woken: Arc<SimulatedWaker>,
    stale: u64,
    invariants: BackendInvariants,
}

impl SimulatedBackend {
    pub(super) fn new(kernel: Rc<RefCell<Kernel>>, owner: Owner, host: IpAddr) -> Self {
        let invariants = BackendInvariants::new(kernel.borrow().faults.clone());
        Self {
            kernel,
            owner,
            host,
            sockets: BTreeMap::new(),
            ids: Ids::default(),
            no_delays: BTreeMap::new(),
            slow: Vec::new(),
            returned: Vec::new(),
            received: Vec::new(),
            accepted: 0,
            dead: VecDeque::new(),
            woken: Arc::default(),
            stale: 0,
            invariants,
        }
    }

    pub(super) fn ids(&self) -> &Ids {
        &self.ids
    }

    fn socket(&self, id: Id) -> Option<SocketId> {
        self.ids.borrow().get(&key(id)).copied()
    }

    fn name(&mut self, id: Id, socket: SocketId) {
        self.sockets.insert(socket, id);
        self.ids.borrow_mut().insert(key(id), socket);
    }

    fn unname(&mut self, id: Id) -> Option<SocketId> {
        let socket = self.ids.borrow_mut().remove(&key(id))?;
        self.sockets.remove(&socket);
        self.no_delays.remove(&key(id));
        self.dead.push_back(id);
        if self.dead.len() > GRAVEYARD {
            self.dead.pop_front();
        }
        Some(socket)
    }

    /// Returns the next event that a socket really has.
    fn next_true(&mut self, inbox: &mut Inbox) -> Option<(Id, BackendEvent)> {
        loop {
            let socket = self.kernel.borrow_mut().next_ready(self.owner)?;
            let Some(&id) = self.sockets.get(&socket) else {
                self.stale += 1;
                continue;
            };
            if self.received.contains(&socket) || self.accepted >= ACCEPTS {
                let mut kernel = self.kernel.borrow_mut();
                if kernel.has_more(socket) {
                    kernel.make_ready_again(self.owner, socket);
                    continue;
                }
            }
            let news = self.kernel.borrow_mut().news(socket);
            if let Some(news) = news {
                return Some((id, self.event(id, socket, news, inbox)));
            }
        }
    }

    fn event(&mut self, id: Id, socket: SocketId, news: News, inbox: &mut Inbox) -> BackendEvent {
        let completion = match news {
            News::Accepted { stream, host, peer } => {
                self.accepted += 1;
                Completion::Accepted(self.incoming(id, stream, host, peer))
            }
            News::NoDescriptors => Completion::NoDescriptors,
            News::Shed(count) => Completion::Shed(count),
            News::AcceptFailed(error) => Completion::AcceptFailed(error),
            News::Connected(stream, host) => {
                self.sockets.remove(&socket);
                self.name(id, stream);
                self.begin_stream(id, stream);
                self.invariants.begins(id);
                Completion::Connected(host)
            }
            News::ConnectFailed(kind) => {
                self.unname(id);
                Completion::ConnectFailed(kind.into())
            }
            News::Received(count) => {
                self.received.push(socket);
                let (room, _) = inbox.room();
                let filled = self.kernel.borrow_mut().read(socket, &mut room[..count.min(RECEIVE)]);
                self.invariants.lends(id);
                inbox.fill(filled);
                return BackendEvent::Received;
            }
            News::EndOfStream => {
                self.invariants.tells_the_end(id);
                Completion::EndOfStream
            }
            News::SendReady => Completion::SendReady,
            News::DatagramsReady => Completion::DatagramsReady,
            News::Broken { kind, rest } => {
                self.invariants.tells_of_a_break(id);
                Completion::Broken { error: kind.into(), rest }
            }
        };
        completion.into()
    }

    /// Returns a connection that a port has accepted.
    fn incoming(&self, port: Id, stream: SocketId, host: Address, peer: Address) -> Incoming {
        self.begin_stream(port, stream);
        let kernel = Rc::downgrade(&self.kernel);
        let socket = IncomingSocket::Other(Box::new(Accepted { kernel, stream: Some(stream) }));
        Incoming { socket, ends: AddressPair::new(host, peer) }
    }

    /// Applies the options of a port or an attempt to its new stream.
    fn begin_stream(&self, id: Id, stream: SocketId) {
        if let Some(stream) = self.kernel.borrow_mut().stream(stream) {
            stream.no_delay = self.no_delays.get(&key(id)).copied().unwrap_or(false);
        }
    }

    /// Checks a stream that is about to end without a reset.
    fn ends_cleanly(&mut self, id: Id, socket: SocketId) {
        if self.kernel.borrow().can_end_cleanly(socket) {
            self.invariants.ends_cleanly(id);
        }
    }

    /// Returns the result of the next slow send on an open connection.
    fn next_returned(&mut self) -> Option<(Id, BackendEvent)> {
        loop {
            let (id, in_flight, count) = self.returned.pop()?;
            if self.socket(id).is_some() {
                return Some((id, BackendEvent::Returned(in_flight, Ok(count))));
            }
        }
    }

    fn is_slow(&self) -> bool {
        let mut kernel = self.kernel.borrow_mut();
        let chance = kernel.conditions.slow_sends;
        kernel.random.chance(chance)
    }

    /// Returns the next event of a watched descriptor.
    fn next_descriptor(&mut self) -> Option<(Id, BackendEvent)> {
        let (id, ready) = self.kernel.borrow_mut().next_descriptor(self.owner)?;
        Some((id, ready.map_or_else(Completion::DescriptorLost, Completion::Ready).into()))
    }

    /// Invents an event without a cause, under conditions in which backends misbehave.
    fn next_false(&mut self) -> Option<(Id, BackendEvent)> {
        let mut kernel = self.kernel.borrow_mut();
        let (stale, spurious) = (kernel.conditions.stale, kernel.conditions.spurious);
        if !self.dead.is_empty() && kernel.random.chance(stale) {
            let id = self.dead[kernel.random.below(self.dead.len() as u64) as usize];
            let completion = match kernel.random.below(3) {
                0 => Completion::SendReady,
                1 => Completion::EndOfStream,
                _ => Completion::Broken { error: io::ErrorKind::ConnectionReset.into(), rest: false },
            };
            return Some((id, completion.into()));
        }
        if !self.sockets.is_empty() && kernel.random.chance(spurious) {
            let place = kernel.random.below(self.sockets.len() as u64) as usize;
            let (socket, id) = self.sockets.iter().nth(place)?;
            return kernel.stream(*socket).is_some().then_some((*id, Completion::SendReady.into()));
        }
        None
    }
}

impl Backend for SimulatedBackend {
    fn clock(&self) -> Box<dyn Fn() -> Duration> {
        let kernel = Rc::clone(&self.kernel);
        Box::new(move || kernel.borrow().now)
    }

    fn listen(&mut self, id: Id, address: &Address, options: &PortOptions) -> Result<Address, ListenRefusal> {
        let sharing = sharing(&options.connections, options.ipv6_only);
        let (socket, bound) =
            self.kernel.borrow_mut().listen(self.owner, self.host, address, options.backlog, sharing)?;
        self.no_delays.insert(key(id), options.connections.no_delay);
        self.name(id, socket);
        Ok(bound)
    }

    fn accept(&mut self, id: Id) {
        let Some(socket) = self.socket(id) else { return };
        let mut kernel = self.kernel.borrow_mut();
        if let Some(listener) = kernel.listener(socket) {
            (listener.accepting, listener.asked) = (true, 0);
            kernel.make_ready(self.owner, socket);
        }
    }

    fn pause_accept(&mut self, id: Id) {
        let Some(socket) = self.socket(id) else { return };
        if let Some(listener) = self.kernel.borrow_mut().listener(socket) {
            listener.accepting = false;
        }
    }

    fn is_acknowledged(&self, id: Id) -> bool {
        self.socket(id).is_some_and(|socket| self.kernel.borrow().is_acknowledged(socket))
    }

    fn stop_listening(&mut self, id: Id) -> Vec<Incoming> {
        let Some(socket) = self.socket(id) else { return Vec::new() };
        let waiting = self.kernel.borrow_mut().accept_waiting(socket);
        let accepted = waiting.into_iter().map(|(stream, host, peer)| self.incoming(id, stream, host, peer)).collect();
        self.close(id, false);
        accepted
    }

    fn refuse(&mut self, socket: IncomingSocket) {
        if let IncomingSocket::Other(socket) = socket
            && let Ok(mut accepted) = socket.downcast::<Accepted>()
            && let Some(stream) = accepted.stream.take()
        {
            self.kernel.borrow_mut().close(stream, true);
        }
    }

    fn adopt(&mut self, id: Id, socket: IncomingSocket) -> io::Result<()> {
        let IncomingSocket::Other(socket) = socket else { return Err(io::ErrorKind::Unsupported.into()) };
        let mut accepted = socket.downcast::<Accepted>().map_err(|_| io::ErrorKind::Unsupported)?;
        if let Some(stream) = accepted.stream.take() {
            if let Some(stream) = self.kernel.borrow_mut().stream(stream) {
                stream.accepted = true;
            }
            self.name(id, stream);
            self.invariants.begins(id);
        }
        Ok(())
    }

    fn connect(&mut self, id: Id, to: &Address, options: &DialOptions) -> Result<(), ConnectRefusal> {
        let sharing = sharing(&options.connection, None);
        let asked = self.kernel.borrow_mut().connect(self.owner, self.host, to, options.from, sharing);
        match asked {
            Ok(socket) => {
                self.no_delays.insert(key(id), options.connection.no_delay);
                self.name(id, socket);
            }
            Err(SimulatedRefusal::Bind(error)) => return Err(ConnectRefusal::Bind(error)),
            Err(SimulatedRefusal::NoDescriptors(error)) => return Err(ConnectRefusal::NoDescriptors(error)),
            Err(SimulatedRefusal::Socket(error)) => return Err(ConnectRefusal::Socket(error)),
        }
        Ok(())
    }

    fn receive(&mut self, id: Id, on: bool) {
        let socket = self.socket(id);
        let mut kernel = self.kernel.borrow_mut();
        if let Some(socket) = socket.filter(|socket| kernel.has_datagrams(*socket)) {
            return kernel.set_datagrams_receiving(socket, on);
        }
        self.invariants.asks_to_receive(id, on);
        let Some(socket) = socket else { return };
        if let Some(stream) = kernel.stream(socket) {
            stream.receiving = on;
            kernel.make_ready(self.owner, socket);
        }
    }

    fn receive_rest(&mut self, id: Id) {
        self.invariants.asks_for_the_rest(id);
        let Some(socket) = self.socket(id) else { return };
        let mut kernel = self.kernel.borrow_mut();
        if let Some(stream) = kernel.stream(socket) {
            stream.receiving = true;
            kernel.make_ready(self.owner, socket);
        }
    }

    /// Always `false`: there are no descriptors here.
    fn passes_descriptors(&self, _id: Id) -> bool {
        false
    }

    fn send(&mut self, id: Id, outgoing: Outgoing<'_>) -> io::Result<Progress> {
        // A send before an end must complete in the same turn, so it is never slow.
        let may_be_slow = outgoing.mode == SendMode::Gather;
        let Outgoing { queue, pool, .. } = outgoing;
        self.invariants.shows(id, queue);
        let socket = self.socket(id).ok_or(io::ErrorKind::NotConnected)?;
        let mut sent = 0;
        while !queue.is_empty() {
            let count = self.kernel.borrow_mut().send(socket, queue.front())?;
            if count == 0 {
                return Ok(Progress::Blocked(sent));
            }
            self.invariants.takes(id, &queue.front()[..count]);
            self.kernel.borrow_mut().sends(socket, &queue.front()[..count]);
            sent += count;
            let is_slow = may_be_slow && self.is_slow();
            match is_slow.then(|| queue.lend()).flatten() {
                Some(in_flight) => {
                    self.slow.push((id, in_flight, count));
                    return Ok(Progress::Blocked(sent - count));
                }
                None => queue.advance(count, pool),
            }
        }
        Ok(Progress::Advanced(sent))
    }

    fn recall(&mut self, id: Id) -> Option<(InFlight, io::Result<usize>)> {
        [&mut self.slow, &mut self.returned].into_iter().find_map(|slow| {
            let at = slow.iter().position(|(sender, ..)| *sender == id)?;
            let (_, in_flight, count) = slow.swap_remove(at);
            Some((in_flight, Ok(count)))
        })
    }

    fn send_now(&mut self, id: Id, data: &[u8]) -> usize {
        let Some(socket) = self.socket(id) else { return 0 };
        // An error comes up again in the settling phase.
        let mut kernel = self.kernel.borrow_mut();
        let count = kernel.send(socket, data).unwrap_or(0);
        kernel.sends(socket, &data[..count]);
        drop(kernel);
        self.invariants.sends_directly(id, data, count);
        count
    }

    fn shut_down_writing(&mut self, id: Id) {
        self.invariants.shuts(id);
        if let Some(socket) = self.socket(id) {
            self.ends_cleanly(id, socket);
            self.kernel.borrow_mut().shut_down(socket);
        }
    }

    fn close(&mut self, id: Id, reset: bool) {
        if self.kernel.borrow_mut().unwatch(self.owner, id) {
            return;
        }
        if let Some(socket) = self.socket(id).filter(|_| !reset) {
            self.ends_cleanly(id, socket);
        }
        self.invariants.is_over(id);
        let Some(socket) = self.unname(id) else { return };
        let mut kernel = self.kernel.borrow_mut();
        if !reset && kernel.stream(socket).is_some() {
            kernel.discard(socket, LAST_READ);
        }
        kernel.close(socket, reset);
    }

    fn bind_datagrams(&mut self, id: Id, address: &Address, options: &DatagramSocketOptions) -> DatagramsBound {
        let bound = self.kernel.borrow_mut().bind_datagrams(self.owner, self.host, address, options);
        let (socket, host, reach) = bound?;
        self.name(id, socket);
        Ok((host, reach))
    }

    fn receive_datagrams(&mut self, id: Id, batch: &mut DatagramBatch) -> DatagramReceive {
        let Some(socket) = self.socket(id) else { return DatagramReceive::Empty };
        self.kernel.borrow_mut().receive_datagrams(socket, batch)
    }

    fn send_datagram(&mut self, id: Id, data: &[u8], to: Destination<'_>) -> DatagramSend {
        match self.socket(id) {
            Some(socket) => self.kernel.borrow_mut().send_datagram(socket, data, to),
            None => DatagramSend::Failed(io::ErrorKind::NotConnected.into()),
        }
    }

    fn send_datagrams(&mut self, id: Id, queue: &DatagramQueue) -> (usize, DatagramSend) {
        let mut taken = 0;
        for run in queue.runs(1) {
            match self.send_datagram(id, run.data, run.to) {
                DatagramSend::Sent => taken += 1,
                result => return (taken, result),
            }
        }
        (taken, DatagramSend::Sent)
    }

    fn connect_datagrams(&mut self, id: Id, peer: Destination<'_>) -> io::Result<Address> {
        let socket = self.socket(id).ok_or(io::ErrorKind::NotConnected)?;
        self.kernel.borrow_mut().connect_datagrams(socket, peer)
    }

    fn set_datagram_option(&mut self, id: Id, option: DatagramOption) -> io::Result<()> {
        let socket = self.socket(id).ok_or(io::ErrorKind::NotConnected)?;
        self.kernel.borrow_mut().set_datagram_option(socket, option)
    }

    fn datagram_option(&self, id: Id, option: DatagramValue) -> io::Result<u32> {
        let socket = self.socket(id).ok_or(io::ErrorKind::NotConnected)?;
        self.kernel.borrow().datagram_option(socket, option)
    }

    /// Every host has the loopback interface, and no other by a name.
    fn interface_index(&self, name: &str) -> io::Result<u32> {
        if name == "lo" { Ok(1) } else { Err(io::Error::from_raw_os_error(NO_DEVICE)) }
    }

    fn watch(&mut self, id: Id, descriptor: RawFd, interest: Interest) -> io::Result<()> {
        self.kernel.borrow_mut().watch(self.owner, id, descriptor, interest)
    }

    fn rewatch(&mut self, id: Id, interest: Interest) -> io::Result<()> {
        self.kernel.borrow_mut().rewatch(self.owner, id, interest)
    }

    fn wait(&mut self, until: Option<Duration>) -> io::Result<()> {
        self.received.clear();
        self.accepted = 0;
        self.returned.append(&mut self.slow);
        self.invariants.done("a turn");
        let mut kernel = self.kernel.borrow_mut();
        kernel.check_faults();
        kernel.begin_turn(self.owner);
        let now = kernel.now;
        kernel.advance_to(now);
        loop {
            let woken = self.woken.0.swap(false, Ordering::AcqRel);
            if woken
                || !self.returned.is_empty()
                || kernel.is_ready(self.owner)
                || until.is_some_and(|until| until <= kernel.now)
            {
                return Ok(());
            }
            let spurious = kernel.conditions.spurious;
            match (kernel.next_event(), until) {
                (Some(next), until) if until.is_none_or(|until| next <= until) => kernel.advance_to(next),
                (_, Some(until)) => {
                    let late = kernel.conditions.late_timers.as_nanos() as u64;
                    let late = Duration::from_nanos(kernel.random.below(late.saturating_add(1)));
                    kernel.advance_to(until + late);
                }
                (_, None) => {
                    return Err(io::Error::new(io::ErrorKind::Deadlock, Stuck { seed: kernel.seed, now: kernel.now }));
                }
            }
            if kernel.random.chance(spurious) {
                return Ok(());
            }
        }
    }

    fn next(&mut self, inbox: &mut Inbox) -> Option<(Id, BackendEvent)> {
        self.invariants.is_given_back();
        self.next_false()
            .or_else(|| self.next_returned())
            .or_else(|| self.next_true(inbox))
            .or_else(|| self.next_descriptor())
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.woken) as Arc<dyn Wake>
    }

    fn set_option(&mut self, id: Id, option: SocketOption) -> io::Result<()> {
        let socket = self.socket(id).ok_or(io::ErrorKind::NotConnected)?;
        let mut kernel = self.kernel.borrow_mut();
        let stream = kernel.stream(socket).ok_or(io::ErrorKind::NotConnected)?;
        match option {
            SocketOption::NoDelay(on) => kernel.set_no_delay(socket, on),
            SocketOption::KeepAlive(on) => stream.keep_alive = on,
            // Nothing is ever lost for good here, so there is nothing to give up on or to
            // acknowledge.
            SocketOption::KeepAliveTimes(..) | SocketOption::UserTimeout(_) | SocketOption::QuickAck => {}
        }
        Ok(())
    }

    fn descriptor(&self, _id: Id) -> Option<BorrowedFd<'_>> {
        None
    }

    fn no_delay(&self, id: Id) -> io::Result<bool> {
        let socket = self.socket(id).ok_or(io::ErrorKind::NotConnected)?;
        let mut kernel = self.kernel.borrow_mut();
        Ok(kernel.stream(socket).ok_or(io::ErrorKind::NotConnected)?.no_delay)
    }

    fn keep_alive(&self, id: Id) -> io::Result<bool> {
        let socket = self.socket(id).ok_or(io::ErrorKind::NotConnected)?;
        let mut kernel = self.kernel.borrow_mut();
        Ok(kernel.stream(socket).ok_or(io::ErrorKind::NotConnected)?.keep_alive)
    }

    /// Always fails: there are no processes here, and no users.
    fn peer_credentials(&self, _id: Id) -> io::Result<Credentials> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn stale(&self) -> u64 {
        self.stale
    }
}

impl Drop for SimulatedBackend {
    /// Closes the sockets that are left, as a system does for a process that ends.
    fn drop(&mut self) {
        let mut kernel = self.kernel.borrow_mut();
        for socket in self.sockets.keys() {
            kernel.close(*socket, true);
        }
        kernel.unwatch_all(self.owner);
    }
}

/// Translates the options for sharing an address. (The sizes of buffers are the network's:
/// [`Conditions::window`](super::Conditions::window).)
fn sharing(options: &ConnectionOptions, ipv6_only: Option<bool>) -> Sharing {
    let ConnectionOptions { reuse_address, reuse_port, .. } = *options;
    Sharing { reuse_address, reuse_port, ipv6_only: ipv6_only.unwrap_or(false) }
}

/// `ENODEV`, as on Linux.
const NO_DEVICE: i32 = 19;

/// An accepted connection on its way to its id. Dropped before, it closes.
struct Accepted {
    kernel: Weak<RefCell<Kernel>>,
    stream: Option<SocketId>,
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if let (Some(stream), Some(kernel)) = (self.stream, self.kernel.upgrade()) {
            kernel.borrow_mut().close(stream, false);
        }
    }
}

/// Wakes the backend for calls from real threads.
#[derive(Debug, Default)]
struct SimulatedWaker(AtomicBool);

impl Wake for SimulatedWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The error of a wait that would never end.
#[derive(Debug, thiserror::Error)]
#[error(
    "nothing is under way on the simulated network, and no timer is set: the wait would never end (at {now:?}, seed {seed})"
)]
struct Stuck {
    seed: u64,
    now: Duration,
}
