//! Streams over real sockets, on each backend, with peers that are not ours.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};

use futures::io::{AsyncReadExt, AsyncWriteExt};
use ropewalk::{BackendKind, Deferred, Port, Reactor, Result};

use super::*;

/// More than the buffers of both sockets take.
const BULK: usize = 16_000_000;

/// The reactors of this system.
pub(crate) fn reactors() -> impl Iterator<Item = Reactor> {
    [BackendKind::Mio, BackendKind::IoUring].into_iter().filter_map(common::reactor_on)
}

/// Listens, and serves the first connection by a future.
fn serve<F, T>(reactor: &Reactor, serve: impl FnOnce(ByteStream) -> F + 'static) -> (Port, SocketAddr, Deferred<T>)
where
    F: Future<Output = Result<T>> + 'static,
    T: 'static,
{
    let (promise, served) = ropewalk::deferred::Promise::new();
    let spawner = reactor.spawner().clone();
    let protocol = StreamProtocol::new(move |stream| spawner.spawn(serve(stream)).chain_deferred(promise));
    let mut protocol = Some(protocol);
    let (port, address) = common::listen(reactor, move |_| protocol.take());
    (port, address, served)
}

/// Bulk in both directions at once, and a half-close by the peer in the middle.
#[test]
fn bulk_goes_both_ways() {
    for reactor in reactors() {
        let (_port, address, served) = serve(&reactor, async |stream| {
            let (mut reader, mut writer) = stream.split();
            let sending = async {
                writer.write_all(&pattern(BULK)).await?;
                writer.close().await
            };
            let (read, sent) = futures::future::join(read_all(&mut reader), sending).await;
            sent?;
            Ok(read? == pattern(BULK))
        });
        let peer = common::peer(address, |stream| {
            let mut half = stream.try_clone().unwrap();
            let sender = std::thread::spawn(move || {
                half.write_all(&pattern(BULK)).unwrap();
                half.shutdown(Shutdown::Write).unwrap();
            });
            let mut all = Vec::new();
            (&stream).read_to_end(&mut all).unwrap();
            sender.join().unwrap();
            all == pattern(BULK)
        });
        assert!(common::run_beside(&reactor, peer));
        assert!(common::result_of(&reactor, served).unwrap());
    }
}

/// A peer that does not read stops the writer, within bounds, and gets every byte when it reads.
#[test]
fn a_peer_that_does_not_read_stops_the_writer() {
    for reactor in reactors() {
        let accepted = Rc::new(Cell::new(0));
        let count = Rc::clone(&accepted);
        let (transport, place) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)));
        let filled = Rc::clone(&transport);
        let (_port, address, served) = serve(&reactor, async move |mut stream| {
            filled.set(Some(stream.transport().clone()));
            let data = pattern(BULK);
            let mut rest = &data[..];
            while !rest.is_empty() {
                let written = stream.write(rest).await?;
                count.set(count.get() + written);
                rest = &rest[written..];
            }
            Ok(())
        });
        let (begin, begun) = std::sync::mpsc::channel::<()>();
        let peer = common::peer(address, move |mut stream| {
            begun.recv().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all == pattern(BULK)
        });
        // It has stopped when turns change nothing.
        let mut last = None;
        common::run_until(&reactor, || {
            let now = (accepted.get() > 0).then(|| accepted.get());
            now.is_some() && std::mem::replace(&mut last, now) == now && !served.is_called() && {
                common::settle(&reactor);
                accepted.get() == now.unwrap()
            }
        });
        assert!(accepted.get() < BULK, "{} bytes", accepted.get());
        place.set(transport.take());
        let stopped = place.take().expect("a connection");
        assert!((1..=64 * 1024).contains(&stopped.queued_bytes()), "{} bytes", stopped.queued_bytes());
        begin.send(()).unwrap();
        assert!(common::run_beside(&reactor, peer));
        common::result_of(&reactor, served).unwrap();
    }
}

/// A peer that ends its direction is an end of file; our answer still reaches it.
#[test]
fn a_half_closed_peer_gets_its_answer() {
    for reactor in reactors() {
        let (_port, address, served) = serve(&reactor, async |mut stream| {
            let mut question = String::new();
            stream.read_to_string(&mut question).await?;
            stream.write_all(format!("{question}?").as_bytes()).await?;
            Ok(question)
        });
        let peer = common::peer(address, |mut stream| {
            stream.write_all(b"why").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        assert_eq!(common::run_beside(&reactor, peer), "why?");
        assert_eq!(common::result_of(&reactor, served).unwrap(), "why");
    }
}

/// A reset by the peer is `ConnectionReset`, behind the bytes before it.
#[test]
fn a_reset_is_reported_behind_the_bytes() {
    for reactor in reactors() {
        let (_port, address, served) = serve(&reactor, async |mut stream| {
            // The peer is accepted before it resets: a backend may drop one that was reset before.
            stream.write_all(b"!").await?;
            let mut all = Vec::new();
            let error = stream.read_to_end(&mut all).await.expect_err("a reset");
            Ok((all, error.kind()))
        });
        let peer = common::peer(address, |mut stream| {
            stream.read_exact(&mut [0]).unwrap();
            stream.write_all(b"the last words").unwrap();
            common::reset_on_close(&stream);
        });
        common::run_beside(&reactor, peer);
        let (all, kind) = common::result_of(&reactor, served).unwrap();
        assert_eq!(kind, ErrorKind::ConnectionReset);
        assert!(b"the last words".starts_with(&all));
    }
}
