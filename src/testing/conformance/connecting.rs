//! Cases about attempts to connect: successful, refused, and given up.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;

use super::link;
use super::scene::{Log, Role, SeenCall, connect_error, once};
use super::{CaseOutcome, Scene, Setting};
use crate::address::Address;
use crate::deferred::Canceller;
use crate::error::ConnectError;
use crate::failure::{Failure, Panicked, Result};
use crate::protocol::Factory;
use crate::task::defer_later;
use crate::transport::Transport;

pub(super) fn the_deferred_fires_after_connection_made(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let log = Log::default();
    let server = Role::new();
    let served = server.end();
    let (port, to) = scene.listen(once(server));
    let (made, fired) = (log.clone(), log.clone());
    let client = Role::new().does(SeenCall::Made, move |_| made.add("made"));
    let end = client.end();
    let connecting = scene.connect(&to, Counted::new(&log, once(client)));
    assert!(!connecting.is_called(), "it fired before connect returned");
    let connecting = connecting.add_callback(move |connection| {
        fired.add("fired");
        Ok(connection)
    });
    assert_eq!(log.all(), ["start"]);
    let connection = scene.result_of(connecting).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(log.all(), ["start", "build", "made", "fired"]);
    assert_eq!(connection.transport().peer(), to);
    scene.until(|| served.has(SeenCall::Made));
    assert_eq!(served.transport().peer(), connection.transport().host());
    assert_eq!(served.transport().host(), connection.transport().peer());
    connection.transport().lose_connection();
    scene.until(|| end.is_over() && log.len() == 5);
    assert_eq!(log.all().last().map(String::as_str), Some("stop"));
    drop(port.stop_listening());
    scene.finish(&[&served]);
}

pub(super) fn a_refused_attempt_fails(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    // The port existed, and is gone.
    let (port, to) = scene.listen(|_| None::<Role>);
    let stopped = port.stop_listening();
    assert!(scene.result_of(stopped).is_ok());
    for _ in 0..3 {
        let log = Log::default();
        let connecting = scene.connect(&to, Counted::new(&log, once(Role::new())));
        let refused = scene.result_of(connecting);
        let ConnectError::Refused { address } = connect_error(&refused) else { panic!("{refused:?}") };
        assert_eq!(*address, to);
        scene.until(|| log.len() == 2);
        assert_eq!(log.all(), ["start", "stop"]);
    }
    scene.finish(&[]);
}

pub(super) fn an_attempt_can_be_cancelled_at_every_stage(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (port, to) = scene.listen(|_| Some(Role::new()));
    // Cancel before any turn, and after 1, 2, .. turns.
    for turns in 0..STAGES {
        let log = Log::default();
        let client = Role::new();
        let end = client.end();
        let connecting = scene.connect(&to, Counted::new(&log, once(client)));
        // Without this timer nothing might be left that turns the loop.
        let enough = defer_later(&scene.reactor, scene.setting.moment(), || Ok(()));
        let mut left = turns;
        scene.until(|| {
            let done = left == 0 || enough.is_called();
            left = left.saturating_sub(1);
            done
        });
        enough.cancel();
        drop(enough.add_both(|_| ()));
        let had = connecting.is_called();
        connecting.cancel();
        let result = scene.result_of(connecting);
        if had {
            // Cancelled too late: the connection exists.
            let connection = result.unwrap_or_else(|failure| panic!("{failure}"));
            assert!(end.has(SeenCall::Made) && !connection.transport().is_disconnecting());
            connection.transport().lose_connection();
            scene.until(|| end.is_over());
        } else {
            assert!(matches!(connect_error(&result), ConnectError::ConnectingCancelled { .. }), "{result:?}");
            assert!(!end.has(SeenCall::Made), "it failed, but there is a connection");
        }
        let (reactor, witness) = (scene.reactor.clone(), scene.witness.clone());
        scene.until(|| {
            witness.made() == witness.lost() && reactor.counters().watched == 1 && log.all().ends_with(&["stop".into()])
        });
        assert_eq!(log.all().iter().filter(|entry| *entry != "build").count(), 2, "{log:?}");
    }
    drop(port.stop_listening());
    scene.finish(&[]);
}

/// More turns than an attempt takes on a network without latency.
const STAGES: usize = 8;

pub(super) fn an_attempt_can_be_cancelled_by_its_own_factory(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (port, to) = scene.listen(|_| Some(Role::new()));
    for in_build in [true, false] {
        let log = Log::default();
        let place: Rc<RefCell<Option<Canceller>>> = Rc::default();
        let cancelling = Rc::clone(&place);
        let cancel = move || {
            if let Some(canceller) = cancelling.take() {
                canceller.cancel();
            }
        };
        let client = Role::new();
        let end = client.end();
        let (mut client, in_made) = (Some(client), cancel.clone());
        let factory = move |_| {
            let client = client.take()?;
            if in_build {
                cancel();
                return Some(client);
            }
            let in_made = in_made.clone();
            Some(client.does(SeenCall::Made, move |_| in_made()))
        };
        let connecting = scene.connect(&to, Counted::new(&log, factory));
        place.replace(Some(connecting.canceller()));
        let result = scene.result_of(connecting);
        assert!(matches!(connect_error(&result), ConnectError::ConnectingCancelled { .. }), "{result:?}");
        scene.until(|| log.all().ends_with(&["stop".into()]));
        assert_eq!(log.all(), ["start", "build", "stop"]);
        assert_eq!(end.calls(), if in_build { vec![] } else { vec![SeenCall::Made, SeenCall::Lost] });
    }
    let (reactor, witness) = (scene.reactor.clone(), scene.witness.clone());
    scene.until(|| witness.made() == witness.lost() && reactor.counters().watched == 1);
    drop(port.stop_listening());
    scene.finish(&[]);
}

