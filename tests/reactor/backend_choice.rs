//! The choice of the backend: the builder's, else the one that `ROPEWALK_BACKEND` names, else mio;
//! and mio if the system has no io_uring. The variable is read in a process of its own, which is
//! this program again.

use crate::common::*;
use ropewalk::error::ReactorError;
use ropewalk::{BackendKind, Reactor};

/// Set in a process that was started to print its backends.
const ASKED: &str = "ROPEWALK_TEST_ASKED";

/// Prints the backends of reactors, one a line. Does nothing outside of a process that was started
/// for it.
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

/// The backends of three reactors under this value of the variable: without a choice, with mio, and
/// with io_uring.
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
        // The first line stands behind the output of the test runner.
        let line = said.lines().find_map(|line| Some(line.split_once(name)?.1.to_owned()));
        line.unwrap_or_else(|| panic!("it said {said:?}"))
    })
}

/// The backend that a reactor gets here if it asks for io_uring.
fn ring() -> &'static str {
    match reactor_on(BackendKind::IoUring) {
        Some(_) => "io_uring",
        None => "mio",
    }
}

/// Without a choice it is mio. An empty variable makes no choice.
#[test]
fn mio_is_the_default() {
    own_process!();
    for value in [None, Some("")] {
        assert_eq!(with_variable(value)[0], "mio");
    }
}

/// The variable counts if the builder makes no choice; the builder wins.
#[test]
fn the_builder_wins_over_the_variable() {
    own_process!();
    for (value, plain) in [("mio", "mio"), ("io_uring", ring())] {
        assert_eq!(with_variable(Some(value)), [plain, "mio", ring()], "{value}");
    }
}

/// A value that is no backend's name is an error of the setup that names the expected values. It is
/// ignored if the builder chooses.
#[test]
fn a_value_that_is_no_name_is_an_error() {
    own_process!();
    for value in ["epoll", "MIO", " mio", "io-uring"] {
        let expected = format!("InvalidInput: ROPEWALK_BACKEND is {value:?}: expected \"mio\" or \"io_uring\"");
        assert_eq!(with_variable(Some(value)), [&expected, "mio", ring()]);
    }
}

/// Without the feature io_uring the reactor is on mio, and the log says why, once.
#[cfg(not(feature = "io-uring"))]
#[test]
fn without_the_feature_it_is_mio() {
    let build = || Reactor::builder().signals(false).backend(BackendKind::IoUring).build().unwrap();
    let (reactor, lines) = logged(build);
    assert_eq!(reactor.backend(), BackendKind::Mio);
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("no io_uring for this reactor") && line.contains("feature `io-uring`"), "{line}");
}

/// With the feature, the reactor is on io_uring and logs nothing. If the system has no io_uring, it
/// is as without the feature.
#[cfg(feature = "io-uring")]
#[test]
fn the_ring_is_there() {
    let (reactor, lines) = logged(ring_reactor);
    match reactor {
        Some(reactor) => assert_eq!((reactor.backend(), lines.len()), (BackendKind::IoUring, 0), "{lines:?}"),
        None => assert!(lines.len() == 1 && lines[0].contains("no io_uring for this reactor"), "{lines:?}"),
    }
}
