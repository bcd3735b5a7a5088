//! Ending a connection at once: [`Transport::discard`] (Twisted: a direct call of a transport's
//! `connectionLost`, as reactors make it in `disconnectAll` and for a failing callback).

use super::Transport;

/// The end that the peer of a [discarded](Transport::discard) connection sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscardMode {
    /// An end of stream, as after a regular close. It comes even if queued bytes were dropped, so
    /// the peer can't tell that they are missing. Over TLS it can: there is no `close_notify`.
    End,
    /// A reset. UNIX sockets have none: there it is an end of stream.
    Reset,
}

impl Transport {
    /// Closes the connection at once, and tells its protocol nothing (Twisted: the transport's own
    /// `connectionLost`, called directly). For code that has told its protocol already, or has none
    /// to tell: a binding to another language, a protocol that hands its work over.
    ///
    /// When this returns, the descriptor is closed and the queue is dropped. No callback is called
    /// any more, not even `connection_lost`. The protocol is dropped: now, or after the call of it
    /// that is under way. A producer is dropped without `stop_producing`, and a task in
    /// [`poll_drained`](Self::poll_drained) is woken. The factory of a client gets its `do_stop` at
    /// the end of the turn. The connection's handles return
    /// [`Unavailable::Gone`](crate::error::Unavailable::Gone).
    ///
    /// It works in every callback, also of this very protocol, and outside of a turn. A connection
    /// whose end is decided, and whose `connection_lost` is yet to come, gets none. A socket that
    /// is read on after `connection_lost` is closed as well. Otherwise this does nothing once the
    /// connection is over, and nothing in a forked child.
    ///
    /// Use [`abort_connection`](Self::abort_connection) for an end that the protocol is told of.
    ///
    /// ```
    /// use ropewalk::testing::StringTransport;
    /// use ropewalk::transport::DiscardMode;
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// /// Wants no last call.
    /// struct Abrupt;
    ///
    /// impl Protocol for Abrupt {
    ///     fn data_received(&mut self, transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         transport.write(b"never sent");
    ///         transport.discard(DiscardMode::Reset);
    ///         assert!(transport.is_disconnected());
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let connection = StringTransport::new().joined(Abrupt);
    /// connection.deliver(b"?");
    /// assert!(connection.lost().is_none() && connection.string().value().is_empty());
    /// assert!(connection.string().is_aborted());
    /// ```
    pub fn discard(&self, mode: DiscardMode) {
        // Not `driver`, which leaves connections out that are over, but not yet closed.
        if let Some(driver) = self.0.context.driver.upgrade() {
            driver.discard(self.0.id, mode);
        }
    }

    /// Reports to the observer that the connection is discarded.
    pub(crate) fn observe_discard(&self) {
        if let Some(observer) = self.0.context.observer() {
            observer.discarded(self.0.id);
        }
    }
}
