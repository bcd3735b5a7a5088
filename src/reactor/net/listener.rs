//! [`PortCore`]: a listening port in the reactor's table. `port.rs` binds it, stops it and builds
//! its connections.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::time::Duration;

use super::port_extras::PortExtras;
use super::port_role::TakenRole;
use crate::address::Address;
use crate::deferred::Promise;
use crate::failure::Failure;
use crate::protocol::BoxedFactory;
use crate::reactor::backend::PortOptions;
use crate::transport::id::Id;

/// First pause of accepting after an error that does not belong to a connection. It doubles each
/// time, up to [`LONGEST_PAUSE`]. 5 ms and 1 s, as in Go: short enough for a passing shortage, and
/// long enough to cost nothing in a lasting one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Shortest time between two log lines of a port about its problems.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A listening port in the reactor's table.
pub(in crate::reactor) struct PortCore {
    pub(super) factory: BoxedFactory,
    pub(super) options: PortOptions,
    /// The program has handed the socket over, so there is no other to listen on later.
    pub(super) adopted: bool,
    /// The socket has other descriptors, perhaps in other processes.
    pub(super) shared: Cell<bool>,
    /// The requested address; once bound, the bound address.
    pub(super) host: RefCell<Address>,
    pub(super) state: RefCell<ListenerState>,
    /// Number of accepted connections.
    served: Cell<u64>,
    /// The reasons to accept nothing at present: see `hold.rs`.
    pub(super) holds: Cell<u8>,
    /// The part of the port in a group of reactors, its limits, its policies.
    pub(super) extras: Option<Box<PortExtras>>,
    pause: Cell<Duration>,
    problems: RefCell<AcceptProblems>,
}

pub(super) enum ListenerState {
    Listening(Id),
    /// The socket is closed. `do_stop` and these Deferreds are still to come.
    Stopping(Vec<Promise<()>>),
    Stopped,
}

/// The problems since the last log line.
#[derive(Default)]
struct AcceptProblems {
    logged_at: Option<Duration>,
    shed: u64,
    failures: u64,
}

impl PortCore {
    pub(super) fn new(address: Address, options: PortOptions, factory: BoxedFactory) -> Self {
        Self {
            extras: PortExtras::of(&options),
            factory,
            options,
            adopted: false,
            shared: Cell::new(false),
            host: RefCell::new(address),
            state: RefCell::new(ListenerState::Stopped),
            served: Cell::new(0),
            holds: Cell::new(0),
            pause: Cell::new(FIRST_PAUSE),
            problems: RefCell::default(),
        }
    }

    /// Makes the port of a socket that the program has handed over.
    pub(super) fn adopted(host: Address, options: PortOptions, factory: BoxedFactory) -> Self {
        Self { adopted: true, shared: Cell::new(true), ..Self::new(host, options, factory) }
    }

    /// Gives the port its part in a group of reactors.
    pub(super) fn with_role(mut self, role: TakenRole) -> Self {
        let extras = self.extras.get_or_insert_default();
        if let TakenRole::ReusesPort(_, gate) = &role {
            extras.gate.clone_from(gate);
        }
        extras.role = Some(role);
        self
    }

    pub(super) fn role(&self) -> Option<&TakenRole> {
        self.extras.as_ref()?.role.as_ref()
    }

    /// Resets the pause after a successful accept.
    pub(super) fn accepted(&self) {
        self.pause.set(FIRST_PAUSE);
    }

    /// Counts an accepted connection.
    pub(super) fn count_served(&self) {
        self.served.set(self.served.get() + 1);
    }

    /// Returns the number of accepted connections.
    pub(in crate::reactor) fn served(&self) -> u64 {
        self.served.get()
    }

    /// Returns the bound address.
    pub(in crate::reactor) fn address(&self) -> Address {
        self.host.borrow().clone()
    }

    /// Takes the last step of stopping. A factory that fails to stop fails the Deferreds, as in
    /// Twisted.
    pub(super) fn stopped(&self) {
        let stopped = self.factory.try_stop();
        let state = self.state.replace(ListenerState::Stopped);
        if let ListenerState::Stopping(waiting) = state {
            for promise in waiting {
                // It may have been cancelled meanwhile.
                let _ = promise.complete(stopped.clone().map_err(Failure::from));
            }
        }
    }

    /// Counts connections that were closed unserved because descriptors ran out.
    pub(super) fn shed(&self, now: Duration, count: usize) {
        self.problems.borrow_mut().shed += count as u64;
        self.log_problems(now, "descriptors ran out");
    }

    /// Counts a connection that was reset because of the port's limits.
    pub(super) fn over_limit(&self, now: Duration, reason: &'static str) {
        self.problems.borrow_mut().shed += 1;
        self.log_problems(now, reason);
    }

    /// Counts a failed accept. Returns the length of the pause that follows.
    pub(super) fn accept_failed(&self, now: Duration, error: &io::Error) -> Duration {
        self.problems.borrow_mut().failures += 1;
        self.log_problems(now, error);
        self.pause.replace((self.pause.get() * 2).min(LONGEST_PAUSE))
    }

    /// Logs the problems since the last log line, at most once a second.
    fn log_problems(&self, now: Duration, what: impl fmt::Display) {
        let mut problems = self.problems.borrow_mut();
        if problems.logged_at.is_some_and(|logged_at| now < logged_at + LOG_INTERVAL) {
            return;
        }
        let AcceptProblems { shed, failures, .. } = *problems;
        *problems = AcceptProblems { logged_at: Some(now), ..AcceptProblems::default() };
        let port = self.host.borrow().clone();
        tracing::warn!(%port, shed, failures, "cannot accept all connections: {what}");
    }
}
