//! [`PortCore`]: a listening port in the reactor's table. `port.rs` binds it, stops it and builds its connections.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::time::Duration;

use crate::address::Address;
use crate::deferred::Promise;
use crate::failure::Failure;
use crate::protocol::BoxedFactory;
use crate::reactor::backend::PortOptions;
use crate::transport::id::Id;

/// How long accepting pauses after an error that is not a connection's: doubled each time up to [`LONGEST_PAUSE`]. 5 ms and
/// 1 s, as Go does: soon enough for a passing shortage, seldom enough to cost nothing in a lasting one.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often a port may complain of one kind of trouble.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A listening port in the reactor's table.
pub(in crate::reactor) struct PortCore {
    pub(super) factory: BoxedFactory,
    pub(super) options: PortOptions,
    /// Where it listens: as asked for, and once bound, as bound.
    pub(super) host: RefCell<Address>,
    pub(super) state: RefCell<ListenerState>,
    pause: Cell<Duration>,
    trouble: RefCell<Trouble>,
}

pub(super) enum ListenerState {
    Listening(Id),
    /// The socket is closed; `do_stop` and these Deferreds are still to come.
    Stopping(Vec<Promise<()>>),
    Stopped,
}

/// What went wrong since the log was told last.
#[derive(Default)]
struct Trouble {
    told: Option<Duration>,
    shed: u64,
    failures: u64,
}

impl PortCore {
    pub(super) fn new(address: Address, options: PortOptions, factory: BoxedFactory) -> Self {
        Self {
            factory,
            options,
            host: RefCell::new(address),
            state: RefCell::new(ListenerState::Stopped),
            pause: Cell::new(FIRST_PAUSE),
            trouble: RefCell::default(),
        }
    }

    /// Accepting works again.
    pub(super) fn accepted(&self) {
        self.pause.set(FIRST_PAUSE);
    }

    /// The last step of stopping. A factory that failed to stop fails the Deferreds, as in Twisted.
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

    /// Connections were closed unserved, for descriptors ran out.
    pub(super) fn shed(&self, now: Duration, count: usize) {
        self.trouble.borrow_mut().shed += count as u64;
        self.complain(now, "descriptors ran out");
    }

    /// Counts a failed accept. Returns the length of the pause that follows.
    pub(super) fn accept_failed(&self, now: Duration, error: &io::Error) -> Duration {
        self.trouble.borrow_mut().failures += 1;
        self.complain(now, error);
        self.pause.replace((self.pause.get() * 2).min(LONGEST_PAUSE))
    }

    /// Tells the log, at most once a second, what happened since.
    fn complain(&self, now: Duration, what: impl fmt::Display) {
        let mut trouble = self.trouble.borrow_mut();
        if trouble.told.is_some_and(|told| now < told + LOG_INTERVAL) {
            return;
        }
        let Trouble { shed, failures, .. } = *trouble;
        *trouble = Trouble { told: Some(now), ..Trouble::default() };
        let port = self.host.borrow().clone();
        tracing::warn!(%port, shed, failures, "cannot accept all connections: {what}");
    }
}
