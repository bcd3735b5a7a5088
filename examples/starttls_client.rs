//! A client that asks `starttls_server` for TLS, and sends its secret only over TLS.
//!
//! Arguments:
//!
//! 1. where to connect (default `tcp:localhost:8025`);
//! 2. the file with the certificate of the server's authority (`starttls.pem`);
//! 3. the server's name (`localhost`).
//!
//! The exit status is 1 if there is no answer over TLS.

use std::process::ExitCode;

use ropewalk::deferred::Promise;
use ropewalk::endpoints::{client_from_string, connect_protocol};
use ropewalk::interfaces::*;
use ropewalk::tls::{ClientTls, TrustRoots};
use ropewalk::{Failure, Result, Transport, bail};

struct Discreet {
    tls: ClientTls,
    /// Fires with the answer that came over TLS, or with the reason why there is none.
    answer: Option<Promise<String>>,
}

impl Protocol for Discreet {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.write(b"STARTTLS\n");
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        let text = String::from_utf8_lossy(data).trim_end().to_owned();
        if transport.tls_session().is_some() {
            if let Some(answer) = self.answer.take() {
                let _ = answer.callback(text);
            }
            transport.lose_connection();
        } else if text == "go ahead" {
            println!("the server agrees to TLS");
            transport.start_tls(&self.tls)?;
            // These bytes wait for the handshake, and so for the proof that this is the right
            // server.
            transport.write(b"the secret\n");
        } else {
            bail!("the server does not agree to TLS: {text:?}");
        }
        Ok(())
    }

    fn handshake_completed(&mut self, transport: &Transport) -> Result<()> {
        if let Some(session) = transport.tls_session() {
            println!("it is the right server: {:?}, {}", session.version, session.cipher_suite);
        }
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        if let Some(answer) = self.answer.take() {
            let _ = answer.errback(reason.clone());
        }
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let mut arguments = std::env::args().skip(1);
        let description = arguments.next().unwrap_or_else(|| "tcp:localhost:8025".to_owned());
        let file = arguments.next().unwrap_or_else(|| "starttls.pem".to_owned());
        let name = arguments.next().unwrap_or_else(|| "localhost".to_owned());
        let tls = ClientTls::builder().trust_roots(TrustRoots::from_pem_file(file)?).for_server(&name)?;

        let (promise, answer) = Promise::new();
        let client = Discreet { tls, answer: Some(promise) };
        let connecting = connect_protocol(&client_from_string(reactor, &description)?, client);
        Ok(connecting.add_callback(|_connection| answer).add_callback(|answer: String| println!("answer: {answer}")))
    })
}
