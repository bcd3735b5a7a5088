//! What may stand between a protocol and the bytes of the network: [`Layer`]s, one above the other (Twisted: `TLSMemoryBIOProtocol`,
//! which stands in the transport's place). A layer makes no system call and calls no protocol: it is given bytes, and gives bytes.
//!
//! ```text
//!   write ──> queue ──> seal ──> queue ──> seal ──> the stream's queue ──> socket
//!                      layer 1            layer 0
//!   protocol <────────  open  <──────────  open  <──────────────────────── socket
//! ```
//!
//! The level of bytes that arrive is the number of layers that they have passed: those of the network have level 0.

use std::any::Any;
use std::fmt;
use std::time::Duration;

use super::send_queue::{BufferPool, CHUNK, SendQueue};
use crate::failure::{Failure, Result};

/// How many bytes are sealed before they are sent: what a few vectored sends take, so that a long queue is not held twice.
pub(super) const SEALED_BYTES: usize = 4 * CHUNK;

/// One layer of a connection.
pub(crate) trait Layer {
    /// Bytes came from below. What is to be answered is added to `answer`.
    fn open(&mut self, data: &[u8], answer: &mut Vec<u8>, pool: &BufferPool) -> Opened;

    /// The peer's direction has ended below. `None`: it had ended here before.
    fn end(&mut self) -> Option<Failure>;

    /// Whether bytes can be sealed: the handshake is done.
    fn is_ready(&self) -> bool;

    /// How long that may take from the start.
    fn timeout(&self) -> Option<Duration>;

    /// What it is if it takes longer.
    fn is_late(&self, after: Duration) -> Failure;

    /// Adds to `sealed` what is to be sent for `plain`.
    fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<()>;

    /// Adds to `sealed` what tells the peer that our direction ends.
    fn close(&mut self, sealed: &mut Vec<u8>);

    /// For whoever knows what it is.
    fn as_any(&self) -> &dyn Any;
}

/// What came of bytes.
#[derive(Debug, Default)]
pub(crate) struct Opened {
    /// What they held for whoever is above.
    pub(crate) plain: Vec<u8>,
    /// They ended the handshake, before `plain`.
    pub(crate) completed: bool,
    /// They ended it without an answer, which would have acknowledged them.
    pub(crate) unanswered: bool,
    /// The peer's direction ended behind `plain`.
    pub(crate) ended: bool,
    /// They were wrong, behind all else.
    pub(crate) failure: Option<Failure>,
}

/// The layers of a stream, the lowest first.
#[derive(Default)]
pub(crate) struct Layers {
    stack: Vec<LayerPlace>,
    /// The layers are to end our direction with what is sealed next, or have done so.
    pub(super) is_ending: bool,
    /// The network's bytes have ended, which the protocol may not know yet.
    pub(super) wire_ended: bool,
}

struct LayerPlace {
    layer: Box<dyn Layer>,
    /// What was written above it and is not sealed.
    queue: SendQueue,
}

impl Layers {
    pub(super) fn len(&self) -> usize {
        self.stack.len()
    }

    pub(super) fn top(&self) -> Option<&dyn Layer> {
        self.stack.last().map(|place| &*place.layer)
    }

    /// The layer that the bytes of a level are for.
    pub(super) fn at(&mut self, level: usize) -> Option<&mut dyn Layer> {
        match self.stack.get_mut(level) {
            Some(place) => Some(&mut *place.layer),
            None => None,
        }
    }

    /// Puts a layer on top.
    pub(super) fn push(&mut self, layer: Box<dyn Layer>) {
        self.stack.push(LayerPlace { layer, queue: SendQueue::default() });
    }

    /// The queue that is written to.
    pub(super) fn top_queue(&mut self) -> Option<&mut SendQueue> {
        self.stack.last_mut().map(|place| &mut place.queue)
    }

