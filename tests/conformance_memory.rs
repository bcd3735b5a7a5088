//! The conformance suite on the simulated network, ideal and rough.

use std::cell::Cell;
use std::rc::Rc;

use ropewalk::testing::Conditions;
use ropewalk::testing::conformance::{Begin, Outcome, Simulated, cases, run_all};

ropewalk::conformance_tests!(ideal, || Box::new(Simulated::new(1, Conditions::ideal())));

ropewalk::conformance_tests!(unix, || Box::new(Simulated::new(1, Conditions::ideal()).unix()));

/// On rough networks the engine does all of it too, and none of it is skipped. The seeds are in groups, which run at the same time.
fn rough(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let skipped = run_all(|| Box::new(Simulated::new(seed, Conditions::rough(seed))));
        assert_eq!(skipped, [], "seed {seed}");
    }
}

/// So it does over UNIX sockets, but for what only resets and addresses that do not answer can show.
#[test]
fn six_rough_networks_of_unix_sockets() {
    for seed in 24..30 {
        let skipped = run_all(|| Box::new(Simulated::new(seed, Conditions::rough(seed)).unix()));
        let skipped: Vec<_> = skipped.into_iter().map(|(name, _)| name).collect();
        let expected = [
            "a_reset_is_noticed_while_paused",
            "a_reset_behind_a_pause_loses_nothing",
            "a_reset_is_noticed_behind_an_end_that_waits",
            "an_attempt_has_a_time_limit",
            "attempts_fail_when_the_reactor_stops",
        ];
        assert_eq!(skipped, expected, "seed {seed}");
    }
}

#[test]
fn six_rough_networks() {
    rough(0..6);
}

#[test]
fn six_more() {
    rough(6..12);
}

#[test]
fn and_six_more() {
    rough(12..18);
}

#[test]
fn and_the_last_six() {
    rough(18..24);
}

/// What a setting begins comes before anything else, once on each transport, on either side.
#[test]
fn what_a_setting_begins_comes_first() {
    let (listened, connected) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let begin = |count: &Rc<Cell<usize>>| -> Begin {
        let count = Rc::clone(count);
        Rc::new(move |transport| {
            assert_eq!(transport.queued(), 0, "something was written before");
            count.set(count.get() + 1);
        })
    };
    let name = "many_connections_at_once_are_all_served";
    let case = cases().into_iter().find(|case| case.name == name).expect("the case");
    let mut setting = Simulated::new(1, Conditions::ideal()).beginning(begin(&listened), begin(&connected));
    assert_eq!(case.run(&mut setting), Outcome::Passed);
    assert_eq!((listened.get(), connected.get()), (200, 200));
}
