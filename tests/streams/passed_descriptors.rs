//! Descriptors that are passed over UNIX sockets. The tests count the descriptors of their
//! process, so each has one of its own.

use std::cell::RefCell;
use std::fs::File;
use std::io::{IoSlice, PipeReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use crate::common::*;
use ropewalk::address::UnixAddress;
use ropewalk::interfaces::*;
use ropewalk::reactor::{UnixConnectOptions, UnixListenOptions};
use ropewalk::testing::Network;
use ropewalk::{Port, Reactor, Result, Transport};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

/// The received descriptors, each with the number of bytes that had come before it, and the
/// received bytes.
#[derive(Debug, Default)]
struct Came {
    descriptors: Vec<(usize, OwnedFd)>,
    bytes: Vec<u8>,
}

struct Collector(Rc<RefCell<Came>>);

impl Protocol for Collector {
    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        self.0.borrow_mut().bytes.extend_from_slice(data);
        Ok(())
    }

    fn file_descriptor_received(&mut self, _transport: &Transport, descriptor: OwnedFd) -> Result<()> {
        let mut came = self.0.borrow_mut();
        let before = came.bytes.len();
        came.descriptors.push((before, descriptor));
        Ok(())
    }
}

fn abstract_address(name: &str) -> UnixAddress {
    UnixAddress::abstract_name(format!("ropewalk-passing-{name}-{}", std::process::id())).unwrap()
}

fn collect(reactor: &Reactor, at: &UnixAddress) -> (Port, Rc<RefCell<Came>>) {
    let came = Rc::<RefCell<Came>>::default();
    let place = Rc::clone(&came);
    let factory = move |_| Some(Collector(Rc::clone(&place)));
    (reactor.listen_unix(at, &UnixListenOptions::new(), factory).unwrap(), came)
}

fn connected(reactor: &Reactor, to: &UnixAddress) -> Transport {
    let connecting = reactor.connect_unix(to, &UnixConnectOptions::new(), once(Script::new(&Log::default())));
    result_of(reactor, connecting).unwrap().transport().clone()
}

/// The read end of a pipe that has `text` in it.
fn told(text: &str) -> OwnedFd {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(text.as_bytes()).unwrap();
    reader.into()
}

fn text_of(descriptor: OwnedFd) -> String {
    let mut text = String::new();
    PipeReader::from(descriptor).read_to_string(&mut text).unwrap();
    text
}

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