    /// Bytes that wait to be sealed.
    pub(super) fn queued_bytes(&self) -> usize {
        self.stack.iter().map(|place| place.queue.len()).sum()
    }

    /// The lowest layer whose handshake is not done.
    fn handshaking(&self) -> Option<&dyn Layer> {
        self.stack.iter().map(|place| &*place.layer).find(|layer| !layer.is_ready())
    }

    /// How long its handshake may take.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.handshaking()?.timeout()
    }

    /// What it is that this took too long.
    pub(super) fn is_late(&self) -> Option<Failure> {
        let layer = self.handshaking()?;
        Some(layer.is_late(layer.timeout()?))
    }

    /// Whether a handshake is not done.
    pub(super) fn is_handshaking(&self) -> bool {
        self.handshaking().is_some()
    }

    /// Whether anything that waits can be sealed.
    pub(super) fn can_seal(&self) -> bool {
        self.stack.iter().any(|place| place.layer.is_ready() && !place.queue.is_empty())
    }

    /// Bytes of a level, for the layer there; what it answers goes down at once, unless our direction has ended.
    pub(super) fn open(&mut self, level: usize, data: &[u8], wire: &mut SendQueue, pool: &BufferPool) -> Opened {
        let Some(place) = self.stack.get_mut(level) else { return Opened::default() };
        let mut answer = Vec::new();
        let mut opened = place.layer.open(data, &mut answer, pool);
        opened.unanswered = opened.completed && answer.is_empty();
        if !self.is_ending {
            self.below(level, wire).push(&answer, pool);
        }
        opened
    }

    /// Seals what waits, from the top down, as much as is sent at once; then, if the layers are to part and nothing waits any
    /// more, has them end our direction.
    pub(super) fn seal(&mut self, wire: &mut SendQueue, pool: &BufferPool) -> Result<()> {
        for level in (0..self.stack.len()).rev() {
            self.seal_one(level, wire, pool)?;
        }
        if self.is_ending && self.queued_bytes() == 0 {
            // Who is above a handshake that is not done has no way to the peer.
            let ways = self.stack.iter().take_while(|place| place.layer.is_ready()).count() + 1;
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
        let mut sealed = 0;
        while let Some(LayerPlace { layer, queue }) = self.stack.get_mut(level)
            && layer.is_ready()
            && !queue.is_empty()
            && sealed < SEALED_BYTES
        {
            let mut buffer = pool.take();
            let count = queue.front().len().min(AT_ONCE);
            layer.seal(&queue.front()[..count], &mut buffer)?;
            queue.advance(count, pool);
            sealed += count;
            self.below(level, wire).append(buffer, pool);
        }
        Ok(())
    }

    /// Seals bytes that are written now, without keeping them, if nothing that was written waits before them. Says how many it took.
    pub(super) fn seal_now(&mut self, data: &[u8], wire: &mut SendQueue, pool: &BufferPool) -> Result<usize> {
        let [LayerPlace { layer, queue }] = &mut *self.stack else { return Ok(0) };
        if !layer.is_ready() || !queue.is_empty() || self.is_ending {
            return Ok(0);
        }
        let mut sealed = 0;
        for piece in data[..data.len().min(SEALED_BYTES.saturating_sub(wire.len()))].chunks(AT_ONCE) {
            let mut buffer = pool.take();
            layer.seal(piece, &mut buffer)?;
            sealed += piece.len();
            wire.append(buffer, pool);
        }
        Ok(sealed)
    }

    /// Where a layer's bytes go.
    fn below<'a>(&'a mut self, level: usize, wire: &'a mut SendQueue) -> &'a mut SendQueue {
        match level.checked_sub(1) {
            Some(below) => &mut self.stack[below].queue,
            None => wire,
        }
    }

    /// Drops what waits.
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

/// How many bytes a layer is given to seal: three full records, which with what is added to them fit into one chunk.
const AT_ONCE: usize = 3 * 16 * 1024;
