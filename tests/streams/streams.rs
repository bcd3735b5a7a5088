//! The rules of a TCP connection, over real sockets, with a blocking peer that is not ours.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::testing::StringTransport;
use ropewalk::{Failure, Protocol, Result, Transport};

/// Everything that a peer sends until it ends its side.
fn read_all(stream: &mut std::net::TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("an orderly end");
    all
}

/// Made once, then data, then lost once, and nothing after it.
#[test]
fn callbacks_come_in_order_and_once() {
    let (reactor, log) = (reactor(), Log::default());
    let script = Script::new(&log).data(|transport, data| {
        transport.write(data);
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        answer
    });
    assert_eq!(&run_beside(&reactor, client), b"hello");
    run_until(&reactor, || log.is_over());
    settle(&reactor);
    assert_eq!(log.all(), ["made", "data", "lost: the connection was closed cleanly"]);
}

/// `lose_connection` sends everything that was written, however much, and also what was written
/// after it.
#[test]
fn lose_connection_flushes_first() {
    let (reactor, log) = (reactor(), Log::default());
    let body = vec![b'x'; 20 << 20];
    let script = Script::new(&log).made(move |transport| {
        transport.write(&body);
        transport.lose_connection();
        transport.write(b"tail");
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| read_all(&mut stream));
    let received = run_beside(&reactor, client);
    assert_eq!(received.len(), (20 << 20) + 4);
    assert!(received.ends_with(b"xtail"));
    run_until(&reactor, || log.is_over());
    assert_eq!(log.all(), ["made", "lost: the connection was closed cleanly"]);
}

/// Writes after the connection is over are dropped, and nothing else happens.
#[test]
fn writes_after_the_loss_are_ignored() {
    let (reactor, log, kept) = (reactor(), Log::default(), Rc::default());
    let script = Script::new(&log).transport_into(&kept).lost(|transport| {
        transport.write(b"too late");
        transport.lose_connection();
        transport.abort_connection();
        transport.resume_producing();
    });
    let (_port, address) = listen(&reactor, once(script));
    run_beside(&reactor, peer(address, drop));
    run_until(&reactor, || log.is_over());
    let transport: Transport = kept.borrow_mut().take().unwrap();
    transport.write(b"much too late");
    settle(&reactor);
    assert_eq!(transport.queued_bytes(), 0);
    assert!(transport.is_disconnected());
    assert_eq!(transport.set_tcp_no_delay(true).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(transport.raw_fd(), None);
    assert_eq!(log.count("lost"), 1);
}

/// `abort_connection` drops what is queued, and the peer sees a reset.
#[test]
fn abort_connection_resets() {
    let (reactor, log) = (reactor(), Log::default());
    let script = Script::new(&log).data(|transport, _| {
        transport.write(&vec![0; 8 << 20]);
        transport.abort_connection();
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.write_all(b"go").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map_err(|error| error.kind())
    });
    assert_eq!(run_beside(&reactor, client), Err(ErrorKind::ConnectionReset));
    run_until(&reactor, || log.is_over());
    assert_eq!(log.reason(), "the connection was aborted");
}

/// The peer's end of stream ends the connection, but what was written before is sent: here 20 MB to
/// a peer that shuts its side right after its request.
#[test]
fn a_peer_that_ends_its_side_still_gets_the_whole_answer() {
    let (reactor, log) = (reactor(), Log::default());
    let script = Script::new(&log).data(|transport, _| {
        transport.write(&vec![b'a'; 20_000_000]);
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.write_all(b"request").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&mut stream).len()
    });
    assert_eq!(run_beside(&reactor, client), 20_000_000);
    run_until(&reactor, || log.is_over());
    assert_eq!(log.reason(), "the connection was closed cleanly");
}

/// Unread input must not destroy, as a reset, the answer that was sent before closing.
#[test]
fn closing_with_unread_input_does_not_destroy_the_answer() {
    let (reactor, log) = (reactor(), Log::default());
    let script = Script::new(&log).data(|transport, _| {
        transport.pause_producing();
        transport.write(&vec![b'z'; 1 << 20]);
        transport.lose_connection();
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        // More than the server ever looks at before it closes.
        let mut writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || writer.write_all(&vec![1; 4 << 20]).map_err(|error| error.kind()));
        let answer = read_all(&mut stream);
        (answer.len(), writing.join().unwrap())
    });
    let (answer, written) = run_beside(&reactor, client);
    assert_eq!(answer, 1 << 20);
    assert_eq!(written, Ok(()));
    assert_eq!(log.count("data"), 1);
    assert_eq!(log.count("lost"), 1);
}

