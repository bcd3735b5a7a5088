//! What a stream holds back: bytes, and an end behind them, that can't be delivered yet.

use super::{Reading, Stream};
use crate::transport::step::Ending;

/// Bytes, and the peer's end behind them, that wait to be delivered.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// How many layers they have passed.
    pub(crate) level: usize,
    pub(crate) data: Vec<u8>,
    pub(crate) end: Option<Ending>,
}

impl Stream {
    /// What was held back, bytes first, then whether the peer's end is behind them. Nothing if reading was paused or lost again
    /// meanwhile.
    pub(crate) fn take_held(&mut self) -> Option<Held> {
        if self.held_is_due() { self.take_all_held() } else { None }
    }

    pub(super) fn held(&self) -> Option<&Held> {
        self.extras.as_ref()?.held.as_ref()
    }

    /// What is held back of a level's bytes.
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

    /// Whether what is held back can be delivered: a layer's at once, the protocol's while reading is open.
    pub(super) fn held_is_due(&self) -> bool {
        self.held().is_some_and(|held| self.reading() == Reading::Open || self.is_for_layer(held))
    }

    pub(super) fn is_for_layer(&self, held: &Held) -> bool {
        held.level < self.levels()
    }
}
