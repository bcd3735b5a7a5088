//! One turn of the loop: its phases in order, the work that waits for the next turn, and fairness.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::common::*;
use ropewalk::interfaces::*;
use ropewalk::{BackendKind, Reactor, Transport};

/// A connection whose peer is a blocking socket in this thread.
fn pair(reactor: &Reactor, script: Script) -> (Transport, TcpStream) {
    let kept = Rc::default();
    let (port, address) = listen(reactor, once(script.transport_into(&kept)));
    let peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    run_until(reactor, || kept.borrow().is_some());
    drop(port.stop_listening());
    settle(reactor);
    let transport = kept.borrow_mut().take().unwrap();
    (transport, peer)
}

/// One turn that does not wait.
fn turn(reactor: &Reactor) {
    reactor.iterate(Duration::ZERO).unwrap();
}

fn turns(reactor: &Reactor) -> u64 {
    reactor.counters().turns
}

/// How many of these bytes, sent in this turn, are known to have been taken only in the next.
fn on_their_way(reactor: &Reactor, bytes: usize) -> usize {
    if reactor.backend() == BackendKind::IoUring { bytes } else { 0 }
}

/// The phases of one turn come in the order of the design: calls from threads, timers, what was
/// received, sending, the lost directions, the lost connections, and then the Deferreds of ports
/// that stopped.
#[test]
fn the_phases_of_a_turn_come_in_order() {
    let reactor = reactor();
    let (log, stamps, quiet) = (Log::default(), Rc::<RefCell<Vec<u64>>>::default(), Log::default());
    let note = {
        let (log, stamps, reactor) = (log.clone(), Rc::clone(&stamps), reactor.clone());
        move |what: &str| {
            log.add(what);
            stamps.borrow_mut().push(turns(&reactor));
        }
    };
    let writer: Rc<RefCell<Option<Transport>>> = Rc::default();
    let sent = Rc::clone(&writer);
    let (lost, shut) = (note.clone(), note.clone());
    let doomed = Script::new(&quiet).lost(move |_| {
        let queued = sent.borrow().as_ref().unwrap().queued_bytes();
        lost(&format!("lost, with {queued} bytes unsent"));
    });
    let (doomed, _doomed_peer) = pair(&reactor, doomed);
    let half = Script::new(&quiet).half_close().write_lost(move |_| {
        shut("direction lost");
        Ok(())
    });
    let (half, _half_peer) = pair(&reactor, half);
    let (port, _) = listen(&reactor, |_| None::<Script>);
    let (received, stopped) = (note.clone(), note.clone());
    let script = Script::new(&quiet).data(move |transport, _| {
        // Asked for in the reverse of the order in which it is to happen.
        let stopped = stopped.clone();
        drop(port.stop_listening().add_callback(move |()| stopped("port stopped")));
        doomed.lose_connection();
        half.lose_write_connection();
        transport.write(b"answer");
        received(&format!("data, {} bytes written", transport.queued_bytes()));
        Ok(())
    });
    let (transport, mut peer) = pair(&reactor, script);
    writer.replace(Some(transport.clone()));

    peer.write_all(b"question").unwrap();
    await_readable(&transport);
    let timer = note.clone();
    reactor.call_later(Duration::ZERO, move || timer("timer"));
    let (called, calls) = mpsc::channel();
    let remote = reactor.remote();
    let thread = std::thread::spawn(move || remote.call_from_thread(move |_| called.send(()).unwrap()));
    thread.join().unwrap().unwrap();
    reactor.call_later(Duration::ZERO, {
        let note = note.clone();
        move || note(if calls.try_recv().is_ok() { "after the call" } else { "before the call" })
    });
    let before = turns(&reactor);
    turn(&reactor);
    let lost = format!("lost, with {} bytes unsent", on_their_way(&reactor, 6));
    let order = ["timer", "after the call", "data, 6 bytes written", "direction lost", &lost, "port stopped"];
    assert_eq!(log.all(), order);
    assert!(stamps.borrow().iter().all(|&stamp| stamp == before + 1), "{stamps:?}");
    let mut answer = [0; 6];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

/// A call that is queued by a call waits for the next turn, and that turn comes without being asked
/// for.
#[test]
fn calls_of_calls_wait_a_turn() {
    let _watchdog = Watchdog::new();
    let reactor = reactor();
    let (told, tell) = mpsc::channel();
    let remote = reactor.remote();
    reactor
        .remote()
        .call_from_thread(move |reactor| {
            let first = turns(reactor);
            remote.call_from_thread(move |reactor| told.send((first, turns(reactor))).unwrap()).unwrap();
        })
        .unwrap();
    // No other thing ends the wait of this turn.
    reactor.iterate(2 * LIMIT).unwrap();
    assert!(tell.try_recv().is_err(), "it was made in the same turn");
    turn(&reactor);
    let (first, second) = tell.try_recv().expect("it was made in the next turn");
    assert_eq!(second, first + 1);
}

/// A zero-delay timer that is added by a timer runs in the next turn, and what was received comes
/// in between.
#[test]
fn timers_of_timers_wait_a_turn_and_the_network_comes_between() {
    let (reactor, log) = (reactor(), Log::default());
    let received = log.clone();
    let script = Script::new(&Log::default()).data(move |_, _| {
        received.add("data");
        Ok(())
    });
    let (transport, mut peer) = pair(&reactor, script);
    peer.write_all(b"x").unwrap();
    await_readable(&transport);
    let (handle, outer) = (reactor.clone(), log.clone());
    reactor.call_later(Duration::ZERO, move || {
        outer.add("timer");
        let inner = outer.clone();
        handle.call_later(Duration::ZERO, move || inner.add("its timer"));
    });
    turn(&reactor);
    assert_eq!(log.all(), ["timer", "data"]);
    turn(&reactor);
    assert_eq!(log.all(), ["timer", "data", "its timer"]);
}

/// F28, F31: an endless chain of zero-delay timers does not keep an echo from being served, nor the
/// other way round: the next link of the chain runs in the very next turn.
#[test]
fn a_chain_of_timers_and_a_storm_of_echoes_both_go_on() {
    let _watchdog = Watchdog::new();
    let reactor = reactor();
    let (log, links) = (Log::default(), Rc::<Cell<u64>>::default());
    let factory = move |_| {
        Some(Script::new(&log).data(|transport, data| {
            transport.write(data);
            Ok(())
        }))
    };
    let (_port, address) = listen(&reactor, factory);
    fn chain(reactor: Reactor, links: Rc<Cell<u64>>, asked: Option<u64>) {
        let now = turns(&reactor);
        assert!(asked.is_none_or(|asked| now == asked + 1), "asked for in turn {asked:?}, run in turn {now}");
        links.set(links.get() + 1);
        let again = reactor.clone();
        reactor.call_later(Duration::ZERO, move || chain(again, links, Some(now)));
    }
    chain(reactor.clone(), Rc::clone(&links), None);
    let over = Arc::new(AtomicBool::new(false));
    let storm: Vec<_> = (0..8)
        .map(|_| {
            let over = Arc::clone(&over);
            peer(address, move |mut stream| {
                let mut reader = stream.try_clone().unwrap();
                let reading = std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()).unwrap());
                let message = vec![7; 256 << 10];
                let mut written = 0;
                while !over.load(Ordering::Relaxed) {
                    stream.write_all(&message).unwrap();
                    written += message.len() as u64;
                }
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!(reading.join().unwrap(), written);
            })
        })
        .collect();
    let echo = peer(address, |mut stream| {
        for n in 0..100_u8 {
            stream.write_all(&[n]).unwrap();
            let mut answer = [0];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [n]);
        }
    });
    run_beside(&reactor, echo);
    let made = links.get();
    run_until(&reactor, || links.get() >= made + 500);
    over.store(true, Ordering::Relaxed);
    for peer in storm {
        run_beside(&reactor, peer);
    }
    // One link per turn, none left out.
    assert_eq!(links.get(), turns(&reactor) + 1);
}

