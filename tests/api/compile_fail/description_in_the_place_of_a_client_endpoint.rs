//~ `str` is not a client endpoint
//~ `ropewalk::endpoints::client_from_string(reactor, description)?` makes an endpoint of a description
use ropewalk::endpoints::connect_protocol;
use ropewalk::interfaces::*;
use ropewalk::{Result, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn main() {
    connect_protocol("tcp:localhost:8888", Echo).or_log("connecting");
}
