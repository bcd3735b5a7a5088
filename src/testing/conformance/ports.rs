//! Cases about ports, and about many connections.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;

use super::link;
use super::scene::{End, Role, SeenCall, connect_error, once};
use super::{CaseOutcome, Scene, Setting};
use crate::address::Address;
use crate::error::{ConnectError, ListenError};
use crate::reactor::Port;
use crate::transport::Transport;

pub(super) fn a_port_stops_and_listens_again(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (port, to) = scene.listen(|_| Some(Role::echo()));
    assert!(port.is_listening());
    assert!(matches!(port.start_listening(), Err(ListenError::AlreadyListening { .. })));
    for _ in 0..2 {
        let first = asker(&mut scene, &to, b"1");
        scene.until(|| first.is_over());
        let (stopped, again) = (port.stop_listening(), port.stop_listening());
        assert!(!port.is_listening() && !stopped.is_called());
        assert!(scene.result_of(stopped).is_ok() && scene.result_of(again).is_ok());
        let attempt = scene.connect(&to, once(Role::new()));
        let refused = scene.result_of(attempt);
        assert!(matches!(connect_error(&refused), ConnectError::Refused { .. }));
        port.start_listening().unwrap_or_else(|error| panic!("the port listened there before: {error:?}"));
        assert_eq!(port.host(), to);
    }
    drop(port.stop_listening());
    scene.finish(&[]);
}

/// F07.
pub(super) fn a_port_stops_inside_its_callbacks(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for (in_build, serves) in [(true, true), (false, true), (true, false), (false, false)] {
        let place: Rc<RefCell<Option<Port>>> = Rc::default();
        let (built, port) = (Rc::new(Cell::new(0)), Rc::clone(&place));
        let (count, stopped) = (Rc::clone(&built), Rc::new(Cell::new(false)));
        let has_stopped = Rc::clone(&stopped);
        let factory = move |_| {
            count.set(count.get() + 1);
            let (port, stopped) = (Rc::clone(&port), Rc::clone(&has_stopped));
            let stop = move || {
                let Some(port) = port.take() else { return };
                let stopping = if serves { port.stop_listening() } else { port.abort_listening() };
                let stopped = Rc::clone(&stopped);
                drop(stopping.add_callback(move |()| stopped.set(true)));
            };
            if in_build {
                stop();
                return Some(Role::echo());
            }
            Some(Role::echo().does(SeenCall::Made, move |_| stop()))
        };
        let (port, to) = scene.listen(factory);
        place.replace(Some(port));
        let clients: Vec<Role> = (0..3).map(|_| Role::new().half_close()).collect();
        let ends: Vec<End> = clients.iter().map(Role::end).collect();
        let settled = Rc::new(Cell::new(0));
        for client in clients {
            let settled = Rc::clone(&settled);
            let connecting = scene.connect(&to, once(client));
            drop(connecting.add_both(move |_| settled.set(settled.get() + 1)));
        }
        scene.until(|| settled.get() == ends.len() && stopped.get());
        scene.moment();
        let made: Vec<&End> = ends.iter().filter(|end| end.has(SeenCall::Made)).collect();
        for end in &made {
            end.transport().write(b"?");
        }
        // The system let these connections in. Each is served, or, on request, all but the first
        // are turned away.
        let answered = |end: &End| end.count_received() == 1;
        scene.until(|| made.iter().all(|end| answered(end) || end.is_over() || end.has(SeenCall::ReadLost)));
        let served = made.iter().filter(|end| answered(end)).count();
        assert_eq!(served, if serves { made.len() } else { 1 }, "of {} that were let in", made.len());
        assert_eq!(built.get(), served);
        if !scene.is_unix() {
            made.iter().filter(|end| !answered(end)).for_each(|end| end.assert_reset());
        }
        for end in &made {
            end.transport().lose_connection();
        }
        scene.until(|| made.iter().all(|end| end.is_over()));
    }
    scene.finish(&[]);
}

