//! Bytes that arrived, and a connection that fails: whatever the kernel still has is delivered
//! before the connection is lost. The peers are plain sockets, for what a kernel keeps behind a
//! reset is the kernel's to say.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use crate::common::*;
use ropewalk::error::ConnectionClosed;
use ropewalk::reactor::UnixConnectOptions;
use ropewalk::transport::Transport;
use rustix::net::sockopt::set_socket_recv_buffer_size;

/// More than one receive brings, on every backend.
const MUCH: usize = 150_000;

const ANSWER: &[u8] = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\n";

/// A server that asks for a body, answers when the client is about to send it, and closes without
/// reading what has come: a client that writes then meets a reset, and the answer lies before it.
fn answer_early<S: Read + Write + Send + 'static>(mut stream: S, go: &Receiver<()>, done: &Sender<()>) {
    stream.read_exact(&mut [0; 4]).unwrap();
    stream.write_all(b"continue").unwrap();
    go.recv().unwrap();
    stream.write_all(ANSWER).unwrap();
    drop(stream);
    done.send(()).unwrap();
}

/// Has a peer's system send each part of its answer at once: what Nagle's algorithm holds back, a
/// reset takes back.
fn prompt(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream
}

/// A client that sends its body when it is asked to, by when the server has answered and gone.
fn uploader(log: &Log, received: &Rc<RefCell<Vec<u8>>>, (go, done): Ways) -> Script {
    let mut asked = false;
    let script = Script::new(log).into_buffer(received).made(|transport| {
        transport.write(b"POST and some that is not read");
        Ok(())
    });
    script.data(move |transport, _| {
        if !std::mem::replace(&mut asked, true) {
            go.send(()).unwrap();
            done.recv().unwrap();
            transport.write(&vec![b'b'; MUCH]);
        }
        Ok(())
    })
}

/// One side's way to tell the other, and to be told.
type Ways = (Sender<()>, Receiver<()>);

fn channels() -> (Ways, Ways) {
    let ((go, wait), (say, done)) = (mpsc::channel(), mpsc::channel());
    ((go, done), (say, wait))
}

/// A write that fails takes nothing from what had been received: the answer comes, and then the
/// loss, with the error of the send.
#[test]
fn a_failed_write_delivers_an_early_answer_first() {
    let (reactor, log, received) = (reactor(), Log::default(), Rc::default());
    let (ours, (say, wait)) = channels();
    let (address, server) = listening_peer(move |stream| answer_early(prompt(stream), &wait, &say));
    drop(connect(&reactor, address, once(uploader(&log, &received, ours))));
    run_until(&reactor, || log.is_over());
    assert_eq!(String::from_utf8_lossy(&received.borrow()), format!("continue{}", String::from_utf8_lossy(ANSWER)));
    assert!(log.reason().starts_with("the peer reset the connection (150000 "), "{}", log.reason());
    assert_eq!(log.count("lost"), 1);
    run_beside(&reactor, server);
    assert_eq!(reactor.counters().watched, 0);
}

/// The same over TLS: what is sealed in the socket is opened before the connection is lost.
#[cfg(feature = "tls")]
#[test]
fn a_failed_write_delivers_an_early_answer_first_over_tls() {
    let (reactor, log, received) = (reactor(), Log::default(), Rc::default());
    let authority = crate::common::certificates::Authority::new();
    let tls = authority.client("example.org");
    let serving = crate::common::tls::Library::server_connection(&authority, "example.org");
    let (ours, (say, wait)) = channels();
    let (address, server) =
        listening_peer(move |stream| answer_early(rustls::StreamOwned::new(serving, prompt(stream)), &wait, &say));
    let script = uploader(&log, &received, ours).made(move |transport| {
        transport.start_tls(&tls)?;
        // More than the server's library reads at a time.
        transport.write(&vec![b'P'; MUCH]);
        Ok(())
    });
    drop(connect(&reactor, address, once(script)));
    run_until(&reactor, || log.is_over());
    assert_eq!(String::from_utf8_lossy(&received.borrow()), format!("continue{}", String::from_utf8_lossy(ANSWER)));
    assert!(log.reason().starts_with("the peer reset the connection ("), "{}", log.reason());
    run_beside(&reactor, server);
}

