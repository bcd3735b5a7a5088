//! The conformance suite on the mio backend, over real sockets.

use crate::common::setting::Loopback;
use ropewalk::BackendKind;

ropewalk::conformance_tests!(mio, || Box::new(Loopback::new().on(BackendKind::Mio)));
