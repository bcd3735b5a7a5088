//! [`Reactor::watch`]: foreign descriptors, those of a C library or of another crate (Twisted:
//! `addReader`, `addWriter`, `removeReader`, `getReaders`; `IReactorFDSet`, `IReadDescriptor`,
//! `IWriteDescriptor`).
//!
//! | a watch ends by | callback is told |
//! |---|---|
//! | [`WatchHandle::stop`], or the drop of its [`Watch`] | nothing |
//! | a callback that fails or panics | [`Watcher::connection_lost`], with that failure |
//! | a descriptor that its owner has closed | `connection_lost`, with a [`WatchError`] |
//! | the stop or the close of the reactor | `connection_lost`, with [`WatchError::ReactorStopped`] |
//!
//! The second and the third are logged too, with the place of the call of `watch`.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::panic::Location;
use std::rc::{Rc, Weak};

use rustix::io::Errno;

use super::Reactor;
use super::core::{Core, Slot};
use super::descriptor::{Descriptor, KeptDescriptor};
use super::interest::{Interest, Ready};
use super::watched::Watched;
use crate::error::{LoopWaits, WatchError};
use crate::failure::{Failure, Result, drop_guarded, guarded, guarded_result};
use crate::log::error;
use crate::transport::id::Id;

impl Reactor {
    /// Calls `watcher` whenever the descriptor is ready, until the returned [`Watch`] is dropped
    /// (Twisted: `addReader`, `addWriter`). For the descriptors of C libraries, of other crates, of
    /// terminals, pipes and devices: whatever `poll(2)` can wait for.
    ///
    /// - A watch is **level-triggered** on every backend. A descriptor that is still ready is
    ///   reported again in the next turn, after the events of all others. A callback that neither
    ///   reads nor [changes its interest](WatchHandle::set_interest) is called in every turn.
    /// - A hang-up or an error is reported as every kind of readiness that is of interest, because
    ///   the next call on the descriptor returns it. [`WatchHandle::is_hung_up`] tells. It is
    ///   reported for as long as the watch lasts and has an interest. (Twisted calls
    ///   `connectionLost`, unless there is something to read.)
    /// - The engine neither reads, writes nor closes a descriptor, and does not change its flags. A
    ///   blocking descriptor can be watched too: a read returns at once when it is reported.
    /// - The callbacks run on the reactor's thread in phase 6 of a turn, one after the other:
    ///   urgent data, reading, writing. They may end and begin any watch, also their own.
    /// - A descriptor is watched once at a time by a reactor. Another watch of it is an error: use
    ///   the interest of the first one for both directions.
    ///
    /// The [`Descriptor`] says how long it stays open. The watch keeps a value that implements
    /// `AsFd`; a [raw number](Descriptor::raw) may be closed by its owner at any time. That ends
    /// the watch with an error as soon as it is noticed: at an event, at a change of the interest,
    /// or when another descriptor of the same number is watched. No callback is called for it from
    /// then on, and nothing else is harmed. Two things can't be noticed. A descriptor that was
    /// closed while nothing happens makes no event, so its watch just stays until then. And if a
    /// copy of it is open elsewhere, in a child process for instance, its events go on to wake the
    /// loop, without a callback, until the copy is closed too.
    ///
    /// # Errors
    /// - [`WatchError::NotPollable`]: a regular file or a directory, which is always ready. Read it
    ///   in [a thread](Self::defer_to_thread).
    /// - [`WatchError::AlreadyWatched`], [`WatchError::Closed`], [`WatchError::Unsupported`].
    /// - [`WatchError::ReactorStopped`] while the reactor stops, [`WatchError::ReactorGone`] once
    ///   it was closed, [`WatchError::ForkedChild`].
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::os::unix::net::UnixStream;
    /// use std::rc::Rc;
    /// use ropewalk::Reactor;
    /// use ropewalk::reactor::{Interest, WatchCallbacks};
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::new()?;
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// let ours = Rc::new(ours);
    /// let (socket, stopping) = (Rc::clone(&ours), reactor.clone());
    /// let _watch = reactor.watch(ours, Interest::READ, WatchCallbacks::new().on_read(move |watch| {
    ///     let mut buffer = [0; 100];
    ///     let count = (&*socket).read(&mut buffer)?;
    ///     println!("{:?}", &buffer[..count]);
    ///     watch.stop();
    ///     stopping.stop()?;
    ///     Ok(())
    /// }))?;
    /// theirs.write_all(b"hello")?;
    /// reactor.run()?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn watch(
        &self,
        descriptor: impl Into<Descriptor>,
        interest: Interest,
        watcher: impl Watcher,
    ) -> Result<Watch, WatchError> {
        let place = Location::caller();
        let watch = self.0.watch(descriptor.into(), interest, Box::new(watcher), place)?;
        Ok(Watch { handle: WatchHandle(watch), is_detached: false })
    }

    /// Returns a handle of each watch, the oldest places of the reactor's table first (Twisted:
    /// `getReaders`, `getWriters`). The engine's own descriptors are not among them.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = ropewalk::Reactor::new()?;
    /// // Twisted's removeAll.
    /// reactor.watched_descriptors().iter().for_each(|watch| watch.stop());
    /// # Ok(())
    /// # }
    /// ```
    pub fn watched_descriptors(&self) -> Vec<WatchHandle> {
        let watches = self.0.watches().into_iter();
        watches.filter_map(|watch| watch.into_any().downcast::<WatchCore>().ok()).map(WatchHandle).collect()
    }
}

