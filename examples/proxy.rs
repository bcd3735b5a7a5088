//! A proxy: it connects each client of one endpoint to another endpoint, and reads each side no
//! faster than the other side takes the bytes.
//!
//! ```sh
//! cargo run --example proxy -- tcp:8000 tcp:localhost:8888
//! cargo run --example proxy -- unix:/run/user/1000/door tcp:example.com:80
//! cargo run --example proxy -- haproxy:tcp:8000 tcp:localhost:8888 named
//! ```
//!
//! With `named`, the proxy tells the server the address of each client, in a PROXY header.
//!
//! An end of stream is passed on as an end of stream, so that requests which end with one get their
//! answer. If one connection breaks, the proxy aborts the other.

use std::env;
use std::process::ExitCode;
use std::rc::Rc;

use ropewalk::endpoints::{HaproxyClientEndpoint, client_from_string, server_from_string};
use ropewalk::haproxy::ProxyHeader;
use ropewalk::interfaces::*;
use ropewalk::protocols::ForwardFactory;
use ropewalk::{Transport, bail};

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let (from, to, is_named) = match &*arguments {
            [from, to] => (from, to, false),
            [from, to, named] if named == "named" => (from, to, true),
            _ => bail!("usage: proxy SERVER-ENDPOINT CLIENT-ENDPOINT [named]"),
        };
        let target: Rc<dyn ClientEndpoint> = client_from_string(reactor, to)?.into();
        let factory = if is_named {
            ForwardFactory::choosing(move |client: &Transport| {
                let header = ProxyHeader::proxied(client.peer(), client.host());
                Ok(Rc::new(HaproxyClientEndpoint::new(Rc::clone(&target)).header(header)))
            })
        } else {
            ForwardFactory::new(target)
        };
        let stopped = reactor.when_stopped();
        Ok(server_from_string(reactor, from)?.listen(factory).add_callback(|port| {
            println!("listening on {}", port.host());
            stopped
        }))
    })
}
