//! The io_uring backend under storms: thousands of attempts that are given up, ports that stop
//! while connections arrive, wake-ups of a ring that sleeps, more at once than the kernel's queue
//! has room for, and rings that are dropped with everything under way. Where the system has no
//! io_uring for us, every test says that it was skipped.

use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::*;
use ropewalk::interfaces::*;
use ropewalk::reactor::{UnixConnectOptions, UnixListenOptions};
use ropewalk::{ConnectOptions, ListenOptions, Port, Reactor, Transport};
use rustix::net::sockopt;
use rustix::process::{Resource, getrlimit};

/// One turn that does not wait.
fn turn(reactor: &Reactor) {
    reactor.iterate(Duration::ZERO).unwrap();
}

/// A port with a long queue.
fn listen_many(reactor: &Reactor, factory: impl Factory) -> (Port, SocketAddr) {
    let port = reactor.listen_tcp(loopback(), &ListenOptions::new().backlog(4_096), factory).unwrap();
    let address = port.host().socket_addr().unwrap();
    (port, address)
}

/// 4,000 attempts, at a port, at one that refuses, at one that does not answer, and at a UNIX
/// socket, are given up at once or after one, two or three turns: none that was given up in time is
/// made, every factory stops, and no descriptor stays open.
#[test]
fn a_storm_of_attempts_that_are_given_up() {
    own_process!();
    let Some(reactor) = ring_reactor() else { return };
    allow_many_descriptors();
    let (_port, open) = listen_many(&reactor, |_| Some(Echo));
    let name = unix_name();
    let _unix = reactor.listen_unix(&name, &UnixListenOptions::new(), |_| Some(Echo)).unwrap();
    let ((_refuser, refuses), (_listener, _first, mute)) = (refusing(), silent());
    turn(&reactor);
    let before = descriptors();
    for round in 0..50 {
        let log = Log::default();
        let mut attempts: Vec<_> = (0..80)
            .map(|number| {
                let factory = Watched::new(&log, scripts(&log));
                let options = ConnectOptions::new();
                match number % 4 {
                    0 => connect(&reactor, open, factory),
                    1 => connect(&reactor, refuses, factory),
                    2 => reactor.connect_tcp(mute, &options, factory),
                    _ => reactor.connect_unix(&name, &UnixConnectOptions::new(), factory),
                }
            })
            .collect();
        // Attempts with the same number at every address have as many turns.
        for turns in 0..4 {
            attempts.iter().enumerate().filter(|(at, _)| at / 4 % 4 == turns).for_each(|(_, attempt)| attempt.cancel());
            turn(&reactor);
        }
        let results: Vec<_> = attempts.iter_mut().map(|it| it.take_result().expect("it is over")).collect();
        let made = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!((log.count("made"), log.count("start")), (made, 80), "round {round}");
        for connection in results.into_iter().flatten() {
            connection.transport().abort_connection();
        }
        run_until(&reactor, || reactor.counters().watched == 2);
        settle(&reactor);
        assert_eq!(log.count("stop"), 80, "round {round}");
        assert_eq!(descriptors(), before, "round {round}");
    }
}

/// 300 ports stop while 20 connections each arrive, one, two or no turns after: each peer is served
/// or hears the end, and none is forgotten.
#[test]
fn ports_that_stop_while_connections_arrive() {
    own_process!();
    let Some(reactor) = ring_reactor() else { return };
    let mut before = None;
    for round in 0..300 {
        let (log, closed) = (Log::default(), Rc::new(Cell::new(false)));
        let (port, address) = listen_many(&reactor, echoes(&log));
        let mut peers: Vec<_> = (0..20).map(|_| dial(address)).collect();
        (0..round % 3).for_each(|_| turn(&reactor));
        peers.extend((0..5).map(|_| dial(address)));
        let stopped = Rc::clone(&closed);
        drop(port.stop_listening().add_callback(move |()| stopped.set(true)));
        drop(TcpListener::bind(address).expect("its address is free"));
        run_until(&reactor, || closed.get());
        for peer in &mut peers {
            // A peer that was not accepted may have been reset by now.
            let _ = peer.write_all(b"served?");
        }
        let (mut served, mut over) = (0, 0);
        run_until(&reactor, || {
            peers.retain_mut(|peer| {
                let mut heard = Vec::new();
                let end = read_now(peer, &mut heard);
                assert!(matches!(end, None | Some(Ok(()) | Err(ErrorKind::ConnectionReset))), "{end:?}");
                (served, over) = (served + usize::from(heard == b"served?"), over + usize::from(end.is_some()));
                end.is_none() && heard.is_empty()
            });
            peers.is_empty()
        });
        assert_eq!((served + over, served), (25, log.count("made")), "round {round}");
        run_until(&reactor, || reactor.counters().watched == 0);
        settle(&reactor);
        drop(port);
        assert_eq!(descriptors(), *before.get_or_insert_with(descriptors), "round {round}");
    }
}

/// A thread wakes the ring 1,000 times, each time when the system says that the loop's thread
/// sleeps: none is lost, for nothing else would end the wait.
#[test]
fn a_thousand_wake_ups_of_a_sleeping_ring() {
    own_process!();
    let Some(reactor) = ring_reactor() else { return };
    let (remote, loop_thread) = (reactor.remote(), rustix::thread::gettid().as_raw_nonzero());
    let (told, hears) = mpsc::channel();
    let waker = thread::spawn(move || {
        for number in 0..1_000 {
            await_sleep(loop_thread.get());
            let told = told.clone();
            remote.call_from_thread(move |_| told.send(number).unwrap()).unwrap();
            assert_eq!(hears.recv_timeout(LIMIT), Ok(number), "a wake-up was lost");
        }
        remote.call_from_thread(|reactor| reactor.stop().unwrap()).unwrap();
    });
    run(&reactor).unwrap();
    waker.join().unwrap();
    assert!(reactor.counters().turns >= 1_000);
}

