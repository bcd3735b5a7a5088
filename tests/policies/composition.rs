//! A protocol under policies has its own transport, and every event. A source check keeps the
//! wrappers of the crate complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::*;
use crate::common::{Log, Script};
use ropewalk::policies::{ConnectionPolicies, Rate, TrafficFormat};
use ropewalk::testing::PumpOptions;
use ropewalk::{Address, Connections, SharedFactory};

/// Every policy at once, none of which passes in these tests.
fn all() -> ConnectionPolicies {
    let rate = Rate::bytes_per_second(1 << 30);
    ConnectionPolicies::new()
        .idle(SECOND * 600)
        .receive_timeout(SECOND * 600)
        .first_byte(SECOND * 600)
        .lifetime(SECOND * 600)
        .rate(rate)
        .total_rate(rate)
        .log_traffic(TrafficFormat::Hex)
}

/// Half-closes come through in both directions, with all bytes before them.
#[test]
fn half_closes_come_through() {
    let (client_log, server_log) = (Log::default(), Log::default());
    let (heard, asked) = (Rc::default(), Rc::default());
    let client = Script::new(&client_log).half_close().into_buffer(&heard).made(|transport| {
        transport.write(b"a question");
        transport.lose_write_connection();
        Ok(())
    });
    let server = Script::new(&server_log).half_close().into_buffer(&asked).read_lost(|transport| {
        transport.write(&[b'!'; 100_000]);
        transport.lose_connection();
        Ok(())
    });
    let pump = PumpOptions::new().connect(client, server);
    for side in [pump.client().transport(), pump.server().transport()] {
        all().share().apply(side);
    }
    pump.advance(SECOND);
    assert_eq!((asked.borrow().len(), heard.borrow().len()), (10, 100_000));
    assert!(server_log.has("read lost") && client_log.has("write lost") && client_log.has("read lost"));
}

/// Policies may stand around any factory, and any factory around policies: each reaches the
/// transport, and the protocol keeps its type.
#[test]
fn factories_stand_around_each_other() {
    let build = |_: Address| Script::new(&Log::default());
    let connections = Connections::new();
    let inner = ConnectionPolicies::new().idle(SECOND * 40).over(build);
    let tracked = connections.track(inner);
    let shared = SharedFactory::new(ConnectionPolicies::new().receive_timeout(SECOND * 50).over(tracked));
    let server = ConnectionPolicies::new().lifetime(SECOND * 30).over(shared);
    let pump = PumpOptions::new().connect_factories(build, server);
    let tracked: Vec<_> = connections.iter().collect();
    assert_eq!(tracked.len(), 1);
    assert!(
        tracked[0].with(|script: &mut Script, transport| {
            let _: &mut Script = script;
            transport.peer() == pump.server().transport().peer()
        }) == Ok(true)
    );
    pump.advance(SECOND * 30);
    assert_eq!(limit_of(pump.server().lost()), (TimeLimit::Lifetime, SECOND * 30));

    let boxed: Box<dyn ropewalk::Factory<Protocol = Script>> =
        Box::new(ConnectionPolicies::new().idle(SECOND * 20).over(build));
    let pump = PumpOptions::new().connect_factories(build, boxed);
    pump.advance(SECOND * 20);
    assert_eq!(limit_of(pump.server().lost()), (TimeLimit::Idle, SECOND * 20));
}

/// TLS above a rate: the handshake, its event, and every byte.
#[cfg(feature = "tls")]
#[test]
fn tls_under_policies() {
    let (_authority, client_tls, server_tls) = crate::common::tls::usual();
    let (log, heard) = (Log::default(), Rc::default());
    let client = Script::new(&log).into_buffer(&heard).secured(|transport| {
        transport.write(&[7; 100_000]);
        Ok(())
    });
    let pump = PumpOptions::new().connect(client, crate::common::Echo);
    let rate = Rate::bytes_per_second(50_000).burst(1_000);
    for side in [pump.client().transport(), pump.server().transport()] {
        all().rate(rate).share().apply(side);
    }
    pump.server().transport().start_tls(&server_tls).unwrap();
    pump.client().transport().start_tls(&client_tls).unwrap();
    let pass = |ticks: u32| (0..ticks).for_each(|_| pump.advance(Duration::from_millis(5)));
    pass(200);
    assert!(log.has("secured"));
    let early = heard.borrow().len();
    assert!(early < 60_000, "{early} bytes in a second");
    pass(800);
    assert!(heard.borrow().iter().all(|byte| *byte == 7));
    assert_eq!(heard.borrow().len(), 100_000);
}

/// The crate's wrappers of protocols and of factories pass every method on. A new method of the
/// trait fails here until each of them does.
#[test]
fn wrappers_pass_every_method_on() {
    let sources = sources(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let protocol = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol/mod.rs")).unwrap();
    let factory = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol/factory.rs")).unwrap();
    for (text, header, wrapper, least) in
        [(&protocol, "pub trait Protocol:", "Protocol for ", 4), (&factory, "pub trait Factory:", "Factory for ", 7)]
    {
        let methods = methods(text, header);
        assert!(methods.len() >= 4, "{methods:?}");
        let mut found = 0;
        for (path, source) in &sources {
            for (is_boxed, block) in wrappers(source, wrapper) {
                found += 1;
                // A box may hold any type, which has functions of its own only as a value.
                for (method, _) in methods.iter().filter(|(_, has_self)| *has_self || !is_boxed) {
                    let mut words = block.split(|c: char| !c.is_alphanumeric() && c != '_');
                    assert!(
                        words.any(|word| word == method),
                        "{}: {method} is not passed on in\n{block}",
                        path.display()
                    );
                }
            }
        }
        assert!(found >= least, "the check sees {found} wrappers of {wrapper}");
    }
}

/// Returns the names of a trait's functions. `true` stands with those that take arguments.
fn methods(text: &str, header: &str) -> Vec<(String, bool)> {
    let body = text.split(header).nth(1).and_then(|rest| rest.split("\n}\n").next()).expect("the trait");
    let lines = body.lines().filter_map(|line| line.strip_prefix("    fn "));
    let named = lines.filter_map(|line| line.split_once('('));
    named.map(|(name, rest)| (name.to_owned(), !rest.starts_with(')'))).collect()
}

/// Returns the implementations for types that wrap another one: those with a parameter that
/// implements the trait. `true` stands with a box.
fn wrappers<'a>(source: &'a str, what: &str) -> impl Iterator<Item = (bool, &'a str)> {
    let what = what.to_owned();
    source.split("\nimpl<").skip(1).filter_map(move |block| {
        let (header, body) = block.split_once(" {\n")?;
        let body = body.split("\n}\n").next()?;
        let bound = what.strip_suffix(" for ")?;
        // A closure is a factory, and wraps none; a blanket `IntoProtocol` is no protocol.
        let wraps = header.contains(&format!("> {what}")) && header.contains(&format!(": {bound}"));
        let is_boxed = header.contains(&format!("> {what}Box"));
        (wraps || is_boxed).then_some((is_boxed, body))
    })
}

fn sources(folder: PathBuf) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(sources(path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push((path.clone(), fs::read_to_string(path).unwrap()));
        }
    }
    all
}
