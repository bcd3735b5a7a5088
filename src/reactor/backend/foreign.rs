//! [`ForeignDescriptors`]: the watched descriptors that belong to the program or to a library
//! (Twisted: `addReader`, `addWriter`). It is level-triggered over mio's poller, which is not.
//!
//! They have a poller of their own, and the backend's poller or ring waits for its descriptor. The
//! reason is their owner, who may close a descriptor at any time, and whose number may then belong
//! to one of the reactor's own sockets. A call for the number of such a watch in a shared poller
//! would take that socket's registration away.
//!
//! A watch goes through these states:
//!
//! | state | registered for | leads to | by |
//! |---|---|---|---|
//! | armed | its interest | resting | an event, after a call that checks the descriptor |
//! | resting | [`QUIET`] | armed | the next wait, by a call that looks at the level |
//! | paused | [`QUIET`] | armed | [`rewatch`](ForeignDescriptors::rewatch) |
//! | any | | lost | a call for the descriptor that fails |
//!
//! So a ready descriptor is reported once a turn for as long as it is ready, for two calls of
//! `epoll_ctl`, and a paused one makes no event. A call fails if the descriptor was closed
//! (`EBADF`), or if its number belongs to another file by now (`ENOENT`, on Linux: epoll knows the
//! file too). If the kernel still reports a closed file, because a copy of the descriptor is open,
//! the call before the report notices that.
//!
//! A descriptor that was closed without a copy makes no event. It is noticed when the program
//! changes the interest, or watches another descriptor of the same number. kqueue does not notice
//! another file of the same number.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use mio::Interest as PollInterest;
use rustix::io::Errno;

use super::Completion;
use super::poller::Poller;
use super::reported::Readiness;
use crate::reactor::interest::{Interest, Ready};
use crate::transport::id::Id;

/// Events taken per turn. 256: more descriptors of foreign libraries are rarely ready at once, and
/// the next turn takes the rest, which epoll hands out in rotation.
const EVENTS: usize = 256;

/// The registration of a watch that waits for nothing. epoll has no empty one that keeps the file
/// known, so it is the rarest event, which is then ignored. With kqueue there is none.
#[cfg(any(target_os = "linux", target_os = "android"))]
const QUIET: Option<PollInterest> = Some(PollInterest::PRIORITY);
/// The registration of a watch that waits for nothing: none.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const QUIET: Option<PollInterest> = None;

/// See the module.
pub(super) struct ForeignDescriptors {
    poller: Poller,
    watched: HashMap<Id, ForeignWatch>,
    numbers: BTreeMap<RawFd, Id>,
    /// Watches that were reported in this turn.
    resting: Vec<Id>,
    /// Watches that were found lost outside of [`next`](Self::next).
    lost: VecDeque<(Id, io::Error)>,
    /// The poller may have events.
    has_events: bool,
    /// The poller was asked in this turn.
    was_asked: bool,
    stale: u64,
}

struct ForeignWatch {
    descriptor: RawFd,
    interest: Interest,
    is_registered: bool,
    is_resting: bool,
}

