//~ a program can't end with `Deferred<Port>`
//~ throw the value away: `deferred.add_callback(|_value| ())`
//~ a server runs until it is told to stop: `let stopped = reactor.when_stopped(); deferred.add_callback(|_port| stopped)`
use std::process::ExitCode;

use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::{Result, Transport, for_protocol};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| Ok(server_from_string(reactor, "tcp:8888")?.listen(for_protocol(|_| Echo))))
}
