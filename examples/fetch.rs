//! A page made of three things that are fetched at the same time, one of which never comes: with callbacks, and with `async`.
//!
//! `fetch` returns a **Deferred**: it connects, and waits for all that the server says. Each fetch gets a **timeout**, which cancels
//! it: the connection is aborted, or the attempt to connect given up. Then
//!
//! 1. `page_with_callbacks` gathers the three; an errback puts something in the place of what failed;
//! 2. `page_with_async` awaits the same Deferreds, in a future that the reactor runs.
//!
//! The servers are in the same process: one answers, one is slow, one says nothing.

use std::process::ExitCode;
use std::time::Duration;

use ropewalk::deferred::{Promise, gather_results};
use ropewalk::endpoints::{TcpClientEndpoint, server_from_string};
use ropewalk::interfaces::*;
use ropewalk::{Connection, Deferred, Failure, Reactor, Result, Transport, for_protocol};

/// How long a fetch may take.
const PATIENCE: Duration = Duration::from_millis(300);

/// Where something can be fetched.
struct Source {
    name: &'static str,
    port: u16,
}

/// Keeps what it hears, until the connection is over.
#[derive(Default)]
struct Listener {
    heard: Vec<u8>,
    whole: Option<Promise<String>>,
}

impl Protocol for Listener {
    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        self.heard.extend_from_slice(data);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, _reason: &Failure) {
        if let Some(whole) = self.whole.take() {
            // Whoever waited may have given up: then this is refused, and that is fine.
            let _ = whole.callback(String::from_utf8_lossy(&self.heard).into_owned());
        }
    }
}

fn fetch(reactor: &Reactor, source: &Source) -> Deferred<String> {
    let endpoint = TcpClientEndpoint::new(reactor, ([127, 0, 0, 1], source.port).into());
    endpoint.connect(for_protocol(|_| Listener::default())).add_callback(everything)
}

/// All that comes until the server closes. Cancelling it aborts the connection.
fn everything(connection: Connection<Listener>) -> Deferred<String> {
    let transport = connection.transport().clone();
    let (whole, text) = Promise::with_canceller(move || transport.abort_connection());
    match connection.with(|listener, _| listener.whole = Some(whole)) {
        Ok(()) => text,
        Err(unavailable) => Deferred::fail(unavailable),
    }
}

fn page_with_callbacks(reactor: &Reactor, sources: &[Source]) -> Deferred<String> {
    let parts = sources.iter().map(|source| {
        let name = source.name;
        fetch(reactor, source)
            .add_timeout(PATIENCE, reactor)
            .add_errback(|failure| Ok(format!("({failure})")))
            .add_callback(move |text| Ok(format!("  {name}: {text}\n")))
    });
    gather_results(parts).add_callback(|parts| Ok(parts.concat()))
}

async fn page_with_async(reactor: Reactor, sources: Vec<Source>) -> Result<String> {
    // All are under way before the first is awaited.
    let fetches: Vec<_> =
        sources.iter().map(|source| fetch(&reactor, source).add_timeout(PATIENCE, &reactor)).collect();
    let mut page = String::new();
    for (source, fetch) in sources.iter().zip(fetches) {
        let text = fetch.await.unwrap_or_else(|failure| format!("({failure})"));
        page += &format!("  {}: {text}\n", source.name);
    }
    Ok(page)
}

/// Says something after a while, if it has anything to say.
struct Speaker {
    reactor: Reactor,
    text: Option<&'static str>,
    after: Duration,
}

impl Protocol for Speaker {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        if let Some(text) = self.text {
            let transport = transport.clone();
            self.reactor.call_later(self.after, move || {
                transport.write(text.as_bytes());
                transport.lose_connection();
            });
        }
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn serve(reactor: &Reactor, name: &'static str, text: Option<&'static str>, after: u64) -> Deferred<Source> {
    let (endpoint, handle) = (server_from_string(reactor, "tcp:0:interface=127.0.0.1"), reactor.clone());
    let endpoint = match endpoint {
        Ok(endpoint) => endpoint,
        Err(error) => return Deferred::fail(error),
    };
    endpoint
        .listen(for_protocol(move |_| Speaker { reactor: handle.clone(), text, after: Duration::from_millis(after) }))
        .add_callback(move |port| {
            let port = port.host().port().ok_or("a TCP port has a number")?;
            Ok(Source { name, port })
        })
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let sources = gather_results([
            serve(reactor, "headlines", Some("rope found to be longer than thought"), 0),
            serve(reactor, "weather", Some("wind from the west"), 100),
            serve(reactor, "prices", None, 0),
        ]);
        let (first, second) = (reactor.clone(), reactor.clone());
        sources
            .add_callback(move |sources| {
                page_with_callbacks(&first, &sources).add_callback(move |page| {
                    println!("with callbacks:\n{page}");
                    Ok(sources)
                })
            })
            .add_callback(move |sources| second.spawn(page_with_async(second.clone(), sources)))
            .add_callback(|page| println!("with async:\n{page}"))
    })
}