/// The same over a UNIX socket, whose peer is gone without a reset.
#[test]
fn a_failed_write_delivers_an_early_answer_first_over_unix() {
    let (reactor, log, received) = (reactor(), Log::default(), Rc::default());
    let (ours, (say, wait)) = channels();
    let path = std::env::temp_dir().join(format!("ropewalk-lost-data-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || answer_early(listener.accept().unwrap().0, &wait, &say));
    let address = ropewalk::address::UnixAddress::path(&path).unwrap();
    drop(reactor.connect_unix(&address, &UnixConnectOptions::new(), once(uploader(&log, &received, ours))));
    run_until(&reactor, || log.is_over());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(String::from_utf8_lossy(&received.borrow()), format!("continue{}", String::from_utf8_lossy(ANSWER)));
    assert!(log.reason().starts_with("the peer reset the connection"), "{}", log.reason());
    run_beside(&reactor, server);
}

/// The answer waits for a protocol that has paused reading in the same callback, and is delivered
/// when it resumes.
#[test]
fn a_failed_write_waits_for_a_protocol_that_is_paused() {
    let (reactor, log, received, kept) = (reactor(), Log::default(), Rc::default(), Rc::default());
    let ((go, done), (say, wait)) = channels();
    let (address, server) = listening_peer(move |stream| answer_early(prompt(stream), &wait, &say));
    let mut asked = false;
    let script = Script::new(&log).into_buffer(&received).transport_into(&kept).made(|transport| {
        transport.write(b"POST and some that is not read");
        Ok(())
    });
    let script = script.data(move |transport, _| {
        if !std::mem::replace(&mut asked, true) {
            go.send(()).unwrap();
            done.recv().unwrap();
            transport.pause_producing();
            transport.write(b"body");
        }
        Ok(())
    });
    drop(connect(&reactor, address, once(script)));
    run_until(&reactor, || log.has("data"));
    settle(&reactor);
    let transport: Transport = kept.take().unwrap();
    assert!(transport.is_disconnecting() && !log.is_over(), "the break is known, and not told");
    transport.resume_producing();
    run_until(&reactor, || log.is_over());
    assert_eq!(received.borrow().len(), "continue".len() + ANSWER.len());
    run_beside(&reactor, server);
}

/// Waits until so many bytes lie in the socket of a connection that reads nothing.
fn await_unread(transport: &Transport, count: usize) {
    let started = std::time::Instant::now();
    while with_descriptor(transport, |descriptor| rustix::io::ioctl_fionread(descriptor).unwrap()) < count as u64 {
        assert!(started.elapsed() < LIMIT, "the bytes do not arrive");
        thread::yield_now();
    }
}

/// Returns `true` if all that a peer has sent has arrived: a reset takes back the rest.
fn is_acknowledged(stream: &TcpStream) -> bool {
    let port = format!(":{:04X}", stream.local_addr().unwrap().port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut ours = fields.filter(|fields| fields[1].ends_with(&port));
    ours.any(|fields| fields[4].starts_with("00000000:"))
}

/// A peer that has sent much, and resets while reading is paused: its bytes come first when the
/// protocol resumes, and however often it pauses meanwhile.
#[test]
fn a_reset_during_a_pause_drops_nothing() {
    for pauses_again in [false, true] {
        let (reactor, log, received, kept) = (reactor(), Log::default(), Rc::default(), Rc::default());
        let script = Script::new(&log).into_buffer(&received).transport_into(&kept);
        let script = script.made(|transport| {
            transport.pause_producing();
            Ok(())
        });
        let script = script.data(move |transport, _| {
            if pauses_again {
                transport.pause_producing();
            }
            Ok(())
        });
        let (_port, address) = listen(&reactor, once(script));
        let body: Vec<u8> = (0..MUCH).map(|n| (n % 251) as u8).collect();
        let mut stream = TcpStream::connect(address).unwrap();
        run_until(&reactor, || kept.borrow().is_some());
        settle(&reactor);
        let transport: Transport = kept.take().unwrap();
        with_descriptor(&transport, |descriptor| set_socket_recv_buffer_size(descriptor, 2 * MUCH).unwrap());
        stream.write_all(&body).unwrap();
        await_unread(&transport, MUCH);
        reset_on_close(&stream);
        drop(stream);
        run_until(&reactor, || transport.is_disconnecting());
        assert_eq!(log.all(), ["made"], "the loss overtook bytes");
        run_until(&reactor, || {
            transport.resume_producing();
            log.is_over()
        });
        assert!(*received.borrow() == body, "{} of {MUCH} bytes came", received.borrow().len());
        assert_eq!(log.reason(), "the peer reset the connection (0 bytes were still to be sent)");
        assert_eq!(reactor.counters().watched, 1, "the port alone");
    }
}

/// A protocol that pauses in the midst of much, part of which the engine holds by then, gets all of
/// it before the reset.
#[test]
fn a_reset_behind_bytes_that_are_held_drops_nothing() {
    let (reactor, log, received, kept, reason) =
        (reactor(), Log::default(), Rc::default(), Rc::default(), Rc::default());
    let mut paused = false;
    let script = Script::new(&log).into_buffer(&received).transport_into(&kept).reason_into(&reason);
    let script = script.data(move |transport, _| {
        if !std::mem::replace(&mut paused, true) {
            transport.pause_producing();
        }
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let mut stream = TcpStream::connect(address).unwrap();
    run_until(&reactor, || kept.borrow().is_some());
    settle(&reactor);
    let transport: Transport = kept.take().unwrap();
    let body: Vec<u8> = (0..MUCH).map(|n| (n % 241) as u8).collect();
    stream.write_all(&body).unwrap();
    run_until(&reactor, || log.has("data"));
    settle(&reactor);
    run_until(&reactor, || is_acknowledged(&stream));
    assert!(received.borrow().len() < MUCH, "it was paused");
    reset_on_close(&stream);
    drop(stream);
    run_until(&reactor, || transport.is_disconnecting());
    transport.resume_producing();
    run_until(&reactor, || log.is_over());
    assert!(*received.borrow() == body, "{} of {MUCH} bytes came", received.borrow().len());
    let reason: ropewalk::Failure = reason.take().unwrap();
    assert!(matches!(reason.check(), Some(ConnectionClosed::Reset { unsent: 0 })), "{reason}");
}

/// The peer of a UNIX socket that is closed while reading is paused: an end is no reset, and stays
/// behind the bytes.
#[test]
fn a_unix_peer_that_is_gone_during_a_pause_drops_nothing() {
    let (reactor, log, received, kept) = (reactor(), Log::default(), Rc::default(), Rc::default());
    let path = std::env::temp_dir().join(format!("ropewalk-gone-{}", std::process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let address = ropewalk::address::UnixAddress::path(&path).unwrap();
    let script = Script::new(&log).into_buffer(&received).transport_into(&kept).made(|transport| {
        transport.write(b"what the peer does not read makes its close a reset");
        transport.pause_producing();
        Ok(())
    });
    drop(reactor.connect_unix(&address, &UnixConnectOptions::new(), once(script)));
    run_until(&reactor, || kept.borrow().is_some());
    settle(&reactor);
    let transport: Transport = kept.take().unwrap();
    let (mut peer, _): (UnixStream, _) = listener.accept().unwrap();
    std::fs::remove_file(&path).unwrap();
    peer.write_all(&[b'u'; 100_000]).unwrap();
    drop(peer);
    settle(&reactor);
    assert_eq!(log.all(), ["made"]);
    transport.resume_producing();
    run_until(&reactor, || log.is_over());
    assert_eq!(received.borrow().len(), 100_000);
}
