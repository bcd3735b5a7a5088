//! [`Dial`]: a request for a connection, with its attempts. `connect.rs` makes the attempts.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::options::ConnectOptions;
use crate::address::Address;
use crate::deferred::Promise;
use crate::error::{ConnectError, FailedAttempt};
use crate::protocol::{AnyConnection, BoxedFactory};
use crate::time::DelayedCall;
use crate::transport::id::Id;

/// The destination of a connection.
#[derive(Debug)]
pub(crate) enum Destination {
    /// One address.
    Address(Address),
    /// Any of the addresses of a name. They are tried in this order. Each attempt begins `delay`
    /// after the previous one, or as soon as one has failed. The first address that answers gets
    /// the connection.
    Name { host: String, addresses: Vec<Address>, delay: Duration },
}

/// A request for a connection. It may make several attempts, but builds at most one protocol: the
/// factory is asked for the first attempt that is answered, after the sockets of the others were
/// closed.
pub(super) struct Dial {
    pub(super) to: Destination,
    pub(super) options: ConnectOptions,
    pub(super) factory: BoxedFactory,
    pub(super) promise: Promise<AnyConnection>,
    pub(super) stage: Cell<DialStage>,
    /// Number of addresses that were tried or are being tried.
    pub(super) begun: Cell<usize>,
    pub(super) under_way: RefCell<Vec<Id>>,
    /// The failed attempts, with their numbers.
    pub(super) failed: RefCell<Vec<(usize, FailedAttempt)>>,
    /// The timer of the next attempt, which begins earlier if an attempt fails.
    pub(super) next: RefCell<Option<DelayedCall>>,
}

#[derive(Clone, Copy)]
pub(super) enum DialStage {
    Trying,
    /// There is a connection. Its `connection_made` is running, or has run.
    Made(Id),
    Over,
}

/// One socket of a [`Dial`]. The reactor's table keeps it, and it keeps the dial.
pub(in crate::reactor) struct DialAttempt {
    pub(super) dial: Rc<Dial>,
    pub(super) number: usize,
    pub(super) to: Address,
    pub(super) timer: RefCell<Option<DelayedCall>>,
    pub(super) self_connects: Cell<u32>,
}

impl Destination {
    pub(super) fn addresses(&self) -> &[Address] {
        match self {
            Self::Address(address) => std::slice::from_ref(address),
            Self::Name { addresses, .. } => addresses,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, .. } => f.write_str(host),
        }
    }
}

impl Dial {
    /// Returns the error of a dial whose attempts have all failed. For a single address it is the
    /// error of its attempt. For a name it has the errors of all attempts, in the order in which
    /// they began.
    pub(super) fn failure(&self) -> ConnectError {
        let mut failed = self.failed.take();
        failed.sort_unstable_by_key(|(number, _)| *number);
        let mut attempts: Vec<FailedAttempt> = failed.into_iter().map(|(_, attempt)| attempt).collect();
        match (&self.to, attempts.pop()) {
            (Destination::Address(_), Some(only)) => only.error,
            (to, last) => {
                attempts.extend(last);
                ConnectError::AllFailed { to: to.to_string(), attempts }
            }
        }
    }

    pub(super) fn cancel_next(&self) {
        if let Some(timer) = self.next.take() {
            // This timer may be the one that runs now.
            let _ = timer.cancel();
        }
    }
}

impl DialAttempt {
    pub(super) fn cancel_timer(&self) {
        if let Some(timer) = self.timer.take() {
            // This timer may be the one that runs now.
            let _ = timer.cancel();
        }
    }
}

impl fmt::Debug for DialAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialAttempt").field("to", &self.to).finish_non_exhaustive()
    }
}
