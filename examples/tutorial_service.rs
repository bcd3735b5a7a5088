//! Step 7 of the tutorial: the chat as a service that drains.
//!
//! ```sh
//! cargo run --example tutorial_service -- tcp:6000 unix:/tmp/chat.sock
//! ```

#[path = "tutorial_chat.rs"]
#[allow(dead_code, reason = "its main is that of step 2")]
mod chat;

use std::process::ExitCode;
use std::time::Duration;

use ropewalk::Connections;
use ropewalk::application::{MultiService, StreamServerEndpointService, run_service};
use ropewalk::endpoints::server_from_string;

const DRAIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let descriptions: Vec<String> = std::env::args().skip(1).collect();
        if descriptions.is_empty() {
            return Err("expected descriptions of ports, such as tcp:6000".into());
        }
        let (room, program) = (Connections::new(), MultiService::new());
        for description in descriptions {
            let endpoint = server_from_string(reactor, &description)?;
            let port = StreamServerEndpointService::new(endpoint, chat::talkers(room.clone()));
            program.add_service(port.drain_with(reactor, DRAIN, |talker| {
                talker.transport().write(b"the chat closes\n");
                talker.transport().lose_connection();
            }));
        }
        Ok(run_service(reactor, program))
    })
}
