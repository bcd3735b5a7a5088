//! The conformance suite inside an event loop that is not ours, on both backends. The loop knows
//! nothing but the seams for hosts, so a lost wake-up is a test that does not end.

use crate::common::hosted::Hosted;
use crate::common::setting::Loopback;
use ropewalk::BackendKind;

ropewalk::conformance_tests!(mio, || Box::new(Hosted(Loopback::new().on(BackendKind::Mio))));

#[cfg(feature = "io-uring")]
ropewalk::conformance_tests!(uring, || Box::new(Hosted(Loopback::new().on(BackendKind::IoUring))));

#[cfg(feature = "io-uring")]
ropewalk::conformance_tests!(uring_unix, || Box::new(Hosted(Loopback::unix().on(BackendKind::IoUring))));
