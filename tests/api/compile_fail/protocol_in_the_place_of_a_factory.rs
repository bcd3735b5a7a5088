//~ `Echo` is not a factory
//~ a closure that returns a protocol: `|_| Echo`, or `|peer: Address| ..` with the type of its argument
//~ a closure that may refuse the connection: `|_| Some(Echo)`
//~ a protocol that is to be connected once: `connect_protocol(&endpoint, protocol)`
use ropewalk::endpoints::TcpServerEndpoint;
use ropewalk::interfaces::*;
use ropewalk::{Result, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn serve(endpoint: &TcpServerEndpoint) {
    endpoint.listen(Echo).or_log("listening");
}

fn main() {}