/// Bytes that a timer or a call writes are sent in the same turn.
#[test]
fn a_write_of_a_timer_or_a_call_leaves_in_the_same_turn() {
    let reactor = reactor();
    let (transport, mut peer) = pair(&reactor, Script::new(&Log::default()));
    let writer = transport.clone();
    reactor.call_later(Duration::ZERO, move || writer.write(b"timer"));
    turn(&reactor);
    assert_eq!(transport.queued_bytes(), on_their_way(&reactor, 5));
    let mut answer = [0; 5];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"timer");
}

/// However many writes a turn makes, they leave together: a peer that waits gets all of them with
/// one receive.
#[test]
fn the_writes_of_a_turn_leave_together() {
    let (reactor, log) = (reactor(), Log::default());
    let script = Script::new(&log).data(|transport, _| {
        for _ in 0..50 {
            transport.write(b"one ");
        }
        transport.write_sequence(["and ", "a ", "sequence"]);
        transport.write_sequence(Vec::<Vec<u8>>::new());
        Ok(())
    });
    let (_port, address) = listen(&reactor, once(script));
    let client = peer(address, |mut stream| {
        stream.write_all(b"go").unwrap();
        let mut answer = vec![0; 4096];
        let count = stream.read(&mut answer).unwrap();
        answer.truncate(count);
        String::from_utf8(answer).unwrap()
    });
    assert_eq!(run_beside(&reactor, client), "one ".repeat(50) + "and a sequence");
}