pub(super) fn a_paused_port_accepts_nothing(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (built, place) = (Rc::new(Cell::new(0)), Rc::<RefCell<Option<Port>>>::default());
    let (count, port) = (Rc::clone(&built), Rc::clone(&place));
    // The port pauses itself with each second connection, in the middle of a burst.
    let factory = move |_| {
        count.set(count.get() + 1);
        if let (0, Some(port)) = (count.get() % 2, &*port.borrow()) {
            port.pause_accepting();
        }
        Some(Role::echo())
    };
    let (port, to) = scene.listen(factory);
    place.replace(Some(port.clone()));
    assert!(!port.is_paused() && port.pause_accepting() && port.pause_accepting());
    assert!(port.is_paused() && port.is_listening());
    let clients: Vec<(u8, End)> = (b'a'..b'f').map(|token| (token, asker(&mut scene, &to, &[token]))).collect();
    scene.moment();
    assert_eq!(built.get(), 0, "a paused port has accepted");
    for expected in [2, 4, 5] {
        assert!(port.resume_accepting());
        scene.until(|| built.get() == expected);
        scene.moment();
        assert_eq!((built.get(), port.is_paused()), (expected, expected < 5));
    }
    scene.until(|| clients.iter().all(|(_, end)| end.is_over()));
    for (token, end) in &clients {
        assert_eq!(end.received(), [*token]);
    }
    // A pause and a resumption in the same turn lose nothing, in both orders.
    port.pause_accepting();
    port.resume_accepting();
    let sixth = asker(&mut scene, &to, b"6");
    scene.until(|| sixth.is_over());
    assert!(port.is_paused(), "the sixth pauses the port");
    let waiting = asker(&mut scene, &to, b"7");
    scene.moment();
    port.resume_accepting();
    port.pause_accepting();
    scene.moment();
    assert_eq!(built.get(), 6);
    // A stop serves the connections that wait, and the next start accepts.
    drop(port.stop_listening());
    assert!(!port.is_paused() && !port.pause_accepting() && !port.resume_accepting());
    scene.until(|| waiting.is_over());
    assert_eq!(waiting.received(), b"7");
    port.start_listening().unwrap_or_else(|error| panic!("the port listened there before: {error:?}"));
    let last = asker(&mut scene, &to, b"8");
    scene.until(|| last.is_over());
    assert_eq!((last.received(), port.is_paused()), (b"8".to_vec(), true));
    drop(port.stop_listening());
    scene.finish(&[]);
    // The factory holds its own port.
    place.take();
}

/// F08.
pub(super) fn an_address_in_use_is_an_error(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (port, to) = scene.listen(|_| Some(Role::echo()));
    let other = scene.setting.reactor();
    let watched = other.counters().watched;
    for reactor in [&scene.reactor, &other] {
        let again = link::listen(reactor, &to, |_| Some(Role::new()));
        let Err(ListenError::Bind { address, source }) = again else { panic!("it listens: {again:?}") };
        assert_eq!((&address, source.kind()), (&to, ErrorKind::AddrInUse));
    }
    assert_eq!(other.counters().watched, watched, "a port that does not listen is watched");
    // The port that listens is unaffected.
    let client = asker(&mut scene, &to, b"1");
    scene.until(|| client.is_over());
    drop(port.stop_listening());
    scene.finish(&[]);
}

/// F06.
pub(super) fn a_refused_connection_is_closed(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let mut built = 0;
    let (port, to) = scene.listen(move |_| {
        built += 1;
        match built {
            1 => None,
            2 => panic!("on purpose"),
            _ => Some(Role::echo()),
        }
    });
    for _ in 0..2 {
        let refused = Role::new();
        let end = refused.end();
        let connecting = scene.connect(&to, once(refused));
        drop(connecting.add_both(|_| ()));
        scene.until(|| end.is_over());
        assert_eq!(end.calls(), [SeenCall::Made, SeenCall::Lost]);
    }
    let served = asker(&mut scene, &to, b"1");
    scene.until(|| served.is_over());
    assert_eq!(served.received(), b"1");
    drop(port.stop_listening());
    scene.finish(&[]);
}

/// As many connections as a small server has. Each has its own few bytes.
const MANY: usize = 200;

pub(super) fn many_connections_at_once_are_all_served(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (port, to) = scene.listen(|_| Some(Role::echo()));
    let clients: Vec<(Vec<u8>, End)> = (0..MANY)
        .map(|number| {
            let token = format!("{number:03}").into_bytes();
            (token.clone(), asker(&mut scene, &to, &token))
        })
        .collect();
    scene.until(|| clients.iter().all(|(_, end)| end.is_over()));
    for (token, end) in &clients {
        assert_eq!(end.received(), *token);
        end.assert_done();
    }
    assert_eq!(scene.reactor.counters().accepted, MANY as u64);
    drop(port.stop_listening());
    scene.finish(&[]);
}

/// F15.
pub(super) fn slots_are_used_again_without_mixing(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (port, to) = scene.listen(|_| Some(Role::echo()));
    for round in 0..ROUNDS {
        // Some close while others of the same turn come and go.
        let clients: Vec<(Vec<u8>, End)> = (0..4_usize)
            .map(|number| {
                let token = [b'a' + (round % 26) as u8, b'0' + number as u8];
                let ending: fn(&Transport) = match (round + number) % 4 {
                    0 => Transport::lose_connection,
                    1 => Transport::abort_connection,
                    2 => Transport::lose_write_connection,
                    _ => |transport| {
                        transport.write(b"x");
                        transport.abort_connection();
                    },
                };
                (token.to_vec(), ender(&mut scene, &to, &token, ending))
            })
            .collect();
        scene.until(|| clients.iter().all(|(_, end)| end.is_over()));
        for (token, end) in &clients {
            assert_eq!(end.received(), *token, "bytes of another connection, or not all bytes");
        }
    }
    drop(port.stop_listening());
    scene.finish(&[]);
}

/// Rounds, so that each slot is used many times.
const ROUNDS: usize = 40;

