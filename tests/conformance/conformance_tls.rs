//! The conformance suite over TLS: on the mio backend, over TCP and over UNIX sockets, and on the
//! simulated network.

use crate::common::certificates::tls_on_both_sides;
use crate::common::seeds;
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
fn rough(seed: u64) {
    for case in cases().into_iter().filter(|case| !COUNT_TURNS.contains(&case.name)) {
        let (listened, connected) = tls_on_both_sides();
        let mut setting = Simulated::new(seed, Conditions::rough(seed).window(1024)).beginning(listened, connected);
        assert_eq!(case.run(&mut setting), CaseOutcome::Passed, "{} (seed {seed})", case.name);
    }
}

#[test]
fn rough_network_2() {
    rough(2);
}

#[test]
fn rough_network_3() {
    rough(3);
}

/// The others have latencies or pieces that take several times as many turns.
#[test]
fn rough_networks_with_more_turns() {
    for seed in [5, 0, 6].into_iter().chain(7..23).take(seeds(1, 19) as usize) {
        rough(seed);
    }
}
