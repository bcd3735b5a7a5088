//! Helpers of the tests over real sockets: a loop with a hard limit, a protocol that logs its
//! callbacks, and peers with blocking sockets of std.
#![allow(dead_code, unused_imports, unused_macros, unreachable_pub, reason = "each program uses its own part")]

pub mod allocator;
#[cfg(feature = "tls")]
pub mod certificates;
pub mod generations;
pub mod hosted;
pub mod logs;
pub mod process;
pub mod programs;
pub mod seeds;
pub mod setting;
#[cfg(feature = "tls")]
pub mod tls;

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use logs::*;
pub(crate) use process::{is_in_mask, own_process, this_program, with_default_signals};
use ropewalk::address::UnixAddress;
use ropewalk::error::ReactorError;
use ropewalk::interfaces::*;
use ropewalk::{
    Address, BackendKind, ConnectOptions, Deferred, Failure, ListenOptions, Port, Reactor, Result, Transport,
};
pub use seeds::seeds;

/// The longest wait of a test. A test that passes never waits that long.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A reactor that leaves the signals of the test process alone.
pub fn reactor() -> Reactor {
    Reactor::builder().signals(false).build().expect("the system gives us a poller")
}

/// The same on this backend, whatever the environment says. `None` if the system has no such
/// backend.
pub fn reactor_on(kind: BackendKind) -> Option<Reactor> {
    let reactor = Reactor::builder().signals(false).backend(kind).build().expect("the system gives us a poller");
    (reactor.backend() == kind).then_some(reactor)
}

/// The same on io_uring. Without io_uring a test has nothing to show; the message says that it is
/// skipped.
pub fn ring_reactor() -> Option<Reactor> {
    let reactor = reactor_on(BackendKind::IoUring);
    if reactor.is_none() {
        println!("skipped: {NO_BACKEND}");
    }
    reactor
}

/// The message of a test that is skipped because the system has no such backend.
pub const NO_BACKEND: &str = "the system has no such backend for us";

/// Returns `true` if a connection that was reset before it was accepted is accepted all the same.
/// Where the kernel accepts by itself it has no address any more, and is dropped.
pub fn accepts_what_was_reset(reactor: &Reactor) -> bool {
    reactor.backend() != BackendKind::IoUring
}

/// Returns `length` bytes, which repeat a period. Copied bytes take less time than computed ones
/// without optimisation.
pub fn repeated(period: impl IntoIterator<Item = u8>, length: usize) -> Vec<u8> {
    let period: Vec<u8> = period.into_iter().take(length).collect();
    let mut bytes = period.repeat(length.div_ceil(period.len().max(1)));
    bytes.truncate(length);
    bytes
}

/// Turns the loop until `done`.
#[track_caller]
pub fn run_until(reactor: &Reactor, mut done: impl FnMut() -> bool) {
    turn_until(reactor, &mut done);
}

/// Does the work of [`run_until`]. It is compiled once, and not for each condition.
#[track_caller]
fn turn_until(reactor: &Reactor, done: &mut dyn FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < until, "it did not happen within {LIMIT:?}");
        reactor.iterate(Duration::from_millis(5)).expect("the loop turns");
    }
}

/// Turns the loop until a thread has ended. Returns its result.
#[track_caller]
pub fn run_beside<T>(reactor: &Reactor, peer: JoinHandle<T>) -> T {
    run_until(reactor, || peer.is_finished());
    peer.join().expect("the peer did not panic")
}

/// Turns the loop a few times without waiting: enough for anything that is already on its way
/// inside the process.
pub fn settle(reactor: &Reactor) {
    for _ in 0..10 {
        reactor.iterate(Duration::ZERO).expect("the loop turns");
    }
}

/// The events of a test, in order.
#[derive(Debug, Clone, Default)]
pub struct Log(Rc<RefCell<Vec<String>>>);

impl Log {
    pub fn add(&self, what: impl Into<String>) {
        self.0.borrow_mut().push(what.into());
    }

    pub fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    pub fn has(&self, what: &str) -> bool {
        self.0.borrow().iter().any(|entry| entry.starts_with(what))
    }

    pub fn count(&self, what: &str) -> usize {
        self.0.borrow().iter().filter(|entry| entry.starts_with(what)).count()
    }

    /// Returns `true` if the connection is over.
    pub fn is_over(&self) -> bool {
        self.has("lost")
    }

    /// The reason of its end.
    pub fn reason(&self) -> String {
        let entries = self.0.borrow();
        let lost = entries.iter().find_map(|entry| entry.strip_prefix("lost: "));
        lost.expect("the connection is over").to_owned()
    }
}

