//! An HTTPS server whose page shows the request.
//!
//! ```sh
//! cargo run --example tls_echo &
//! curl --cacert tls_echo.pem https://localhost:8443/hello
//! openssl s_client -connect localhost:8443 -CAfile tls_echo.pem
//! ```
//!
//! Arguments:
//!
//! 1. where to listen (default `tcp:8443:interface=127.0.0.1`);
//! 2. the file for the authority's certificate (`tls_echo.pem`).
//!
//! The certificate is made anew at each start. With a certificate in a file, the server would need
//! only `server_from_string(&reactor, "ssl:8443:privateKey=key.pem:certKey=chain.pem")`.

#[path = "support/certificates.rs"]
mod certificates;

use std::process::ExitCode;

use ropewalk::endpoints::{server_from_string, wrap_server_tls};
use ropewalk::interfaces::*;
use ropewalk::tls::ServerTls;
use ropewalk::{Failure, Result, Transport, bail, for_protocol};

/// Longest request, in bytes.
const LONGEST_REQUEST_BYTES: usize = 16 * 1024;

#[derive(Default)]
struct Page {
    request: Vec<u8>,
}

impl Protocol for Page {
    fn handshake_completed(&mut self, transport: &Transport) -> Result<()> {
        if let Some(session) = transport.tls_session() {
            println!("{}: {:?}, {}", transport.peer(), session.version, session.cipher_suite);
        }
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.request.extend_from_slice(data);
        if self.request.len() > LONGEST_REQUEST_BYTES {
            bail!("the request is too long");
        }
        if self.request.windows(4).any(|end| end == b"\r\n\r\n") {
            let length = self.request.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            transport.write(head.as_bytes());
            transport.write(&self.request);
            // Sends all written bytes first, and then the end of TLS.
            transport.lose_connection();
        }
        Ok(())
    }

    fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
        println!("{}: {reason}", transport.peer());
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let mut arguments = std::env::args().skip(1);
        let description = arguments.next().unwrap_or_else(|| "tcp:8443:interface=127.0.0.1".to_owned());
        let file = arguments.next().unwrap_or_else(|| "tls_echo.pem".to_owned());
        let identity = certificates::for_localhost(file.as_ref())?;
        let tls = ServerTls::builder().identity(identity).protocols(["http/1.1"]).build()?;

        let stopped = reactor.when_stopped();
        let endpoint = wrap_server_tls(tls, server_from_string(reactor, &description)?);
        Ok(endpoint.listen(for_protocol(|_| Page::default())).add_callback(|port| {
            println!("listening on {}", port.host());
            stopped
        }))
    })
}
