//! The conformance suite on the simulated network, ideal and rough.

use ropewalk::testing::Conditions;
use ropewalk::testing::conformance::{Simulated, run_all};

ropewalk::conformance_tests!(ideal, || Box::new(Simulated::new(1, Conditions::ideal())));

/// On rough networks the engine does all of it too, and none of it is skipped. The seeds are in groups, which run at the same time.
fn rough(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let skipped = run_all(|| Box::new(Simulated::new(seed, Conditions::rough(seed))));
        assert_eq!(skipped, [], "seed {seed}");
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
