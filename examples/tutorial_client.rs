//! Step 5 of the tutorial: a talker that comes back when its connection is lost.
//!
//! ```sh
//! cargo run --example tutorial_client -- tcp:localhost:6000
//! ```

use std::process::ExitCode;
use std::time::Duration;

use ropewalk::application::{Backoff, ClientService, run_service};
use ropewalk::endpoints::client_from_string;
use ropewalk::interfaces::*;
use ropewalk::protocols::LineReceiver;
use ropewalk::{Result, Transport, for_protocol};

struct Guest(LineReceiver);

impl LineProtocol for Guest {
    fn lines(&mut self) -> &mut LineReceiver {
        &mut self.0
    }

    fn line_received(&mut self, _transport: &Transport, line: &[u8]) -> Result<()> {
        println!("{}", String::from_utf8_lossy(line));
        Ok(())
    }
}

impl Protocol for Guest {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.0.send_line(transport, b"a guest says hello");
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.receive_lines(transport, data)
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let description = std::env::args().nth(1).unwrap_or_else(|| "tcp:localhost:6000".to_owned());
        let endpoint = client_from_string(reactor, &description)?;
        let backoff = Backoff::new().initial_delay(Duration::from_millis(100)).jitter(Duration::from_millis(100));
        let guest = ClientService::builder(reactor, endpoint, for_protocol(|_| Guest(LineReceiver::newline())))
            .retry_policy(move |failures| backoff.delay(failures))
            .build();
        Ok(run_service(reactor, guest))
    })
}
