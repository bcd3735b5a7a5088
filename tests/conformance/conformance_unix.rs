//! The conformance suite on the mio backend, over UNIX sockets.

use crate::common::setting::Loopback;
use ropewalk::BackendKind;

ropewalk::conformance_tests!(unix, || Box::new(Loopback::unix().on(BackendKind::Mio)));
