//! A stream with layers ([`Layers`]). Written bytes go down through the layers before they are
//! sent; received bytes go up through them.

use super::policed::wire;
use super::{Deadline, Extras, Stream};
use crate::transport::layer::{Layer, Layers, Opened, SEALED_BYTES};
use crate::transport::send_queue::{BufferPool, SendQueue};
use crate::transport::step::Step;

impl Stream {
    /// Queues bytes above the topmost layer. A large write is sealed at once if possible, which
    /// saves a copy.
    pub(super) fn push_above(&mut self, data: &[u8], pool: &BufferPool) {
        let Self { extras, queue, .. } = self;
        let Some(Extras { layers, policy, .. }) = extras.as_deref_mut() else { return queue.push(data, pool) };
        let queue = wire(policy, queue);
        if layers.len() == 0 {
            return queue.push(data, pool);
        }
        let sealed = if data.len() >= DIRECT_SEAL_BYTES { layers.seal_now(data, queue, pool) } else { Ok(0) };
        match sealed {
            Ok(count) => {
                if let Some(queue) = layers.top_queue() {
                    queue.push(&data[count..], pool);
                }
            }
            Err(failure) => self.fail(failure),
        }
    }

    /// Returns the queue that takes writes: above the topmost layer, or before the rate if there is
    /// no layer.
    pub(super) fn top_queue(&mut self) -> &mut SendQueue {
        let Self { extras, queue, .. } = self;
        let Some(Extras { layers, policy, .. }) = extras.as_deref_mut() else { return queue };
        match layers.top_queue() {
            Some(above) => above,
            None => wire(policy, queue),
        }
    }

    /// Puts a layer on top. Bytes that were written before go out below it. Held bytes are input of
    /// the layer.
    pub(crate) fn add_layer(&mut self, layer: Box<dyn Layer>, pool: &BufferPool) -> Opened {
        let Self { extras, queue, .. } = self;
        let Extras { layers, policy, .. } = &mut **extras.get_or_insert_default();
        layers.push(layer);
        // The side that speaks first sends its greeting now.
        layers.open(layers.len() - 1, &[], wire(policy, queue), pool)
    }

    /// Returns the layer that was added last.
    pub(crate) fn top_layer(&self) -> Option<&dyn Layer> {
        self.layers()?.top()
    }

    /// Returns `true` if bytes that have passed `level` layers are the protocol's.
    pub(crate) fn is_top(&self, level: usize) -> bool {
        level >= self.levels()
    }

    /// Returns `true` if there are layers.
    pub(crate) fn is_layered(&self) -> bool {
        self.layers().is_some()
    }

    /// Hands bytes to the layer of their level.
    pub(crate) fn open(&mut self, level: usize, data: &[u8], pool: &BufferPool) -> Opened {
        let Self { extras, queue, .. } = self;
        let Some(Extras { layers, policy, .. }) = extras.as_deref_mut() else { return Opened::default() };
        layers.open(level, data, wire(policy, queue), pool)
    }

    /// Arms the deadline of a handshake that has begun, and disarms that of a handshake that is
    /// done.
    pub(super) fn handshake_step(&mut self) -> Option<Step> {
        let layers = self.layers()?;
        match self.deadline {
            Deadline::None => {
                let after = layers.timeout()?;
                self.deadline = Deadline::Handshake;
                Some(Step::ArmDeadline(after))
            }
            Deadline::Handshake if !layers.is_handshaking() => {
                self.deadline = Deadline::None;
                Some(Step::DisarmDeadline)
            }
            Deadline::Handshake | Deadline::Close | Deadline::Unread => None,
        }
    }

    /// Fast path of [`next_step`](Self::next_step) for a stream with layers: open in both
    /// directions, all handshakes done, and nothing else in its [`Extras`](super::Extras) that asks
    /// for a step. `None`: the stream is not on it.
    #[inline]
    pub(super) fn next_layered_step(&self) -> Option<Step> {
        let extras = self.extras.as_ref().filter(|_| self.states.is_open() && self.deadline == Deadline::None)?;
        let has_notices = extras.production.is_some() || extras.overflow.is_some() || extras.drain_waiter.is_some();
        let has_others = extras.held.is_some() || has_notices || extras.policy.is_some();
        if has_others {
            return None;
        }
        Some(match (self.can_send(), extras.layers.established_can_seal()?) {
            (true, true) if self.can_seal_behind() => Step::Seal,
            (true, _) => Step::Send,
            (false, true) if self.queue.is_empty() => Step::Seal,
            (false, _) => Step::Rest,
        })
    }

    /// Seals the written bytes, and ends the write direction in the layers' way if
    /// [`next_step`](Self::next_step) found that it ends.
    ///
    /// In a stream with a rate, it moves the portion down that was granted, if there is one.
    pub(crate) fn seal(&mut self, pool: &BufferPool) {
        if self.release(pool) {
            return;
        }
        let Self { extras, queue, .. } = self;
        let Some(Extras { layers, policy, .. }) = extras.as_deref_mut() else { return };
        if let Err(failure) = layers.seal(wire(policy, queue), pool) {
            self.fail(failure);
        }
    }

    /// Returns `true` if anything is left that can be sent without waiting for the peer.
    pub(crate) fn has_more_to_send(&self) -> bool {
        !self.queue.is_empty() || (self.extras.is_some() && self.can_seal())
    }

    /// Returns `true` if bytes wait for their rate, with which sealed ones would only pile up.
    fn waits_for_rate(&self) -> bool {
        self.policy().is_some_and(|policy| policy.waiting_bytes() > 0)
    }

    pub(super) fn can_seal(&self) -> bool {
        self.queue.is_empty() && self.layers().is_some_and(Layers::can_seal) && !self.waits_for_rate()
    }

    /// Returns `true` if all bytes above the layers can be sealed behind the bytes that are to be
    /// sent, within the limit.
    pub(super) fn can_seal_behind(&self) -> bool {
        self.layers().is_some_and(|layers| layers.can_seal() && self.queued_bytes() <= SEALED_BYTES && !self.paces())
    }

    /// Returns `true` if the layers have not ended the write direction yet.
    pub(super) fn has_layers_to_end(&self) -> bool {
        self.layers().is_some_and(|layers| !layers.is_ending)
    }

    /// Makes the layers end the write direction with their next seal, which is the returned step.
    pub(super) fn end_layers(&mut self) -> Step {
        if let Some(layers) = self.layers_mut() {
            layers.is_ending = true;
        }
        Step::Seal
    }

    /// Returns `true` if a layer's handshake is under way.
    pub(crate) fn is_handshaking(&self) -> bool {
        self.layers().is_some_and(Layers::is_handshaking)
    }

    pub(super) fn layers(&self) -> Option<&Layers> {
        self.extras.as_ref().map(|extras| &extras.layers).filter(|layers| layers.len() > 0)
    }

    pub(super) fn layers_mut(&mut self) -> Option<&mut Layers> {
        self.extras.as_mut().map(|extras| &mut extras.layers).filter(|layers| layers.len() > 0)
    }

    /// Number of layers that bytes pass before they are the protocol's.
    pub(crate) fn levels(&self) -> usize {
        self.layers().map_or(0, Layers::len)
    }
}

/// A write of at least this many bytes is sealed at once if possible, which saves a copy. 8 KiB:
/// smaller writes fill records better together with the writes that follow.
const DIRECT_SEAL_BYTES: usize = 8 * 1024;
