//! A chat server that passes each line of text on to all connections.
//!
//! ```sh
//! cargo run --example chat &
//! nc localhost 6000
//! ```
//!
//! The argument says where to listen (default `tcp:6000:queueLimit=1048576:receiveTimeout=600`). So
//! a connection is closed after ten minutes of silence, and a peer that does not read is
//! disconnected once more than a mebibyte is queued for it. A line of more than 1,024 bytes ends a
//! connection too.
//!
//! `Connections` is the list of the factory's open connections. A broadcast iterates over it, and
//! `with` reaches the protocol of each connection.

use std::process::ExitCode;

use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::protocols::LineReceiver;
use ropewalk::{Connections, Failure, Result, Transport};

const LONGEST_LINE_BYTES: usize = 1024;
const DEFAULT_ENDPOINT: &str = "tcp:6000:queueLimit=1048576:receiveTimeout=600";

struct Talker {
    room: Connections<Self>,
    name: Option<String>,
    lines: LineReceiver,
}

impl Talker {
    fn tell_all(&self, line: &str) {
        self.room.iter().for_each(|talker| talker.transport().write(line.as_bytes()));
    }

    fn is_taken(&self, name: &str) -> bool {
        self.room.iter().any(|other| other.with(|talker, _| talker.name.as_deref() == Some(name)) == Ok(true))
    }
}

impl LineProtocol for Talker {
    fn lines(&mut self) -> &mut LineReceiver {
        &mut self.lines
    }

    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> Result<()> {
        let line = String::from_utf8_lossy(line).trim().to_owned();
        if let Some(name) = &self.name {
            self.tell_all(&format!("<{name}> {line}\n"));
        } else if line.is_empty() || self.is_taken(&line) {
            self.lines.send_line(transport, b"choose another name");
        } else {
            self.tell_all(&format!("* {line} is here\n"));
            self.name = Some(line);
        }
        Ok(())
    }
}

impl Protocol for Talker {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.lines.send_line(transport, b"what is your name?");
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.receive_lines(transport, data)
    }

    fn connection_lost(&mut self, _transport: &Transport, _reason: &Failure) {
        if let Some(name) = &self.name {
            self.tell_all(&format!("* {name} has left\n"));
        }
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let description = std::env::args().nth(1).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned());
        let (room, stopped) = (Connections::new(), reactor.when_stopped());
        let lines = || LineReceiver::newline().max_length(LONGEST_LINE_BYTES);
        let talkers = room.for_protocol(move |room, _peer| Talker { room: room.clone(), name: None, lines: lines() });
        Ok(server_from_string(reactor, &description)?.listen(talkers).add_callback(|port| {
            println!("listening on {}", port.host());
            stopped
        }))
    })
}
