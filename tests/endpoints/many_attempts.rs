//! Many attempts to connect: at once, one after another, and in every way that they end.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::common::*;
use ropewalk::error::ConnectError;
use ropewalk::interfaces::*;
use ropewalk::{ConnectOptions, ListenOptions, Reactor};

/// A client that tries again as soon as it has failed, where each attempt fails at once, leaves the
/// loop to others.
#[test]
fn trying_again_at_once_does_not_hold_the_loop_up() {
    struct Retry {
        reactor: Reactor,
        options: ConnectOptions,
        tries: Cell<usize>,
        enough: Cell<bool>,
    }
    fn again(retry: &Rc<Retry>) {
        retry.tries.set(retry.tries.get() + 1);
        if retry.enough.get() || retry.tries.get() == 10_000 {
            return;
        }
        let next = Rc::clone(retry);
        let factory = |_| None::<Script>;
        let attempt = retry.reactor.connect_tcp(loopback(), &retry.options, factory);
        drop(attempt.add_both(move |result| {
            assert!(result.is_err());
            again(&next);
        }));
    }
    let reactor = reactor();
    // Not an address of ours: refused before anything is sent.
    let options = ConnectOptions::new().bind_address("192.0.2.1:0".parse().unwrap());
    let retry = Rc::new(Retry { reactor: reactor.clone(), options, tries: Cell::new(0), enough: Cell::new(false) });
    again(&retry);
    for _ in 0..20 {
        reactor.iterate(Duration::ZERO).unwrap();
    }
    let tries = retry.tries.get();
    retry.enough.set(true);
    settle(&reactor);
    assert!((10..100).contains(&tries), "{tries} attempts in 20 turns");
}

/// A thousand connects in one go all succeed, and each has its own connection.
#[test]
fn a_thousand_at_once() {
    own_process!();
    const MANY: usize = 1000;
    allow_many_descriptors();
    let (reactor, log) = (reactor(), Log::default());
    let served = Log::default();
    let options = ListenOptions::new().backlog(2048);
    let port = reactor.listen_tcp(loopback(), &options, echoes(&served)).unwrap();
    let address = port.host().socket_addr().unwrap();
    settle(&reactor);
    let before = descriptors();
    let answers = Rc::new(RefCell::new(Vec::new()));
    let attempts: Vec<_> = (0..MANY)
        .map(|number| {
            let answers = Rc::clone(&answers);
            let script = Script::new(&log)
                .made(move |transport| {
                    transport.write(&(number as u32).to_be_bytes());
                    Ok(())
                })
                .data(move |transport, data| {
                    answers.borrow_mut().push(u32::from_be_bytes(data.try_into()?) as usize);
                    transport.lose_connection();
                    Ok(())
                });
            connect(&reactor, address, once(script))
        })
        .collect();
    for attempt in attempts {
        result_of(&reactor, attempt).unwrap();
    }
    run_until(&reactor, || log.count("lost") == MANY && served.count("lost") == MANY);
    let mut answers = answers.take();
    answers.sort_unstable();
    assert_eq!(answers, (0..MANY).collect::<Vec<_>>());
    run_until(&reactor, || reactor.counters().watched == 1);
    assert_eq!(descriptors(), before);
}

/// F23: 5,000 connections, ended in every way there is, leave nothing: no descriptor, nothing
/// watched.
#[test]
fn five_thousand_connections_leave_nothing() {
    own_process!();
    const ALL: usize = 5000;
    const AT_A_TIME: usize = 50;
    struct Cycle {
        reactor: Reactor,
        to: SocketAddr,
        begun: Cell<usize>,
        ended: Cell<usize>,
    }
    /// Ends each in the way that its number says: 0 the server closes, 1 resets, 2 the client
    /// closes, 3 resets, 4 gives up.
    fn next(cycle: &Rc<Cycle>) {
        let number = cycle.begun.get();
        if number == ALL {
            return;
        }
        cycle.begun.set(number + 1);
        let own = Rc::clone(cycle);
        let script = Script::new(&Log::default())
            .made(move |transport| {
                transport.write(&[(number % 5) as u8]);
                Ok(())
            })
            .data(move |transport, _| {
                if number % 5 == 2 {
                    transport.lose_connection()
                } else {
                    transport.abort_connection()
                }
                Ok(())
            })
            .lost(move |_| {
                own.ended.set(own.ended.get() + 1);
                next(&own);
            });
        let attempt = connect(&cycle.reactor, cycle.to, once(script));
        if number % 5 == 4 {
            attempt.cancel();
            let own = Rc::clone(cycle);
            cycle.reactor.call_later(Duration::ZERO, move || {
                own.ended.set(own.ended.get() + 1);
                next(&own);
            });
        }
        drop(
            attempt
                .add_errback(move |failure| {
                    assert!(
                        matches!(failure.check(), Some(ConnectError::ConnectingCancelled { .. })),
                        "{number}: {failure}"
                    );
                    Err(failure)
                })
                .add_both(|_| ()),
        );
    }
    allow_many_descriptors();
    let (reactor, served) = (reactor(), Log::default());
    let events = served.clone();
    let factory = move |_| {
        Some(Script::new(&events).data(|transport, data| {
            match data[0] {
                0 => transport.lose_connection(),
                1 => transport.abort_connection(),
                _ => transport.write(b"your turn"),
            }
            Ok(())
        }))
    };
    let port = reactor.listen_tcp(loopback(), &ListenOptions::new().backlog(1024), factory).unwrap();
    settle(&reactor);
    let before = (descriptors(), reactor.counters().watched);
    let to = port.host().socket_addr().unwrap();
    let cycle = Rc::new(Cycle { reactor: reactor.clone(), to, begun: Cell::new(0), ended: Cell::new(0) });
    for _ in 0..AT_A_TIME {
        next(&cycle);
    }
    run_until(&reactor, || cycle.ended.get() == ALL);
    run_until(&reactor, || reactor.counters().watched == before.1);
    assert_eq!((descriptors(), reactor.counters().watched), before);
    assert_eq!(served.count("made"), served.count("lost"));
    assert!(served.count("made") >= ALL / 5 * 4);
}
