//! Settling a stream: carrying out its [`Step`]s, for a reactor and for the test kit alike. Calls
//! no protocol.

use std::time::Duration;

use super::Transport;
use super::step::{CloseMode, EndNotice, Step};
use super::stream::Stream;

/// Carries out steps at one end of a connection.
pub(crate) trait Settler {
    /// Sends from the queue, and records the result. Returns `true` if more is to be sent, in
    /// another turn.
    fn send(&mut self, stream: &mut Stream) -> bool;
    fn shut_down_writing(&mut self);
    fn receive(&mut self, on: bool);
    fn receive_rest(&mut self);
    fn arm_deadline(&mut self, after: Duration);
    fn disarm_deadline(&mut self);
    /// Records work for a later phase.
    fn leave(&mut self, later: Later);
}

/// Work that a settling leaves for a later phase, because it calls the protocol or its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Later {
    /// Delivers held bytes, in the next turn.
    DeliverHeld,
    /// Calls the protocol about a connection that was handed over, the limit of its queue, or the
    /// producer.
    TellOfQueue,
    /// Tells the protocol that the write direction was shut.
    TellOfShut,
    /// Closes, and tells the protocol that the connection is over.
    Close(CloseMode),
}

/// Carries out the steps of a stream until it rests or waits for a later phase. Returns `false` if
/// there was nothing to do.
pub(crate) fn settle(transport: &Transport, stream: &mut Stream, settler: &mut impl Settler) -> bool {
    let mut moved = false;
    loop {
        match stream.next_step() {
            Step::Rest => return moved,
            Step::Seal => stream.seal(transport.pool()),
            Step::Send => {
                if settler.send(stream) {
                    return true;
                }
            }
            Step::ShutDownWriting => {
                settler.shut_down_writing();
                if stream.shut() == EndNotice::Tell {
                    settler.leave(Later::TellOfShut);
                    // The remaining steps wait for the protocol's callback, which may fail.
                    transport.mark_stream_dirty(stream);
                    return true;
                }
            }
            Step::Receive(on) => settler.receive(on),
            Step::ReceiveRest => settler.receive_rest(),
            Step::ArmDeadline(after) => settler.arm_deadline(after),
            Step::DisarmDeadline => settler.disarm_deadline(),
            Step::TellOfQueue => {
                settler.leave(Later::TellOfQueue);
                return true;
            }
            Step::DeliverHeld => {
                settler.leave(Later::DeliverHeld);
                return true;
            }
            Step::Close(mode) => {
                settler.leave(Later::Close(mode));
                return true;
            }
        }
        moved = true;
    }
}
