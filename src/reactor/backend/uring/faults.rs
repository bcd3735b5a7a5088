//! Faults of requests to the ring, for tests of this crate: they are planned like those of socket calls (`socket.rs`, `faults`), and met
//! here. A request that meets one is not made. The ring asks for nothing in its stead, under its name, and the completion of that
//! says what was planned.

use io_uring::{opcode, squeue};

use super::ring::Kind;
use crate::reactor::backend::socket::faults::{self, SystemCall};

/// Outcomes of the requests that were not made, by their names.
#[derive(Default)]
pub(super) struct Faults(Vec<(u64, i32)>);

impl Faults {
    /// The request that is made.
    pub(super) fn meet(&mut self, request: squeue::Entry, kind: Kind, name: u64) -> squeue::Entry {
        let call = match kind {
            Kind::Nothing => return request,
            Kind::Accept => SystemCall::RingAccept,
            Kind::Receive => SystemCall::RingReceive,
            Kind::Send => SystemCall::RingSend,
            Kind::Poll | Kind::Room | Kind::Wake => SystemCall::RingPoll,
        };
        let Some(result) = faults::request(call) else { return request };
        self.0.push((name, result));
        opcode::Nop::new().build()
    }

    /// The outcome of a request of that name, of which the kernel says this.
    pub(super) fn result(&mut self, name: u64, result: i32) -> i32 {
        let planned = self.0.iter().position(|(of, _)| *of == name);
        planned.map_or(result, |at| self.0.remove(at).1)
    }
}