/// `connection_lost` does not wait for a peer that keeps its side open.
#[test]
fn lingering_does_not_delay_connection_lost() {
    let (reactor, log) = (reactor(), Log::default());
    let script = Script::new(&log).made(|transport| {
        transport.write(b"bye");
        transport.lose_connection();
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let client = peer(address, move |mut stream| {
        let answer = read_all(&mut stream);
        let _ = wait.recv();
        answer
    });
    run_until(&reactor, || log.is_over());
    assert_eq!(log.reason(), "the connection was closed cleanly");
    // The socket is still being read; the port and it are watched.
    assert_eq!(reactor.counters().watched, 2);
    drop(release);
    assert_eq!(run_beside(&reactor, client), b"bye");
    run_until(&reactor, || reactor.counters().watched == 1);
}

/// A peer that takes nothing holds a closing connection up for no longer than the close timeout.
#[test]
fn a_mute_peer_is_cut_off_at_the_close_timeout() {
    let (reactor, log) = (reactor(), Log::default());
    let script = Script::new(&log).made(|transport| {
        transport.set_close_timeout(Some(Duration::from_millis(50)));
        transport.write(&vec![0; 64 << 20]);
        transport.lose_connection();
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let client = peer(address, move |mut stream| {
        let _ = wait.recv();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).map_err(|error| error.kind())
    });
    run_until(&reactor, || log.is_over());
    assert!(log.reason().starts_with("the peer took nothing for 50ms while the connection was closing"));
    drop(release);
    assert_eq!(run_beside(&reactor, client), Err(ErrorKind::ConnectionReset));
}

/// A slow peer is not a mute one: as long as it takes something, a closing connection is not cut
/// off.
#[test]
fn a_slow_peer_is_not_cut_off() {
    let (reactor, log) = (reactor(), Log::default());
    let script = Script::new(&log).made(|transport| {
        transport.set_close_timeout(Some(Duration::from_millis(200)));
        transport.write(&vec![0; 12 << 20]);
        transport.lose_connection();
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        let (mut total, mut buffer) = (0, vec![0; 512 << 10]);
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return total,
                count => total += count,
            }
            std::thread::yield_now();
        }
    });
    assert_eq!(run_beside(&reactor, client), 12 << 20);
    run_until(&reactor, || log.is_over());
    assert_eq!(log.reason(), "the connection was closed cleanly");
}

/// Half-close by us: the peer sees the end, and can still be heard.
#[test]
fn lose_write_connection_shuts_one_direction() {
    let (reactor, log) = (reactor(), Log::default());
    let script = Script::new(&log).half_close().made(|transport| {
        transport.write(b"head");
        transport.lose_write_connection();
        transport.write(b"tail");
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        let all = read_all(&mut stream);
        stream.write_all(b"I heard you").unwrap();
        all
    });
    assert_eq!(run_beside(&reactor, client), b"headtail");
    run_until(&reactor, || log.is_over());
    let order = ["made", "write lost", "data", "read lost", "lost: the connection was closed cleanly"];
    assert_eq!(log.all(), order);
}

/// Half-close by the peer: a protocol that opted in goes on writing, and closes when it likes.
#[test]
fn a_protocol_that_opted_in_hears_of_the_peers_half_close() {
    let (reactor, log, kept) = (reactor(), Log::default(), Rc::default());
    let script = Script::new(&log).half_close().transport_into(&kept);
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.write_all(b"question").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&mut stream)
    });
    run_until(&reactor, || log.has("read lost"));
    settle(&reactor);
    assert!(!log.is_over());
    let transport: Transport = kept.borrow_mut().take().unwrap();
    transport.write(b"a late answer");
    transport.lose_connection();
    assert_eq!(run_beside(&reactor, client), b"a late answer");
    assert_eq!(log.all(), ["made", "data", "read lost", "lost: the connection was closed cleanly"]);
}

