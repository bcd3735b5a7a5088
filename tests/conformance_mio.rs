//! The conformance suite on the mio backend, over real sockets.

mod common;

use common::setting::Loopback;

ropewalk::conformance_tests!(mio, || Box::new(Loopback::new()));
