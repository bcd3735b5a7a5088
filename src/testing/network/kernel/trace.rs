//! The events on a network: their text and their hash.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// Records events: always as a hash, and as lines on request.
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
        self.hash.add_number(seconds, 1);
        self.hash.add(b".");
        self.hash.add_number(nanos.into(), 9);
        self.hash.add(b" ");
        let written = self.hash.write_fmt(what);
        debug_assert!(written.is_ok(), "a hash takes everything");
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{seconds:>6}.{nanos:09} {what}"));
        }
    }
}

/// FNV-1a: good enough to tell two runs apart, and the same on every machine.
pub(super) struct Hash(pub(super) u64);

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Adds a number in decimal, with at least `width` digits. The formatting machinery would take
    /// most of a simulation's time.
    fn add_number(&mut self, mut number: u64, width: usize) {
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        while number > 0 || digits.len() - first < width {
            first -= 1;
            digits[first] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.add(&digits[first..]);
    }
}

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}