type Reaction = Box<dyn FnMut(&Transport) -> Result<()>>;
type DataReaction = Box<dyn FnMut(&Transport, &[u8]) -> Result<()>>;

/// A protocol that logs its callbacks, and calls a closure in each.
pub struct Script {
    pub log: Log,
    pub received: Rc<RefCell<Vec<u8>>>,
    pub transport: Rc<RefCell<Option<Transport>>>,
    pub reason: Rc<RefCell<Option<Failure>>>,
    half_close: bool,
    made: Reaction,
    secured: Reaction,
    data: DataReaction,
    read_lost: Reaction,
    write_lost: Reaction,
    lost: Box<dyn FnMut(&Transport)>,
}

impl Script {
    pub fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            received: Rc::default(),
            transport: Rc::default(),
            reason: Rc::default(),
            half_close: false,
            made: Box::new(|_| Ok(())),
            secured: Box::new(|_| Ok(())),
            data: Box::new(|_, _| Ok(())),
            read_lost: Box::new(|_| Ok(())),
            write_lost: Box::new(|_| Ok(())),
            lost: Box::new(|_| ()),
        }
    }

    pub fn half_close(mut self) -> Self {
        self.half_close = true;
        self
    }

    pub fn made(mut self, call: impl FnMut(&Transport) -> Result<()> + 'static) -> Self {
        self.made = Box::new(call);
        self
    }

    pub fn secured(mut self, call: impl FnMut(&Transport) -> Result<()> + 'static) -> Self {
        self.secured = Box::new(call);
        self
    }

    pub fn data(mut self, call: impl FnMut(&Transport, &[u8]) -> Result<()> + 'static) -> Self {
        self.data = Box::new(call);
        self
    }

    pub fn read_lost(mut self, call: impl FnMut(&Transport) -> Result<()> + 'static) -> Self {
        self.read_lost = Box::new(call);
        self
    }

    pub fn write_lost(mut self, call: impl FnMut(&Transport) -> Result<()> + 'static) -> Self {
        self.write_lost = Box::new(call);
        self
    }

    pub fn lost(mut self, call: impl FnMut(&Transport) + 'static) -> Self {
        self.lost = Box::new(call);
        self
    }

    /// Keeps the received bytes in `place`.
    pub fn into_buffer(mut self, place: &Rc<RefCell<Vec<u8>>>) -> Self {
        self.received = Rc::clone(place);
        self
    }

    /// Puts the reason of the connection's end in `place`.
    pub fn reason_into(mut self, place: &Rc<RefCell<Option<Failure>>>) -> Self {
        self.reason = Rc::clone(place);
        self
    }

    /// Puts the transport in `place` when the connection is made.
    pub fn transport_into(mut self, place: &Rc<RefCell<Option<Transport>>>) -> Self {
        self.transport = Rc::clone(place);
        self
    }
}

impl Protocol for Script {
    fn half_close(&self) -> bool {
        self.half_close
    }

    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.log.add("made");
        self.transport.replace(Some(transport.clone()));
        (self.made)(transport)
    }

    fn handshake_completed(&mut self, transport: &Transport) -> Result<()> {
        self.log.add("secured");
        (self.secured)(transport)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.log.add("data");
        self.received.borrow_mut().extend_from_slice(data);
        (self.data)(transport, data)
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.log.add("read lost");
        (self.read_lost)(transport)
    }

    fn write_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.log.add("write lost");
        (self.write_lost)(transport)
    }

    fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
        self.log.add(format!("lost: {reason}"));
        self.reason.replace(Some(reason.clone()));
        (self.lost)(transport);
    }
}

/// More turns than anything takes that is already in our kernel: one to accept or receive, one to
/// answer, and some spare.
pub const FEW_TURNS: usize = 8;

/// Sends everything back.
pub struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

/// A client on the reactor's own thread: what it sends is in our kernel before the next turn, so
/// turns can be counted.
pub struct Client(pub TcpStream);

