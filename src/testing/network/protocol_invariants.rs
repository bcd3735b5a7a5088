//! [`ProtocolInvariants`]: checks all traffic between the protocols of a reactor and their
//! transports, in every program, as a [`Witness`](crate::testing::Witness) does for the protocols
//! that it wraps.
//!
//! | of one connection | a fault |
//! |---|---|
//! | `connection_made` | is not the first call, or comes twice |
//! | `connection_lost` | is not the last, or comes twice |
//! | bytes | differ from the next ones (see the kernel's ledger); follow `read_connection_lost`; are empty |
//! | any call | comes while another runs on the same reactor; follows a discard |

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::backend::Ids;
use super::backend_invariants::{FaultList, key};
use super::kernel::{Kernel, SocketId};
use crate::transport::id::Id;
use crate::transport::observer::{Callback, Observer};

/// The connections of one reactor.
pub(super) struct ProtocolInvariants {
    kernel: Rc<RefCell<Kernel>>,
    ids: Ids,
    stages: RefCell<BTreeMap<u64, ProtocolStage>>,
    running: Cell<Option<Id>>,
    faults: FaultList,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ProtocolStage {
    Made,
    /// The peer's direction has ended.
    ReadLost,
    Lost,
    Discarded,
}

impl ProtocolInvariants {
    pub(super) fn new(kernel: &Rc<RefCell<Kernel>>, ids: &Ids) -> Self {
        let faults = kernel.borrow().faults.clone();
        let (kernel, ids) = (Rc::clone(kernel), Rc::clone(ids));
        Self { kernel, ids, stages: RefCell::default(), running: Cell::default(), faults }
    }

    fn socket(&self, id: Id) -> Option<SocketId> {
        self.ids.borrow().get(&key(id)).copied()
    }
}

impl Observer for ProtocolInvariants {
    fn written(&self, id: Id, level: usize, data: &[u8]) {
        if let Some(socket) = self.socket(id) {
            self.kernel.borrow_mut().writes(socket, level, data);
        }
    }

    fn file_written(&self, id: Id, _count: usize) {
        // No simulated socket sends from a file.
        self.faults.add(format_args!("{id:?} sends bytes of a file that were not read"));
    }

    fn layered(&self, id: Id, levels: usize) {
        if let Some(socket) = self.socket(id) {
            self.kernel.borrow_mut().is_layered(socket, levels);
        }
    }

    fn calls(&self, id: Id, level: usize, call: Callback<'_>) {
        let fault = |what: &str| self.faults.add(format_args!("{what}: {id:?}"));
        if let Some(other) = self.running.replace(Some(id)) {
            fault(&format!("a callback inside another, of {other:?}"));
        }
        let mut stages = self.stages.borrow_mut();
        let stage = stages.get(&key(id)).copied();
        match (stage, call) {
            (None, Callback::Made) => {}
            (None, _) => fault("a callback before connection_made"),
            (Some(ProtocolStage::Lost), _) => fault("a callback after connection_lost"),
            (Some(ProtocolStage::Discarded), _) => fault("a callback after the connection was discarded"),
            (Some(_), Callback::Made) => fault("connection_made came twice"),
            (Some(ProtocolStage::ReadLost), Callback::ReadLost) => fault("read_connection_lost came twice"),
            (Some(ProtocolStage::ReadLost), Callback::Data(_)) => fault("data_received after read_connection_lost"),
            (Some(_), Callback::Data([])) => fault("data_received without data"),
            _ => {}
        }
        let next = match call {
            Callback::Lost => Some(ProtocolStage::Lost),
            Callback::ReadLost => Some(ProtocolStage::ReadLost),
            Callback::Made => Some(ProtocolStage::Made),
            _ => stage,
        };
        if let Some(next) = next {
            stages.insert(key(id), next);
        }
        let Some(socket) = self.socket(id) else { return };
        match call {
            // An endpoint's layer is added when the protocol is built, before the socket has its
            // id.
            Callback::Made if level > 0 => self.kernel.borrow_mut().is_layered(socket, level),
            Callback::Data(data) => self.kernel.borrow_mut().gives(socket, level, data),
            Callback::ReadLost => self.kernel.borrow_mut().tells_the_end(socket, level),
            _ => {}
        }
    }

    fn kept(&self, id: Id, level: usize, rest: &[u8]) {
        if let Some(socket) = self.socket(id) {
            self.kernel.borrow_mut().takes_back(socket, level, rest);
        }
    }

    fn taken(&self, id: Id, data: &[u8]) {
        if let Some(socket) = self.socket(id) {
            self.kernel.borrow_mut().gives(socket, 0, data);
        }
    }

    fn returned(&self, _id: Id) {
        self.running.set(None);
    }

    fn discarded(&self, id: Id) {
        self.stages.borrow_mut().insert(key(id), ProtocolStage::Discarded);
        if let Some(socket) = self.socket(id) {
            self.kernel.borrow_mut().gives_up(socket);
        }
    }
}
