//! Streams of one direction, over a pipe: the other direction has ended from the start, and its
//! protocol is not told of that.

use super::{Reading, Stream, Writing};

impl Stream {
    /// Makes this new stream one that only writes.
    pub(crate) fn begin_read_all(&mut self) {
        self.states.reading = Reading::Ended;
    }

    /// Makes this new stream one that only reads. Writes to it are ignored.
    pub(crate) fn begin_shut(&mut self) {
        self.states.writing = Writing::Shut;
    }
}
