//! A proxy that ends TLS: the server behind it gets plain bytes, and each client's address in a
//! PROXY header of version 2.
//!
//! ```sh
//! cargo run --example tls_proxy -- /etc/certificates tcp:8443:idleTimeout=300 tcp:localhost:8080
//! ```
//!
//! Arguments:
//!
//! 1. the folder with the certificates and keys, in files that end in `.pem`;
//! 2. where to listen, with the limits of time of the clients;
//! 3. where the server is, which must read the header (nginx: `listen 8080 proxy_protocol`);
//! 4. the most clients at a time (1,000). Others are closed at once.
//!
//! The files are read again on SIGHUP, and when they have changed. Connections go on meanwhile. On
//! SIGTERM the port is closed, and connections get ten seconds to take their last bytes.
//!
//! Each side is read no faster than the other one takes the bytes.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::application::{StreamServerEndpointService, run_service};
use ropewalk::endpoints::{HaproxyClientEndpoint, client_from_string, server_from_string, wrap_server_tls};
use ropewalk::haproxy::ProxyHeader;
use ropewalk::interfaces::*;
use ropewalk::protocols::ForwardFactory;
use ropewalk::reactor::SIGHUP;
use ropewalk::tls::ServerTls;
use ropewalk::{Transport, bail};

const DRAIN: Duration = Duration::from_secs(10);
/// Numbers of bytes that are queued for one side, at which the other is read again, and is not.
const MARKS: (usize, usize) = (16 * 1024, 64 * 1024);

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [folder, from, to, most @ ..] = &*arguments else {
            bail!("usage: tls_proxy CERTIFICATES SERVER-ENDPOINT CLIENT-ENDPOINT [CLIENTS]");
        };
        let most = most.first().map_or(Ok(1000), |most| most.parse())?;
        let tls = ServerTls::from_directory(folder)?;
        let server: Rc<dyn ClientEndpoint> = client_from_string(reactor, to)?.into();
        let factory = ForwardFactory::choosing(move |client: &Transport| {
            let header = ProxyHeader::proxied(client.peer(), client.host());
            Ok(Rc::new(HaproxyClientEndpoint::new(Rc::clone(&server)).header(header)))
        });
        let endpoint = wrap_server_tls(tls.clone(), server_from_string(reactor, from)?);
        let factory = factory.write_marks(MARKS.0, MARKS.1).max_open(most);
        let port = StreamServerEndpointService::new(endpoint, factory).drain(reactor, DRAIN);
        let hangups = reactor.on_signal(SIGHUP, move || match tls.reload() {
            Ok(()) => println!("the certificates were read again"),
            Err(error) => eprintln!("the old certificates stay: {error}"),
        })?;
        let running = run_service(reactor, port.clone());
        if let Some(host) = port.host() {
            println!("listening on {host}");
        }
        Ok(running.add_both(move |result| {
            hangups.cancel();
            result
        }))
    })
}
