//! [`Descriptor`]: the argument of [`Reactor::watch`](super::Reactor::watch), and how long it stays
//! open.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// A descriptor to [watch](super::Reactor::watch).
///
/// | made from | the descriptor stays open |
/// |---|---|
/// | a value that is `AsFd`: `OwnedFd`, `UnixStream`, `Stdin`, .. | as long as the watch, which keeps the value |
/// | an `Rc` or `Arc` of one | as long as the watch, or another clone |
/// | [`Descriptor::raw`] | as long as its owner lets it |
/// | a `testing::VirtualDescriptor` | for ever: it is simulated |
///
/// A value that is kept is dropped with the watch, which closes an `OwnedFd`. To use the descriptor
/// in a callback, keep an `Rc` of it in both places.
///
/// ```
/// use std::os::unix::net::UnixStream;
/// use std::rc::Rc;
/// use ropewalk::reactor::Descriptor;
///
/// # fn main() -> ropewalk::Result<()> {
/// let (socket, _peer) = UnixStream::pair()?;
/// let socket = Rc::new(socket);
/// let descriptor = Descriptor::from(Rc::clone(&socket));
/// assert_eq!(Rc::strong_count(&socket), 2);
/// # drop(descriptor);
/// # Ok(())
/// # }
/// ```
pub struct Descriptor {
    number: RawFd,
    kept: Option<KeptDescriptor>,
}

/// The owner of a descriptor, for as long as it is watched.
pub(super) type KeptDescriptor = Box<dyn AsFd>;

impl Descriptor {
    /// Names a descriptor of another owner, such as a C library, by its number.
    ///
    /// The owner should end the watch before it closes the descriptor. If it does not, the watch
    /// ends with [`WatchError::Closed`](crate::error::WatchError::Closed) or
    /// [`Replaced`](crate::error::WatchError::Replaced) as soon as that is noticed, and no other
    /// watch is harmed. See [`Reactor::watch`](super::Reactor::watch).
    ///
    /// ```
    /// use ropewalk::Reactor;
    /// use ropewalk::error::WatchError;
    /// use ropewalk::reactor::{Descriptor, Interest, WatchCallbacks};
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let refused = Reactor::new()?.watch(Descriptor::raw(-1), Interest::READ, WatchCallbacks::new());
    /// assert!(matches!(refused, Err(WatchError::Closed { descriptor: -1 })));
    /// # Ok(())
    /// # }
    /// ```
    pub fn raw(number: RawFd) -> Self {
        Self { number, kept: None }
    }

    /// Returns the number, and what keeps it open.
    pub(super) fn into_parts(self) -> (RawFd, Option<KeptDescriptor>) {
        (self.number, self.kept)
    }
}

impl<T: AsFd + 'static> From<T> for Descriptor {
    fn from(value: T) -> Self {
        let kept: KeptDescriptor = Box::new(value);
        Self { number: kept.as_fd().as_raw_fd(), kept: Some(kept) }
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptor").field("number", &self.number).field("kept", &self.kept.is_some()).finish()
    }
}
