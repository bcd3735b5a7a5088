//! [`Timeout`]: a limit of time that a protocol sets for itself (Twisted: `TimeoutMixin`).

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::time::{Clock, DelayedCall};
use crate::transport::Transport;

/// A limit of time that a protocol sets, moves and ends (Twisted: `TimeoutMixin`, with
/// `setTimeout`, `resetTimeout` and `timeoutConnection`). Make one a field of your protocol.
///
/// When the time has passed, the connection is closed ([`lose_connection`]), or a function of the
/// protocol's is called. Moving the limit further away costs no call of the timers: the timer looks
/// at the moved deadline when it fires, and is set anew. So [`reset`](Self::reset) can be called
/// for every message. A timeout that is dropped has ended.
///
/// ```
/// use std::time::Duration;
/// use ropewalk::policies::Timeout;
/// use ropewalk::testing::StringTransport;
/// use ropewalk::{Protocol, Result, Transport};
///
/// /// Wants a whole request within ten seconds, however slowly its bytes trickle in.
/// #[derive(Default)]
/// struct Strict { request: Timeout }
///
/// impl Protocol for Strict {
///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
///         self.request.set(transport, Duration::from_secs(10));
///         Ok(())
///     }
///
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         if data.ends_with(b"\n") {
///             transport.write(b"done\n");
///             self.request.set(transport, Duration::from_secs(10));
///         }
///         Ok(())
///     }
/// }
///
/// let connection = StringTransport::new().joined(Strict::default());
/// connection.advance(Duration::from_secs(9));
/// connection.deliver(b"GET /");
/// connection.advance(Duration::from_secs(1));
/// assert!(connection.lost().is_some());
/// ```
///
/// [`lose_connection`]: Transport::lose_connection
#[derive(Default)]
pub struct Timeout(Option<Rc<Pending>>);

struct Pending {
    transport: Transport,
    length: Duration,
    deadline: Cell<Duration>,
    timer: Cell<Option<DelayedCall>>,
    has_passed: Cell<bool>,
    passed: Box<dyn Fn(&Transport)>,
}

impl Timeout {
    /// Creates a timeout that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the limit, in place of an earlier one (Twisted: `setTimeout`). When it passes, the
    /// connection is closed.
    pub fn set(&mut self, transport: &Transport, after: Duration) {
        self.set_with(transport, after, Transport::lose_connection);
    }

    /// Sets the limit as [`set`](Self::set) does, and calls `passed` when it passes (Twisted:
    /// `timeoutConnection`). `passed` runs outside of the protocol's callbacks, and reaches the
    /// protocol by [`Transport::connection`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::Transport;
    /// use ropewalk::policies::Timeout;
    ///
    /// fn cut_off(request: &mut Timeout, transport: &Transport) {
    ///     request.set_with(transport, Duration::from_secs(5), |transport| {
    ///         transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n");
    ///         transport.lose_connection();
    ///     });
    /// }
    /// ```
    pub fn set_with(&mut self, transport: &Transport, after: Duration, passed: impl Fn(&Transport) + 'static) {
        self.clear();
        let pending = Rc::new(Pending {
            transport: transport.clone(),
            length: after,
            deadline: Cell::new(transport.timers().seconds().saturating_add(after)),
            timer: Cell::default(),
            has_passed: Cell::new(false),
            passed: Box::new(passed),
        });
        schedule(&pending, after);
        self.0 = Some(pending);
    }

    /// Lets the time begin anew (Twisted: `resetTimeout`). A limit that is not set, or has passed,
    /// stays so.
    pub fn reset(&self) {
        if let Some(pending) = &self.0 {
            let now = pending.transport.timers().seconds();
            pending.deadline.set(now.saturating_add(pending.length));
        }
    }

    /// Ends the limit (Twisted: `setTimeout(None)`).
    pub fn clear(&mut self) {
        if let Some(pending) = self.0.take()
            && let Some(timer) = pending.timer.take()
        {
            // It may be the timer that runs now.
            let _ = timer.cancel();
        }
    }

    /// Returns the time that is left. `None` if no limit is set, or if it has passed.
    pub fn left(&self) -> Option<Duration> {
        let pending = self.0.as_ref().filter(|pending| !pending.has_passed.get())?;
        Some(pending.deadline.get().saturating_sub(pending.transport.timers().seconds()))
    }
}

/// Sets the timer. It has a weak handle, so that a timeout that is dropped leaves nothing behind.
fn schedule(pending: &Rc<Pending>, after: Duration) {
    let weak = Rc::downgrade(pending);
    let timer = pending.transport.timers().call_later(after, move || {
        if let Some(pending) = weak.upgrade() {
            fired(&pending);
        }
    });
    pending.timer.set(Some(timer));
}

/// Calls the function of the limit, or sets the timer anew if the deadline was moved.
fn fired(pending: &Rc<Pending>) {
    pending.timer.take();
    let (now, deadline) = (pending.transport.timers().seconds(), pending.deadline.get());
    if now < deadline {
        return schedule(pending, deadline - now);
    }
    pending.has_passed.set(true);
    if !pending.transport.is_disconnected() {
        (pending.passed)(&pending.transport);
    }
}

impl Drop for Timeout {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout").field("left", &self.left()).finish()
    }
}
