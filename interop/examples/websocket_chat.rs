//! A chat server over WebSocket, by tungstenite. The arguments say where to listen (default
//! `tcp:8080:interface=127.0.0.1`); each may be plain or over TLS:
//!
//! ```sh
//! cargo run -p ropewalk-interop --features websocket --example websocket_chat -- \
//!     tcp:8080 ssl:8443:privateKey=server.key:certKey=server.pem &
//! python3 -m websockets ws://localhost:8080/lobby
//! ```
//!
//! The first line is your name. SIGTERM and SIGINT close all connections with code 1001, and end
//! the program when they are gone.

use std::process::ExitCode;

use ropewalk::deferred::gather_results;
use ropewalk::endpoints::server_from_string;
use ropewalk::{Phase, Result, SystemEvent};
use ropewalk_interop::chat::{Chat, Limits};

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let chat = Chat::new(reactor, Limits::default());
        let mut descriptions: Vec<String> = std::env::args().skip(1).collect();
        if descriptions.is_empty() {
            descriptions.push("tcp:8080:interface=127.0.0.1".to_owned());
        }
        let listen = |description: &String| Ok(chat.listen(&server_from_string(reactor, description)?));
        let ports = descriptions.iter().map(listen).collect::<Result<Vec<_>>>()?;

        let drained = chat.clone();
        reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || drained.drain());
        let stopped = reactor.when_stopped();
        Ok(gather_results(ports).add_callback(move |ports| {
            for port in ports {
                println!("listening on {}", port.host());
            }
            stopped
        }))
    })
}
