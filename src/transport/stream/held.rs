//! [`Held`]: the bytes that a stream cannot deliver yet, and an end of stream behind them.

use super::{Reading, Stream};
use crate::transport::step::Ending;

/// Bytes that wait to be delivered, and the peer's end behind them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Number of layers that the bytes have passed.
    pub(crate) level: usize,
    pub(crate) data: Vec<u8>,
    pub(crate) end: Option<Ending>,
}

impl Stream {
    /// Takes the held bytes, and the peer's end if it is behind them: deliver the bytes first.
    /// `None` if reading was paused or lost again meanwhile.
    pub(crate) fn take_held(&mut self) -> Option<Held> {
        if self.held_is_due() { self.take_all_held() } else { None }
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
