//! Steps 2, 3 and 6 of the tutorial: passes each line on to all connections.
//!
//! ```sh
//! cargo run --example tutorial_chat -- tcp:6000
//! ```

use std::process::ExitCode;

use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::protocols::LineReceiver;
use ropewalk::{Connections, Result, Transport};

pub(crate) struct Talker {
    room: Connections<Self>,
    lines: LineReceiver,
}

impl LineProtocol for Talker {
    fn lines(&mut self) -> &mut LineReceiver {
        &mut self.lines
    }

    fn line_received(&mut self, _transport: &Transport, line: &[u8]) -> Result<()> {
        self.room.iter().for_each(|talker| self.lines.send_line(talker.transport(), line));
        Ok(())
    }
}

impl Protocol for Talker {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.lines.send_line(transport, format!("{} in the room", self.room.len()).as_bytes());
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.receive_lines(transport, data)
    }
}

/// The factory of the connections in a room.
pub(crate) fn talkers(room: Connections<Talker>) -> impl Factory {
    let lines = || LineReceiver::newline().max_length(1024);
    room.for_protocol(move |room, _peer| Talker { room: room.clone(), lines: lines() })
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let description = std::env::args().nth(1).unwrap_or_else(|| "tcp:6000".to_owned());
        let (room, stopped) = (Connections::new(), reactor.when_stopped());
        Ok(server_from_string(reactor, &description)?.listen(talkers(room)).add_callback(|port| {
            println!("listening on {}", port.host());
            stopped
        }))
    })
}