impl Client {
    pub fn connect(reactor: &Reactor, to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).expect("the port listens");
        stream.set_nodelay(true).unwrap();
        settle(reactor);
        stream.set_nonblocking(true).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, data: &[u8]) {
        self.0.write_all(data).expect("a few bytes fit");
    }

    /// Returns `true` if the answer is there.
    pub fn answered(&mut self, expected: &[u8]) -> bool {
        let mut answer = vec![0; expected.len() + 1];
        match self.0.read(&mut answer) {
            Ok(count) => {
                assert_eq!(&answer[..count], expected);
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    }
}

/// Turns the loop until each client has its echo. Returns the number of turns.
#[track_caller]
pub fn echo_round(reactor: &Reactor, clients: &mut [Client], message: &[u8]) -> usize {
    for client in clients.iter_mut() {
        client.send(message);
    }
    let mut waiting: Vec<&mut Client> = clients.iter_mut().collect();
    let mut turns = 0;
    while !waiting.is_empty() {
        assert!(turns < FEW_TURNS, "{} clients have no answer after {turns} turns", waiting.len());
        reactor.iterate(Duration::ZERO).unwrap();
        turns += 1;
        waiting.retain_mut(|client| !client.answered(message));
    }
    turns
}

/// A factory for one script; a second connection is refused.
pub fn once(script: Script) -> impl Factory<Protocol = Script> {
    let mut script = Some(script);
    move |_| script.take()
}

/// Any port of the loopback interface.
pub fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// Listens on a port of the loopback interface.
#[track_caller]
pub fn listen(reactor: &Reactor, factory: impl Factory) -> (Port, SocketAddr) {
    let port = reactor.listen_tcp(loopback(), &ListenOptions::new(), factory).expect("a port can be had");
    let address = port.host().socket_addr().expect("a TCP address");
    (port, address)
}

/// Connects from inside the reactor.
pub fn connect<F: Factory>(
    reactor: &Reactor,
    to: SocketAddr,
    factory: F,
) -> Deferred<ropewalk::Connection<F::Protocol>> {
    reactor.connect_tcp(to, &ConnectOptions::new(), factory)
}

/// A peer in a thread, connected to `to` with a blocking socket.
pub fn peer<T: Send + 'static>(to: SocketAddr, act: impl FnOnce(TcpStream) -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn(move || {
        let stream = TcpStream::connect(to).expect("the port listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream.set_write_timeout(Some(LIMIT)).expect("a timeout");
        act(stream)
    })
}

/// A peer in a thread that listens with a blocking socket and takes one connection.
pub fn listening_peer<T: Send + 'static>(
    act: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind(loopback()).expect("a port");
    let address = listener.local_addr().expect("an address");
    let thread = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client connects");
        stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
        stream.set_write_timeout(Some(LIMIT)).expect("a timeout");
        act(stream)
    });
    (address, thread)
}

/// Makes the coming close of a peer's socket a reset.
pub fn reset_on_close(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("SO_LINGER");
}

/// Number of descriptors that this process has open.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

/// A factory that logs its own calls: `start`, `build`, `stop`.
pub struct Watched<F> {
    log: Log,
    build: F,
    on_stop: Box<dyn FnMut()>,
}

impl<F> Watched<F> {
    pub fn new(log: &Log, build: F) -> Self {
        Self { log: log.clone(), build, on_stop: Box::new(|| ()) }
    }

    /// Calls `call` from inside `do_stop`.
    pub fn on_stop(mut self, call: impl FnMut() + 'static) -> Self {
        self.on_stop = Box::new(call);
        self
    }
}

impl<F, P> Factory for Watched<F>
where
    F: FnMut(Address) -> Option<P> + 'static,
    P: Protocol,
{
    type Protocol = P;

    fn build_protocol(&mut self, peer: &Address) -> Option<P> {
        self.log.add("build");
        (self.build)(peer.clone())
    }

    fn do_start(&mut self) {
        self.log.add("start");
    }

    fn do_stop(&mut self) {
        self.log.add("stop");
        (self.on_stop)();
    }
}

/// A factory of scripts that write to one log, without a limit to their number.
pub fn scripts(log: &Log) -> impl FnMut(Address) -> Option<Script> + 'static {
    let log = log.clone();
    move |_| Some(Script::new(&log))
}

/// A factory of scripts that echo, without a limit to their number.
pub fn echoes(log: &Log) -> impl FnMut(Address) -> Option<Script> + 'static {
    let log = log.clone();
    move |_| {
        Some(Script::new(&log).data(|transport, data| {
            transport.write(data);
            Ok(())
        }))
    }
}

