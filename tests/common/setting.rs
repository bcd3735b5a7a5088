//! The conformance suite's setting over real sockets.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use ropewalk::error::ReactorError;
use ropewalk::testing::conformance::{Begin, Setting};
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
        // More than the buffers of both sockets may grow to.
        24_000_000
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
