//! [`BackendInvariants`]: checks all traffic between a reactor and its backend on a simulated
//! network, stream by stream.
//!
//! | of one stream | a fault |
//! |---|---|
//! | bytes handed down | differ from those seen waiting; waiting bytes are gone or overtaken; any follow the end |
//! | ends handed down | a clean one comes before bytes that waited |
//! | bytes handed up | any follow the end, or follow a break without having been requested |
//! | ends and breaks handed up | one comes twice |
//! | its life | it begins twice; an operation is made on one that is not open |
//! | a chunk in the inbox | a request or a turn comes before the next completion is fetched, so inside `data_received` |
//!
//! It sees the traffic of a backend. The traffic between a joint and its protocol is checked by
//! [`ProtocolInvariants`](super::protocol_invariants::ProtocolInvariants).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::IoSlice;
use std::rc::Rc;

use super::expected::Expected;
use crate::transport::id::Id;
use crate::transport::send_queue::{MAX_SLICES, SendQueue};

/// The streams of one reactor.
pub(super) struct BackendInvariants {
    streams: BTreeMap<(u32, u32), StreamRecord>,
    /// The stream whose chunk the reactor is using.
    lent: Option<Id>,
    faults: FaultList,
}

/// The state of a stream.
#[derive(Default)]
struct StreamRecord {
    /// Bytes seen waiting, which must come next.
    waiting: Expected,
    shut: bool,
    receiving: bool,
    /// The end was reported, or a receive has failed: nothing more may come.
    ended: bool,
    broken: bool,
    /// The bytes that arrived before the break were requested.
    rest: bool,
}

impl BackendInvariants {
    pub(super) fn new(faults: FaultList) -> Self {
        Self { streams: BTreeMap::new(), lent: None, faults }
    }

    // Its life.

    pub(super) fn begins(&mut self, id: Id) {
        self.done("a connection begins");
        if self.streams.insert(key(id), StreamRecord::default()).is_some() {
            self.faults.add(format_args!("{id:?} was reused for a second connection"));
        }
    }

    pub(super) fn is_over(&mut self, id: Id) {
        self.streams.remove(&key(id));
    }

    /// Returns the record of an open stream for which something is done. Records a fault if there
    /// is none.
    fn record(&mut self, id: Id, what: &str) -> Option<&mut StreamRecord> {
        self.done(what);
        let record = self.streams.get_mut(&key(id));
        if record.is_none() {
            self.faults.add(format_args!("{what} for {id:?}, which is not open"));
        }
        record
    }

    /// Records a fault if an operation that is forbidden in callbacks comes inside one.
    pub(super) fn done(&self, what: &str) {
        if let Some(id) = self.lent {
            self.faults.add(format_args!("{what} inside the data_received of {id:?}"));
        }
    }

    // Handed down.

    /// Records a queue of which a part is about to be sent.
    pub(super) fn shows(&mut self, id: Id, queue: &SendQueue) {
        let faults = self.faults.clone();
        let Some(record) = self.record(id, "a send") else { return };
        let known = record.waiting.len();
        if queue.len() < known {
            faults.add(format_args!("{} bytes are gone from the queue of {id:?}", known - queue.len()));
        }
        if record.shut && !queue.is_empty() {
            faults.add(format_args!("{id:?} sends after its end"));
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let filled = queue.slices(&mut slices);
        let mut before = 0;
        for slice in &slices[..filled] {
            record.waiting.add(slice.get(known.saturating_sub(before)..).unwrap_or_default());
            before += slice.len();
        }
    }

    /// Records bytes sent past the queue, of which the socket took `count`.
    pub(super) fn sends_directly(&mut self, id: Id, data: &[u8], count: usize) {
        // A protocol may do this inside a callback.
        let Some(record) = self.streams.get_mut(&key(id)) else {
            return self.faults.add(format_args!("a send for {id:?}, which is not open"));
        };
        if record.shut {
            self.faults.add(format_args!("{id:?} sends after its end"));
        }
        if !record.waiting.is_empty() {
            self.faults.add(format_args!("{id:?} sends bytes before others that wait"));
        }
        record.waiting.clear();
        record.waiting.add(&data[count..]);
    }

    /// Compares bytes that the socket took off the front of the queue.
    pub(super) fn takes(&mut self, id: Id, data: &[u8]) {
        let Some(record) = self.streams.get_mut(&key(id)) else { return };
        if record.waiting.take(data).is_none() {
            self.faults.add(format_args!("{id:?} sends bytes that differ from those that waited"));
        }
    }

    pub(super) fn shuts(&mut self, id: Id) {
        let faults = self.faults.clone();
        let Some(record) = self.record(id, "an end") else { return };
        if std::mem::replace(&mut record.shut, true) {
            faults.add(format_args!("{id:?} sends its end twice"));
        }
    }

    /// Checks that a clean end leaves no queued bytes behind.
    pub(super) fn ends_cleanly(&mut self, id: Id) {
        let Some(record) = self.streams.get(&key(id)) else { return };
        if !record.waiting.is_empty() {
            let left = record.waiting.len();
            self.faults.add(format_args!("{id:?} ends cleanly, but {left} bytes that waited are unsent"));
        }
    }

    pub(super) fn asks_to_receive(&mut self, id: Id, on: bool) {
        if let Some(record) = self.record(id, "starting or stopping to receive") {
            record.receiving = on;
        }
    }

    pub(super) fn asks_for_the_rest(&mut self, id: Id) {
        if let Some(record) = self.record(id, "receiving what arrived before a break") {
            (record.receiving, record.rest) = (true, true);
        }
    }

    // Handed up.

    pub(super) fn lends(&mut self, id: Id) {
        let faults = self.faults.clone();
        let Some(record) = self.record(id, "a chunk") else { return };
        if record.ended || (record.broken && !record.rest) {
            faults.add(format_args!("bytes are delivered to {id:?} after its end"));
        }
        self.lent = Some(id);
    }

    pub(super) fn is_given_back(&mut self) {
        self.lent = None;
    }

    pub(super) fn tells_the_end(&mut self, id: Id) {
        let faults = self.faults.clone();
        let Some(record) = self.record(id, "an end of stream") else { return };
        if std::mem::replace(&mut record.ended, true) || (record.broken && !record.rest) {
            faults.add(format_args!("an end of stream is reported to {id:?} after its end"));
        }
    }

    pub(super) fn tells_of_a_break(&mut self, id: Id) {
        let faults = self.faults.clone();
        let Some(record) = self.record(id, "a break") else { return };
        record.ended |= record.receiving;
        if std::mem::replace(&mut record.broken, true) {
            faults.add(format_args!("a break is reported to {id:?} twice"));
        }
    }
}

/// The faults found on a network. Checks record them where they are found, which may be inside a
/// guarded callback. The network reports them from outside, after the turn.
#[derive(Clone, Default)]
pub(super) struct FaultList(Rc<RefCell<Vec<String>>>);

impl FaultList {
    pub(super) fn add(&self, what: fmt::Arguments<'_>) {
        self.0.borrow_mut().push(what.to_string());
    }

    /// Panics if a fault was recorded.
    #[track_caller]
    pub(super) fn check(&self, seed: u64) {
        let faults = self.0.borrow();
        assert!(faults.is_empty(), "{} (seed {seed})", faults.join("; "));
    }
}

pub(super) fn key(id: Id) -> (u32, u32) {
    (id.slot, id.generation)
}