impl ForeignDescriptors {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            poller: Poller::new(EVENTS)?,
            watched: HashMap::new(),
            numbers: BTreeMap::new(),
            resting: Vec::new(),
            lost: VecDeque::new(),
            has_events: false,
            was_asked: false,
            stale: 0,
        })
    }

    /// Returns the poller, whose descriptor the backend is to wait for.
    pub(super) fn poller(&self) -> &Poller {
        &self.poller
    }

    /// Watches a descriptor.
    ///
    /// # Errors
    /// The system's: `EBADF`, `EPERM` for a regular file, `EEXIST` if it is watched already.
    pub(super) fn watch(&mut self, id: Id, descriptor: RawFd, interest: Interest) -> io::Result<()> {
        let mut watch = ForeignWatch { descriptor, interest, is_registered: false, is_resting: false };
        watch.register(id, &self.poller)?;
        // The system did not know this descriptor, so a watch of the same number was of another.
        if let Some(earlier) = self.numbers.insert(descriptor, id)
            && self.watched.remove(&earlier).is_some()
        {
            self.lost.push_back((earlier, Errno::BADF.into()));
        }
        self.watched.insert(id, watch);
        Ok(())
    }

    /// Changes the interest of a watch.
    ///
    /// # Errors
    /// The descriptor is lost, and so is the watch.
    pub(super) fn rewatch(&mut self, id: Id, interest: Interest) -> io::Result<()> {
        let watch = self.watched.get_mut(&id).ok_or(Errno::BADF)?;
        watch.interest = interest;
        let changed = if watch.is_resting { watch.rest(id, &self.poller) } else { watch.register(id, &self.poller) };
        changed.inspect_err(|_| self.forget(id))
    }

    /// Ends a watch. Its owner may have closed the descriptor, so that the system knows it no more.
    pub(super) fn unwatch(&mut self, id: Id) {
        if let Some(watch) = self.watched.get(&id).filter(|watch| watch.is_registered) {
            drop(self.poller.deregister(watch.descriptor));
        }
        self.forget(id);
        self.lost.retain(|(lost, _)| *lost != id);
    }

    /// Makes the poller anew, in a forked child.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.poller = Poller::new(EVENTS)?;
        self.resting.clear();
        let ids: Vec<Id> = self.watched.keys().copied().collect();
        for id in ids {
            let Some(watch) = self.watched.get_mut(&id) else { continue };
            (watch.is_registered, watch.is_resting) = (false, false);
            if let Err(error) = watch.register(id, &self.poller) {
                self.lose_later(id, error);
            }
        }
        Ok(())
    }

    /// Prepares a wait: looks at the levels of the watches that were reported in the last turn.
    pub(super) fn begin_turn(&mut self) {
        self.was_asked = false;
        let resting = std::mem::take(&mut self.resting);
        for &id in &resting {
            let Some(watch) = self.watched.get_mut(&id) else { continue };
            watch.is_resting = false;
            if let Err(error) = watch.register(id, &self.poller) {
                self.lose_later(id, error);
            }
        }
        // Keeps its capacity.
        self.resting = resting;
        self.resting.clear();
    }

    /// Returns `true` if the wait must not wait.
    pub(super) fn has_more(&self) -> bool {
        self.has_events || !self.lost.is_empty()
    }

    /// Returns `true` if an event of any watch would make the poller readable. `false`: a wait has
    /// to come first, which looks at the levels of the watches that were reported.
    pub(super) fn is_armed(&self) -> bool {
        self.resting.is_empty() && !self.has_more()
    }

    /// Records that the poller has events.
    pub(super) fn note_events(&mut self) {
        self.has_events = true;
    }

    /// Returns the next event of this turn.
    pub(super) fn next(&mut self) -> Option<(Id, Completion)> {
        if let Some((id, error)) = self.lost.pop_front() {
            return Some((id, Completion::DescriptorLost(error)));
        }
        loop {
            let Some((id, readiness)) = self.poller.next() else {
                if !self.ask() {
                    return None;
                }
                continue;
            };
            let Some(watch) = self.watched.get_mut(&id) else {
                self.stale += 1;
                continue;
            };
            let Some(ready) = watch.ready(readiness) else { continue };
            if let Err(error) = watch.rest(id, &self.poller) {
                self.forget(id);
                return Some((id, Completion::DescriptorLost(error)));
            }
            watch.is_resting = true;
            self.resting.push(id);
            return Some((id, Completion::Ready(ready)));
        }
    }

    /// Returns the number of events for watches that had ended.
    pub(super) fn stale(&self) -> u64 {
        self.stale
    }

    /// Asks the poller for events, once a turn. Returns `true` if there are any.
    fn ask(&mut self) -> bool {
        if !self.has_events || std::mem::replace(&mut self.was_asked, true) {
            return false;
        }
        match self.poller.wait(Some(Duration::ZERO)) {
            // There may be more than it had room for.
            Ok(()) => self.has_events = self.poller.is_full(),
            // Interrupted: the next turn asks again. No other error is possible for this
            // descriptor, which is open and a poller's.
            Err(_) => return false,
        }
        !self.poller.is_silent()
    }

    fn lose_later(&mut self, id: Id, error: io::Error) {
        self.forget(id);
        self.lost.push_back((id, error));
    }

    fn forget(&mut self, id: Id) {
        if let Some(watch) = self.watched.remove(&id)
            && self.numbers.get(&watch.descriptor) == Some(&id)
        {
            self.numbers.remove(&watch.descriptor);
        }
    }
}

impl ForeignWatch {
    /// Registers the descriptor for its interest. That is an event at once if it is ready.
    fn register(&mut self, id: Id, poller: &Poller) -> io::Result<()> {
        let Some(interest) = poll_interest(self.interest)? else { return self.rest(id, poller) };
        if self.is_registered {
            return poller.reregister(id, self.descriptor, interest);
        }
        poller.register(id, self.descriptor, interest)?;
        self.is_registered = true;
        Ok(())
    }

    /// Registers the descriptor for nothing, and checks that it is the same.
    fn rest(&mut self, id: Id, poller: &Poller) -> io::Result<()> {
        match QUIET {
            Some(quiet) if self.is_registered => poller.reregister(id, self.descriptor, quiet),
            Some(quiet) => {
                poller.register(id, self.descriptor, quiet)?;
                self.is_registered = true;
                Ok(())
            }
            None if std::mem::take(&mut self.is_registered) => poller.deregister(self.descriptor),
            None => Ok(()),
        }
    }

    /// Returns the readiness to report. An error or the peer's end is every kind of interest,
    /// because the next call on the descriptor returns it. A paused watch has none.
    fn ready(&self, readiness: Readiness) -> Option<Ready> {
        let hung_up = readiness.has(Readiness::GONE) || readiness.has(Readiness::FAILED);
        let is_readable = readiness.has(Readiness::READABLE) && !readiness.has(Readiness::ONLY_URGENT);
        let mut kinds = Interest::NONE;
        for (kind, is_ready) in [
            (Interest::READ, is_readable),
            (Interest::WRITE, readiness.has(Readiness::WRITABLE)),
            (Interest::URGENT, readiness.has(Readiness::URGENT)),
        ] {
            if is_ready || hung_up {
                kinds |= kind;
            }
        }
        let kinds = kinds.both(self.interest);
        (!kinds.is_none()).then_some(Ready { kinds, hung_up })
    }
}

/// Translates an interest. `None` is an interest in nothing.
fn poll_interest(interest: Interest) -> io::Result<Option<PollInterest>> {
    let mut wanted = None;
    let mut add = |kind: PollInterest| wanted = Some(wanted.map_or(kind, |others: PollInterest| others | kind));
    if interest.reads() {
        add(PollInterest::READABLE);
    }
    if interest.writes() {
        add(PollInterest::WRITABLE);
    }
    if interest.is_urgent() {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        add(PollInterest::PRIORITY);
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(wanted)
}