/// A peer on this thread, connected to `to`. The system completes the connection before the
/// listener accepts it.
#[track_caller]
pub fn dial(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("the port listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    stream
}

/// Turns the loop until the stream of a peer on this thread ends. Returns the received bytes.
#[track_caller]
pub fn read_to_end(reactor: &Reactor, stream: &mut TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let (mut all, mut end) = (Vec::new(), None);
    run_until(reactor, || {
        end = read_now(stream, &mut all);
        end.is_some()
    });
    end.expect("it ended").map(|()| all)
}

/// The next `count` bytes that a peer on this thread receives, while the loop turns.
#[track_caller]
pub fn read_exact(reactor: &Reactor, stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    run_until(reactor, || {
        let end = read_now(stream, &mut all);
        assert!(end.is_none() || all.len() >= count, "the stream ended after {} bytes: {end:?}", all.len());
        all.len() >= count
    });
    all
}

/// Reads the bytes that are there. Returns the end of the stream, if it has ended.
pub fn read_now(stream: &mut TcpStream, all: &mut Vec<u8>) -> Option<Result<(), ErrorKind>> {
    stream.set_nonblocking(true).expect("O_NONBLOCK");
    let result = stream.read_to_end(all);
    stream.set_nonblocking(false).expect("O_NONBLOCK");
    match result {
        Ok(_) => Some(Ok(())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => Some(Err(error.kind())),
    }
}

/// Turns the loop until a Deferred has its result. Returns that.
#[track_caller]
pub fn result_of<T>(reactor: &Reactor, mut deferred: Deferred<T>) -> Result<T> {
    let mut result = None;
    run_until(reactor, || {
        result = deferred.take_result();
        result.is_some()
    });
    result.expect("it is there")
}

/// An address of the loopback interface that refuses connections for as long as the descriptor is
/// kept: its port is bound, without a listener.
pub fn refusing() -> (std::os::fd::OwnedFd, SocketAddr) {
    let socket = tcp_socket();
    rustix::net::bind(&socket, &loopback()).expect("a port");
    let address = rustix::net::getsockname(&socket).expect("an address");
    (socket, address.try_into().expect("an IPv4 address"))
}

/// An address that does not answer for as long as the peers are kept: the queue of its listener is
/// full.
pub fn silent() -> (std::os::fd::OwnedFd, TcpStream, SocketAddr) {
    let (socket, address) = refusing();
    rustix::net::listen(&socket, 0).expect("a listener");
    let first = dial(address);
    (socket, first, address)
}

/// A unique name of a UNIX socket, in the abstract namespace.
pub fn unix_name() -> UnixAddress {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    UnixAddress::abstract_name(format!("ropewalk-test-{}-{number}", std::process::id())).expect("a name")
}

/// [`silent`] as a UNIX socket.
pub fn silent_unix() -> (Vec<std::os::fd::OwnedFd>, Address) {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let socket = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).expect("a socket")
    };
    let name = unix_name();
    let address = SocketAddrUnix::new_abstract_name(name.as_abstract_name().expect("it is one")).expect("it fits");
    let mut sockets = vec![socket()];
    rustix::net::bind(&sockets[0], &address).expect("nobody has it");
    rustix::net::listen(&sockets[0], 0).expect("a listener");
    loop {
        let waiting = socket();
        match rustix::net::connect(&waiting, &address) {
            Ok(()) => sockets.push(waiting),
            Err(rustix::io::Errno::AGAIN) => return (sockets, name.into()),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A bare socket of IPv4.
pub fn tcp_socket() -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket")
}

/// Lets this process have as many descriptors as it may.
pub fn allow_many_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("the soft limit");
}

/// Aborts the process, and names the test, if it is not dropped within the limit. For loops that
/// run rather than turn.
pub struct Watchdog(Option<(mpsc::Sender<()>, JoinHandle<()>)>);

impl Watchdog {
    pub fn new() -> Self {
        let (alive, dropped) = mpsc::channel();
        let name = thread::current().name().unwrap_or("a test").to_owned();
        let thread = thread::spawn(move || {
            if dropped.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{name} did not end within {LIMIT:?}");
                std::process::abort();
            }
        });
        Self(Some((alive, thread)))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some((alive, thread)) = self.0.take() {
            drop(alive);
            let _ = thread.join();
        }
    }
}

/// Runs the loop until it is stopped, within the limit.
pub fn run(reactor: &Reactor) -> Result<(), ReactorError> {
    let _watchdog = Watchdog::new();
    reactor.run()
}

/// Calls `ask` with the descriptor of an open connection.
#[allow(unsafe_code, reason = "a transport tells its descriptor as a number")]
pub fn with_descriptor<T>(transport: &Transport, ask: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    let descriptor = transport.raw_fd().expect("an open connection");
    // SAFETY: the connection is open, and stays so during this call: its reactor lives on this
    // thread.
    ask(unsafe { BorrowedFd::borrow_raw(descriptor) })
}

/// Waits until our end is readable, without turning the loop.
pub fn await_readable(transport: &Transport) {
    with_descriptor(transport, await_input);
}

fn await_input(descriptor: BorrowedFd<'_>) {
    let mut asked = [rustix::event::PollFd::new(&descriptor, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut asked, Some(&limit)), Ok(1), "nothing came");
}
