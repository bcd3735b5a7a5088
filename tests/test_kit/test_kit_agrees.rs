//! The test kit against the real thing: whatever two protocols ask of their transports, they are
//! told the same between two ends of a pump as over a socket.

use std::time::{Duration, Instant};

use crate::common::{connect, listen, reactor, run_until, settle};
use proptest::prelude::*;
use ropewalk::Transport;
use ropewalk::testing::{Accumulated, AccumulatingFactory, PumpOptions};

/// An action of one side.
#[derive(Debug, Clone, Copy)]
enum Act {
    Write,
    Lose,
    LoseWrite,
    Abort,
    Pause,
    Resume,
}

/// Steps: `true` for the client, the action, and `true` if everything comes to rest before the next
/// step.
type Program = Vec<(bool, Act, bool)>;

fn program() -> impl Strategy<Value = Program> {
    let act = prop_oneof![
        4 => Just(Act::Write),
        1 => Just(Act::Lose),
        2 => Just(Act::LoseWrite),
        1 => Just(Act::Abort),
        1 => Just(Act::Pause),
        2 => Just(Act::Resume),
    ];
    proptest::collection::vec((any::<bool>(), act, prop::bool::weighted(0.7)), 1..12)
}

fn run(program: &Program, client: &Transport, server: &Transport, mut rest: impl FnMut()) {
    rest();
    for (n, (is_client, act, then_rest)) in program.iter().enumerate() {
        let transport = if *is_client { client } else { server };
        match act {
            Act::Write => transport.write(format!("{n},").as_bytes()),
            Act::Lose => transport.lose_connection(),
            Act::LoseWrite => transport.lose_write_connection(),
            Act::Abort => transport.abort_connection(),
            Act::Pause => transport.pause_producing(),
            Act::Resume => transport.resume_producing(),
        }
        // Actions of both sides at the same time meet in any order over a socket.
        let other_is_next = program.get(n + 1).is_some_and(|(next, ..)| next != is_client);
        if *then_rest || other_is_next {
            rest();
        }
    }
    rest();
    client.resume_producing();
    rest();
    server.resume_producing();
    rest();
}

/// The callbacks of both sides.
fn told(client: &AccumulatingFactory, server: &AccumulatingFactory) -> [String; 2] {
    [client, server].map(|factory| {
        let record = &factory.records()[0];
        let reason = record.reason().map_or_else(|| "none".to_owned(), |reason| reason.to_string());
        let data = String::from_utf8(record.data()).unwrap();
        let (read, write) = (record.is_read_lost(), record.is_write_lost());
        format!("{data:?}, read lost {read}, write lost {write}, reason: {reason}")
    })
}

fn factory(half_close: bool) -> AccumulatingFactory {
    if half_close { AccumulatingFactory::with_half_close() } else { AccumulatingFactory::new() }
}

/// The callbacks of both sides at each rest, and the transcript.
fn in_the_kit(program: &Program, half_close: (bool, bool)) -> (Vec<[String; 2]>, String) {
    let (client, server) = (factory(half_close.0), factory(half_close.1));
    let pump = PumpOptions::new().connect_factories(client.clone(), server.clone());
    let mut all = Vec::new();
    run(program, pump.client().transport(), pump.server().transport(), || {
        pump.flush();
        all.push(told(&client, &server));
    });
    (all, pump.transcript())
}

/// The same; each rest lasts until what is expected of it has come, and a little longer, for what
/// is not.
fn over_a_socket(program: &Program, half_close: (bool, bool), expected: &[[String; 2]]) -> Vec<[String; 2]> {
    let reactor = reactor();
    let (client, server) = (factory(half_close.0), factory(half_close.1));
    let (_port, address) = listen(&reactor, server.clone());
    let _connecting = connect(&reactor, address, client.clone());
    let made = |factory: &AccumulatingFactory| factory.records().first().and_then(Accumulated::transport);
    run_until(&reactor, || made(&client).is_some() && made(&server).is_some());
    let mut all = Vec::new();
    run(program, &made(&client).unwrap(), &made(&server).unwrap(), || {
        let until = Instant::now() + PATIENCE;
        // Once they differ, nothing of what follows is waited for.
        let agree = all[..] == expected[..all.len()];
        while agree && told(&client, &server) != expected[all.len()] && Instant::now() < until {
            reactor.iterate(Duration::from_millis(1)).unwrap();
        }
        settle(&reactor);
        all.push(told(&client, &server));
    });
    all
}

/// How long a run that will fail waits for what does not come: seconds, for the machine may be
/// busy.
const PATIENCE: Duration = Duration::from_millis(500);

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 50, ..ProptestConfig::default() })]

    /// Any program of requests, with and without half-closes, tells both sides the same in the kit
    /// as over a socket, after every step of it.
    #[test]
    fn the_pump_does_what_a_socket_does(program in program(), half_close: (bool, bool)) {
        let (kit, transcript) = in_the_kit(&program, half_close);
        let real = over_a_socket(&program, half_close, &kit);
        prop_assert_eq!(kit, real, "\nleft is the kit:\n{}", transcript);
    }
}
