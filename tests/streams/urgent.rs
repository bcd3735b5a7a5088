//! Urgent bytes (Telnet's Synch, FTP's ABOR): they are not part of the stream, and nothing behind
//! them waits for anything else to come. The system stops each receive at such a byte, however much
//! lies behind it.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::rc::Rc;

use crate::common::*;
use ropewalk::Reactor;
use ropewalk::reactor::UnixListenOptions;
use rustix::net::SendFlags;

fn urgent(socket: impl AsFd) {
    rustix::net::send(socket, b"U", SendFlags::OOB).unwrap();
}

/// Checks the bytes that are received of a peer's stream with urgent bytes, while nothing else
/// comes. The peer has written everything before the loop turns, or the loop turns in between.
fn receives(reactor: &Reactor, mut peer: impl Write + AsFd, received: &Rc<std::cell::RefCell<Vec<u8>>>, turns: bool) {
    let turn = || {
        if turns {
            settle(reactor);
        }
    };
    for round in 1..=3 {
        peer.write_all(b"abc").unwrap();
        turn();
        urgent(&peer);
        turn();
        peer.write_all(b"def").unwrap();
        run_until(reactor, || received.borrow().len() == round * 6);
        assert_eq!(received.borrow()[(round - 1) * 6..], *b"abcdef");
    }
    // Two in a row: what the first was is part of the stream then, as it is of those who know no
    // urgent bytes.
    urgent(&peer);
    turn();
    peer.write_all(b"ghi").unwrap();
    run_until(reactor, || received.borrow().ends_with(b"ghi"));
}

/// Over TCP.
#[test]
fn a_tcp_stream_goes_on_behind_an_urgent_byte() {
    for turns in [false, true] {
        let (reactor, log, received) = (reactor(), Log::default(), Rc::default());
        let (_port, address) = listen(&reactor, once(Script::new(&log).into_buffer(&received)));
        let peer = TcpStream::connect(address).unwrap();
        peer.set_nodelay(true).unwrap();
        run_until(&reactor, || log.has("made"));
        receives(&reactor, &peer, &received, turns);
        drop(peer);
        run_until(&reactor, || log.is_over());
        assert_eq!(log.reason(), "the connection was closed cleanly");
    }
}

/// Over a connection that we have made.
#[test]
fn a_clients_stream_goes_on_behind_an_urgent_byte() {
    let (reactor, log, received) = (reactor(), Log::default(), Rc::default());
    let listener = std::net::TcpListener::bind(loopback()).unwrap();
    let script = Script::new(&log).into_buffer(&received);
    drop(connect(&reactor, listener.local_addr().unwrap(), once(script)));
    run_until(&reactor, || log.has("made"));
    let (peer, _) = listener.accept().unwrap();
    peer.set_nodelay(true).unwrap();
    receives(&reactor, &peer, &received, false);
}

/// Over a UNIX socket, where the system has urgent bytes as well (Linux 5.15).
#[test]
fn a_unix_stream_goes_on_behind_an_urgent_byte() {
    let (one, _other) = UnixStream::pair().unwrap();
    if rustix::net::send(&one, b"U", SendFlags::OOB) == Err(rustix::io::Errno::OPNOTSUPP) {
        return println!("skipped: UNIX sockets have no urgent bytes here");
    }
    for turns in [false, true] {
        let (reactor, log, received) = (reactor(), Log::default(), Rc::default());
        let name = unix_name();
        let script = Script::new(&log).into_buffer(&received);
        let _port = reactor.listen_unix(&name, &UnixListenOptions::new(), once(script)).unwrap();
        let address = SocketAddr::from_abstract_name(name.as_abstract_name().unwrap()).unwrap();
        let peer = UnixStream::connect_addr(&address).unwrap();
        run_until(&reactor, || log.has("made"));
        receives(&reactor, &peer, &received, turns);
    }
}

/// A stream that is paused at an urgent byte, and one whose peer ends behind one, lose nothing.
#[test]
fn pauses_and_ends_behind_an_urgent_byte() {
    let (reactor, log, received, kept) = (reactor(), Log::default(), Rc::default(), Rc::default());
    let script = Script::new(&log).into_buffer(&received).transport_into(&kept);
    let script = script.data(|transport, _| {
        transport.pause_producing();
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let mut peer = TcpStream::connect(address).unwrap();
    run_until(&reactor, || log.has("made"));
    peer.write_all(b"abc").unwrap();
    urgent(&peer);
    peer.write_all(b"def").unwrap();
    drop(peer);
    let transport: ropewalk::Transport = kept.take().unwrap();
    run_until(&reactor, || {
        transport.resume_producing();
        log.is_over()
    });
    assert_eq!(*received.borrow(), b"abcdef");
    assert_eq!(log.reason(), "the connection was closed cleanly");
}
