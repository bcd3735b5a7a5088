//! The rest of a chunk: a protocol that takes messages out of a chunk, and is paused or closed by
//! one of them, returns the bytes behind it. The stream delivers them again, in order.

use super::Transport;

impl Transport {
    /// Number of layers that bytes pass on their way to the protocol.
    pub(crate) fn levels(&self) -> usize {
        self.stream().levels()
    }

    /// Returns `true` if the protocol may take more of the chunk of this level that it has begun.
    #[inline]
    pub(crate) fn takes_more(&self, level: usize) -> bool {
        self.0.stream.borrow().takes_more(level)
    }

    /// Returns the rest of the chunk that is being delivered: see
    /// [`Stream::keep_rest`](super::stream::Stream::keep_rest).
    pub(crate) fn keep_rest(&self, level: usize, rest: &[u8]) {
        let mut is_kept = false;
        self.update(|stream| is_kept = stream.keep_rest(level, rest));
        if is_kept && let Some(observer) = self.0.context.observer() {
            observer.kept(self.0.id, level, rest);
        }
    }
}
