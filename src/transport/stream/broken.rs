//! A stream whose network connection is over. The write direction has ended. Bytes that arrived
//! before are still delivered if the protocol reads.

use std::io;
use std::time::Duration;

use super::{Closing, Deadline, Held, Reading, Receiving, Stream};
use crate::error::ConnectionClosed;
use crate::failure::Failure;
use crate::transport::step::{Ending, Step};

/// Time that a paused protocol has to read the bytes of a connection that is over. 1 s: a peer that
/// resets must not hold a descriptor for as long as the program does not look, and a program that
/// is about to resume does so sooner.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(1);

impl Stream {
    /// Handles a fatal error of the network, from a send or from the backend. With `rest`, the
    /// backend may have received bytes that it has not delivered yet.
    pub(crate) fn broken(&mut self, error: io::Error, rest: bool) {
        let delivers = match self.states.closing {
            Closing::No => matches!(self.states.reading, Reading::Open | Reading::Paused),
            Closing::Broken => true,
            Closing::Draining | Closing::Failing => false,
            Closing::Dead | Closing::Aborting | Closing::Over => return,
        };
        if self.states.closing != Closing::Broken {
            self.note_break(error);
        }
        match delivers {
            true if rest => {}
            true => self.rest_ended(),
            false => self.end_broken(),
        }
    }

    /// Records that no more bytes arrived before the network was over. Held bytes are still
    /// delivered.
    pub(super) fn rest_ended(&mut self) {
        match self.extras.as_mut().and_then(|extras| extras.held.as_mut()) {
            Some(held) if !held.is_empty() => held.end = Some(Ending::Clean),
            _ => self.end_broken(),
        }
    }

    /// Records the reason of a break, and ends the write direction. A connection that was to end
    /// anyway keeps its own reason if all written bytes have left.
    fn note_break(&mut self, error: io::Error) {
        let peer_is_gone = error.kind() == io::ErrorKind::BrokenPipe;
        let ends_anyway = self.states.closing == Closing::Draining || self.both_ended();
        if !(ends_anyway && self.has_sent_everything(peer_is_gone)) {
            self.set_reason(Failure::untraced(ConnectionClosed::from_io(error, self.queued_bytes())));
        }
        self.states.closing = Closing::Broken;
        self.drop_queue();
    }

    /// Ends a stream whose network is over, with nothing more to deliver. The first reason stays.
    pub(super) fn end_broken(&mut self) {
        if self.states.closing == Closing::Broken {
            self.states.closing = Closing::Dead;
            self.stop_delivering();
        }
    }

    /// Delivers the bytes that arrived before the network was over, while the protocol reads.
    pub(super) fn next_broken_step(&mut self) -> Step {
        if self.drain_step() {
            return Step::TellOfQueue;
        }
        let reads = self.reading() == Reading::Open || self.is_handshaking();
        let deadline = if reads { Deadline::None } else { Deadline::Unread };
        if std::mem::replace(&mut self.deadline, deadline) != deadline {
            return if reads { Step::DisarmDeadline } else { Step::ArmDeadline(UNREAD_TIMEOUT) };
        }
        if self.held_is_due() {
            return Step::DeliverHeld;
        }
        let is_stopped = self.held().is_some_and(Held::stops_receiving);
        let wanted = if reads && !is_stopped { Receiving::Rest } else { Receiving::Off };
        match std::mem::replace(&mut self.states.receiving, wanted) {
            told if told == wanted => Step::Rest,
            _ if wanted == Receiving::Rest => Step::ReceiveRest,
            _ => Step::Receive(false),
        }
    }

    /// Returns `true` if all written bytes have left, so that only the layers' own end may be
    /// missing. Also returns `true` if the peer has gone and there was nothing to send.
    fn has_sent_everything(&self, peer_is_gone: bool) -> bool {
        let is_ending = self.layers().is_some_and(|layers| layers.is_ending);
        is_ending || (peer_is_gone && !self.holds_close() && self.queued_bytes() == 0)
    }
}
