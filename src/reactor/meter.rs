//! [`Meter`]: the numbers about a reactor that are kept only once a program asks for them: bytes
//! and ages of connections, durations of callbacks. [`Reactor::observe`](super::Reactor::observe)
//! asks.
//!
//! It is the [`Observer`] of the reactor's transports. As long as a transport has no observer, a
//! message pays the check for one and nothing else. On a simulated network, the test kit's observer
//! stands behind the meter.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::time::{Clock, Timers};
use crate::transport::id::Id;
use crate::transport::observer::{Callback, Observer};

/// Counts bytes, and measures callbacks, from [`begin`](Self::begin) on.
pub(super) struct Meter {
    timers: Timers,
    /// The observer of the test kit.
    inner: Option<Rc<dyn Observer>>,
    /// The time of the reactor at which the observation began.
    since: Cell<Option<Duration>>,
    traffic: RefCell<HashMap<Id, Traffic>>,
    /// Bytes that all protocols were given and have written, those of ended connections included.
    totals: Cell<(u64, u64)>,
    /// The calls that are under way, the innermost last. A call from another thread may contain the
    /// callback of a connection.
    running: RefCell<Vec<RunningCall>>,
    longest: Cell<Option<LongestCall>>,
}

/// The numbers of one connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    /// The time of `connection_made`, if the meter has seen it.
    pub(super) made_at: Option<Duration>,
    /// Number of bytes that its protocol was given.
    pub(super) received: u64,
    /// Number of bytes that its protocol has written.
    pub(super) written: u64,
    /// Time spent in the callbacks of its protocol.
    pub(super) busy: Duration,
}

/// The longest call so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct LongestCall {
    pub(super) took: Duration,
    pub(super) ended_at: Duration,
    pub(super) name: &'static str,
    /// The connection, if a protocol was called.
    pub(super) connection: Option<Id>,
}

struct RunningCall {
    name: &'static str,
    connection: Option<Id>,
    /// The protocol gets no further call.
    is_last: bool,
    began: Duration,
}

impl Meter {
    /// Creates a meter that does not count yet, in front of another observer.
    pub(super) fn new(timers: &Timers, inner: Option<Rc<dyn Observer>>) -> Rc<Self> {
        Rc::new(Self {
            timers: timers.clone(),
            inner,
            since: Cell::new(None),
            traffic: RefCell::default(),
            totals: Cell::default(),
            running: RefCell::default(),
            longest: Cell::new(None),
        })
    }

    /// Begins to count. A meter that counts already goes on.
    pub(super) fn begin(&self) {
        if !self.counts() {
            self.since.set(Some(self.timers.seconds()));
        }
    }

    /// Returns the time of the reactor at which the observation began, if it has.
    pub(super) fn since(&self) -> Option<Duration> {
        self.since.get()
    }

    /// Returns the numbers of a connection. `None`: it has had no event since the meter counts.
    pub(super) fn traffic(&self, id: Id) -> Option<Traffic> {
        self.traffic.borrow().get(&id).copied()
    }

    /// Returns the numbers of bytes that all protocols were given and have written.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.totals.get()
    }

    /// Returns the longest call since the meter counts.
    pub(super) fn longest(&self) -> Option<LongestCall> {
        self.longest.get()
    }

    /// Measures a call of the program that is no callback of a connection. `call` does not panic.
    ///
    /// Out of line: its frame would be paid by each turn of a reactor that is not observed.
    #[cold]
    #[inline(never)]
    pub(super) fn measured<R>(&self, name: &'static str, call: impl FnOnce() -> R) -> R {
        if !self.counts() {
            return call();
        }
        self.enter(name, None, false);
        let result = call();
        self.leave();
        result
    }

    #[inline]
    fn counts(&self) -> bool {
        self.since.get().is_some()
    }

    fn enter(&self, name: &'static str, connection: Option<Id>, is_last: bool) {
        self.running.borrow_mut().push(RunningCall { name, connection, is_last, began: self.timers.seconds() });
    }

    fn leave(&self) {
        // A call that was under way when the observation began is not measured.
        let Some(call) = self.running.borrow_mut().pop() else { return };
        let now = self.timers.seconds();
        let took = now.saturating_sub(call.began);
        if let Some(id) = call.connection {
            let mut traffic = self.traffic.borrow_mut();
            if call.is_last {
                traffic.remove(&id);
            } else if let Some(traffic) = traffic.get_mut(&id) {
                traffic.busy += took;
            }
        }
        if self.longest.get().is_none_or(|longest| took > longest.took) {
            let (name, connection) = (call.name, call.connection);
            self.longest.set(Some(LongestCall { took, ended_at: now, name, connection }));
        }
    }

    /// Changes the numbers of a connection, and the totals by the same numbers of bytes.
    fn change(&self, id: Id, change: impl FnOnce(&mut Traffic)) {
        if !self.counts() {
            return;
        }
        let mut table = self.traffic.borrow_mut();
        let traffic = table.entry(id).or_default();
        let before = *traffic;
        change(traffic);
        let (received, written) = self.totals.get();
        // Kept bytes are taken back.
        let received = (received + traffic.received).saturating_sub(before.received);
        self.totals.set((received, written + traffic.written - before.written));
    }
}