/// An `Err` from a callback closes that connection with that reason; what it wrote is sent.
#[test]
fn an_error_closes_its_own_connection() {
    let (reactor, log) = (reactor(), Log::default());
    let script = Script::new(&log).data(|transport, _| {
        transport.write(b"400 nonsense");
        Err(Failure::message("nonsense"))
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.write_all(b"?").unwrap();
        read_all(&mut stream)
    });
    assert_eq!(run_beside(&reactor, client), b"400 nonsense");
    assert_eq!(log.all(), ["made", "data", "lost: nonsense"]);
}

/// Nothing is delivered while reading is paused, and everything after it is resumed.
#[test]
fn pausing_holds_back_and_resuming_delivers() {
    let (reactor, log, kept, received) = (reactor(), Log::default(), Rc::default(), Rc::<RefCell<Vec<u8>>>::default());
    let script = Script::new(&log).transport_into(&kept).into_buffer(&received).data(|transport, _| {
        transport.pause_producing();
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.write_all(&vec![5; 300_000]).unwrap();
    });
    run_until(&reactor, || log.has("data"));
    settle(&reactor);
    assert_eq!(log.count("data"), 1);
    let transport: Transport = kept.borrow().clone().unwrap();
    run_until(&reactor, || {
        transport.resume_producing();
        log.is_over()
    });
    run_beside(&reactor, client);
    assert_eq!(received.borrow().len(), 300_000);
    assert_eq!(log.reason(), "the connection was closed cleanly");
}

/// F10, F11: a reset is noticed at once whether the connection is being read, paused, or
/// half-closed by either side, and costs no turns of the loop meanwhile.
#[test]
fn a_reset_is_noticed_in_every_state() {
    for state in ["reading", "paused", "read closed", "write closed"] {
        let (reactor, log) = (reactor(), Log::default());
        let script = Script::new(&log).half_close().data(move |transport, _| {
            match state {
                "paused" => transport.pause_producing(),
                "write closed" => transport.lose_write_connection(),
                _ => {}
            }
            Ok(())
        });
        let (_port, address) = listen(&reactor, once(script));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let client = peer(address, move |mut stream| {
            stream.write_all(b"hello").unwrap();
            if state == "read closed" {
                stream.shutdown(Shutdown::Write).unwrap();
            }
            wait.recv().unwrap();
            reset_on_close(&stream);
        });
        run_until(&reactor, || match state {
            "read closed" => log.has("read lost"),
            "write closed" => log.has("write lost"),
            _ => log.has("data"),
        });
        settle(&reactor);
        assert!(!log.is_over(), "{state}");
        let turns = reactor.counters().turns;
        go.send(()).unwrap();
        run_until(&reactor, || log.is_over());
        assert!(log.reason().starts_with("the peer reset the connection"), "{state}: {}", log.reason());
        assert!(reactor.counters().turns - turns < 1000, "{state}: the loop spun");
        run_beside(&reactor, client);
    }
}

