//! Descriptors that are no sockets: numbers with levels, which the test sets, and a watch each.

use std::io;
use std::os::fd::RawFd;

use super::{Kernel, Owner};
use crate::reactor::{Interest, Ready};
use crate::transport::id::Id;

/// The first number of a simulated descriptor. Far above those of a process, so that a real reactor
/// finds none of them open.
const FIRST_DESCRIPTOR: RawFd = 1 << 30;

/// The errors of Linux, by number.
const EBADF: i32 = 9;
const EEXIST: i32 = 17;

/// A descriptor, and its watch if it has one.
#[derive(Debug, Default)]
pub(crate) struct SimulatedDescriptor {
    /// The kinds of readiness that it has at present.
    level: Interest,
    hung_up: bool,
    closed: bool,
    watch: Option<SimulatedWatch>,
}

#[derive(Debug)]
struct SimulatedWatch {
    owner: Owner,
    id: Id,
    interest: Interest,
    /// It was reported in the owner's present turn.
    was_reported: bool,
}

impl SimulatedDescriptor {
    fn watch_of(&self, owner: Owner) -> Option<&SimulatedWatch> {
        self.watch.as_ref().filter(|watch| watch.owner == owner)
    }

    fn is(&self, owner: Owner, id: Id) -> bool {
        self.watch_of(owner).is_some_and(|watch| watch.id == id)
    }

    /// Returns the readiness to report to an owner.
    fn ready(&self, owner: Owner) -> Option<Ready> {
        let interest = self.watch_of(owner)?.interest;
        let kinds = if self.hung_up { interest } else { self.level.both(interest) };
        (!kinds.is_none()).then_some(Ready { kinds, hung_up: self.hung_up })
    }

    fn is_due(&self, owner: Owner) -> bool {
        self.ready(owner).is_some() && self.watch_of(owner).is_some_and(|watch| !watch.was_reported)
    }
}

impl Kernel {
    /// Makes a descriptor that is not ready, and returns its number.
    pub(crate) fn add_descriptor(&mut self) -> RawFd {
        let number = FIRST_DESCRIPTOR + self.descriptors.len() as RawFd;
        self.descriptors.insert(number, SimulatedDescriptor::default());
        number
    }

    /// Sets or clears kinds of readiness.
    pub(crate) fn set_level(&mut self, number: RawFd, kinds: Interest, on: bool) {
        let Some(descriptor) = self.descriptors.get_mut(&number) else { return };
        let others = descriptor.level.without(kinds);
        descriptor.level = if on { others | kinds } else { others };
        self.note(format_args!("level  {number} {kinds:?} {on}"));
    }

    pub(crate) fn hang_up(&mut self, number: RawFd) {
        if let Some(descriptor) = self.descriptors.get_mut(&number) {
            descriptor.hung_up = true;
            self.note(format_args!("hangup {number}"));
        }
    }

    pub(crate) fn close_descriptor(&mut self, number: RawFd) {
        if let Some(descriptor) = self.descriptors.get_mut(&number) {
            descriptor.closed = true;
            self.note(format_args!("closed {number}"));
        }
    }

    /// Returns the interest of the watch of a descriptor, if it has one.
    pub(crate) fn interest(&self, number: RawFd) -> Option<Interest> {
        Some(self.descriptors.get(&number)?.watch.as_ref()?.interest)
    }

    pub(crate) fn watch(&mut self, owner: Owner, id: Id, number: RawFd, interest: Interest) -> io::Result<()> {
        let descriptor = self.descriptors.get_mut(&number).filter(|descriptor| !descriptor.closed);
        let descriptor = descriptor.ok_or_else(|| io::Error::from_raw_os_error(EBADF))?;
        // On Linux, each reactor has a poller of its own. Here a descriptor has one watch.
        if descriptor.watch.is_some() {
            return Err(io::Error::from_raw_os_error(EEXIST));
        }
        descriptor.watch = Some(SimulatedWatch { owner, id, interest, was_reported: false });
        Ok(())
    }

    pub(crate) fn rewatch(&mut self, owner: Owner, id: Id, interest: Interest) -> io::Result<()> {
        let lost = || io::Error::from_raw_os_error(EBADF);
        let descriptor = self.descriptors.values_mut().find(|descriptor| descriptor.is(owner, id)).ok_or_else(lost)?;
        if descriptor.closed {
            descriptor.watch = None;
            return Err(lost());
        }
        if let Some(watch) = &mut descriptor.watch {
            watch.interest = interest;
        }
        Ok(())
    }

    /// Ends a watch. Returns `false` if there is none of this id.
    pub(crate) fn unwatch(&mut self, owner: Owner, id: Id) -> bool {
        let found = self.descriptors.values_mut().find(|descriptor| descriptor.is(owner, id));
        found.is_some_and(|descriptor| descriptor.watch.take().is_some())
    }

    /// Ends all watches of an owner.
    pub(crate) fn unwatch_all(&mut self, owner: Owner) {
        for descriptor in self.descriptors.values_mut() {
            descriptor.watch.take_if(|watch| watch.owner == owner);
        }
    }

    /// Returns the number of watches of an owner.
    pub(crate) fn watches(&self, owner: Owner) -> usize {
        self.descriptors.values().filter(|descriptor| descriptor.watch_of(owner).is_some()).count()
    }

    /// Returns `true` if the next turn of an owner has a descriptor to report.
    pub(super) fn has_ready_descriptor(&self, owner: Owner) -> bool {
        self.descriptors.values().any(|descriptor| descriptor.ready(owner).is_some())
    }

    /// Begins a turn: each descriptor that is ready is reported once.
    pub(super) fn begin_descriptors(&mut self, owner: Owner) {
        for descriptor in self.descriptors.values_mut() {
            if let Some(watch) = descriptor.watch.as_mut().filter(|watch| watch.owner == owner) {
                watch.was_reported = false;
            }
        }
    }

    /// Returns the next descriptor to report to an owner in this turn, with its readiness or the
    /// error that has ended its watch.
    pub(crate) fn next_descriptor(&mut self, owner: Owner) -> Option<(Id, io::Result<Ready>)> {
        let due = |(number, descriptor): (&RawFd, &SimulatedDescriptor)| descriptor.is_due(owner).then_some(*number);
        let due: Vec<RawFd> = self.descriptors.iter().filter_map(due).collect();
        if due.is_empty() {
            return None;
        }
        let reorder = self.random.chance(self.conditions.reordered);
        let place = if reorder { self.random.below(due.len() as u64) as usize } else { 0 };
        let descriptor = self.descriptors.get_mut(due.get(place)?)?;
        let ready = descriptor.ready(owner)?;
        if descriptor.closed {
            return descriptor.watch.take().map(|watch| (watch.id, Err(io::Error::from_raw_os_error(EBADF))));
        }
        let watch = descriptor.watch.as_mut()?;
        watch.was_reported = true;
        Some((watch.id, Ok(ready)))
    }
}
