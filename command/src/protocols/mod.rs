//! The protocols of the servers: RFC 862, 863, 864 and 868.

mod chargen;

use std::time::{SystemTime, UNIX_EPOCH};

use ropewalk::transport::QueueLimit;
use ropewalk::{Failure, Protocol, Result, Transport};

pub(crate) use self::chargen::Chargen;

/// Queued bytes above which the echo stops to read, until the peer has read its answers. 1 MiB: a
/// window of a fast network, and little beside the memory of the system's own buffers.
const ECHO_BYTES: u32 = 1024 * 1024;

/// Seconds from the epoch of RFC 868, the year 1900, to that of UNIX.
const SECONDS_1900_TO_1970: u64 = 2_208_988_800;

/// The protocol of any of the servers, with the end of a connection that a drain asks for.
pub(crate) trait Served: Protocol {
    /// Ends the connection when the server is told to stop.
    fn finish(&mut self, transport: &Transport) {
        transport.lose_connection();
    }
}

/// Makes an [`Echo`].
pub(crate) fn echo() -> Echo {
    Echo
}

/// Makes a [`Discard`].
pub(crate) fn discard() -> Discard {
    Discard
}

/// Makes a [`Chargen`].
pub(crate) fn chargen() -> Chargen {
    Chargen
}

/// Makes a [`Time`] with the system's clock.
pub(crate) fn time() -> Time {
    Time { now: SystemTime::now }
}

/// Sends back all received bytes (RFC 862). It ends the write direction when the peer has.
#[derive(Debug)]
pub(crate) struct Echo;

impl Protocol for Echo {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.set_queue_limit(Some(QueueLimit::pause(ECHO_BYTES)));
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

impl Served for Echo {}

/// Drops all received bytes (RFC 863).
#[derive(Debug)]
pub(crate) struct Discard;

impl Protocol for Discard {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

impl Served for Discard {}

/// Sends the time as a number of seconds, and closes (RFC 868).
#[derive(Debug)]
pub(crate) struct Time {
    now: fn() -> SystemTime,
}

impl Protocol for Time {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        let since_1970 = (self.now)().duration_since(UNIX_EPOCH).map_err(Failure::new)?.as_secs();
        // The number has 32 bits, and begins again in the year 2036.
        let seconds = (since_1970 + SECONDS_1900_TO_1970) as u32;
        transport.write(&seconds.to_be_bytes());
        transport.lose_connection();
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

impl Served for Time {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ropewalk::testing::StringTransport;

    use super::*;

    /// The examples of RFC 868, and the year 2036.
    #[test]
    fn the_time_counts_from_1900() {
        let sent = |now: fn() -> SystemTime| {
            let connection = StringTransport::new().joined(Time { now });
            connection.advance(Duration::from_secs(1));
            let bytes: [u8; 4] = connection.string().value().try_into().expect("four bytes");
            u32::from_be_bytes(bytes)
        };
        assert_eq!(sent(|| UNIX_EPOCH), 2_208_988_800);
        assert_eq!(sent(|| UNIX_EPOCH + Duration::from_secs(421_072_800)), 2_630_061_600);
        assert_eq!(sent(|| UNIX_EPOCH + Duration::from_secs(2_085_978_497)), 1);
    }

    #[test]
    fn an_echo_sends_back_and_a_discard_does_not() {
        let connection = StringTransport::new().joined(echo());
        connection.deliver(b"ab\0c");
        assert_eq!(connection.string().value(), b"ab\0c");
        let connection = StringTransport::new().joined(discard());
        connection.deliver(b"abc");
        assert!(connection.string().value().is_empty());
    }
}
