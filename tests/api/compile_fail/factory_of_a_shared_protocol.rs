//~ `Rc<Echo>` is not a protocol
//~ a factory returns protocols by value: `|_| Echo`, or `|_| Some(Echo)`
use std::rc::Rc;

use ropewalk::endpoints::TcpServerEndpoint;
use ropewalk::interfaces::*;
use ropewalk::{Result, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn serve(endpoint: &TcpServerEndpoint, echo: Rc<Echo>) {
    endpoint.listen(move |_| Rc::clone(&echo)).or_log("listening");
}

fn main() {}
