//! The conformance suite on the mio backend, over UNIX sockets.

mod common;

use common::setting::Loopback;

ropewalk::conformance_tests!(unix, || Box::new(Loopback::unix()));