/// Options of the socket can be set and read back.
#[test]
fn tcp_options_reach_the_socket() {
    let (reactor, log, kept) = (reactor(), Log::default(), Rc::default());
    let (_port, address) = listen(&reactor, once(Script::new(&log).transport_into(&kept)));
    let client = peer(address, |mut stream| read_all(&mut stream));
    run_until(&reactor, || log.has("made"));
    let transport: Transport = kept.borrow_mut().take().unwrap();
    for on in [true, false] {
        transport.set_tcp_no_delay(on).unwrap();
        assert_eq!(transport.tcp_no_delay().unwrap(), on);
        transport.set_tcp_keep_alive(on).unwrap();
        assert_eq!(transport.tcp_keep_alive().unwrap(), on);
    }
    transport.set_tcp_keep_alive_times(Duration::from_secs(30), Duration::from_secs(5), 3).unwrap();
    let times = with_descriptor(&transport, |socket| {
        use rustix::net::sockopt::{tcp_keepcnt, tcp_keepidle, tcp_keepintvl};
        (tcp_keepidle(socket).unwrap(), tcp_keepintvl(socket).unwrap(), tcp_keepcnt(socket).unwrap())
    });
    assert_eq!(times, (Duration::from_secs(30), Duration::from_secs(5), 3));
    let read_back = || with_descriptor(&transport, |socket| rustix::net::sockopt::tcp_user_timeout(socket).unwrap());
    for (asked, millis) in [
        (Duration::from_secs(20), 20_000),
        (Duration::from_nanos(1), 1),
        (Duration::from_millis(1 << 32), i32::MAX as u32),
        (Duration::MAX, i32::MAX as u32),
        (Duration::ZERO, 0),
    ] {
        transport.set_tcp_user_timeout(asked).unwrap();
        assert_eq!(read_back(), millis, "{asked:?}");
    }
    let absurd = transport.set_tcp_keep_alive_times(Duration::MAX, Duration::MAX, 3);
    assert_eq!(absurd.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(transport.raw_fd().is_some());
    transport.lose_connection();
    run_beside(&reactor, client);
}

/// Both ends know each other's address.
#[test]
fn host_and_peer_are_the_sockets_addresses() {
    let (reactor, log, kept) = (reactor(), Log::default(), Rc::default());
    let (port, address) = listen(&reactor, once(Script::new(&log).transport_into(&kept)));
    let client = peer(address, |stream| stream.local_addr().unwrap());
    let client = run_beside(&reactor, client);
    run_until(&reactor, || log.has("made"));
    let transport: Transport = kept.borrow_mut().take().unwrap();
    assert_eq!(transport.peer(), client.into());
    assert_eq!(transport.host(), port.host());
}

/// A boxed protocol has all its callbacks and options, as without the box.
#[test]
fn a_box_hands_everything_on() {
    struct Fails(Log, bool);
    impl Fails {
        fn fail(&self, callback: &'static str) -> Result<()> {
            self.0.add(callback);
            Err(Failure::message(callback))
        }
    }
    impl Protocol for Fails {
        fn connection_made(&mut self, _: &Transport) -> Result<()> {
            self.fail("made")
        }
        fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> {
            self.fail("data")
        }
        fn connection_lost(&mut self, _: &Transport, reason: &Failure) {
            self.0.add(reason.to_string());
        }
        fn half_close(&self) -> bool {
            self.1
        }
        fn handshake_completed(&mut self, _: &Transport) -> Result<()> {
            self.fail("handshake")
        }
        fn file_descriptor_received(&mut self, _: &Transport, _: OwnedFd) -> Result<()> {
            self.fail("descriptor")
        }
        fn read_connection_lost(&mut self, _: &Transport) -> Result<()> {
            self.fail("read lost")
        }
        fn write_connection_lost(&mut self, _: &Transport) -> Result<()> {
            self.fail("write lost")
        }
    }
    /// The calls, each with its result.
    fn call_all(mut protocol: impl Protocol, log: &Log) -> Vec<String> {
        let string = StringTransport::new();
        let transport = string.transport();
        let descriptor = std::fs::File::open("/dev/null").unwrap().into();
        let results = [
            protocol.connection_made(transport),
            protocol.data_received(transport, b"data"),
            protocol.handshake_completed(transport),
            protocol.file_descriptor_received(transport, descriptor),
            protocol.read_connection_lost(transport),
            protocol.write_connection_lost(transport),
        ];
        protocol.connection_lost(transport, &Failure::message("lost"));
        log.add(protocol.half_close().to_string());
        let results = results.map(|result| result.unwrap_err().to_string());
        [log.all(), results.to_vec()].concat()
    }
    for half_close in [false, true] {
        let (log, other) = (Log::default(), Log::default());
        let all = call_all(Fails(log.clone(), half_close), &log);
        let boxed: Box<dyn Protocol> = Box::new(Fails(other.clone(), half_close));
        assert_eq!(call_all(boxed, &other), all);
        assert_eq!(all.len(), 14);
        assert_eq!(all[7], half_close.to_string());
    }
}
