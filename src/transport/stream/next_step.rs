//! The slow path of [`Stream::next_step`]: more to do than send.

use super::{Closing, Deadline, Reading, Receiving, Stream, StreamFlags, Writing};
use crate::transport::step::{CloseMode, Step};

impl Stream {
    /// Returns the next step of a stream that is not on a fast path.
    pub(super) fn next_step_slow(&mut self) -> Step {
        if self.states.receiving == Receiving::Unmade && !self.is_over() {
            return Step::TellOfQueue;
        }
        match self.states.closing {
            Closing::No | Closing::Draining => self.next_living_step(),
            Closing::Broken => self.next_broken_step(),
            Closing::Failing => self.next_failing_step(),
            Closing::Dead => self.close(CloseMode::Plain),
            Closing::Aborting => self.close(CloseMode::Reset),
            Closing::Over => Step::Rest,
        }
    }

    /// Returns the next step of a stream that sends what the socket takes at once, and closes.
    fn next_failing_step(&mut self) -> Step {
        if self.releases_all() {
            return Step::Seal;
        }
        if self.queue.is_empty() && self.has_layers_to_end() {
            return self.end_layers();
        }
        if self.can_send() && !self.flags.has(StreamFlags::FLUSHED) {
            // With layers, a flush takes several sends: more bytes are sealed when these have left.
            let is_all = self.layers().is_none_or(|layers| layers.is_ending);
            self.flags.set(StreamFlags::FLUSHED, is_all);
            return Step::Send;
        }
        // Bytes that are given up: the close must not look like a regular end.
        let mode = if self.has_more_to_say() { CloseMode::Reset } else { self.close_mode() };
        self.close(mode)
    }

    /// Returns the next step of a stream that is open or drains: bytes first, then notices, then
    /// the end of a direction or a close, and receiving last.
    fn next_living_step(&mut self) -> Step {
        if self.can_send() {
            // A large piece was sealed when it was written. The rest is sealed now, so that all of
            // it leaves together.
            return if self.can_seal_behind() { Step::Seal } else { Step::Send };
        }
        if self.extras.is_some()
            && let Some(step) = self.next_upper_step()
        {
            return step;
        }
        // The socket has taken all that it can. The rest of the queue may be over the limit.
        let (queued, mut waits) = (self.queued_bytes(), false);
        if let Some(step) = self.limit_step(queued) {
            return step;
        }
        if self.drain_step() {
            return Step::TellOfQueue;
        }
        if self.states.writing != Writing::Shut
            && let Some(production) = self.production()
        {
            if production.notice(queued).is_some() {
                return Step::TellOfQueue;
            }
            waits = production.holds_close();
        }
        // Everything has left, so a direction or the connection may end. Otherwise a draining
        // stream waits for its peer or a producer, and that wait has a limit.
        if queued == 0 && !waits {
            let over = self.states.closing == Closing::Draining || self.both_ended();
            let shuts = self.states.writing == Writing::Shutting && !self.is_handshaking();
            if (over || shuts) && self.has_layers_to_end() {
                return self.end_layers();
            }
            if over {
                return self.close(self.close_mode());
            }
            if shuts {
                self.states.writing = Writing::Shut;
                return Step::ShutDownWriting;
            }
        } else if let (Closing::Draining, Deadline::None, Some(after)) =
            (self.states.closing, self.deadline, self.close_timeout.into())
        {
            self.deadline = Deadline::Close;
            self.flags.set(StreamFlags::PROGRESSED, false);
            return Step::ArmDeadline(after);
        }
        // The backend gets a request only if it differs from the last one.
        let wanted = if self.wants_to_receive() { Receiving::On } else { Receiving::Off };
        if std::mem::replace(&mut self.states.receiving, wanted) != wanted {
            return Step::Receive(wanted == Receiving::On);
        }
        if self.held_is_due() {
            return Step::DeliverHeld;
        }
        Step::Rest
    }

    /// Returns the next step above the queue: of a rate, a seal, or a handshake.
    fn next_upper_step(&mut self) -> Option<Step> {
        if self.grants_portion() || self.can_seal() {
            return Some(Step::Seal);
        }
        self.handshake_step()
    }

    fn wants_to_receive(&self) -> bool {
        let is_stopped = self.extras.as_ref().is_some_and(|extras| extras.stops_receiving(self.delivers()));
        let open = matches!(self.reading(), Reading::Open | Reading::Discarding) && !is_stopped;
        match self.layers() {
            // Behind the peer's end of a layer comes the end of the network, which says more.
            Some(layers) => {
                !layers.wire_ended && (open || self.states.reading == Reading::Ended || self.is_handshaking())
            }
            None => open,
        }
    }

    /// Returns `true` if bytes are missing from the sent stream: written bytes, or bytes that a
    /// producer has still to write.
    fn has_more_to_say(&self) -> bool {
        // Bytes that wait for a handshake don't count: the peer has seen no part of them.
        let unsent = if self.is_handshaking() { self.queue.len() } else { self.queued_bytes() };
        unsent > 0 || self.holds_close()
    }

    fn close_mode(&self) -> CloseMode {
        let ended = self.layers().map_or(self.states.reading == Reading::Ended, |layers| layers.wire_ended);
        if ended { CloseMode::Plain } else { CloseMode::Linger }
    }

    fn close(&mut self, mode: CloseMode) -> Step {
        self.states.closing = Closing::Over;
        self.drop_queue();
        Step::Close(mode)
    }
}
