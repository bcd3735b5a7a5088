use ropewalk::endpoints::{client_from_string, connect_protocol, server_from_string};
use ropewalk::interfaces::*;
use ropewalk::{Address, Deferred, Reactor, Result, Transport, bail, for_protocol};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        if data.is_empty() {
            bail!("no data");
        }
        Ok(())
    }
}

fn start(reactor: &Reactor) -> Result<()> {
    let server = server_from_string(reactor, "tcp:8888").context("where to listen")?;
    server.listen(for_protocol(|_| Echo)).or_log("listening");
    server.listen(|_| Echo).or_log("listening");
    server.listen(|_| Some(Echo)).or_log("listening");
    server.listen(|peer: Address| (peer.port() != Some(0)).then_some(Echo)).or_log("listening");
    connect_protocol(&client_from_string(reactor, "tcp:localhost:8888")?, Echo).or_log("connecting");
    Ok(())
}

fn main() {
    Deferred::succeed(1)
        .add_callback(|n| if n > 3 { Err("too large".into()) } else { Ok(n + 1) })
        .add_errback(|_| Ok(0))
        .or_log("counting");
    let _ = start;
}
