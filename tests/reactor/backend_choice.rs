//! Which backend a reactor gets: the builder's, else the one that `ROPEWALK_BACKEND` names, else mio; and mio where io_uring can't be had. The
//! variable is read in a process of its own, which is this program again.

use crate::common::*;
use ropewalk::error::ReactorError;
use ropewalk::{BackendKind, Reactor};

/// Tells a process that it was started to say what it has.
const ASKED: &str = "ROPEWALK_TEST_ASKED";

/// Says what reactors get here, one a line. Of a process that was started for it; otherwise there is nothing to do.
#[test]
fn says_what_it_has() {
    if std::env::var_os(ASKED).is_none() {
        return;
    }
    let of = |kind| Reactor::builder().backend(kind).build();
    for (name, built) in
        [("plain", Reactor::new()), ("mio", of(BackendKind::Mio)), ("io_uring", of(BackendKind::IoUring))]
    {
        match built {
            Ok(reactor) => println!("{name}: {}", reactor.backend().name()),
            Err(ReactorError::Setup(error)) => println!("{name}: {:?}: {error}", error.kind()),
            Err(error) => println!("{name}: {error}"),
        }
    }
}

/// What a reactor is on: plain, asked for mio, and asked for io_uring, where the variable is this.
fn with_variable(value: Option<&str>) -> [String; 3] {
    let mut child = this_program("backend_choice::says_what_it_has");
    child.env(ASKED, "");
    match value {
        Some(value) => child.env("ROPEWALK_BACKEND", value),
        None => child.env_remove("ROPEWALK_BACKEND"),
    };
    let output = child.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    ["plain: ", "mio: ", "io_uring: "].map(|name| {
        // The first stands behind what the test runner says.
        let line = said.lines().find_map(|line| Some(line.split_once(name)?.1.to_owned()));
        line.unwrap_or_else(|| panic!("it said {said:?}"))
    })
}

/// What asking for io_uring gives here.
fn ring() -> &'static str {
    match reactor_on(BackendKind::IoUring) {
        Some(_) => "io_uring",
        None => "mio",
    }
}

/// Where nobody says anything, it is mio; an empty variable says nothing.
#[test]
fn mio_is_the_default() {
    own_process!();
    for value in [None, Some("")] {
        assert_eq!(with_variable(value)[0], "mio");
    }
}

/// The variable is honoured where the builder says nothing, and the builder wins.
#[test]
fn the_builder_wins_over_the_variable() {
    own_process!();
    for (value, plain) in [("mio", "mio"), ("io_uring", ring())] {
        assert_eq!(with_variable(Some(value)), [plain, "mio", ring()], "{value}");
    }
}

/// A value that is no backend's name is an error of the setup that says what was expected; nobody asks for it where the builder says
/// something.
#[test]
fn a_value_that_is_no_name_is_an_error() {
    own_process!();
    for value in ["epoll", "MIO", " mio", "io-uring"] {
        let expected = format!("InvalidInput: ROPEWALK_BACKEND is {value:?}: expected \"mio\" or \"io_uring\"");
        assert_eq!(with_variable(Some(value)), [&expected, "mio", ring()]);
    }
}

/// Without its feature io_uring is asked for in vain: the reactor is on mio, and the log says why, once.
#[cfg(not(feature = "io-uring"))]
#[test]
fn without_the_feature_it_is_mio() {
    let build = || Reactor::builder().signals(false).backend(BackendKind::IoUring).build().unwrap();
    let (reactor, lines) = logged(build);
    assert_eq!(reactor.backend(), BackendKind::Mio);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("no io_uring for this reactor") && line.contains("feature `io-uring`"), "{line}");
}

/// With it, the reactor is on io_uring and the log says nothing; where the system has none for us, it is as without.
#[cfg(feature = "io-uring")]
#[test]
fn the_ring_is_there() {
    let (reactor, lines) = logged(ring_reactor);
    match reactor {
        Some(reactor) => assert_eq!((reactor.backend(), lines.len()), (BackendKind::IoUring, 0), "{lines:?}"),
        None => assert!(lines.len() == 1 && lines[0].contains("no io_uring for this reactor"), "{lines:?}"),
    }
}