pub(super) fn an_attempt_without_a_protocol_fails(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (port, to) = scene.listen(|_| Some(Role::new()));
    let nothing = scene.connect(&to, |_| None::<Role>);
    let result = scene.result_of(nothing);
    assert!(matches!(connect_error(&result), ConnectError::NoProtocol { .. }), "{result:?}");

    let panics = scene.connect(&to, |_| -> Option<Role> { panic!("on purpose") });
    let Err(failure) = scene.result_of(panics) else { panic!("it succeeded") };
    assert!(failure.check::<Panicked>().is_some_and(|panic| panic.message == "on purpose"), "{failure}");

    let role = Role::new().on(SeenCall::Made, |_, _| Err(Failure::message("on purpose")));
    let end = role.end();
    let fails = scene.connect(&to, once(role));
    let Err(failure) = scene.result_of(fails) else { panic!("it succeeded") };
    assert_eq!(failure.to_string(), "on purpose");
    scene.until(|| end.is_over());
    assert_eq!(end.reason().to_string(), "on purpose");

    let (reactor, witness) = (scene.reactor.clone(), scene.witness.clone());
    scene.until(|| witness.made() == witness.lost() && reactor.counters().watched == 1);
    drop(port.stop_listening());
    scene.finish(&[]);
}

pub(super) fn an_attempt_has_a_time_limit(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let Some(to) = scene.setting.silent() else {
        return CaseOutcome::Skipped("this setting has no address that does not answer");
    };
    let log = Log::default();
    let limit = scene.setting.moment();
    let factory = scene.asking(Counted::new(&log, once(Role::new())));
    let attempt = link::connect_within(&scene.reactor, &to, limit, factory);
    // A second attempt, given up meanwhile.
    let cancelled = scene.connect(&to, once(Role::new()));
    let turns = Cell::new(3);
    scene.until(|| turns.replace(turns.get() - 1) == 0);
    cancelled.cancel();
    let result = scene.result_of(cancelled);
    assert!(matches!(connect_error(&result), ConnectError::ConnectingCancelled { .. }), "{result:?}");
    let result = scene.result_of(attempt);
    let ConnectError::NoAnswer { address, after } = connect_error(&result) else { panic!("{result:?}") };
    assert_eq!((address, *after), (&to, limit));
    scene.until(|| log.len() == 2);
    assert_eq!(log.all(), ["start", "stop"]);
    scene.finish(&[]);
    CaseOutcome::Passed
}

pub(super) fn a_fixed_port_reaches_a_peer_once(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    let ((port, to), (other_port, other)) = (scene.listen(|_| Some(Role::new())), scene.listen(|_| Some(Role::new())));
    let Some(ip) = to.ip() else { return CaseOutcome::Skipped("UNIX sockets have no ports") };
    let connect = |scene: &mut Scene<'_>, to: &Address, from: SocketAddr| {
        let factory = scene.asking(once(Role::new()));
        let attempt = link::connect_from(&scene.reactor, to, from, factory);
        scene.result_of(attempt)
    };
    let first = connect(&mut scene, &to, SocketAddr::new(ip, 0)).unwrap_or_else(|failure| panic!("{failure}"));
    let from = first.transport().host().socket_addr().unwrap_or_else(|| panic!("it has a port"));
    let again = connect(&mut scene, &to, from);
    let ConnectError::Bind { local, source } = connect_error(&again) else { panic!("{again:?}") };
    assert_eq!((local, source.kind()), (&from.into(), ErrorKind::AddrNotAvailable));
    let second = connect(&mut scene, &other, from).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(second.transport().host(), first.transport().host());
    drop((port.stop_listening(), other_port.stop_listening()));
    for connection in [first, second] {
        connection.transport().lose_connection();
    }
    scene.finish(&[]);
    CaseOutcome::Passed
}

/// A factory that logs its own calls.
struct Counted<F> {
    log: Log,
    inner: F,
}

impl<F> Counted<F> {
    fn new(log: &Log, inner: F) -> Self {
        Self { log: log.clone(), inner }
    }
}

impl<F: Factory> Factory for Counted<F> {
    type Protocol = F::Protocol;

    fn build_protocol(&mut self, peer: &Address) -> Option<F::Protocol> {
        self.log.add("build");
        self.inner.build_protocol(peer)
    }

    fn prepare_transport(&mut self, transport: &Transport) -> Result<()> {
        self.inner.prepare_transport(transport)
    }

    fn do_start(&mut self) {
        self.log.add("start");
    }

    fn do_stop(&mut self) {
        self.log.add("stop");
    }
}
