//! [`Held`]: the bytes that a stream cannot deliver yet, and an end of stream behind them.
//!
//! A protocol that stops in the middle of a chunk returns the rest ([`Stream::keep_rest`]). The
//! rest is held like bytes that arrived during a pause, and is delivered before any others.
//! Returned bytes of a chunk that was held already stay where they are, so that a protocol that
//! pauses after each of many short messages moves no byte twice. Nothing is received while a rest
//! is held.

use super::{Reading, Stream, StreamFlags};
use crate::transport::step::Ending;

/// Bytes that wait to be delivered, and the peer's end behind them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Number of layers that the bytes have passed.
    pub(crate) level: usize,
    data: Vec<u8>,
    /// Number of bytes at the front that the protocol has taken already.
    taken: usize,
    /// Number of bytes that the protocol has returned of those that are lent to it.
    returned: usize,
    /// The bytes are the rest of a chunk that the protocol has begun.
    is_rest: bool,
    pub(crate) end: Option<Ending>,
}

impl Held {
    /// Returns the bytes to deliver.
    pub(crate) fn data(&self) -> &[u8] {
        &self.data[self.taken..]
    }

    /// Adds bytes at the end.
    pub(super) fn push(&mut self, data: &[u8]) {
        if self.taken > self.data.len() - self.taken {
            self.data.drain(..self.taken);
            self.taken = 0;
        }
        self.data.extend_from_slice(data);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data().is_empty() && self.returned == 0
    }

    /// Returns `true` if nothing may be received before these bytes are delivered.
    pub(super) fn stops_receiving(&self) -> bool {
        self.end.is_some() || self.is_rest
    }
}

impl Stream {
    /// Takes the held bytes, and the peer's end if it is behind them: deliver the bytes first, and
    /// then call [`settle_lent`](Self::settle_lent). `None` if reading was paused or lost again
    /// meanwhile.
    pub(crate) fn take_held(&mut self) -> Option<Held> {
        if !self.held_is_due() {
            return None;
        }
        let held = self.take_all_held()?;
        self.flags.set(StreamFlags::LENT, held.level == self.levels());
        Some(held)
    }

    /// Keeps what the protocol has returned of bytes that were lent to it. Returns the peer's end
    /// behind them.
    pub(crate) fn settle_lent(&mut self, lent: Held) -> Option<Ending> {
        self.flags.set(StreamFlags::LENT, false);
        if let Some(held) = self.held_at(lent.level).filter(|held| held.returned > 0) {
            let behind = std::mem::replace(&mut held.data, lent.data);
            held.taken = held.data.len().saturating_sub(held.returned);
            held.returned = 0;
            if !behind.is_empty() {
                held.push(&behind);
            }
        }
        lent.end
    }

    /// Returns `true` if a protocol that is in the middle of a chunk of this level may take more of
    /// it: it has neither paused nor closed, and put no layer in between.
    #[inline]
    pub(crate) fn takes_more(&self, level: usize) -> bool {
        let is_fast_path = self.extras.is_none() && self.states.reading == Reading::Open;
        is_fast_path || (level == self.levels() && self.reading() == Reading::Open)
    }

    /// Keeps the rest of a chunk that the protocol has begun and can't take more of. It is
    /// delivered when reading is resumed, and a layer that was added meanwhile gets it at once. A
    /// closing stream drops it. Returns `true` if the protocol will be given these bytes again.
    pub(crate) fn keep_rest(&mut self, level: usize, rest: &[u8]) -> bool {
        let is_for_layer = level < self.levels() && self.delivers();
        if rest.is_empty() || !(is_for_layer || self.reading() == Reading::Paused) {
            return false;
        }
        let is_lent = self.flags.has(StreamFlags::LENT);
        let held = self.new_held(level);
        held.is_rest = !is_for_layer;
        if is_lent {
            held.returned = rest.len();
        } else {
            held.push(rest);
        }
        !is_for_layer
    }

    pub(super) fn held(&self) -> Option<&Held> {
        self.extras.as_ref()?.held.as_ref()
    }

    /// Returns the held bytes of a level.
    pub(super) fn held_at(&mut self, level: usize) -> Option<&mut Held> {
        self.extras.as_mut()?.held.as_mut().filter(|held| held.level == level)
    }

    pub(super) fn new_held(&mut self, level: usize) -> &mut Held {
        self.extras.get_or_insert_default().held.get_or_insert(Held { level, ..Held::default() })
    }

    pub(super) fn take_all_held(&mut self) -> Option<Held> {
        let held = self.extras.as_mut()?.held.take();
        self.drop_empty_extras();
        held
    }

    pub(super) fn drop_empty_extras(&mut self) {
        self.extras.take_if(|extras| extras.is_empty());
    }

    /// Returns `true` if held bytes can be delivered: a layer's bytes at once, the protocol's while
    /// reading is open.
    pub(super) fn held_is_due(&self) -> bool {
        self.held().is_some_and(|held| self.reading() == Reading::Open || self.is_for_layer(held))
    }

    pub(super) fn is_for_layer(&self, held: &Held) -> bool {
        held.level < self.levels()
    }
}
