//! [`VirtualDescriptor`]: a descriptor to watch whose readiness the test sets.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::RawFd;
use std::rc::Rc;

use super::kernel::Kernel;
use crate::reactor::{Descriptor, Interest};

/// A descriptor of a simulated network, for programs that [watch](crate::Reactor::watch) the
/// descriptors of other libraries. The test decides when it is ready. A cheap handle.
///
/// It is a level: a watch reports it in every turn for as long as it is ready. A callback that does
/// not make it unready again lets time stand still, as it would keep a real loop from sleeping.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use ropewalk::reactor::{Interest, WatchCallbacks};
/// use ropewalk::testing::Network;
///
/// # fn main() -> ropewalk::Result<()> {
/// let network = Network::new(7);
/// let reactor = network.reactor("10.0.0.1".parse()?);
/// let descriptor = network.descriptor();
/// let (seen, drained) = (Rc::new(Cell::new(0)), descriptor.clone());
/// let count = Rc::clone(&seen);
/// let _watch = reactor.watch(&descriptor, Interest::READ, WatchCallbacks::new().on_read(move |_| {
///     count.set(count.get() + 1);
///     drained.set_readable(count.get() < 3);
///     Ok(())
/// }))?;
/// network.settle()?;
/// assert_eq!(seen.get(), 0);
/// descriptor.set_readable(true);
/// network.settle()?;
/// assert_eq!(seen.get(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct VirtualDescriptor {
    kernel: Rc<RefCell<Kernel>>,
    number: RawFd,
}

impl VirtualDescriptor {
    pub(super) fn new(kernel: &Rc<RefCell<Kernel>>) -> Self {
        let number = kernel.borrow_mut().add_descriptor();
        Self { kernel: Rc::clone(kernel), number }
    }

    /// Makes the descriptor readable, or not readable any more.
    pub fn set_readable(&self, on: bool) {
        self.kernel.borrow_mut().set_level(self.number, Interest::READ, on);
    }

    /// Makes the descriptor writable, or not writable any more.
    pub fn set_writable(&self, on: bool) {
        self.kernel.borrow_mut().set_level(self.number, Interest::WRITE, on);
    }

    /// Adds urgent data, or takes it away.
    pub fn set_urgent(&self, on: bool) {
        self.kernel.borrow_mut().set_level(self.number, Interest::URGENT, on);
    }

    /// Hangs up for good: every interest is reported, in every turn.
    pub fn hang_up(&self) {
        self.kernel.borrow_mut().hang_up(self.number);
    }

    /// Closes the descriptor, as an owner does that forgot its watch. As on Linux, the watch is
    /// told when its interest changes. If the descriptor is or becomes ready, it is told as well,
    /// as on Linux when a copy of the descriptor is open.
    pub fn close(&self) {
        self.kernel.borrow_mut().close_descriptor(self.number);
    }

    /// Returns the interest of the watch, or `None` if the descriptor is not watched.
    pub fn interest(&self) -> Option<Interest> {
        self.kernel.borrow().interest(self.number)
    }

    /// Returns the number. No real descriptor has it.
    pub fn raw_fd(&self) -> RawFd {
        self.number
    }
}

impl From<&VirtualDescriptor> for Descriptor {
    fn from(descriptor: &VirtualDescriptor) -> Self {
        Self::raw(descriptor.number)
    }
}

impl fmt::Debug for VirtualDescriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualDescriptor").field("number", &self.number).finish_non_exhaustive()
    }
}
