//! Faults of requests to the ring, for tests of this crate. They are planned like those of socket
//! calls (`socket.rs`, `faults`), and injected here. A request with a fault is not made. The ring
//! submits a no-op under its name instead, and the completion of that carries the planned result.

use io_uring::{opcode, squeue};

use super::ring::Kind;
use crate::reactor::backend::socket::faults::{self, SystemCall};

/// Results of the requests that were not made, by their names.
#[derive(Default)]
pub(super) struct Faults(Vec<(u64, i32)>);

impl Faults {
    /// Returns the request to make: this one, or a no-op if a fault is planned for it.
    pub(super) fn meet(&mut self, request: squeue::Entry, kind: Kind, name: u64) -> squeue::Entry {
        let call = match kind {
            Kind::Nothing => return request,
            Kind::Accept => SystemCall::RingAccept,
            Kind::Receive => SystemCall::RingReceive,
            Kind::Send => SystemCall::RingSend,
            Kind::Poll | Kind::Room | Kind::Wake | Kind::Foreign => SystemCall::RingPoll,
        };
        let Some(result) = faults::request(call) else { return request };
        self.0.push((name, result));
        opcode::Nop::new().build()
    }

    /// Returns the result of a request of that name: the planned one, or otherwise the kernel's.
    pub(super) fn result(&mut self, name: u64, result: i32) -> i32 {
        let planned = self.0.iter().position(|(of, _)| *of == name);
        planned.map_or(result, |at| self.0.remove(at).1)
    }
}
