//! [`Layer`]s between a protocol and the bytes of the network, one above the other (Twisted:
//! `TLSMemoryBIOProtocol`, which takes the transport's place). A layer makes no system call and
//! calls no protocol: bytes go in, and bytes come out.
//!
//! ```text
//!   write ──> queue ──> seal ──> queue ──> seal ──> the stream's queue ──> socket
//!                      layer 1            layer 0
//!   protocol <────────  open  <──────────  open  <──────────────────────── socket
//! ```
//!
//! The level of bytes that arrive is the number of layers that they have passed: those of the
//! network have level 0.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use super::send_queue::{BufferPool, CHUNK, SendQueue};
use crate::failure::{Failure, Result};

/// Number of bytes that are sealed before they are sent. 256 KiB: what a few vectored sends take,
/// so that a long queue is not held twice.
pub(super) const SEALED_BYTES: usize = 4 * CHUNK;

/// One layer of a connection.
pub(crate) trait Layer {
    /// Opens bytes from below. Adds the answer to them, if there is one, to `answer`.
    fn open(&mut self, data: &[u8], answer: &mut Vec<u8>, pool: &BufferPool) -> Opened;

    /// Handles the peer's end of stream below this layer. Returns the failure of a cut, or `None`
    /// if the peer's direction had ended in this layer before.
    fn end(&mut self) -> Option<Failure>;

    /// Returns `true` if bytes can be sealed: the handshake is done.
    fn is_ready(&self) -> bool;

    /// Time limit of the handshake, from the start.
    fn timeout(&self) -> Option<Duration>;

    /// Returns the failure of a handshake that takes longer than `after`.
    fn is_late(&self, after: Duration) -> Failure;

    /// Seals `plain`, and adds the sealed bytes to `sealed`.
    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<()>;

    /// Adds the end of the write direction to `sealed`.
    fn close(&mut self, sealed: &mut Vec<u8>);

    /// Returns the layer for a downcast by code that knows its type.
    fn as_any(&self) -> &dyn Any;
}

/// Result of opening bytes.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// The opened bytes, for the layer or the protocol above.
    pub(crate) plain: Vec<u8>,
    /// The bytes completed the handshake, before `plain`.
    pub(crate) completed: bool,
    /// They completed it without an answer, which would have acknowledged them.
    pub(crate) unanswered: bool,
    /// The peer's direction ended behind `plain`.
    pub(crate) ended: bool,
    /// The bytes were wrong, behind everything else in this result.
    pub(crate) failure: Option<Failure>,
}

/// The layers of a stream, the lowest first.
#[derive(Default)]
pub(crate) struct Layers {
    stack: Vec<LayerPlace>,
    /// The layers end the write direction with their next seal, or have ended it.
    pub(super) is_ending: bool,
    /// The network's bytes have ended. The protocol may not know yet.
    pub(super) wire_ended: bool,
}

struct LayerPlace {
    layer: Box<dyn Layer>,
    /// Bytes that were written above the layer and are not sealed yet.
    queue: SendQueue,
    /// The layer's handshake is done, and stays so. Kept here, so that a look needs no call.
    is_ready: bool,
}

impl Layers {
    pub(super) fn len(&self) -> usize {
        self.stack.len()
    }

    pub(super) fn top(&self) -> Option<&dyn Layer> {
        self.stack.last().map(|place| &*place.layer)
    }

    /// Returns the layer that opens the bytes of a level.
    pub(super) fn at(&mut self, level: usize) -> Option<&mut dyn Layer> {
        match self.stack.get_mut(level) {
            Some(place) => Some(&mut *place.layer),
            None => None,
        }
    }

    /// Puts a layer on top.
    pub(super) fn push(&mut self, layer: Box<dyn Layer>) {
        let is_ready = layer.is_ready();
        self.stack.push(LayerPlace { layer, queue: SendQueue::default(), is_ready });
    }

    /// Returns the queue that takes writes.
    pub(super) fn top_queue(&mut self) -> Option<&mut SendQueue> {
        self.stack.last_mut().map(|place| &mut place.queue)
    }

    /// Number of bytes that wait to be sealed.
    pub(super) fn queued_bytes(&self) -> usize {
        self.stack.iter().map(|place| place.queue.len()).sum()
    }

    /// Returns the lowest layer whose handshake is not done.
    fn handshaking(&self) -> Option<&dyn Layer> {
        self.stack.iter().find(|place| !place.is_ready).map(|place| &*place.layer)
    }

