//! Random histories of a client service, played on the service and on a model that is too simple to
//! be wrong: a state, a number of failures, and a list of callers.

use std::time::Duration;

use crate::common::seeds;
use proptest::prelude::*;
use ropewalk::application::{ClientState, Service};
use ropewalk::deferred::{Cancelled, unhandled};
use ropewalk::{Connection, Deferred};

use crate::client_states::{Echo, Stage};

/// The delay of each failure in a row.
const DELAY: Duration = Duration::from_secs(10);

proptest! {
    #![proptest_config(ProptestConfig { cases: seeds(200, 5_000), ..ProptestConfig::default() })]

    /// Every history leads to the states, attempts, sockets and results of the model.
    #[test]
    fn a_client_service_does_what_the_model_does(history in prop::collection::vec(action(), 1..60)) {
        let ((), unheard) = unhandled::collect(|| play(&history));
        // Deferreds that the history never took are dropped at its end.
        prop_assert!(unheard.iter().all(|unheard| unheard.failure.check::<Cancelled>().is_some()), "{unheard:?}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Action {
    Start,
    Stop,
    /// Both before the loop makes another turn.
    StopThenStart,
    WhenConnected(Option<u32>),
    Accept,
    Refuse,
    Prepared(bool),
    PeerCloses,
    PeerAborts,
    Advance(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => Just(Action::Start),
        2 => Just(Action::Stop),
        2 => Just(Action::StopThenStart),
        3 => prop::option::of(0..4_u32).prop_map(Action::WhenConnected),
        6 => Just(Action::Accept),
        4 => Just(Action::Refuse),
        6 => prop::bool::weighted(0.7).prop_map(Action::Prepared),
        2 => Just(Action::PeerCloses),
        2 => Just(Action::PeerAborts),
        5 => (1..60_u64).prop_map(Action::Advance),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ModelState {
    Initial,
    Connecting,
    Preparing,
    Connected,
    /// With the rest of the delay.
    Waiting(Duration),
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    Connection,
    Failure,
    Cancelled,
}

struct Model {
    state: ModelState,
    failures: u32,
    /// The limits of the callers, and the results that they have.
    callers: Vec<(Option<u32>, Heard)>,
}

impl Model {
    /// Changes the model. Returns `false` if the action is impossible in this state.
    fn act(&mut self, action: Action) -> bool {
        use ModelState::*;
        match (action, self.state) {
            (Action::Start, Initial | Stopped) => self.begin(),
            (Action::Start, _) => {}
            (Action::Stop, _) => self.stop(),
            (Action::StopThenStart, state) => {
                // The callers wait on while a connection closes.
                if !matches!(state, Preparing | Connected) {
                    self.stop();
                }
                self.begin();
            }
            (Action::WhenConnected(limit), state) => self.callers.push((
                limit,
                match state {
                    Connected => Heard::Connection,
                    Stopped => Heard::Cancelled,
                    _ => Heard::Nothing,
                },
            )),
            (Action::Accept, Connecting) => self.state = Preparing,
            (Action::Prepared(true), Preparing) => {
                (self.state, self.failures) = (Connected, 0);
                self.tell(Heard::Connection);
            }
            (Action::Refuse, Connecting)
            | (Action::Prepared(false) | Action::PeerCloses | Action::PeerAborts, Preparing) => {
                self.retry();
                for (limit, heard) in self.callers.iter_mut().filter(|(_, heard)| *heard == Heard::Nothing) {
                    match limit {
                        Some(0 | 1) => *heard = Heard::Failure,
                        Some(left) => *left -= 1,
                        None => {}
                    }
                }
            }
            (Action::PeerCloses | Action::PeerAborts, Connected) => self.retry(),
            (Action::Advance(seconds), Waiting(rest)) => {
                match rest.checked_sub(Duration::from_secs(seconds)).filter(|rest| !rest.is_zero()) {
                    Some(rest) => self.state = Waiting(rest),
                    None => self.state = Connecting,
                }
            }
            (Action::Advance(_), _) => {}
            _ => return false,
        }
        true
    }

    fn begin(&mut self) {
        (self.state, self.failures) = (ModelState::Connecting, 0);
    }

    fn stop(&mut self) {
        self.state = ModelState::Stopped;
        self.tell(Heard::Cancelled);
    }

    fn retry(&mut self) {
        self.failures += 1;
        self.state = ModelState::Waiting(DELAY * self.failures);
    }

    fn tell(&mut self, result: Heard) {
        for (_, heard) in self.callers.iter_mut().filter(|(_, heard)| *heard == Heard::Nothing) {
            *heard = result;
        }
    }
}

fn play(history: &[Action]) {
    let stage = Stage::new(DELAY);
    let mut model = Model { state: ModelState::Initial, failures: 0, callers: Vec::new() };
    let mut callers: Vec<(Deferred<Connection<Echo>>, Heard)> = Vec::new();
    for action in history.iter().copied() {
        if !model.act(action) {
            continue;
        }
        let stopped = act(&stage, action, &mut callers);
        stage.settle();
        check(&stage, &model, action);
        for (caller, heard) in &mut callers {
            if let Some(result) = caller.take_result() {
                assert_eq!(*heard, Heard::Nothing, "a caller heard twice");
                *heard = match result {
                    Ok(_) => Heard::Connection,
                    Err(failure) if failure.check::<Cancelled>().is_some() => Heard::Cancelled,
                    Err(_) => Heard::Failure,
                };
            }
        }
        let heard = callers.iter().map(|(_, heard)| *heard);
        assert!(heard.eq(model.callers.iter().map(|(_, heard)| *heard)), "callers, after {action:?}");
        assert!(stopped.is_none_or(|mut stopped| stopped.take_result().is_some_and(|result| result.is_ok())));
    }
}

fn act(stage: &Stage, action: Action, callers: &mut Vec<(Deferred<Connection<Echo>>, Heard)>) -> Option<Deferred<()>> {
    match action {
        Action::Start => stage.start(),
        Action::Stop => return Some(stage.service.stop_service()),
        Action::StopThenStart => {
            let stopped = stage.service.stop_service();
            stage.start();
            return Some(stopped);
        }
        Action::WhenConnected(limit) => callers.push((stage.service.when_connected(limit), Heard::Nothing)),
        Action::Accept => stage.accept(),
        Action::Refuse => stage.refuse(),
        Action::Prepared(true) => stage.prepared(Ok(())),
        Action::Prepared(false) => stage.prepared(Err("not you".into())),
        Action::PeerCloses => stage.peer.take().expect("there is a peer").close(),
        Action::PeerAborts => stage.peer.take().expect("there is a peer").abort(),
        Action::Advance(seconds) => stage.memory.advance(Duration::from_secs(seconds)).unwrap(),
    }
    None
}

fn check(stage: &Stage, model: &Model, action: Action) {
    let (state, attempts, sockets) = match model.state {
        ModelState::Initial => (ClientState::Initial, 0, 0),
        ModelState::Connecting => (ClientState::Connecting, 1, 1),
        ModelState::Preparing => (ClientState::Connecting, 0, 1),
        ModelState::Connected => (ClientState::Connected, 0, 1),
        ModelState::Waiting(_) => (ClientState::Waiting, 0, 0),
        ModelState::Stopped => (ClientState::Stopped, 0, 0),
    };
    assert_eq!(stage.service.state(), state, "after {action:?}");
    assert_eq!(stage.memory.attempts().len(), attempts, "attempts, after {action:?}");
    assert_eq!(stage.open_sockets(), sockets, "sockets, after {action:?}");
    // A stop leaves the number as it is, and the next start sets it to zero.
    if !matches!(model.state, ModelState::Stopped) {
        assert_eq!(stage.service.failures(), model.failures, "failures, after {action:?}");
    }
}