/// The callbacks of a watched descriptor (Twisted: `IReadDescriptor`, `IWriteDescriptor`).
/// [`WatchCallbacks`](super::WatchCallbacks) is one of closures.
///
/// A callback that returns an error or panics ends its watch. The failure is logged, and handed to
/// [`connection_lost`](Self::connection_lost).
///
/// ```
/// use std::io::Read;
/// use std::os::unix::net::UnixStream;
/// use std::rc::Rc;
/// use ropewalk::reactor::{WatchHandle, Watcher};
///
/// struct Lines(Rc<UnixStream>, Vec<u8>);
///
/// impl Watcher for Lines {
///     fn do_read(&mut self, watch: &WatchHandle) -> ropewalk::Result<()> {
///         let mut buffer = [0; 4096];
///         match (&*self.0).read(&mut buffer)? {
///             0 => watch.stop(),
///             count => self.1.extend_from_slice(&buffer[..count]),
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Watcher: 'static {
    /// There is something to read, the peer has closed, or there is an error (Twisted: `doRead`).
    ///
    /// # Errors
    /// End the watch. Default: [`WatchError::NoCallback`].
    fn do_read(&mut self, watch: &WatchHandle) -> Result<()> {
        Err(watch.no_callback("do_read"))
    }

    /// There is room to write, the peer has closed, or there is an error (Twisted: `doWrite`).
    ///
    /// # Errors
    /// End the watch. Default: [`WatchError::NoCallback`].
    fn do_write(&mut self, watch: &WatchHandle) -> Result<()> {
        Err(watch.no_callback("do_write"))
    }

    /// There is urgent data, the peer has closed, or there is an error.
    ///
    /// # Errors
    /// End the watch. Default: [`WatchError::NoCallback`].
    fn do_read_urgent(&mut self, watch: &WatchHandle) -> Result<()> {
        Err(watch.no_callback("do_read_urgent"))
    }

    /// The watch has ended, and not by [`stop`](WatchHandle::stop) or a drop (Twisted:
    /// `connectionLost`). It is called once and last. The reason is a [`WatchError`], or the
    /// failure of a callback. Default: does nothing.
    fn connection_lost(&mut self, reason: &Failure) {
        let _ = reason;
    }
}

/// A watch of [`Reactor::watch`], which ends when this is dropped, also inside its own callbacks.
/// It has the methods of a [`WatchHandle`].
#[must_use = "a watch ends when it is dropped"]
pub struct Watch {
    handle: WatchHandle,
    is_detached: bool,
}

impl Watch {
    /// Returns a handle, which does not keep the watch from ending.
    pub fn handle(&self) -> WatchHandle {
        self.handle.clone()
    }

    /// Leaves the watch to the reactor: it lasts until [`WatchHandle::stop`] or the reactor's end.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// use ropewalk::reactor::{Interest, WatchCallbacks};
    ///
    /// # let (socket, _peer) = std::os::unix::net::UnixStream::pair()?;
    /// let reactor = ropewalk::Reactor::new()?;
    /// let handle = reactor.watch(socket, Interest::READ, WatchCallbacks::new())?.detach();
    /// assert!(handle.is_active());
    /// reactor.close()?;
    /// assert!(!handle.is_active());
    /// # Ok(())
    /// # }
    /// ```
    pub fn detach(mut self) -> WatchHandle {
        self.is_detached = true;
        self.handle()
    }
}

