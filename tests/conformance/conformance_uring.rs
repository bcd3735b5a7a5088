//! The conformance suite on the io_uring backend: over TCP, over UNIX sockets, and over TLS on
//! both. Without io_uring every test says that it was skipped.

use crate::common::setting::Loopback;
use ropewalk::BackendKind;

ropewalk::conformance_tests!(tcp, || Box::new(Loopback::new().on(BackendKind::IoUring)));

ropewalk::conformance_tests!(unix, || Box::new(Loopback::unix().on(BackendKind::IoUring)));

#[cfg(feature = "tls")]
mod over_tls {
    use super::*;
    use crate::common::certificates::tls_on_both_sides;

    ropewalk::conformance_tests!(tcp, || {
        Box::new(Loopback::new().on(BackendKind::IoUring).beginning(tls_on_both_sides()))
    });

    ropewalk::conformance_tests!(unix, || {
        Box::new(Loopback::unix().on(BackendKind::IoUring).beginning(tls_on_both_sides()))
    });
}
