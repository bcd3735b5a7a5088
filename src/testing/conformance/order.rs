//! Cases about the order of events in a turn.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::scene::{Role, SeenCall};
use super::{Scene, Setting};
use crate::deferred::Promise;
use crate::reactor::Reactor;
use crate::time::Clock;
use crate::transport::Transport;

/// A timer resumes a connection whose bytes have arrived, so that the next turn has data, and
/// everything that the timer requests.
pub(super) fn the_phases_of_a_turn_come_in_order(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let turns = Turns::new(&scene.reactor);
    let doomed = Role::new().does(SeenCall::Lost, turns.noting("lost"));
    let (doomed, doomed_peer) = scene.pair(doomed, Role::new());
    let half = Role::new().half_close().does(SeenCall::WriteLost, turns.noting("direction lost"));
    let (half, half_peer) = scene.pair(half, Role::new());
    let (port, _) = scene.listen(|_| None::<Role>);
    let (promise, awaited) = Promise::<()>::new();
    let noted = turns.clone();
    let future = scene.reactor.spawn(async move {
        awaited.await?;
        noted.note("future");
        Ok(())
    });
    let (noted, ends) = (turns.clone(), (doomed.clone(), half.clone()));
    let reader = Role::new().does(SeenCall::Made, Transport::pause_producing).on(SeenCall::Data, move |_, _| {
        // The requests come in the reverse of the order of their effects.
        let stopped = noted.clone();
        drop(port.stop_listening().add_callback(move |()| stopped.note("port stopped")));
        ends.0.with_transport(Transport::lose_connection);
        ends.1.with_transport(Transport::lose_write_connection);
        promise.callback(())?;
        noted.note("data");
        Ok(())
    });
    let (reader, writer) = scene.pair(reader, Role::new().does(SeenCall::Made, |transport| transport.write(b"x")));
    scene.moment();

    let (noted, resumed) = (turns.clone(), reader.clone());
    scene.reactor.call_later(Duration::ZERO, move || {
        noted.begin();
        let timer = noted.clone();
        noted.reactor.call_later(Duration::ZERO, move || timer.note("timer"));
        noted.note_in_call("call");
        resumed.with_transport(Transport::resume_producing);
    });
    scene.until(|| turns.len() == 7 && future.is_called());
    let order = ["call", "timer", "data", "future", "direction lost", "lost", "port stopped"];
    assert_eq!(turns.all(), order.map(|what| (1, what)));
    scene.finish(&[&doomed_peer, &half, &half_peer, &reader, &writer]);
}

pub(super) fn what_is_asked_inside_a_turn_waits(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let turns = Turns::new(&scene.reactor);
    let noted = turns.clone();
    scene.reactor.call_later(Duration::ZERO, move || {
        noted.begin();
        let second = noted.clone();
        noted.reactor.call_later(Duration::ZERO, move || {
            second.note("timer");
            second.note_in_call("its call");
            let third = second.clone();
            second.reactor.call_later(Duration::ZERO, move || third.note("its timer"));
        });
        let log = Arc::clone(&noted.log);
        // Can't fail: the reactor that makes the call exists.
        let _ = noted.reactor.remote().call_from_thread(move |reactor| {
            log.add(reactor, "call");
            let _ = reactor.remote().call_from_thread(move |reactor| log.add(reactor, "the call's call"));
        });
    });
    scene.until(|| turns.len() == 5);
    let expected = [(1, "call"), (1, "timer"), (2, "the call's call"), (2, "its call"), (2, "its timer")];
    assert_eq!(turns.all(), expected);
    scene.finish(&[]);
}

pub(super) fn a_request_never_calls_back(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    // Columns: name; request; `true` if it ends the connection.
    let requests: [(&str, Request, bool); 5] = [
        ("lose", Transport::lose_connection, true),
        ("abort", Transport::abort_connection, true),
        ("lose write", Transport::lose_write_connection, false),
        ("pause", Transport::pause_producing, false),
        ("write", |transport| transport.write(b"y"), false),
    ];
    for (name, request, ends) in requests {
        for in_timer in [false, true] {
            let (asked, lost, reactor) = (Rc::new(Cell::new(None)), Rc::new(Cell::new(None)), scene.reactor.clone());
            let (note, witness) = (Rc::clone(&asked), scene.witness.clone());
            let ask = move |transport: &Transport, calls: &dyn Fn() -> usize| {
                let before = calls();
                request(transport);
                if calls() != before {
                    witness.fault(format!("{name} called back"));
                }
                note.set(Some(reactor.counters().turns));
            };
            let (note, reactor) = (Rc::clone(&lost), scene.reactor.clone());
            let role = Role::new().half_close().does(SeenCall::Lost, move |_| note.set(Some(reactor.counters().turns)));
            let (end, clock) = (role.end(), scene.reactor.clone());
            let mut ask = Some(ask);
            let role = role.does(SeenCall::Data, move |transport| {
                let Some(ask) = ask.take() else { return };
                let (end, transport) = (end.clone(), transport.clone());
                if in_timer {
                    clock.call_later(Duration::ZERO, move || ask(&transport, &|| end.calls().len()));
                } else {
                    ask(&transport, &|| end.calls().len());
                }
            });
            let (end, peer) = scene.pair(role, Role::new().does(SeenCall::Made, |transport| transport.write(b"x")));
            scene.until(|| asked.get().is_some() && (!ends || end.is_over()));
            if ends {
                assert_eq!(lost.get(), asked.get(), "{name}: not at the end of that turn");
            }
            end.with_transport(Transport::lose_connection);
            peer.with_transport(Transport::lose_connection);
            scene.until(|| end.is_over() && peer.is_over());
        }
    }
    scene.finish(&[]);
}

/// A request to a transport.
type Request = fn(&Transport);

/// Events with the number of their turn.
#[derive(Default)]
struct TurnLog(Mutex<Vec<(u64, &'static str)>>);

impl TurnLog {
    fn add(&self, reactor: &Reactor, what: &'static str) {
        let turn = reactor.counters().turns;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((turn, what));
    }
}

/// A log of one reactor's turns, which are counted from the first.
#[derive(Clone)]
struct Turns {
    log: Arc<TurnLog>,
    reactor: Reactor,
    first: Rc<Cell<u64>>,
}

impl Turns {
    fn new(reactor: &Reactor) -> Self {
        Self { log: Arc::default(), reactor: reactor.clone(), first: Rc::default() }
    }

    fn begin(&self) {
        self.first.set(self.reactor.counters().turns);
    }

    fn note(&self, what: &'static str) {
        self.log.add(&self.reactor, what);
    }

    fn noting(&self, what: &'static str) -> impl FnMut(&Transport) + 'static {
        let turns = self.clone();
        move |_| turns.note(what)
    }

    /// Records an event in a call that comes as if from another thread.
    fn note_in_call(&self, what: &'static str) {
        let log = Arc::clone(&self.log);
        // Can't fail: the reactor that makes the call exists.
        let _ = self.reactor.remote().call_from_thread(move |reactor| log.add(reactor, what));
    }

    fn len(&self) -> usize {
        self.log.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn all(&self) -> Vec<(u64, &'static str)> {
        let entries = self.log.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().map(|(turn, what)| (turn.saturating_sub(self.first.get()), *what)).collect()
    }
}
