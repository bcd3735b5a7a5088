//! Pauses, closes and layers in the middle of a chunk.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::error::ConnectionClosed;
use ropewalk::interfaces::*;
use ropewalk::testing::{Conditions, Network, StringConnection, StringTransport};
use ropewalk::{ConnectOptions, ListenOptions, Reactor};

use super::*;

fn joined() -> StringConnection<Recorder<LineReceiver>> {
    StringTransport::new().joined(Recorder::new(LineReceiver::newline()))
}

fn seen(connection: &StringConnection<Recorder<LineReceiver>>) -> Vec<Event> {
    connection.connection().with(|recorder, _| recorder.events.split_off(0)).expect("the connection is open")
}

/// A pause stops the messages of its own chunk. The rest comes on resuming, before the bytes that
/// arrived meanwhile and before the peer's end.
#[test]
fn a_pause_in_the_middle_of_a_chunk() {
    let connection = joined();
    connection.deliver(b"one\npause\ntwo\npause\nthr");
    assert_eq!(seen(&connection), [Event::Made, message("one"), message("pause")]);
    connection.deliver(b"ee\nfour\n");
    connection.end_of_stream();
    assert_eq!(seen(&connection), []);
    connection.transport().resume_producing();
    connection.turn();
    assert_eq!(seen(&connection), [message("two"), message("pause")]);
    connection.transport().resume_producing();
    connection.turn();
    assert_eq!(seen(&connection), [message("three"), message("four"), Event::ReadEnded]);
}

/// A pause that is taken back in the same callback stops nothing.
#[test]
fn a_pause_that_is_taken_back() {
    let connection = joined();
    connection.deliver(b"blink\none\n");
    assert_eq!(seen(&connection), [Event::Made, message("blink"), message("one")]);
}

/// A protocol may close while the rest of a chunk waits. The rest is dropped then.
#[test]
fn a_close_while_the_rest_waits() {
    let connection = joined();
    connection.deliver(b"pause\none\n");
    assert_eq!(seen(&connection), [Event::Made, message("pause")]);
    connection.transport().lose_connection();
    connection.transport().resume_producing();
    connection.turn();
    assert!(matches!(connection.lost().unwrap().check(), Some(ConnectionClosed::Done)));
}

/// No message follows the one that closes, aborts or fails, even in the same chunk.
#[test]
fn nothing_follows_a_close() {
    for last in ["bye", "gone", "fail"] {
        let (observed, events) = Observed::new(Recorder::new(LineReceiver::newline()));
        let connection = StringTransport::new().joined(observed);
        connection.deliver(format!("one\n{last}\ntwo\nraw\n").as_bytes());
        assert!(connection.lost().is_some());
        assert_eq!(*events.borrow(), [message("one"), message(last)]);
    }
}

/// A protocol that pauses after each of many short messages gets them all, and a peer that goes on
/// sending makes nothing grow: what waits is moved by no pause.
#[test]
fn pausing_after_each_message() {
    let pausing = Recorder::new(LineReceiver::newline()).pausing().counting();
    let connection = StringTransport::new().joined(pausing);
    connection.deliver(&[b'\n'; 60_000]);
    connection.end_of_stream();
    common::allocator::begin_peak();
    let before = common::allocator::live();
    let mut turns = 0;
    while connection.with(|recorder, _| recorder.count).is_ok_and(|count| count < 60_002) {
        connection.transport().resume_producing();
        connection.turn();
        turns += 1;
        assert!(turns <= 60_000);
    }
    assert_eq!(turns, 60_000);
    let grown = common::allocator::peak().saturating_sub(before);
    assert!(grown < 4096, "{grown} bytes");
}

/// On a simulated network, whose invariants compare what protocols are given with what was sent:
/// each line pauses, and a timer resumes. All lines arrive, in order, and the end behind them.
#[test]
fn pauses_on_a_simulated_network() {
    (0..20).for_each(|seed| paused_lines(seed, Rc::new(|_transport, _is_server| Ok(()))));
}