impl Deref for Watch {
    type Target = WatchHandle;

    fn deref(&self) -> &WatchHandle {
        &self.handle
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_detached {
            self.handle.stop();
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.handle, f)
    }
}

/// Changes or ends a watch; callbacks are handed one. A cheap handle: clones name the same watch,
/// and keep it neither from ending nor from being dropped.
#[derive(Clone)]
pub struct WatchHandle(Rc<WatchCore>);

impl WatchHandle {
    /// Ends the watch (Twisted: `removeReader`, `removeWriter`). No callback is called any more,
    /// and the watcher is dropped: now, or after the callback that is under way. Then the owner may
    /// close the descriptor. Does nothing if the watch has ended.
    pub fn stop(&self) {
        if let Some(watcher) = self.0.end() {
            drop_guarded("the watcher of a descriptor", watcher);
        }
    }

    /// Returns `true` until the watch has ended.
    pub fn is_active(&self) -> bool {
        !self.0.has_ended.get()
    }

    /// Returns the present interest.
    pub fn interest(&self) -> Interest {
        self.0.interest.get()
    }

    /// Changes the readiness to wait for, from the next turn on. [`Interest::NONE`] pauses the
    /// watch: nothing is reported, and a descriptor that stays ready costs nothing. The call checks
    /// the descriptor too, if its interest is the present one as well.
    ///
    /// # Errors
    /// [`WatchError::Ended`] if the watch has ended before. [`WatchError::Closed`] and
    /// [`WatchError::Replaced`] if the descriptor was closed by its owner;
    /// [`WatchError::Unsupported`]: these end the watch, whose watcher is told at the end of the
    /// turn. [`WatchError::ForkedChild`] in a forked child.
    pub fn set_interest(&self, interest: Interest) -> Result<(), WatchError> {
        self.0.set_interest(interest)
    }

    /// Stops calling [`Watcher::do_read`] (Twisted: `removeReader`, `stopReading`).
    ///
    /// # Errors
    /// The same as [`set_interest`](Self::set_interest).
    pub fn pause_reading(&self) -> Result<(), WatchError> {
        self.set_interest(self.interest().without(Interest::READ))
    }

    /// Calls [`Watcher::do_read`] again (Twisted: `addReader`, `startReading`).
    ///
    /// # Errors
    /// The same as [`set_interest`](Self::set_interest).
    pub fn resume_reading(&self) -> Result<(), WatchError> {
        self.set_interest(self.interest() | Interest::READ)
    }

    /// Stops calling [`Watcher::do_write`] (Twisted: `removeWriter`, `stopWriting`).
    ///
    /// # Errors
    /// The same as [`set_interest`](Self::set_interest).
    pub fn pause_writing(&self) -> Result<(), WatchError> {
        self.set_interest(self.interest().without(Interest::WRITE))
    }

    /// Calls [`Watcher::do_write`] again (Twisted: `addWriter`, `startWriting`).
    ///
    /// # Errors
    /// The same as [`set_interest`](Self::set_interest).
    pub fn resume_writing(&self) -> Result<(), WatchError> {
        self.set_interest(self.interest() | Interest::WRITE)
    }

    /// Returns `true` if the last event was a hang-up or an error (`POLLHUP`, `POLLERR`).
    pub fn is_hung_up(&self) -> bool {
        self.0.is_hung_up.get()
    }

    /// Returns the number of the descriptor (Twisted: `fileno`). After the end of the watch it may
    /// belong to another.
    pub fn raw_fd(&self) -> RawFd {
        self.0.descriptor
    }

    fn no_callback(&self, callback: &'static str) -> Failure {
        WatchError::NoCallback { descriptor: self.0.descriptor, callback }.into()
    }
}

impl fmt::Debug for WatchHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchHandle")
            .field("descriptor", &self.0.descriptor)
            .field("interest", &self.interest())
            .field("active", &self.is_active())
            .finish_non_exhaustive()
    }
}

