//! Ends and resets of a stream, and the answers of its system:
//!
//! | event | a send fails with | a receive, behind all bytes, brings |
//! |---|---|---|
//! | a reset | `ConnectionReset` | `ConnectionReset` |
//! | a reset behind the peer's end, ours still open | `BrokenPipe` | the end |
//! | a UNIX peer closes with unread bytes | `BrokenPipe`, and the error stays | `ConnectionReset`, even before an end |
//!
//! The first call that meets an error takes it. Later sends fail with `BrokenPipe`, and later
//! receives bring an end that looks clean. Bytes that had arrived stay, and are read first.

use std::io;

use super::News;
use super::streams::SimulatedStream;

impl SimulatedStream {
    /// Handles the arrival of a reset.
    pub(super) fn was_reset(&mut self) {
        self.reset = true;
        let is_half_closed = self.end_arrived && !self.shut && !self.is_unix();
        let kind = if is_half_closed { io::ErrorKind::BrokenPipe } else { io::ErrorKind::ConnectionReset };
        self.error = Some(kind);
        self.wire.clear();
        self.under_way = 0;
        self.nagle.clear();
    }

    /// Returns the error of a send, if nothing can be sent.
    pub(super) fn send_error(&mut self) -> Option<io::ErrorKind> {
        let told = if self.is_unix() { None } else { self.error.take() };
        let is_over = self.reset || self.shut || self.closed || self.gone;
        told.or(is_over.then_some(io::ErrorKind::BrokenPipe))
    }

    /// Returns the next event behind the bytes. While the owner receives nothing, an error does not
    /// wait for them.
    pub(super) fn end_news(&mut self) -> Option<News> {
        let ends = self.receiving && !self.end_told;
        if ends && self.end_arrived && (self.error.is_none() || !self.is_unix()) {
            self.end_told = true;
            return Some(News::EndOfStream);
        }
        if let Some(kind) = self.error.take() {
            // A failed receive is the last one.
            self.end_told |= ends;
            return self.break_news(kind);
        }
        if ends && self.reset {
            self.end_told = true;
            return Some(News::EndOfStream);
        }
        if self.gone && self.end_told { self.break_news(io::ErrorKind::BrokenPipe) } else { None }
    }

    fn break_news(&mut self, kind: io::ErrorKind) -> Option<News> {
        let rest = !self.end_told && !self.incoming.is_empty();
        (!std::mem::replace(&mut self.broken_told, true)).then_some(News::Broken { kind, rest })
    }

    pub(super) fn is_unix(&self) -> bool {
        self.local.unix().is_some()
    }
}