impl Observer for Meter {
    fn written(&self, id: Id, level: usize, data: &[u8]) {
        if let Some(inner) = &self.inner {
            inner.written(id, level, data);
        }
        self.change(id, |traffic| traffic.written += data.len() as u64);
    }

    fn file_written(&self, id: Id, count: usize) {
        if let Some(inner) = &self.inner {
            inner.file_written(id, count);
        }
        self.change(id, |traffic| traffic.written += count as u64);
    }

    fn layered(&self, id: Id, levels: usize) {
        if let Some(inner) = &self.inner {
            inner.layered(id, levels);
        }
    }

    fn calls(&self, id: Id, level: usize, call: Callback<'_>) {
        if let Some(inner) = &self.inner {
            inner.calls(id, level, call);
        }
        if !self.counts() {
            return;
        }
        self.enter(call.name(), Some(id), call == Callback::Lost);
        match call {
            Callback::Made => {
                let now = self.timers.seconds();
                self.change(id, |traffic| traffic.made_at = Some(now));
            }
            Callback::Data(data) => self.change(id, |traffic| traffic.received += data.len() as u64),
            _ => {}
        }
    }

    fn kept(&self, id: Id, level: usize, rest: &[u8]) {
        if let Some(inner) = &self.inner {
            inner.kept(id, level, rest);
        }
        // The rest counts when it is given again.
        self.change(id, |traffic| traffic.received = traffic.received.saturating_sub(rest.len() as u64));
    }

    fn taken(&self, id: Id, data: &[u8]) {
        if let Some(inner) = &self.inner {
            inner.taken(id, data);
        }
    }

    fn returned(&self, id: Id) {
        if let Some(inner) = &self.inner {
            inner.returned(id);
        }
        if self.counts() {
            self.leave();
        }
    }

    fn discarded(&self, id: Id) {
        if let Some(inner) = &self.inner {
            inner.discarded(id);
        }
        self.traffic.borrow_mut().remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Id = Id { slot: 1, generation: 1 };

    /// A meter on a clock that the test sets, in seconds.
    fn meter() -> (Rc<Meter>, Rc<Cell<u64>>) {
        let now = Rc::new(Cell::new(0));
        let read = Rc::clone(&now);
        (Meter::new(&Timers::new(move || Duration::from_secs(read.get())), None), now)
    }

    fn call(meter: &Meter, call: Callback<'_>, during: impl FnOnce()) {
        meter.calls(ONE, 0, call);
        during();
        meter.returned(ONE);
    }

    /// The inner call is the longest, and the outer one takes longer still.
    #[test]
    fn calls_are_measured_inside_of_one_another() {
        let (meter, now) = meter();
        meter.begin();
        meter.measured("a call from a thread", || {
            now.set(1);
            call(&meter, Callback::Remote, || now.set(4));
            assert_eq!(
                meter.longest().map(|longest| (longest.took.as_secs(), longest.connection)),
                Some((3, Some(ONE)))
            );
            now.set(5);
        });
        let longest = meter.longest().unwrap();
        assert_eq!((longest.took.as_secs(), longest.name, longest.connection), (5, "a call from a thread", None));
    }

    /// A callback that is under way when the observation begins is not measured, and leaves nothing
    /// behind for the next one.
    #[test]
    fn a_call_that_began_before_is_not_measured() {
        let (meter, now) = meter();
        call(&meter, Callback::Made, || {
            meter.begin();
            now.set(9);
        });
        assert!(meter.longest().is_none() && meter.traffic(ONE).is_none());
        call(&meter, Callback::Data(b"12"), || now.set(10));
        assert_eq!(meter.longest().unwrap().took.as_secs(), 1);
        assert_eq!(meter.traffic(ONE).map(|traffic| (traffic.received, traffic.made_at)), Some((2, None)));
    }

    /// Bytes that are kept count when they are given again. The last call takes the numbers away.
    #[test]
    fn kept_bytes_count_once_and_an_end_forgets() {
        let (meter, _now) = meter();
        meter.begin();
        call(&meter, Callback::Data(b"abcd"), || meter.kept(ONE, 0, b"cd"));
        call(&meter, Callback::Data(b"cd"), || meter.written(ONE, 0, b"12345"));
        assert_eq!(meter.traffic(ONE).map(|traffic| (traffic.received, traffic.written)), Some((4, 5)));
        call(&meter, Callback::Lost, || ());
        assert!(meter.traffic(ONE).is_none());
        assert_eq!(meter.totals(), (4, 5), "the totals stay");
        call(&meter, Callback::Made, || ());
        meter.discarded(ONE);
        assert!(meter.traffic(ONE).is_none());
    }
}
