//! [`BackendInvariants`]: what passes between a reactor and its backend on a simulated network, stream by stream, and whether it can be so.
//!
//! | of one stream | a fault |
//! |---|---|
//! | bytes handed down | others than those that were seen waiting come next; some that waited are gone; some overtake them; any come behind the end |
//! | ends handed down | one that is no reset comes before bytes that waited |
//! | bytes handed up | any come behind the end, or behind a break without having been asked for |
//! | ends and breaks handed up | one comes twice |
//! | its life | it begins twice; anything is asked of one that is not open |
//! | what is in the inbox | anything is done for a stream, or the loop turns, before the next completion is asked for: it is done inside `data_received` |
//!
//! It sees what a backend sees. What goes on between a joint and its protocol, the [`ProtocolInvariants`](super::protocol_invariants::ProtocolInvariants) sees.

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
    /// Whose chunk the reactor has.
    lent: Option<Id>,
    faults: FaultList,
}

/// How far a stream is.
#[derive(Default)]
struct StreamRecord {
    /// Was seen to wait, and must come next.
    waiting: Expected,
    shut: bool,
    receiving: bool,
    /// The end was told, or a receive has failed: nothing comes any more.
    ended: bool,
    broken: bool,
    /// What arrived before the break was asked for.
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
            self.faults.add(format_args!("{id:?} was taken for a second connection"));
        }
    }

    pub(super) fn is_over(&mut self, id: Id) {
        self.streams.remove(&key(id));
    }

    /// Something is done for a stream, which must be open; gives how far it is.
    fn record(&mut self, id: Id, what: &str) -> Option<&mut StreamRecord> {
        self.done(what);
        let record = self.streams.get_mut(&key(id));
        if record.is_none() {
            self.faults.add(format_args!("{what} for {id:?}, which is not open"));
        }
        record
    }

    /// Something is done that must not be done inside a callback.
    pub(super) fn done(&self, what: &str) {
        if let Some(id) = self.lent {
            self.faults.add(format_args!("{what} inside the data_received of {id:?}"));
        }
    }

    // Handed down.

    /// A queue of which a part is about to be sent.
    pub(super) fn shows(&mut self, id: Id, queue: &SendQueue) {
        let faults = self.faults.clone();
        let Some(record) = self.record(id, "a send") else { return };
        let known = record.waiting.len();
        if queue.len() < known {
            faults.add(format_args!("{} bytes are gone that {id:?} was to send", known - queue.len()));
        }
        if record.shut && !queue.is_empty() {
            faults.add(format_args!("{id:?} sends behind its end"));
        }
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let filled = queue.slices(&mut slices);
        let mut before = 0;
        for slice in &slices[..filled] {
            record.waiting.add(slice.get(known.saturating_sub(before)..).unwrap_or_default());
            before += slice.len();
        }
    }

    /// Bytes that go past the queue, of which the socket took so many.
    pub(super) fn sends_directly(&mut self, id: Id, data: &[u8], count: usize) {
        // This is what a protocol may do inside a callback.
        let Some(record) = self.streams.get_mut(&key(id)) else {
            return self.faults.add(format_args!("a send for {id:?}, which is not open"));
        };
        if record.shut {
            self.faults.add(format_args!("{id:?} sends behind its end"));
        }
        if !record.waiting.is_empty() {
            self.faults.add(format_args!("{id:?} sends bytes before others that wait"));
        }
        record.waiting.clear();
        record.waiting.add(&data[count..]);
    }

    /// The socket took these bytes off the front of the queue.
    pub(super) fn takes(&mut self, id: Id, data: &[u8]) {
        let Some(record) = self.streams.get_mut(&key(id)) else { return };
        if record.waiting.take(data).is_none() {
            self.faults.add(format_args!("{id:?} sends others than the bytes that waited"));
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
            self.faults.add(format_args!("{id:?} ends cleanly, and {left} bytes that waited are not sent"));
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
            faults.add(format_args!("bytes come to {id:?} behind its end"));
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
            faults.add(format_args!("{id:?} is told of an end behind its end"));
        }
    }

    pub(super) fn tells_of_a_break(&mut self, id: Id) {
        let faults = self.faults.clone();
        let Some(record) = self.record(id, "a break") else { return };
        record.ended |= record.receiving;
        if std::mem::replace(&mut record.broken, true) {
            faults.add(format_args!("{id:?} is told twice that it is broken"));
        }
    }
}

/// What went wrong on a network. It is written down where it is seen, which may be inside a callback whose panics are guarded, and
/// looked at from outside, after the turn.
#[derive(Clone, Default)]
pub(super) struct FaultList(Rc<RefCell<Vec<String>>>);

impl FaultList {
    pub(super) fn add(&self, what: fmt::Arguments<'_>) {
        self.0.borrow_mut().push(what.to_string());
    }

    /// Panics if there was one.
    #[track_caller]
    pub(super) fn check(&self, seed: u64) {
        let faults = self.0.borrow();
        assert!(faults.is_empty(), "{} (seed {seed})", faults.join("; "));
    }
}

pub(super) fn key(id: Id) -> (u32, u32) {
    (id.slot, id.generation)
}
