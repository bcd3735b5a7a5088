//! The loop that all receivers share: takes messages out of a chunk until the chunk is empty, or
//! the protocol takes no more of it.

use crate::failure::Result;
use crate::transport::Transport;

/// Capacity of the first buffer. 64 bytes: a short line, so that single bytes cost one allocation.
const LEAST_BYTES: usize = 64;

/// Capacity that a buffer keeps after a message that came in pieces. 4 KiB: most messages are
/// shorter, and an idle connection holds no more.
const KEPT_BYTES: usize = 4096;

/// Calls `take` with the bytes that are left of `data` until none are left. `take` returns the
/// number of bytes that it took, and makes at most one call of the program.
///
/// After each call the transport is asked if the protocol takes more. If it has paused reading, the
/// rest goes back to the transport, which delivers it on resuming, before anything else. If a layer
/// was put in between (STARTTLS), the rest is the layer's. If the connection closes, the rest is
/// dropped.
///
/// # Errors
/// Returns the failure of `take`.
pub(super) fn take_messages(
    transport: &Transport,
    data: &[u8],
    mut take: impl FnMut(&[u8]) -> Result<usize>,
) -> Result<()> {
    let level = transport.levels();
    let mut rest = data;
    loop {
        let taken = take(rest)?;
        rest = rest.get(taken..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(());
        }
        if !transport.takes_more(level) {
            transport.keep_rest(level, rest);
            return Ok(());
        }
    }
}

/// Adds bytes to a message that comes in pieces. The capacity at least doubles when it grows, so
/// that single bytes take linear time. It stays within `most` bytes, and never follows a length
/// that the peer has only announced.
pub(super) fn append(message: &mut Vec<u8>, data: &[u8], most: usize) {
    let needed = message.len() + data.len();
    if needed > message.capacity() {
        let capacity = needed.max(message.capacity().saturating_mul(2).max(LEAST_BYTES).min(most));
        message.reserve_exact(capacity - message.len());
    }
    message.extend_from_slice(data);
}

/// Puts the buffer of a delivered message back for the next one, if it is small and the place is
/// still vacant.
pub(super) fn recycle(place: &mut Vec<u8>, mut buffer: Vec<u8>) {
    if place.capacity() == 0 && buffer.capacity() <= KEPT_BYTES {
        buffer.clear();
        *place = buffer;
    }
}
