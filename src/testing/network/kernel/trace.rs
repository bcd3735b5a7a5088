//! What happened on a network.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// What happened, as lines if they are wanted, and always as a number.
pub(super) struct Trace {
    pub(super) lines: Option<Vec<String>>,
    pub(super) hash: Hash,
}

impl Default for Trace {
    fn default() -> Self {
        Self { lines: None, hash: Hash(0xcbf2_9ce4_8422_2325) }
    }
}

impl Trace {
    pub(super) fn add(&mut self, now: Duration, what: fmt::Arguments<'_>) {
        let (seconds, nanos) = (now.as_secs(), now.subsec_nanos());
        let written = write!(self.hash, "{seconds}.{nanos:09} {what}");
        debug_assert!(written.is_ok(), "a hash takes everything");
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{seconds:>6}.{nanos:09} {what}"));
        }
    }
}

/// FNV-1a: good enough to tell two runs apart, the same everywhere.
pub(super) struct Hash(pub(super) u64);

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}