/// Neither `lose_connection` nor `abort_connection` calls `connection_lost` from inside, wherever
/// they are called; it comes at the end of that turn.
#[test]
fn connection_lost_comes_at_the_end_of_the_turn() {
    let requests: [fn(&Transport); 2] = [Transport::lose_connection, Transport::abort_connection];
    for request in requests {
        for place in ["a timer", "another protocol", "outside"] {
            let (reactor, log) = (reactor(), Log::default());
            let (doomed, _doomed_peer) = pair(&reactor, Script::new(&log));
            let ask = {
                let log = log.clone();
                move || {
                    request(&doomed);
                    assert!(doomed.is_disconnecting());
                    assert!(!log.is_over(), "called from inside");
                    log.add("asked");
                }
            };
            match place {
                "a timer" => drop(reactor.call_later(Duration::ZERO, ask)),
                "another protocol" => {
                    let script = Script::new(&Log::default()).data(move |_, _| {
                        ask();
                        Ok(())
                    });
                    let (transport, mut peer) = pair(&reactor, script);
                    peer.write_all(b"x").unwrap();
                    await_readable(&transport);
                }
                _ => ask(),
            }
            turn(&reactor);
            assert_eq!(log.count("asked"), 1, "{place}");
            assert_eq!(log.count("lost"), 1, "{place}");
            settle(&reactor);
            assert_eq!(log.count("lost"), 1, "{place}");
        }
    }
}

/// F30: of 25,000 timers that are due at once a turn runs 10,000; the network is served in between,
/// and the lateness is counted.
#[test]
fn at_most_ten_thousand_timers_run_in_a_turn() {
    let (reactor, ran) = (reactor(), Rc::new(Cell::new(0)));
    let (served, seen) = (Rc::new(Cell::new(None)), Rc::clone(&ran));
    let noted = Rc::clone(&served);
    let script = Script::new(&Log::default()).data(move |_, _| {
        noted.set(Some(seen.get()));
        Ok(())
    });
    let (transport, mut peer) = pair(&reactor, script);
    peer.write_all(b"x").unwrap();
    await_readable(&transport);
    for n in 0..25_000 {
        let ran = Rc::clone(&ran);
        let call = reactor.call_later(Duration::ZERO, move || {
            assert_eq!(ran.get(), n, "out of order");
            ran.set(n + 1);
        });
        // All have the same deadline: when the last turn began.
        call.hasten(Duration::from_secs(1)).unwrap();
    }
    assert_eq!(reactor.counters().longest_lateness, Duration::ZERO);
    turn(&reactor);
    assert_eq!((ran.get(), served.get()), (10_000, Some(10_000)));
    let first = reactor.counters().longest_lateness;
    assert!(first > Duration::ZERO);
    // The rest does not wait for anything else to happen.
    let _watchdog = Watchdog::new();
    reactor.iterate(2 * LIMIT).unwrap();
    assert_eq!(ran.get(), 20_000);
    turn(&reactor);
    assert_eq!(ran.get(), 25_000);
    assert!(reactor.counters().longest_lateness > first);
}

/// A turn that may take absurdly long waits until something happens, however its duration would
/// look to a kernel.
#[test]
fn an_endless_turn_waits() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let longest =
        [Duration::MAX, Duration::from_secs(1 << 63), Duration::from_millis(1 << 32), Duration::from_secs(1 << 40)];
    for longest in longest {
        let reactor = reactor();
        turn(&reactor);
        let (rung, back) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (state, remote) = (format!("/proc/self/task/{}/stat", rustix::thread::gettid()), reactor.remote());
        let (ringing, returned) = (Arc::clone(&rung), Arc::clone(&back));
        let thread = std::thread::spawn(move || {
            let sleeps = || std::fs::read_to_string(&state).unwrap().rsplit(") ").next().unwrap().starts_with('S');
            // A while, so that one that does not really sleep is back before.
            let mut seen = 0;
            while seen < 100 && !returned.load(Ordering::SeqCst) {
                seen = if sleeps() { seen + 1 } else { 0 };
                std::thread::yield_now();
            }
            ringing.store(true, Ordering::SeqCst);
            remote.call_from_thread(|_| ()).unwrap();
        });
        let _watchdog = Watchdog::new();
        reactor.iterate(longest).unwrap();
        let early = !rung.load(Ordering::SeqCst);
        back.store(true, Ordering::SeqCst);
        thread.join().unwrap();
        assert!(!early, "it did not wait for {longest:?}");
    }
}
