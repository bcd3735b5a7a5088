//! [`Chargen`]: lines of characters without an end (RFC 864).

use ropewalk::transport::{Producer, Streaming};
use ropewalk::{Protocol, Result, Transport};

use super::Served;

/// Characters of a line, and the number of different lines: one begins with each printable
/// character.
const LINE_CHARACTERS: usize = 72;
const LINES: usize = 95;

/// Times that the whole pattern is in one write. 7030 bytes each: 63 KiB, as much as a socket takes
/// at once.
const PATTERNS_PER_WRITE: usize = 9;

/// Sends the printable characters of ASCII in lines of 72, each line one character further, as fast
/// as the peer reads. Received bytes are dropped.
#[derive(Debug)]
pub(crate) struct Chargen;

impl Protocol for Chargen {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        Ok(transport.register_producer(Pattern { bytes: pattern().repeat(PATTERNS_PER_WRITE) }, Streaming::Pull)?)
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

impl Served for Chargen {
    fn finish(&mut self, transport: &Transport) {
        // A close would wait for the producer, which has no end.
        transport.unregister_producer();
        transport.lose_connection();
    }
}

struct Pattern {
    bytes: Vec<u8>,
}

impl Producer for Pattern {
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
        consumer.write(&self.bytes);
        Ok(())
    }

    fn stop_producing(&mut self, _consumer: &Transport) {}
}

/// Returns the lines until they begin anew.
fn pattern() -> Vec<u8> {
    let line = |first: usize| {
        let characters = (first..first + LINE_CHARACTERS).map(|index| b' ' + (index % LINES) as u8);
        characters.chain(*b"\r\n")
    };
    (0..LINES).flat_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines are those of RFC 864.
    #[test]
    fn each_line_begins_one_character_further() {
        let pattern = pattern();
        let lines: Vec<_> = pattern.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!((lines.len(), lines[0].len()), (95, 74));
        assert_eq!(lines[0], b" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg\r\n");
        assert!(lines[1].starts_with(b"!\"#") && lines[94].starts_with(b"~ !"));
    }
}
