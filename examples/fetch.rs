//! A page made of three parts that are fetched at the same time, one of which never arrives: once
//! with callbacks, and once with `async`.
//!
//! `fetch` returns a **Deferred**. It connects, and collects everything that the server sends. Each
//! fetch has a **timeout**, which cancels it: the connection is aborted, or the attempt to connect
//! ends.
//!
//! 1. `page_with_callbacks` gathers the three Deferreds. An errback replaces a part that failed.
//! 2. `page_with_async` awaits the same Deferreds, in a future that the reactor runs.
//!
//! The servers are in the same process: one answers, one is slow, and one sends nothing.

use std::process::ExitCode;
use std::time::Duration;

use ropewalk::deferred::{Promise, gather_results};
use ropewalk::endpoints::{TcpClientEndpoint, server_from_string};
use ropewalk::interfaces::*;
use ropewalk::{Connection, Deferred, Failure, Reactor, Result, Transport, for_protocol};

/// Time limit of a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_millis(300);

/// A server, by name and port.
struct Source {
    name: &'static str,
    port: u16,
}

/// Collects received bytes until the connection is over.
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
            // A fetch that timed out has its result already, and refuses this one.
            let _ = whole.callback(String::from_utf8_lossy(&self.heard).into_owned());
        }
    }
}

fn fetch(reactor: &Reactor, source: &Source) -> Deferred<String> {
    let endpoint = TcpClientEndpoint::new(reactor, ([127, 0, 0, 1], source.port).into());
    endpoint.connect(for_protocol(|_| Listener::default())).add_callback(everything)
}

/// Returns everything that the server sends until it closes. Cancelling the Deferred aborts the
/// connection.
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
            .add_timeout(FETCH_TIMEOUT, reactor)
            .add_errback(|failure| Ok(format!("({failure})")))
            .add_callback(move |text| Ok(format!("  {name}: {text}\n")))
    });
    gather_results(parts).add_callback(|parts| Ok(parts.concat()))
}

async fn page_with_async(reactor: Reactor, sources: Vec<Source>) -> Result<String> {
    // Starts all fetches before the first is awaited.
    let fetches: Vec<_> =
        sources.iter().map(|source| fetch(&reactor, source).add_timeout(FETCH_TIMEOUT, &reactor)).collect();
    let mut page = String::new();
    for (source, fetch) in sources.iter().zip(fetches) {
        let text = fetch.await.unwrap_or_else(|failure| format!("({failure})"));
        page += &format!("  {}: {text}\n", source.name);
    }
    Ok(page)
}

/// Sends its text, if it has one, after a while.
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