/// The state of a watch.
struct WatchCore {
    core: Weak<Core>,
    id: Id,
    descriptor: RawFd,
    /// Keeps the descriptor open. Dropped with the end of the watch.
    kept: RefCell<Option<KeptDescriptor>>,
    interest: Cell<Interest>,
    is_hung_up: Cell<bool>,
    has_ended: Cell<bool>,
    /// The reason to tell at the end of the turn, because the watch was lost in a call of the
    /// program.
    untold: RefCell<Option<Failure>>,
    /// `None` during a call of it, and after the end.
    watcher: RefCell<Option<Box<dyn Watcher>>>,
    /// The call of [`Reactor::watch`].
    place: &'static Location<'static>,
}

/// One of the callbacks.
type WatchCall = fn(&mut dyn Watcher, &WatchHandle) -> Result<()>;

/// The callbacks, in the order of a turn. Urgent data comes first, because reading passes its mark.
const CALLS: [(Interest, WatchCall); 3] = [
    (Interest::URGENT, |watcher, watch| watcher.do_read_urgent(watch)),
    (Interest::READ, |watcher, watch| watcher.do_read(watch)),
    (Interest::WRITE, |watcher, watch| watcher.do_write(watch)),
];

impl WatchCore {
    fn set_interest(self: &Rc<Self>, interest: Interest) -> Result<(), WatchError> {
        let core = self.core.upgrade().filter(|_| !self.has_ended.get()).ok_or(WatchError::Ended)?;
        if core.is_forked_child() {
            return Err(WatchError::ForkedChild);
        }
        self.interest.set(interest);
        if core.postponed.is_waiting() {
            let watch = Rc::clone(self);
            // An error is told to the watcher.
            core.when_awake(move |core| drop(watch.update(core)));
            return Ok(());
        }
        self.update(&core)
    }

    /// Passes the present interest to the backend. An error ends the watch.
    fn update(self: &Rc<Self>, core: &Core) -> Result<(), WatchError> {
        if self.has_ended.get() {
            return Ok(());
        }
        let changed = core.backend_for_request().map_err(io::Error::from);
        let changed = changed.and_then(|mut backend| backend.rewatch(self.id, self.interest.get()));
        let Err(error) = changed else { return Ok(()) };
        let told = self.refusal(copy_of(&error));
        error!(descriptor = self.descriptor, place = %self.place, error = %told, "a watched descriptor is lost");
        self.untold.replace(Some(Failure::untraced(told)));
        // The callback that is under way may be its own. It is not entered a second time.
        let watcher = self.end();
        self.watcher.replace(watcher);
        let lost = Rc::clone(self);
        core.at_end_of_turn(move |_| lost.tell_untold());
        Err(self.refusal(error))
    }

    /// Begins a watch that was asked for while the loop waited. An error is told to the watcher.
    fn begin(self: Rc<Self>, core: &Core) {
        if self.has_ended.get() {
            return;
        }
        let watched = core.backend.borrow_mut().watch(self.id, self.descriptor, self.interest.get());
        if let Err(error) = watched {
            self.lost(error);
        }
    }

    /// Makes a call of the watcher. Its failure ends the watch.
    fn call(self: &Rc<Self>, call: WatchCall) {
        let Some(mut watcher) = self.watcher.take() else { return };
        let handle = WatchHandle(Rc::clone(self));
        let result = guarded_result(|| call(&mut *watcher, &handle));
        let is_lost = self.untold.borrow().is_some();
        if let Err(failure) = &result
            && !(is_lost && failure.check::<WatchError>().is_some())
        {
            let (descriptor, place) = (self.descriptor, self.place);
            error!(descriptor, %place, %failure, "a callback of a watched descriptor failed, and the watch ends");
        }
        match result {
            Err(failure) if !self.has_ended.get() => {
                // The watcher is in our hands, so there is none to take.
                let _ = self.end();
                self.tell(watcher, &failure);
            }
            // It is not dropped before it was told.
            _ if is_lost || !self.has_ended.get() => drop(self.watcher.replace(Some(watcher))),
            _ => drop_guarded("the watcher of a descriptor", watcher),
        }
    }

    fn tell_untold(&self) {
        let (watcher, reason) = (self.watcher.take(), self.untold.take());
        if let (Some(watcher), Some(reason)) = (watcher, reason) {
            self.tell(watcher, &reason);
        }
    }

    /// Tells the watcher of the end, and drops it.
    fn tell(&self, mut watcher: Box<dyn Watcher>, reason: &Failure) {
        if let Err(panic) = guarded(|| watcher.connection_lost(reason)) {
            error!(descriptor = self.descriptor, place = %self.place, %panic, "connection_lost of a watcher failed");
        }
        drop_guarded("the watcher of a descriptor", watcher);
    }

