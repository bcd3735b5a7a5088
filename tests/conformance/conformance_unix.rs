//! The conformance suite on the mio backend, over UNIX sockets.

mod common;

use common::setting::Loopback;
use ropewalk::BackendKind;

ropewalk::conformance_tests!(unix, || Box::new(Loopback::unix().on(BackendKind::Mio)));