/// Waits until a thread of this process sleeps.
fn await_sleep(thread: i32) {
    let until = Instant::now() + LIMIT;
    let stat = format!("/proc/self/task/{thread}/stat");
    // The state stands behind the name, which is in brackets.
    while !std::fs::read_to_string(&stat).unwrap().rsplit_once(')').unwrap().1.starts_with(" S") {
        assert!(Instant::now() < until, "the loop does not sleep");
        thread::yield_now();
    }
}

/// 9,000 connections send before a single turn, and are answered in the next: more receives, and
/// then more sends, than the kernel's queue of 8,192 has room for. None is lost.
#[test]
fn more_at_once_than_the_queue_holds() {
    own_process!();
    const CONNECTIONS: usize = 9_000;
    let Some(reactor) = ring_reactor() else { return };
    allow_many_descriptors();
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if allowed < 2 * CONNECTIONS as u64 + 200 {
        return println!("skipped: {allowed} descriptors are not enough");
    }
    let (_port, address) = listen_many(&reactor, |_| Some(Echo));
    let mut peers = Vec::new();
    while peers.len() < CONNECTIONS {
        peers.extend((0..1_000).map(|_| dial(address)));
        run_until(&reactor, || reactor.counters().accepted == peers.len() as u64);
    }
    let message = |round: usize, number: usize| [round as u8, number as u8, (number >> 8) as u8, 7];
    for round in 0..3 {
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&message(round, number)).unwrap();
        }
        let mut answers = vec![Vec::new(); CONNECTIONS];
        run_until(&reactor, || {
            for (peer, answer) in peers.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.len() < 4) {
                assert_eq!(read_now(peer, answer), None);
            }
            answers.iter().all(|answer| answer.len() >= 4)
        });
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!(answer, &message(round, number), "round {round}, connection {number}");
        }
    }
    drop(peers);
    run_until(&reactor, || reactor.counters().watched == 1);
}

/// 40 reactors are dropped with everything under way: sends that the peer does not read, receives,
/// data that was not taken, connections that were not accepted, attempts that are not answered.
/// Every peer hears of it, and no descriptor stays open.
#[test]
fn rings_dropped_with_everything_under_way() {
    own_process!();
    if ring_reactor().is_none() {
        return;
    }
    let data = vec![b'd'; 1 << 20];
    let mut before = None;
    for round in 0..40 {
        let reactor = ring_reactor().expect("there was one");
        let mut peers = everything_under_way(&reactor, &data, round % 4);
        drop(reactor);
        for peer in &mut peers {
            let (mut heard, mut end) = (Vec::new(), None);
            let until = Instant::now() + LIMIT;
            while end.is_none() {
                assert!(Instant::now() < until, "a peer does not hear that the reactor is gone");
                end = read_now(peer, &mut heard);
            }
            assert!(matches!(end, Some(Ok(()) | Err(ErrorKind::ConnectionReset))), "{end:?}");
            assert!(data.starts_with(&heard));
        }
        drop(peers);
        assert_eq!(descriptors(), *before.get_or_insert_with(descriptors), "round {round}");
    }
}

/// Has a reactor begin all sorts of things, and leaves them when some turns were made. Gives the
/// peers.
fn everything_under_way(reactor: &Reactor, data: &[u8], turns: usize) -> Vec<TcpStream> {
    let (_listener, _first, mute) = silent();
    let made = Rc::<RefCell<Vec<Transport>>>::default();
    let keep = Rc::clone(&made);
    let (_port, address) = listen_many(reactor, move |_| {
        let keep = Rc::clone(&keep);
        Some(Script::new(&Log::default()).made(move |transport| {
            keep.borrow_mut().push(transport.clone());
            Ok(())
        }))
    });
    let mut peers: Vec<_> = (0..30).map(|_| dial(address)).collect();
    run_until(reactor, || made.borrow().len() == peers.len());
    let name = unix_name();
    let unix = reactor.listen_unix(&name, &UnixListenOptions::new(), |_| Some(Echo)).unwrap();
    let script = Script::new(&Log::default()).made(|transport| {
        transport.write(&vec![b'u'; 1 << 20]);
        Ok(())
    });
    drop(reactor.connect_unix(&name, &UnixConnectOptions::new(), once(script)));
    for (number, transport) in made.borrow().iter().enumerate() {
        with_descriptor(transport, |socket| sockopt::set_socket_send_buffer_size(socket, 32 << 10)).unwrap();
        match number % 3 {
            0 => transport.write(data),
            1 => transport.pause_producing(),
            _ => {
                // The last request is not carried out any more.
                transport.write(data);
                transport.pause_producing();
            }
        }
    }
    (0..turns).for_each(|_| turn(reactor));
    let attempts = (0..5).map(|_| connect(reactor, mute, scripts(&Log::default())));
    attempts.for_each(drop);
    for peer in &mut peers {
        peer.write_all(b"too late").unwrap();
    }
    peers.extend((0..5).map(|_| dial(address)));
    drop(unix);
    peers
}
