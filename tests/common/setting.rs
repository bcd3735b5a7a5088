//! The conformance suite's setting over real sockets.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ropewalk::error::ReactorError;
use ropewalk::reactor::Descriptor;
use ropewalk::testing::conformance::{Begin, SetDescriptor, Setting};
use ropewalk::{Address, BackendKind, Reactor};

use super::{
    LIMIT, NO_BACKEND, allow_many_descriptors, loopback, reactor, reactor_on, run, silent, silent_unix, unix_name,
};

/// Reactors on the default backend of `Reactor::new` or on a named one. They reach each other over
/// the loopback interface, or over UNIX sockets.
#[derive(Default)]
pub struct Loopback {
    reactors: Vec<Reactor>,
    unix: bool,
    backend: Option<BackendKind>,
    begins: Option<(Begin, Begin)>,
    silent: Option<(Vec<OwnedFd>, Address)>,
}

impl Loopback {
    pub fn new() -> Self {
        allow_many_descriptors();
        Self::default()
    }

    /// Over UNIX sockets.
    pub fn unix() -> Self {
        Self { unix: true, ..Self::new() }
    }

    /// The same on this backend, whatever the environment says.
    pub fn on(self, backend: BackendKind) -> Self {
        Self { backend: Some(backend), ..self }
    }

    /// The same with layers that are begun on each transport first: one of the listening side, and
    /// one of the connecting side.
    pub fn beginning(self, (listened, connected): (Begin, Begin)) -> Self {
        Self { begins: Some((listened, connected)), ..self }
    }
}

/// A socket of a pair, whose other end makes it ready.
#[derive(Debug)]
pub struct WatchedSocket {
    pub ours: Rc<UnixStream>,
    pub theirs: RefCell<Option<UnixStream>>,
}

impl WatchedSocket {
    pub fn new() -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        [&ours, &theirs].iter().for_each(|socket| socket.set_nonblocking(true).expect("O_NONBLOCK"));
        Self { ours: Rc::new(ours), theirs: RefCell::new(Some(theirs)) }
    }
}

/// Reads everything that is there.
fn drain(mut socket: &UnixStream) {
    while socket.read(&mut [0; 65536]).is_ok_and(|count| count > 0) {}
}

/// Writes until there is no room.
fn fill(mut socket: &UnixStream) {
    while socket.write(&[0; 65536]).is_ok() {}
}

impl SetDescriptor for WatchedSocket {
    fn descriptor(&self) -> Descriptor {
        Rc::clone(&self.ours).into()
    }

    fn set_readable(&self, on: bool) {
        match self.theirs.borrow_mut().as_mut() {
            Some(theirs) if on => theirs.write_all(b"x").expect("a byte fits"),
            _ => drain(&self.ours),
        }
    }

    fn set_writable(&self, on: bool) {
        match &*self.theirs.borrow() {
            Some(theirs) if on => drain(theirs),
            _ => fill(&self.ours),
        }
    }

    fn hang_up(&self) {
        self.theirs.take();
    }
}

impl Loopback {
    /// The reactors so far.
    pub fn reactors(&self) -> &[Reactor] {
        &self.reactors
    }
}

impl Setting for Loopback {
    fn unavailable(&self) -> Option<&'static str> {
        let is_there = self.backend.is_none_or(|kind| reactor_on(kind).is_some());
        (!is_there).then_some(NO_BACKEND)
    }

    fn reactor(&mut self) -> Reactor {
        let reactor = self.backend.map_or_else(|| Some(reactor()), reactor_on).expect(NO_BACKEND);
        self.reactors.push(reactor.clone());
        reactor
    }

    fn address(&mut self) -> Address {
        if self.unix { unix_name().into() } else { loopback().into() }
    }

    fn begins(&self) -> Option<(Begin, Begin)> {
        self.begins.clone()
    }

    #[track_caller]
    fn drive(&mut self, done: &mut dyn FnMut() -> bool) {
        let until = Instant::now() + LIMIT;
        // Several reactors turn one after the other, so none may sleep long.
        let longest = Duration::from_millis(if self.reactors.len() == 1 { 5 } else { 1 });
        while !done() {
            assert!(Instant::now() < until, "it did not happen within {LIMIT:?}");
            for reactor in &self.reactors {
                reactor.iterate(longest).expect("the loop turns");
            }
        }
    }

    fn run(&mut self, reactor: &Reactor) -> Result<(), ReactorError> {
        run(reactor)
    }

    fn moment(&self) -> Duration {
        // The kernel delivers to itself within the system call that sends.
        Duration::from_millis(20)
    }

    fn plenty(&self) -> usize {
        // Twice what a socket takes. The buffer of a TCP sender grows to a limit, of 4 MiB by
        // default; that of a UNIX socket stays at 208 KiB. A receiver's does not grow while its
        // program does not read.
        let limits = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_wmem").unwrap_or_default();
        let limit: Option<usize> = limits.split_whitespace().nth(2).and_then(|limit| limit.parse().ok());
        2 * if self.unix { 1_000_000 } else { limit.unwrap_or(4 << 20) }
    }

    fn descriptor(&mut self) -> Option<Box<dyn SetDescriptor>> {
        Some(Box::new(WatchedSocket::new()))
    }

    fn silent(&mut self) -> Option<Address> {
        let unix = self.unix;
        let (_, address) = self.silent.get_or_insert_with(|| {
            if unix {
                return silent_unix();
            }
            let (socket, first, address) = silent();
            (vec![socket, first.into()], address.into())
        });
        Some(address.clone())
    }
}