/// The same over TLS, where a chunk is what a record has brought.
#[cfg(feature = "tls")]
#[test]
fn pauses_over_tls() {
    let (_, client, server) = common::tls::usual();
    let starts: Starts = Rc::new(move |transport, is_server| match is_server {
        true => Ok(transport.start_tls(&server)?),
        false => Ok(transport.start_tls(&client)?),
    });
    (0..5).for_each(|seed| paused_lines(seed, Rc::clone(&starts)));
}

/// Starts a layer, of the server if the argument is `true`.
type Starts = Rc<dyn Fn(&Transport, bool) -> Result<()>>;

/// Records lines, and pauses for a millisecond at each.
struct Slow {
    lines: LineReceiver,
    seen: Rc<RefCell<Vec<String>>>,
    reactor: Reactor,
    starts: Starts,
}

impl Protocol for Slow {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        (self.starts)(transport, true)
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.receive_lines(transport, data)
    }

    fn half_close(&self) -> bool {
        true
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.seen.borrow_mut().push("the end".to_owned());
        transport.lose_connection();
        Ok(self.reactor.stop()?)
    }
}

impl LineProtocol for Slow {
    fn lines(&mut self) -> &mut LineReceiver {
        &mut self.lines
    }

    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> Result<()> {
        self.seen.borrow_mut().push(String::from_utf8(line.to_vec())?);
        transport.pause_producing();
        let paused = transport.clone();
        transport.timers().call_later(Duration::from_millis(1), move || paused.resume_producing());
        Ok(())
    }
}

/// Sends all lines at once, and the end of its direction.
struct Sends(Starts);

impl Protocol for Sends {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        (self.0)(transport, false)?;
        (0..200).for_each(|number| transport.write(format!("line {number}\r\n").as_bytes()));
        transport.lose_write_connection();
        Ok(())
    }

    fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
        Ok(())
    }

    fn half_close(&self) -> bool {
        true
    }
}

fn paused_lines(seed: u64, starts: Starts) {
    let network = Network::with_conditions(seed, Conditions::rough(seed));
    let reactor = network.reactor([10, 0, 0, 1].into());
    let seen = Rc::<RefCell<Vec<String>>>::default();
    let address = SocketAddr::from(([10, 0, 0, 1], 7));
    let (server, heard, of_server) = (reactor.clone(), Rc::clone(&seen), Rc::clone(&starts));
    let slow = move || Slow {
        lines: LineReceiver::new(),
        seen: Rc::clone(&heard),
        reactor: server.clone(),
        starts: Rc::clone(&of_server),
    };
    reactor.listen_tcp(address, &ListenOptions::new(), move |_| Some(slow())).unwrap();
    let sends = move |_| Some(Sends(Rc::clone(&starts)));
    reactor.connect_tcp(address, &ConnectOptions::new(), sends).or_log("connecting");
    reactor.run().unwrap();
    let expected: Vec<_> = (0..200).map(|number| format!("line {number}")).chain(["the end".to_owned()]).collect();
    assert_eq!(*seen.borrow(), expected, "seed {seed}");
}

/// A13: the bytes behind the line that starts TLS are the handshake's, even in the same chunk. They
/// never become lines.
#[cfg(feature = "tls")]
#[test]
fn starttls_injection() {
    struct Secures {
        lines: LineReceiver,
        tls: ropewalk::tls::ServerTls,
        seen: usize,
    }
    impl Protocol for Secures {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
            self.receive_lines(transport, data)
        }
    }
    impl LineProtocol for Secures {
        fn lines(&mut self) -> &mut LineReceiver {
            &mut self.lines
        }
        fn line_received(&mut self, transport: &Transport, line: &[u8]) -> Result<()> {
            self.seen += 1;
            assert_eq!(line, b"STARTTLS");
            self.lines.send_line(transport, b"go ahead");
            Ok(transport.start_tls(&self.tls)?)
        }
    }
    let (_, _, tls) = common::tls::usual();
    let connection = StringTransport::new().joined(Secures { lines: LineReceiver::new(), tls, seen: 0 });
    connection.deliver(b"STARTTLS\r\nMAIL FROM:<mallory>\r\n");
    let reason = connection.lost().expect("text is no handshake");
    assert!(reason.to_string().contains("TLS"), "{reason}");
    assert!(connection.string().value().starts_with(b"go ahead\r\n"));
}