/// A peer that is not ours sends descriptors with bytes, in one call.
fn send_with(peer: &UnixStream, descriptors: &[OwnedFd], data: &[u8]) {
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut space = vec![MaybeUninit::uninit(); SendAncillaryMessage::ScmRights(&borrowed).size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
    let sent = rustix::net::sendmsg(peer, &[IoSlice::new(data)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, data.len());
}

fn blocking_peer(to: &UnixAddress) -> UnixStream {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(to.as_abstract_name().unwrap()).unwrap();
    UnixStream::connect_addr(&address).unwrap()
}

/// It works at the other end, is not inherited by programs, and comes no later than the byte that
/// it was sent with.
#[test]
fn a_descriptor_comes_before_its_byte() {
    own_process!();
    let (reactor, at) = (reactor(), abstract_address("one"));
    let (_port, came) = collect(&reactor, &at);
    let transport = connected(&reactor, &at);
    let before = descriptors();
    transport.write(b"a");
    transport.send_file_descriptor(told("through the pipe"), b"b").unwrap();
    transport.write(b"c");
    run_until(&reactor, || came.borrow().bytes.len() == 3);
    let Came { descriptors: passed, bytes } = came.take();
    assert_eq!(bytes, b"abc");
    let [(ahead, descriptor)] = passed.try_into().unwrap();
    assert!(ahead <= 1, "{ahead} bytes came before it");
    assert!(rustix::io::fcntl_getfd(&descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    assert_eq!(descriptors(), before + 1, "the sender's is closed");
    assert_eq!(text_of(descriptor), "through the pipe");
}

/// A descriptor with its byte is all that is sent, with nothing written before or behind it.
#[test]
fn a_descriptor_alone_is_sent() {
    own_process!();
    let (reactor, at) = (reactor(), abstract_address("alone"));
    let (_port, came) = collect(&reactor, &at);
    let transport = connected(&reactor, &at);
    settle(&reactor);
    transport.send_file_descriptor(told("alone"), b"b").unwrap();
    run_until(&reactor, || came.borrow().bytes == b"b");
    let (_, descriptor) = came.take().descriptors.pop().unwrap();
    assert_eq!(text_of(descriptor), "alone");
}

/// Without bytes of their own, descriptors leave with the bytes that are queued: one with each. The
/// next one is given back.
#[test]
fn descriptors_leave_with_queued_bytes() {
    own_process!();
    let (reactor, at) = (reactor(), abstract_address("queued"));
    let (_port, came) = collect(&reactor, &at);
    let transport = connected(&reactor, &at);
    settle(&reactor);
    transport.write(b"abc");
    transport.send_file_descriptor(told("first"), b"").unwrap();
    transport.send_file_descriptor(told("second"), b"").unwrap();
    transport.send_file_descriptor(told("third"), b"d").unwrap();
    assert_eq!(text_of(transport.send_file_descriptor(told("back"), b"").unwrap_err().0), "back");
    run_until(&reactor, || came.borrow().bytes == b"abcd");
    let passed: Vec<_> = came.take().descriptors.into_iter().map(|(ahead, it)| (ahead, text_of(it))).collect();
    assert_eq!(passed.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["first", "second", "third"]);
    assert!(passed.iter().zip([0, 1, 3]).all(|((ahead, _), most)| *ahead <= most), "{passed:?}");
}

/// A connection that closes, and has still to send, closes the descriptors that come, and delivers
/// none.
#[test]
fn a_closing_connection_delivers_no_descriptor() {
    own_process!();
    let (reactor, at) = (reactor(), abstract_address("closing"));
    let log = Log::default();
    let script = Script::new(&log).made(|transport| {
        transport.write(&vec![7; 10_000_000]);
        transport.lose_connection();
        Ok(())
    });
    let _port = reactor.listen_unix(&at, &UnixListenOptions::new(), once(script)).unwrap();
    settle(&reactor);
    let before = descriptors();
    let mut peer = blocking_peer(&at);
    run_until(&reactor, || log.has("made"));
    send_with(&peer, &[null(), null()], b"with it");
    settle(&reactor);
    assert_eq!(log.all(), ["made"]);
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).map(|count| (count, peer))
    });
    let (count, peer) = run_beside(&reactor, reading).unwrap();
    assert_eq!(count, 10_000_000);
    peer.shutdown(std::net::Shutdown::Both).unwrap();
    run_until(&reactor, || log.is_over());
    assert_eq!(log.all().len(), 2, "{:?}", log.all());
    drop(peer);
    run_until(&reactor, || reactor.counters().watched == 1);
    assert_eq!(descriptors(), before);
}

/// Many of them between writes of all sizes, more than the socket takes at a time: each comes once,
/// in order, with its byte.
#[test]
fn many_among_much_else() {
    own_process!();
    let (reactor, at) = (reactor(), abstract_address("many"));
    let (_port, came) = collect(&reactor, &at);
    let transport = connected(&reactor, &at);
    let before = descriptors();
    let (mut expected, mut places) = (Vec::new(), Vec::new());
    for n in 0..100_usize {
        let data = vec![n as u8; [1, 10, 5_000, 300_000][n % 4]];
        if n % 3 == 0 {
            transport.write(&data);
            expected.extend_from_slice(&data);
        }
        transport.send_file_descriptor(told(&n.to_string()), &data).unwrap();
        places.push(expected.len());
        expected.extend_from_slice(&data);
    }
    run_until(&reactor, || came.borrow().bytes.len() == expected.len());
    let Came { descriptors: passed, bytes } = came.take();
    assert!(bytes == expected, "the bytes are others, or in another order");
    assert_eq!(passed.len(), places.len());
    for (n, ((ahead, descriptor), place)) in passed.into_iter().zip(places).enumerate() {
        assert!(ahead <= place, "descriptor {n} came after {ahead} bytes, {place} were ahead of it");
        assert_eq!(text_of(descriptor), n.to_string());
    }
    assert_eq!(descriptors(), before);
}

/// A protocol that knows nothing of descriptors gets all bytes at once, and keeps nothing open.
#[test]
fn unwanted_ones_are_closed_and_hold_nothing_up() {
    own_process!();
    let (reactor, at) = (reactor(), abstract_address("unwanted"));
    let log = Log::default();
    let buffer = Rc::default();
    let script = Script::new(&log).into_buffer(&buffer);
    let _port = reactor.listen_unix(&at, &UnixListenOptions::new(), once(script)).unwrap();
    let mut peer = blocking_peer(&at);
    run_until(&reactor, || log.has("made"));
    let before = descriptors();
    send_with(&peer, &[null()], b"first ");
    send_with(&peer, &[null(), null()], b"second ");
    peer.write_all(b"third").unwrap();
    settle(&reactor);
    assert_eq!(String::from_utf8_lossy(&buffer.borrow()), "first second third");
    assert_eq!(descriptors(), before);
}

/// More at a time than are taken: the others are closed, and the bytes go on.
#[test]
fn an_excess_is_closed() {
    own_process!();
    let (reactor, at) = (reactor(), abstract_address("excess"));
    let (_port, came) = collect(&reactor, &at);
    let mut peer = blocking_peer(&at);
    settle(&reactor);
    let before = descriptors();
    let many: Vec<_> = (0..100).map(|_| null()).collect();
    send_with(&peer, &many, b"x");
    drop(many);
    peer.write_all(b"y").unwrap();
    settle(&reactor);
    let came = came.take();
    assert_eq!(came.bytes, b"xy");
    let taken = came.descriptors.len();
    assert!((64..100).contains(&taken), "{taken} were taken");
    assert_eq!(descriptors(), before + taken);
}

/// A descriptor that can't be sent is given back, open.
#[test]
fn what_cannot_be_sent_is_given_back() {
    own_process!();
    let (reactor, at) = (reactor(), abstract_address("back"));
    let (_port, came) = collect(&reactor, &at);
    let unix = connected(&reactor, &at);
    let error = unix.send_file_descriptor(told("back"), b"").unwrap_err();
    assert_eq!(text_of(error.0), "back");

    let (_port, tcp) = listen(&reactor, once(Script::new(&Log::default())));
    let connecting = connect(&reactor, tcp, once(Script::new(&Log::default())));
    let tcp = result_of(&reactor, connecting).unwrap().transport().clone();
    assert_eq!(text_of(tcp.send_file_descriptor(told("tcp"), b"x").unwrap_err().0), "tcp");

    unix.abort_connection();
    settle(&reactor);
    assert_eq!(text_of(unix.send_file_descriptor(told("late"), b"x").unwrap_err().0), "late");
    settle(&reactor);
    assert!(came.borrow().bytes.is_empty() && came.borrow().descriptors.is_empty());

    let network = Network::new(1);
    let host = network.reactor("10.0.0.1".parse().unwrap());
    let (_port, _came) = collect(&host, &at);
    let place = Rc::new(RefCell::new(None));
    let script = Script::new(&Log::default()).transport_into(&place);
    let _connecting = host.connect_unix(&at, &UnixConnectOptions::new(), once(script));
    network.run_until(LIMIT, || place.borrow().is_some()).unwrap();
    let simulated = place.take().unwrap();
    assert_eq!(text_of(simulated.send_file_descriptor(told("simulated"), b"x").unwrap_err().0), "simulated");
}

/// Descriptors that were not sent when a connection ended are closed with it, whichever side ended
/// it.
#[test]
fn an_end_closes_what_is_queued() {
    own_process!();
    let (reactor, at) = (reactor(), abstract_address("end"));
    let server = Rc::new(RefCell::new(None));
    let place = Rc::clone(&server);
    let silent = move |_| {
        let script = Script::new(&Log::default()).transport_into(&place).made(|transport| {
            transport.pause_producing();
            Ok(())
        });
        Some(script)
    };
    let _port = reactor.listen_unix(&at, &UnixListenOptions::new(), silent).unwrap();
    let before = descriptors();
    for from_our_end in [true, false] {
        let transport = connected(&reactor, &at);
        transport.write(&vec![0; 4 << 20]);
        transport.send_file_descriptor(null(), b"x").unwrap();
        settle(&reactor);
        assert_eq!(descriptors(), before + 3, "two ends, and the one that waits");
        let other = server.take().unwrap();
        // The other end is paused, and so does not notice that ours is gone.
        if from_our_end {
            transport.abort_connection();
            run_until(&reactor, || descriptors() == before + 1);
        }
        other.abort_connection();
        run_until(&reactor, || descriptors() == before);
    }
}
