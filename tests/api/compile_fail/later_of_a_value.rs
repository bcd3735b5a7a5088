//~ a callback can't return `usize`
//~ a value is returned as `Ok(value)`, a failure as `Err(failure)`
use ropewalk::interfaces::*;
use ropewalk::{Result, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn count(transport: &Transport) {
    transport.connection::<Echo>().later(|_echo, transport| transport.queued_bytes()).or_log("counting");
}

fn main() {}