pub(super) fn an_old_handle_does_not_reach_a_new_connection(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let mut old = Vec::new();
    for aborted in [true, false] {
        let (one, other) = scene.pair(Role::new(), Role::new());
        one.with_transport(if aborted { Transport::abort_connection } else { Transport::lose_connection });
        let reactor = scene.reactor.clone();
        scene.until(|| one.is_over() && other.is_over() && reactor.counters().watched == 0);
        old.extend([one.transport(), other.transport()]);
        // The new connections have the slots of the old ones.
        let (echo, asking) = scene.pair(Role::echo(), Role::new());
        for transport in &old {
            transport.write(b"old");
            transport.pause_producing();
            transport.lose_write_connection();
            transport.abort_connection();
            assert!(transport.set_tcp_no_delay(true).is_err() && transport.raw_fd().is_none());
        }
        scene.moment();
        asking.transport().write(b"new");
        scene.until(|| asking.count_received() == 3);
        assert_eq!(asking.received(), b"new");
        asking.transport().lose_connection();
        scene.until(|| asking.is_over() && echo.is_over());
        old.extend([echo.transport(), asking.transport()]);
    }
    scene.finish(&[]);
}

/// F01.
pub(super) fn lingering_sockets_give_way(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let server = scene.setting.reactor();
    let greeter = |_| {
        Some(Role::new().does(SeenCall::Made, |transport| {
            transport.write(b"!");
            transport.lose_connection();
        }))
    };
    let (port, to) = scene.listen_on(&server, greeter);
    // The port and three connections.
    if !scene.setting.limit_descriptors(&server, Some(4)) {
        return CaseOutcome::Skipped("this setting can't limit descriptors");
    }
    // One client after the other, and each keeps its end open. The sockets of all but the first few
    // are taken from those before.
    let mut clients = Vec::new();
    for _ in 0..12 {
        let client = Role::new().half_close().does(SeenCall::Made, |transport| transport.write(b"?"));
        let end = client.end();
        drop(scene.connect(&to, once(client)).add_both(|_| ()));
        scene.until(|| end.count_received() == 1 && end.has(SeenCall::ReadLost));
        assert_eq!(end.received(), b"!");
        clients.push(end);
    }
    assert_eq!(server.counters().shed, 0);
    drop(port.stop_listening());
    for end in &clients {
        end.transport().lose_connection();
    }
    scene.until(|| server.counters().watched == 0);
    scene.finish(&[]);
    CaseOutcome::Passed
}

pub(super) fn a_port_lives_without_descriptors(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let server = scene.setting.reactor();
    let (port, to) = scene.listen_on(&server, |_| Some(Role::echo()));
    // The port and two connections.
    if !scene.setting.limit_descriptors(&server, Some(3)) {
        return CaseOutcome::Skipped("this setting can't limit descriptors");
    }
    let served: Vec<End> = (0..2).map(|_| idler(&mut scene, &to)).collect();
    scene.until(|| served.iter().all(|end| end.has(SeenCall::Made)) && server.counters().watched == 3);
    let excess: Vec<End> = (0..3).map(|_| idler(&mut scene, &to)).collect();
    let troubles = || server.counters().shed + server.counters().accept_failures;
    scene.until(|| troubles() > 0);
    // The served connections go on.
    for end in &served {
        end.transport().write(b"?");
        scene.until(|| end.count_received() == 1);
    }
    scene.setting.limit_descriptors(&server, None);
    let late = asker(&mut scene, &to, b"1");
    scene.until(|| late.is_over());
    assert_eq!(late.received(), b"1");
    // Each excess connection was closed, or waited.
    for end in &excess {
        end.with_transport(|transport| transport.write(b"?"));
        scene.until(|| end.is_over() || end.count_received() == 1);
    }
    drop(port.stop_listening());
    for end in served.iter().chain(&excess) {
        end.with_transport(Transport::lose_connection);
    }
    scene.until(|| server.counters().watched == 0);
    scene.finish(&[]);
    CaseOutcome::Passed
}

/// Connects a client that sends a token, and closes once that has come back.
fn asker(scene: &mut Scene<'_>, to: &Address, token: &[u8]) -> End {
    ender(scene, to, token, Transport::lose_connection)
}

/// Connects a client that sends a token, and runs `ending` once that has come back.
fn ender(scene: &mut Scene<'_>, to: &Address, token: &[u8], ending: fn(&Transport)) -> End {
    let client = Role::new().expects(token.to_vec(), &scene.witness);
    let (end, heard, token) = (client.end(), client.end(), token.to_vec());
    let length = token.len();
    let client =
        client.does(SeenCall::Made, move |transport| transport.write(&token)).does(SeenCall::Data, move |transport| {
            if heard.count_received() == length {
                ending(transport);
            }
        });
    // The wait for the end detects a failure.
    drop(scene.connect(to, once(client)).add_both(|_| ()));
    end
}

/// Connects a client that sends nothing by itself.
fn idler(scene: &mut Scene<'_>, to: &Address) -> End {
    let client = Role::new();
    let end = client.end();
    drop(scene.connect(to, once(client)).add_both(|_| ()));
    end
}
