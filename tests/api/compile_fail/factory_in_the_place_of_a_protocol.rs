//~ is not a protocol
//~ of a factory, an endpoint makes connections: `endpoint.connect(factory)`
use ropewalk::endpoints::{TcpClientEndpoint, connect_protocol};
use ropewalk::for_protocol;
use ropewalk::interfaces::*;
use ropewalk::{Result, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn call(endpoint: &TcpClientEndpoint) {
    connect_protocol(endpoint, for_protocol(|_| Echo)).or_log("connecting");
}

fn main() {}
