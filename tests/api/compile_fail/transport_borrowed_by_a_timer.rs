//~ escapes
use ropewalk::interfaces::*;
use ropewalk::{Result, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

struct Hasty;

impl Protocol for Hasty {
    fn data_received(&mut self, transport: &Transport, _data: &[u8]) -> Result<()> {
        transport.timers().call_later(std::time::Duration::from_secs(5), move || transport.lose_connection());
        Ok(())
    }
}

fn main() {}