    /// Ends the watch, and takes the watcher out. Returns `None` if a call of it is under way, or
    /// if the watch had ended before.
    fn end(&self) -> Option<Box<dyn Watcher>> {
        let core = self.core.upgrade();
        // In a forked child, the registration is the parent's, and so are the program's values.
        if self.has_ended.get() || core.as_ref().is_some_and(|core| core.is_forked_child()) {
            return None;
        }
        self.has_ended.set(true);
        let kept = self.kept.take();
        match core {
            Some(core) => {
                let (id, slot) = (self.id, core.slots.borrow_mut().remove(self.id));
                core.when_awake(move |core| {
                    core.backend.borrow_mut().close(id, false);
                    drop_guarded("a watched descriptor", kept);
                });
                drop(slot);
            }
            None => drop_guarded("a watched descriptor", kept),
        }
        self.watcher.take()
    }

    fn refusal(&self, error: io::Error) -> WatchError {
        refusal(self.descriptor, error)
    }
}

impl Watched for WatchCore {
    fn ready(self: Rc<Self>, ready: Ready) {
        self.is_hung_up.set(ready.hung_up);
        for (kind, call) in CALLS {
            // A callback before this one may have changed the interest, or ended the watch.
            if !self.has_ended.get() && !ready.kinds.both(self.interest.get()).both(kind).is_none() {
                self.call(call);
            }
        }
    }

    fn lost(self: Rc<Self>, error: io::Error) {
        let reason = self.refusal(error);
        error!(descriptor = self.descriptor, place = %self.place, error = %reason, "a watched descriptor is lost");
        if let Some(watcher) = self.end() {
            self.tell(watcher, &Failure::untraced(reason));
        }
    }

    fn reactor_stopped(self: Rc<Self>) {
        if let Some(watcher) = self.end() {
            self.tell(watcher, &Failure::untraced(WatchError::ReactorStopped));
        }
    }

    fn into_any(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }
}

impl Core {
    fn watch(
        self: &Rc<Self>,
        descriptor: Descriptor,
        interest: Interest,
        watcher: Box<dyn Watcher>,
        place: &'static Location<'static>,
    ) -> Result<Rc<WatchCore>, WatchError> {
        if self.is_closed() {
            return Err(WatchError::ReactorGone);
        }
        if !self.is_ours() {
            return Err(WatchError::ForkedChild);
        }
        if self.run.is_closing() {
            return Err(WatchError::ReactorStopped);
        }
        let (number, kept) = descriptor.into_parts();
        let id = self.slots.borrow_mut().insert(Slot::Reserved);
        let watched = self.backend_for_request().map(|mut backend| backend.watch(id, number, interest));
        if let Ok(Err(error)) = watched {
            self.slots.borrow_mut().remove(id);
            return Err(refusal(number, error));
        }
        let watch = Rc::new(WatchCore {
            core: Rc::downgrade(self),
            id,
            descriptor: number,
            kept: RefCell::new(kept),
            interest: Cell::new(interest),
            is_hung_up: Cell::new(false),
            has_ended: Cell::new(false),
            untold: RefCell::new(None),
            watcher: RefCell::new(Some(watcher)),
            place,
        });
        if let Some(slot) = self.slots.borrow_mut().get_mut(id) {
            *slot = Slot::Watched(Rc::clone(&watch) as Rc<dyn Watched>);
        }
        if let Err(LoopWaits) = watched {
            let begun = Rc::clone(&watch);
            self.when_awake(move |core| begun.begin(core));
        }
        Ok(watch)
    }
}

/// Names the reason for which the system does not watch a descriptor, or does so no longer.
fn refusal(descriptor: RawFd, error: io::Error) -> WatchError {
    match Errno::from_io_error(&error) {
        Some(Errno::BADF) => WatchError::Closed { descriptor },
        Some(Errno::NOENT) => WatchError::Replaced { descriptor },
        Some(Errno::PERM) => WatchError::NotPollable { descriptor },
        Some(Errno::EXIST) => WatchError::AlreadyWatched { descriptor },
        _ if error.kind() == io::ErrorKind::Unsupported => WatchError::Unsupported { descriptor },
        _ => WatchError::System { descriptor, source: error },
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}
