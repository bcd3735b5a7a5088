//~ cannot be sent between threads safely
use ropewalk::interfaces::*;
use ropewalk::{Result, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn work(reactor: &ropewalk::Reactor, transport: Transport) {
    reactor.call_in_thread(move || transport.write(b"done"));
}

fn main() {}
