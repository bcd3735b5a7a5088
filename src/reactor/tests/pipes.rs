//! Connections over descriptors that are not one socket, on each backend.

use std::cell::RefCell;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread;

use super::{Log, reactor, run_until};
use crate::error::{AdoptError, ConnectError};
use crate::failure::{Failure, Result};
use crate::protocol::Protocol;
use crate::reactor::{PipeEnds, Reactor};
use crate::testing::Network;
use crate::transport::Transport;

/// Records its callbacks and the bytes, and echoes the bytes.
struct Recorder {
    log: Log,
    bytes: Rc<RefCell<Vec<u8>>>,
    half_close: bool,
}

impl Protocol for Recorder {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.log.borrow_mut().push(format!("made at {}", transport.peer()));
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.bytes.borrow_mut().extend_from_slice(data);
        transport.write(data);
        Ok(())
    }

    fn half_close(&self) -> bool {
        self.half_close
    }

    fn read_connection_lost(&mut self, _: &Transport) -> Result<()> {
        self.log.borrow_mut().push("read lost".to_owned());
        Ok(())
    }

    fn write_connection_lost(&mut self, _: &Transport) -> Result<()> {
        self.log.borrow_mut().push("write lost".to_owned());
        Ok(())
    }

    fn connection_lost(&mut self, _: &Transport, reason: &Failure) {
        self.log.borrow_mut().push(reason.to_string());
    }
}

/// A connection over pipes, and the other ends of these.
struct Piped {
    reactor: Reactor,
    log: Log,
    bytes: Rc<RefCell<Vec<u8>>>,
    transport: Transport,
}

impl Piped {
    fn new(reactor: &Reactor, read: Option<PipeReader>, write: Option<PipeWriter>, half_close: bool) -> Self {
        let (log, bytes) = (Log::default(), Rc::default());
        let protocol = Recorder { log: Rc::clone(&log), bytes: Rc::clone(&bytes), half_close };
        let ends = PipeEnds {
            read: read.map(OwnedFd::from),
            write: write.map(OwnedFd::from),
            is_shared: false,
            of_child: None,
        };
        let connection = reactor.join_descriptors(ends, None, protocol).expect("the descriptors are open");
        Self { reactor: reactor.clone(), log, bytes, transport: connection.transport().clone() }
    }

    fn run_until_lost(&self) -> Vec<String> {
        run_until(&self.reactor, || self.transport.is_disconnected() && self.log.borrow().len() > 1);
        self.log.take()
    }
}

fn reactors() -> Vec<Reactor> {
    let mio = [reactor()].into_iter();
    #[cfg(all(feature = "io-uring", target_os = "linux"))]
    let mio = mio.chain(super::ring_reactor());
    mio.collect()
}

const MADE: &str = "made at a pipe";
const DONE: &str = "the connection was closed cleanly";

/// The bytes pass both ways, and the end of the input is that of the connection: behind the bytes
/// that are still to be written, and with an end for the reader.
#[test]
fn bytes_and_ends_pass_through_two_pipes() {
    for reactor in reactors() {
        let ((input, mut to), (mut from, output)) = (pipe().unwrap(), pipe().unwrap());
        let piped = Piped::new(&reactor, Some(input), Some(output), false);
        let message: Vec<u8> = (0..10_u32 << 20).map(|index| (index % 251) as u8).collect();
        let sent = message.clone();
        let writing = thread::spawn(move || to.write_all(&sent).unwrap());
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            from.read_to_end(&mut all).unwrap();
            all
        });
        assert_eq!(piped.run_until_lost(), [MADE, DONE]);
        writing.join().unwrap();
        assert!(reading.join().unwrap() == message, "other bytes came back");
        assert_eq!(reactor.counters().watched, 0, "nothing lingers");
    }
}

/// A lone reading end ignores writes, and ends with its input.
#[test]
fn a_lone_reading_end_ends_with_its_input() {
    for reactor in reactors() {
        let (input, mut to) = pipe().unwrap();
        let piped = Piped::new(&reactor, Some(input), None, false);
        to.write_all(b"one way").unwrap();
        run_until(&reactor, || piped.bytes.borrow().len() == 7);
        drop(to);
        assert_eq!(piped.run_until_lost(), [MADE, DONE]);
        assert_eq!(*piped.bytes.borrow(), b"one way");
    }
}

/// A lone writing end is lost when its reader is gone, although nothing is written.
#[test]
fn a_lone_writing_end_is_lost_with_its_reader() {
    for reactor in reactors() {
        let (mut from, output) = pipe().unwrap();
        let piped = Piped::new(&reactor, None, Some(output), false);
        piped.transport.write(b"hello");
        let mut answer = [0; 5];
        run_until(&reactor, || piped.transport.queued_bytes() == 0);
        from.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        drop(from);
        let log = piped.run_until_lost();
        assert!(log.len() == 2 && log[1] != DONE, "{log:?}");
    }
}

/// The end of a lone writing end is the end of its connection.
#[test]
fn a_lone_writing_end_ends_behind_its_bytes() {
    for half_close in [false, true] {
        for reactor in reactors() {
            let (mut from, output) = pipe().unwrap();
            let piped = Piped::new(&reactor, None, Some(output), half_close);
            piped.transport.write(b"all");
            piped.transport.lose_write_connection();
            let expected: &[&str] = if half_close { &[MADE, "write lost", DONE] } else { &[MADE, DONE] };
            run_until(&reactor, || piped.log.borrow().len() == expected.len());
            assert_eq!(*piped.log.borrow(), expected);
            let mut all = String::new();
            from.read_to_string(&mut all).unwrap();
            assert_eq!(all, "all");
        }
    }
}

/// Each direction ends alone for a protocol that handles half-closes.
#[test]
fn each_direction_ends_alone() {
    for reactor in reactors() {
        let ((input, mut to), (mut from, output)) = (pipe().unwrap(), pipe().unwrap());
        let piped = Piped::new(&reactor, Some(input), Some(output), true);
        to.write_all(b"in").unwrap();
        drop(to);
        run_until(&reactor, || piped.log.borrow().len() == 2);
        piped.transport.write(b" and out");
        piped.transport.lose_write_connection();
        run_until(&reactor, || piped.log.borrow().len() == 4);
        assert_eq!(piped.log.take(), [MADE, "read lost", "write lost", DONE]);
        let mut all = String::new();
        from.read_to_string(&mut all).unwrap();
        assert_eq!(all, "in and out");
    }
}

/// The bytes that arrived before the reader had gone are delivered, and then the loss.
#[test]
fn a_lost_reader_is_told_behind_the_input() {
    for reactor in reactors() {
        let ((input, mut to), (from, output)) = (pipe().unwrap(), pipe().unwrap());
        to.write_all(b"last words").unwrap();
        drop(from);
        let piped = Piped::new(&reactor, Some(input), Some(output), false);
        let log = piped.run_until_lost();
        assert!(log.len() == 2 && log[1] != DONE, "{log:?}");
        assert_eq!(*piped.bytes.borrow(), b"last words");
    }
}

/// A simulated network has no descriptors.
#[test]
fn a_simulated_reactor_refuses_pipes() {
    let network = Network::new(1);
    let reactor = network.reactor([10, 0, 0, 1].into());
    let protocol = Recorder { log: Log::default(), bytes: Rc::default(), half_close: false };
    let ends = PipeEnds { read: Some(pipe().unwrap().0.into()), write: None, is_shared: false, of_child: None };
    let refused = reactor.join_descriptors(ends, None, protocol).err();
    assert!(matches!(refused, Some(ConnectError::Adopt(AdoptError::Unsupported))), "{refused:?}");
}
