//! A server of static files over HTTP/1 and HTTP/2, by hyper, on a reactor.
//!
//! ```sh
//! cargo run --release -p ropewalk-interop --features http --example http -- FOLDER [tcp:8080]
//! cargo run --release -p ropewalk-interop --features http --example http -- FOLDER tcp:8443 chain.pem key.pem
//! curl http://localhost:8080/file.txt
//! ```
//!
//! On Ctrl-C or SIGTERM it stops listening, lets every connection finish its requests, for at most
//! 30 s, and ends.

use std::process::ExitCode;
use std::time::Duration;

use ropewalk::endpoints::{server_from_string, wrap_server_tls};
use ropewalk::tls::{Identity, ServerTls};
use ropewalk::{Phase, Reactor, Result, SystemEvent};
use ropewalk_interop::http::{Drain, serve};

/// Time that connections have to finish their requests when the server stops.
const DRAIN_TIME: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        start(reactor, &arguments)?;
        Ok(reactor.when_stopped())
    })
}

fn start(reactor: &Reactor, arguments: &[String]) -> Result<()> {
    let [root, rest @ ..] = arguments else { ropewalk::bail!("the first argument is a folder") };
    let description = rest.first().map_or("tcp:8080", String::as_str);
    let tcp = server_from_string(reactor, description)?;
    let drain = Drain::new();
    let listening = match rest {
        [_, chain, key] => {
            let identity = Identity::from_pem_files(chain, key)?;
            let tls = ServerTls::builder().identity(identity).protocols(["h2", "http/1.1"]).build()?;
            serve(reactor, &wrap_server_tls(tls, tcp), root, &drain)
        }
        _ => serve(reactor, &tcp, root, &drain),
    };
    let stopping = reactor.clone();
    let listening = listening.add_callback(move |port| {
        println!("listening on {}", port.host());
        let clock = stopping.clone();
        stopping.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
            drop(port.stop_listening());
            println!("{} connections are open", drain.open());
            // Connections that take longer are cut off by the shutdown.
            drain.begin().add_timeout(DRAIN_TIME, &clock).add_both(|_| ())
        });
    });
    let stopping = reactor.clone();
    listening
        .add_errback(move |failure| {
            println!("{failure}");
            stopping.stop()?;
            Ok(())
        })
        .or_log("starting");
    Ok(())
}