    /// Time limit of its handshake.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.handshaking()?.timeout()
    }

    /// Returns the failure of a handshake that took too long.
    pub(super) fn is_late(&self) -> Option<Failure> {
        let layer = self.handshaking()?;
        Some(layer.is_late(layer.timeout()?))
    }

    /// Returns `true` if a handshake is not done.
    pub(super) fn is_handshaking(&self) -> bool {
        self.stack.iter().any(|place| !place.is_ready)
    }

    /// Returns what [`can_seal`](Self::can_seal) does, if there are layers, all handshakes are
    /// done, and no direction has ended or is to end. `None` otherwise.
    #[inline]
    pub(super) fn established_can_seal(&self) -> Option<bool> {
        if self.stack.is_empty() || self.is_ending || self.wire_ended {
            return None;
        }
        let mut waits = false;
        for place in &self.stack {
            if !place.is_ready {
                return None;
            }
            waits |= !place.queue.is_empty();
        }
        Some(waits)
    }

    /// Returns `true` if any waiting bytes can be sealed.
    pub(super) fn can_seal(&self) -> bool {
        self.stack.iter().any(|place| place.is_ready && !place.queue.is_empty())
    }

    /// Opens bytes of a level in the layer there. Its answer goes down at once, unless the write
    /// direction has ended.
    pub(super) fn open(&mut self, level: usize, data: &[u8], wire: &mut SendQueue, pool: &BufferPool) -> Opened {
        let Some(place) = self.stack.get_mut(level) else { return Opened::default() };
        let mut answer = Vec::new();
        let mut opened = place.layer.open(data, &mut answer, pool);
        place.is_ready = place.is_ready || place.layer.is_ready();
        opened.unanswered = opened.completed && answer.is_empty();
        if !self.is_ending && !answer.is_empty() {
            self.below(level, wire).push(&answer, pool);
        }
        opened
    }

    /// Seals waiting bytes from the top down, up to the number that is sent at once. If the layers
    /// are to end the write direction and no more bytes wait, they end it then.
    pub(super) fn seal(&mut self, wire: &mut SendQueue, pool: &BufferPool) -> Result<()> {
        for level in (0..self.stack.len()).rev() {
            self.seal_one(level, wire, pool)?;
        }
        if self.is_ending && self.queued_bytes() == 0 {
            // A layer above a handshake that is not done has no way to the peer.
            let ways = self.stack.iter().take_while(|place| place.is_ready).count() + 1;
            for level in (0..ways.min(self.stack.len())).rev() {
                self.seal_one(level, wire, pool)?;
                let mut sealed = Vec::new();
                self.stack[level].layer.close(&mut sealed);
                self.below(level, wire).push(&sealed, pool);
            }
        }
        Ok(())
    }

    fn seal_one(&mut self, level: usize, wire: &mut SendQueue, pool: &BufferPool) -> Result<()> {
        let (lower, upper) = self.stack.split_at_mut(level);
        let Some(LayerPlace { layer, queue, is_ready: true }) = upper.first_mut() else { return Ok(()) };
        let below = lower.last_mut().map_or(wire, |place| &mut place.queue);
        let mut sealed = 0;
        while !queue.is_empty() && sealed < SEALED_BYTES {
            let count = queue.front().len().min(SEAL_CALL_BYTES);
            below.append_with(pool, |buffer| layer.seal(&queue.front()[..count], buffer))?;
            queue.advance(count, pool);
            sealed += count;
        }
        Ok(())
    }

    /// Seals bytes of a write without queueing them, if no earlier bytes wait. Returns the number
    /// of bytes that it took.
    pub(super) fn seal_now(&mut self, data: &[u8], wire: &mut SendQueue, pool: &BufferPool) -> Result<usize> {
        let [LayerPlace { layer, queue, is_ready }] = &mut *self.stack else { return Ok(0) };
        if !*is_ready || !queue.is_empty() || self.is_ending {
            return Ok(0);
        }
        let mut sealed = 0;
        for piece in data[..data.len().min(SEALED_BYTES.saturating_sub(wire.len()))].chunks(SEAL_CALL_BYTES) {
            wire.append_with(pool, |buffer| layer.seal(piece, buffer))?;
            sealed += piece.len();
        }
        Ok(sealed)
    }

    /// Returns the queue below a layer: that of the next layer, or that of the socket.
    fn below<'a>(&'a mut self, level: usize, wire: &'a mut SendQueue) -> &'a mut SendQueue {
        match level.checked_sub(1) {
            Some(below) => &mut self.stack[below].queue,
            None => wire,
        }
    }

    /// Drops all waiting bytes.
    pub(super) fn clear(&mut self) {
        for place in &mut self.stack {
            place.queue.clear();
        }
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layers")
            .field("levels", &self.len())
            .field("queued", &self.queued_bytes())
            .finish_non_exhaustive()
    }
}

/// Number of bytes that a layer seals in one call. 48 KiB: three full records, which with their
/// overhead fit into one chunk.
const SEAL_CALL_BYTES: usize = 3 * 16 * 1024;
