//! libcurl's multi interface on the loop of a reactor, with a server on the same loop.

#[path = "common/backends.rs"]
mod backends;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use ropewalk::interfaces::*;
use ropewalk::{Deferred, ListenOptions, Reactor, Result, Transport, for_protocol};
use ropewalk_interop::curl_multi::Transfers;

use backends::{on_each, run_until};

/// An HTTP server: `/N` is a file of N bytes, and any other path is not found. It answers when the
/// test says so.
#[derive(Clone, Default)]
struct Files {
    /// The requests that wait for their answers.
    asked: Rc<RefCell<Vec<(Transport, String)>>>,
    /// The largest number of them.
    most: Rc<Cell<usize>>,
}

struct FileServer {
    files: Files,
    head: Vec<u8>,
}

impl Protocol for FileServer {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.head.extend_from_slice(data);
        if self.head.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&std::mem::take(&mut self.head)).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut asked = self.files.asked.borrow_mut();
            asked.push((transport.clone(), path));
            self.files.most.set(self.files.most.get().max(asked.len()));
        }
        Ok(())
    }
}

impl Files {
    /// Answers the requests that wait. Every second answer ends its connection.
    fn answer(&self) {
        for (place, (transport, path)) in self.asked.take().into_iter().enumerate() {
            match path.trim_start_matches('/').parse::<usize>() {
                Ok(size) => {
                    let close = if place % 2 == 0 { "close" } else { "keep-alive" };
                    let head = format!("HTTP/1.1 200 OK\r\nConnection: {close}\r\nContent-Length: {size}\r\n\r\n");
                    transport.write(head.as_bytes());
                    transport.write(&file(size));
                    if place % 2 == 0 {
                        transport.lose_connection();
                    }
                }
                Err(_) => transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
            }
        }
    }
}

/// The bytes of the file of a size.
fn file(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + size) as u8).collect()
}

fn serve(reactor: &Reactor) -> (Files, SocketAddr) {
    let files = Files::default();
    let served = files.clone();
    let loopback = "127.0.0.1:0".parse().expect("an address");
    let factory = for_protocol(move |_| FileServer { files: served.clone(), head: Vec::new() });
    let port = reactor.listen_tcp(loopback, &ListenOptions::new(), factory).expect("a port");
    (files, port.host().socket_addr().expect("a TCP address"))
}

/// Files are fetched at once, in three rounds, over connections that libcurl keeps or opens anew.
#[test]
fn several_files_are_fetched_at_once() {
    const SIZES: [usize; 6] = [0, 1, 1_000, 65_536, 1_000_003, 5_000_000];
    on_each(|reactor| {
        let (files, address) = serve(reactor);
        let transfers = Transfers::new(reactor).expect("libcurl begins");
        for _ in 0..3 {
            let fetch = |size: &usize| transfers.fetch(&format!("http://{address}/{size}")).expect("it begins");
            let mut fetching: Vec<Deferred<Vec<u8>>> = SIZES.iter().map(fetch).collect();
            run_until(reactor, || files.asked.borrow().len() == SIZES.len());
            assert_eq!(transfers.running(), SIZES.len());
            assert!(transfers.watched() >= SIZES.len(), "{} sockets are watched", transfers.watched());
            files.answer();
            run_until(reactor, || transfers.running() == 0);
            for (size, fetched) in SIZES.iter().zip(&mut fetching) {
                let bytes = fetched.take_result().expect("it is finished").expect("it is there");
                assert!(bytes == file(*size), "{size} bytes: {} came", bytes.len());
            }
        }
        assert_eq!(files.most.get(), SIZES.len());
    });
}

/// A file that is not there, and a server that is not, fail their own transfers only.
#[test]
fn a_failing_transfer_fails_alone() {
    on_each(|reactor| {
        let (files, address) = serve(reactor);
        let transfers = Transfers::new(reactor).expect("libcurl begins");
        let unused = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        let fetch = |url: String| transfers.fetch(&url).expect("it begins");
        let mut absent = fetch(format!("http://{address}/absent"));
        let mut refused = fetch(format!("http://{unused}/1"));
        let mut good = fetch(format!("http://{address}/1000"));
        run_until(reactor, || files.asked.borrow().len() == 2);
        files.answer();
        run_until(reactor, || transfers.running() == 0);
        for failed in [&mut absent, &mut refused] {
            let failure = failed.take_result().expect("it is finished").expect_err("there is no such file");
            assert!(failure.check::<curl::Error>().is_some(), "{failure}");
        }
        assert!(good.take_result().expect("it is finished").expect("it is there") == file(1000));
    });
}

/// The stop of the reactor fails the transfers that wait.
#[test]
fn a_stop_fails_the_transfers() {
    on_each(|reactor| {
        let (files, address) = serve(reactor);
        let transfers = Transfers::new(reactor).expect("libcurl begins");
        let mut fetched = transfers.fetch(&format!("http://{address}/1")).expect("it begins");
        run_until(reactor, || files.asked.borrow().len() == 1);
        reactor.close().expect("it is idle");
        let failure = fetched.take_result().expect("it is finished").expect_err("the reactor is gone");
        assert_eq!((transfers.running(), failure.to_string()), (0, "the reactor stopped".to_owned()));
    });
}
