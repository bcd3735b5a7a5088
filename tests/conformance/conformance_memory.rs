//! The conformance suite on the simulated network, ideal and rough.

use std::cell::Cell;
use std::rc::Rc;

use crate::common::seeds;
use ropewalk::testing::Conditions;
use ropewalk::testing::conformance::{Begin, CaseOutcome, Simulated, cases, run_all};

ropewalk::conformance_tests!(ideal, || Box::new(Simulated::new(1, Conditions::ideal())));

ropewalk::conformance_tests!(unix, || Box::new(Simulated::new(1, Conditions::ideal()).unix()));

/// Tests in which the rough networks are, each with every third seed. They run at the same time.
const GROUPS: u32 = 3;

fn seeds_of_group(group: u32) -> impl Iterator<Item = u64> {
    (0..seeds(9, 48)).filter(move |seed| seed % GROUPS == group).map(u64::from)
}

/// On rough networks the engine passes all cases too, and none is skipped.
fn rough(group: u32) {
    for seed in seeds_of_group(group) {
        let skipped = run_all(|| Box::new(Simulated::new(seed, Conditions::rough(seed))));
        assert_eq!(skipped, [], "seed {seed}");
    }
}

#[test]
fn rough_networks_of_group_0() {
    rough(0);
}

#[test]
fn rough_networks_of_group_1() {
    rough(1);
}

#[test]
fn rough_networks_of_group_2() {
    rough(2);
}

/// So it does over UNIX sockets, except for the cases that need resets, addresses that do not
/// answer, or datagrams that are lost.
#[test]
fn rough_networks_of_unix_sockets() {
    for seed in (24..24 + seeds(3, 24)).map(u64::from) {
        let skipped = run_all(|| Box::new(Simulated::new(seed, Conditions::rough(seed)).unix()));
        let skipped: Vec<_> = skipped.into_iter().map(|(name, _)| name).collect();
        let expected = [
            "a_reset_is_noticed_while_paused",
            "a_reset_behind_a_pause_loses_nothing",
            "a_reset_is_noticed_behind_an_end_that_waits",
            "an_attempt_has_a_time_limit",
            "a_fixed_port_reaches_a_peer_once",
            "attempts_fail_when_the_reactor_stops",
            "a_refusal_reaches_a_connected_port_only",
        ];
        assert_eq!(skipped, expected, "seed {seed}");
    }
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
