//! The conformance suite over TLS: on the mio backend, over TCP and over UNIX sockets, and on the
//! simulated network.

use crate::common::certificates::tls_on_both_sides;
use crate::common::setting::Loopback;
use ropewalk::BackendKind;
use ropewalk::testing::Conditions;
use ropewalk::testing::conformance::{CaseOutcome, Simulated, cases};

ropewalk::conformance_tests!(mio, || Box::new(Loopback::new().on(BackendKind::Mio).beginning(tls_on_both_sides())));

ropewalk::conformance_tests!(mio_unix, || Box::new(
    Loopback::unix().on(BackendKind::Mio).beginning(tls_on_both_sides())
));

ropewalk::conformance_tests!(ideal, || {
    let (listened, connected) = tls_on_both_sides();
    Box::new(Simulated::new(1, Conditions::ideal()).beginning(listened, connected))
});

/// Cases that count turns: a plain stream needs one, a record needs many where bytes travel alone.
const COUNT_TURNS: [&str; 2] = ["the_phases_of_a_turn_come_in_order", "a_request_never_calls_back"];

/// On rough networks the engine passes all cases over TLS too, and none is skipped except those
/// that count turns. A record fits into their windows, as a byte does into all.
fn rough(seed: u64, takes: impl Fn(usize) -> bool) {
    let cases = cases().into_iter().filter(|case| !COUNT_TURNS.contains(&case.name)).enumerate();
    for (_, case) in cases.filter(|(number, _)| takes(*number)) {
        let (listened, connected) = tls_on_both_sides();
        let mut setting = Simulated::new(seed, Conditions::rough(seed).window(1024)).beginning(listened, connected);
        assert_eq!(case.run(&mut setting), CaseOutcome::Passed, "{} (seed {seed})", case.name);
    }
}

/// The slowest networks have their cases in two tests each, which run side by side.
fn is_even(number: usize) -> bool {
    number.is_multiple_of(2)
}

#[test]
fn rough_network_0_even_cases() {
    rough(0, is_even);
}

#[test]
fn rough_network_0_odd_cases() {
    rough(0, |number| !is_even(number));
}

#[test]
fn rough_network_2() {
    rough(2, |_| true);
}

#[test]
fn rough_network_3() {
    rough(3, |_| true);
}

#[test]
fn rough_network_5() {
    rough(5, |_| true);
}

#[test]
fn rough_network_6_even_cases() {
    rough(6, is_even);
}

#[test]
fn rough_network_6_odd_cases() {
    rough(6, |number| !is_even(number));
}
