//! Step 1 of the tutorial: sends all bytes back.
//!
//! ```sh
//! cargo run --example tutorial_echo -- tcp:8888
//! ```

use std::process::ExitCode;

use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::{Result, Transport, for_protocol};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        transport.write(data);
        Ok(())
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let description = std::env::args().nth(1).unwrap_or_else(|| "tcp:8888".to_owned());
        let stopped = reactor.when_stopped();
        let listening = server_from_string(reactor, &description)?.listen(for_protocol(|_| Echo));
        Ok(listening.add_callback(|port| {
            println!("listening on {}", port.host());
            stopped
        }))
    })
}
