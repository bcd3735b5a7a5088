//! A server that speaks plain text until a client asks for TLS on the same connection, as
//! `starttls_client` does.
//!
//! ```sh
//! cargo run --example starttls_server &
//! cargo run --example starttls_client
//! ```
//!
//! The answer to a line `STARTTLS` is `go ahead`, and everything after it is TLS. Any other line is
//! sent back, with a note on its secrecy.
//!
//! Arguments:
//!
//! 1. where to listen (default `tcp:8025:interface=127.0.0.1`);
//! 2. the file for the authority's certificate (`starttls.pem`).

#[path = "support/certificates.rs"]
mod certificates;

use std::process::ExitCode;

use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::tls::ServerTls;
use ropewalk::{Failure, Result, Transport, bail, for_protocol};

/// Longest line, in bytes.
const LONGEST_LINE_BYTES: usize = 1000;

struct Lines {
    tls: ServerTls,
    rest: Vec<u8>,
}

impl Lines {
    fn line(&mut self, transport: &Transport, line: &[u8]) -> Result<()> {
        let secret = transport.tls_session().is_some();
        if line != b"STARTTLS" {
            let how = if secret { "in secret" } else { "for all to hear" };
            transport.write(format!("you said {how}: {}\n", String::from_utf8_lossy(line)).as_bytes());
        } else if secret {
            transport.write(b"this is TLS already\n");
        } else if self.rest.is_empty() {
            transport.write(b"go ahead\n");
            transport.start_tls(&self.tls)?;
        } else {
            // An attacker on the path could have added these bytes, to pass them off as bytes
            // that came over TLS.
            bail!("data arrived after the request for TLS, and before the handshake");
        }
        Ok(())
    }
}

impl Protocol for Lines {
    fn handshake_completed(&mut self, transport: &Transport) -> Result<()> {
        println!("{} speaks TLS now", transport.peer());
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(data);
        while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            self.line(transport, line.trim_ascii_end())?;
        }
        if self.rest.len() > LONGEST_LINE_BYTES {
            bail!("the line is too long");
        }
        Ok(())
    }

    fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
        println!("{} is gone: {reason}", transport.peer());
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let mut arguments = std::env::args().skip(1);
        let description = arguments.next().unwrap_or_else(|| "tcp:8025:interface=127.0.0.1".to_owned());
        let file = arguments.next().unwrap_or_else(|| "starttls.pem".to_owned());
        let tls = ServerTls::new(certificates::for_localhost(file.as_ref())?)?;

        let stopped = reactor.when_stopped();
        let factory = for_protocol(move |_| Lines { tls: tls.clone(), rest: Vec::new() });
        Ok(server_from_string(reactor, &description)?.listen(factory).add_callback(|port| {
            println!("listening on {}", port.host());
            stopped
        }))
    })
}
