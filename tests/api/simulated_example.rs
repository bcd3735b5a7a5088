//! The example `echo`, a program that knows nothing of it, on many simulated networks.

#[path = "../../examples/echo.rs"]
#[allow(dead_code, reason = "its main is for real sockets")]
mod echo;

use crate::common::seeds;
use ropewalk::testing::{Conditions, Network};

/// It ends by itself on every network, whatever a seed does to it, and leaves nothing open.
#[test]
fn the_echo_example_for_many_seeds() {
    for seed in (0..seeds(300, 5_000)).map(u64::from) {
        let network = Network::with_conditions(seed, Conditions::rough(seed));
        let reactor = network.reactor([10, 0, 0, 1].into());
        echo::start(&reactor).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        reactor.run().unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        assert_eq!(network.open_sockets(&reactor), 0, "seed {seed}");
    }
}
