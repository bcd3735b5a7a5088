//! The conformance suite on the simulated network, ideal and rough.

use std::cell::Cell;
use std::rc::Rc;

use ropewalk::testing::Conditions;
use ropewalk::testing::conformance::{Begin, CaseOutcome, Simulated, cases, run_all};

ropewalk::conformance_tests!(ideal, || Box::new(Simulated::new(1, Conditions::ideal())));

ropewalk::conformance_tests!(unix, || Box::new(Simulated::new(1, Conditions::ideal()).unix()));

/// On rough networks the engine passes all cases too, and none is skipped. The seeds are in groups,
/// which run at the same time.
fn rough(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let skipped = run_all(|| Box::new(Simulated::new(seed, Conditions::rough(seed))));
        assert_eq!(skipped, [], "seed {seed}");
    }
}

/// So it does over UNIX sockets, except for the cases that need resets or addresses that do not
/// answer.
fn rough_unix(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let skipped = run_all(|| Box::new(Simulated::new(seed, Conditions::rough(seed)).unix()));
        let skipped: Vec<_> = skipped.into_iter().map(|(name, _)| name).collect();
        let expected = [
            "a_reset_is_noticed_while_paused",
            "a_reset_behind_a_pause_loses_nothing",
            "a_reset_is_noticed_behind_an_end_that_waits",
            "an_attempt_has_a_time_limit",
            "a_fixed_port_reaches_a_peer_once",
            "attempts_fail_when_the_reactor_stops",
        ];
        assert_eq!(skipped, expected, "seed {seed}");
    }
}

#[test]
fn rough_networks_of_unix_sockets_24_to_26() {
    rough_unix(24..27);
}

#[test]
fn rough_networks_of_unix_sockets_27_to_29() {
    rough_unix(27..30);
}

#[test]
fn rough_networks_0_to_2() {
    rough(0..3);
}

#[test]
fn rough_networks_3_to_5() {
    rough(3..6);
}

#[test]
fn rough_networks_6_to_8() {
    rough(6..9);
}

#[test]
fn rough_networks_9_to_11() {
    rough(9..12);
}

#[test]
fn rough_networks_12_to_14() {
    rough(12..15);
}

#[test]
fn rough_networks_15_to_17() {
    rough(15..18);
}

#[test]
fn rough_networks_18_to_20() {
    rough(18..21);
}

#[test]
fn rough_networks_21_to_23() {
    rough(21..24);
}

/// A setting's layers begin before anything else, once on each transport, on either side.
#[test]
fn what_a_setting_begins_comes_first() {
    let (listened, connected) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let begin = |count: &Rc<Cell<usize>>| -> Begin {
        let count = Rc::clone(count);
        Rc::new(move |transport| {
            assert_eq!(transport.queued_bytes(), 0, "something was written before");
            count.set(count.get() + 1);
        })
    };
    let name = "many_connections_at_once_are_all_served";
    let case = cases().into_iter().find(|case| case.name == name).expect("the case");
    let mut setting = Simulated::new(1, Conditions::ideal()).beginning(begin(&listened), begin(&connected));
    assert_eq!(case.run(&mut setting), CaseOutcome::Passed);
    assert_eq!((listened.get(), connected.get()), (200, 200));
}
