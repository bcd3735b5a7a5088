//! The slow path of [`Stream::next_step`]: more to do than send.

use super::{Closing, Deadline, Reading, Receiving, Stream, StreamFlags, Writing};
use crate::transport::step::{CloseMode, Step};

impl Stream {
    pub(super) fn next_step_slow(&mut self) -> Step {
        match self.states.closing {
            Closing::No | Closing::Draining => self.next_living_step(),
            Closing::Broken => self.next_broken_step(),
            Closing::Failing if self.queue.is_empty() && self.has_layers_to_end() => self.end_layers(),
            Closing::Failing if self.can_send() && !self.flags.has(StreamFlags::FLUSHED) => {
                // With layers there is more to come: what is sealed when this has left.
                let is_all = self.layers().is_none_or(|layers| layers.is_ending);
                self.flags.set(StreamFlags::FLUSHED, is_all);
                Step::Send
            }
            // What is given up must not look like the end of it.
            Closing::Failing if self.has_more_to_say() => self.close(CloseMode::Reset),
            Closing::Failing => self.close(self.close_mode()),
            Closing::Dead => self.close(CloseMode::Plain),
            Closing::Aborting => self.close(CloseMode::Reset),
            Closing::Over => Step::Rest,
        }
    }

    fn next_living_step(&mut self) -> Step {
        if self.can_send() {
            // A large piece was sealed when it was written; the rest is sealed now, so that all of it leaves together.
            return if self.can_seal_behind() { Step::Seal } else { Step::Send };
        }
        if self.can_seal() {
            return Step::Seal;
        }
        if let Some(step) = self.handshake_step() {
            return step;
        }
        let (queued, mut waits) = (self.queued_bytes(), false);
        if let Some(step) = self.limit_step(queued) {
            return step;
        }
        if self.states.writing != Writing::Shut
            && let Some(production) = self.production()
        {
            if production.notice(queued).is_some() {
                return Step::TellOfQueue;
            }
            waits = production.holds_close();
        }
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
        let wanted = if self.wants_to_receive() { Receiving::On } else { Receiving::Off };
        if std::mem::replace(&mut self.states.receiving, wanted) != wanted {
            return Step::Receive(wanted == Receiving::On);
        }
        if self.held_is_due() {
            return Step::DeliverHeld;
        }
        Step::Rest
    }

    fn wants_to_receive(&self) -> bool {
        let end_is_held = self.held().is_some_and(|held| held.end.is_some());
        let open = matches!(self.reading(), Reading::Open | Reading::Discarding) && !end_is_held;
        match self.layers() {
            // Behind the peer's end of a layer there is that of the network, which says more.
            Some(layers) => {
                !layers.wire_ended && (open || self.states.reading == Reading::Ended || self.is_handshaking())
            }
            None => open,
        }
    }

    /// Whether anything that was written, or that a producer has still to write, is missing from what was sent.
    fn has_more_to_say(&self) -> bool {
        // What waits for a handshake is part of nothing that the peer knows.
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
