//! Signal handlers: those of the process, and what they tell one reactor (Twisted: `run(installSignalHandlers=True)`,
//! `_exitSignal`). What the reactor does then stands in `on_signal.rs`.
//!
//! A handler stores the signal's number and writes a byte into a socket pair; everything else happens in the loop. Signals
//! belong to the process, so this is the one place with state of the process:
//!
//! | before the first reactor handled it, a signal | while a reactor handles it | while none does |
//! |---|---|---|
//! | had its default action | the reactor is told | its default action is brought about by us |
//! | had a handler of another library | that handler runs, and the reactor is told | that handler runs |
//! | was ignored (`nohup`) | a subscriber is told; it stops no reactor | nothing happens |

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use signal_hook::SigId;
use signal_hook::consts::{FORBIDDEN, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::error::SignalError;

/// The signals that stop a reactor.
const STOPPING: [i32; 2] = [SIGINT, SIGTERM];

/// The handlers of one run of one reactor; dropped, they are taken away.
pub(super) struct Signals {
    pipe: UnixStream,
    writing: UnixStream,
    handlers: BTreeMap<i32, Handler>,
}

/// The signals that came since the last look.
pub(super) struct Came {
    /// One that stops the reactor.
    pub(super) stop: Option<i32>,
    /// Those that have subscribers, each once.
    pub(super) subscribed: Vec<i32>,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let (pipe, writing) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        Ok(Self { pipe, writing, handlers: BTreeMap::new() })
    }

    /// Has SIGINT and SIGTERM stop the reactor, unless they were ignored from the start.
    pub(super) fn handle_stopping(&mut self) -> io::Result<()> {
        for signal in STOPPING.into_iter().filter(|&signal| !was_ignored(signal)) {
            self.handler(signal)?.stops = true;
        }
        Ok(())
    }

    /// Handles a signal for its subscribers.
    pub(super) fn subscribe(&mut self, signal: i32) -> io::Result<()> {
        self.handler(signal)?.is_subscribed = true;
        Ok(())
    }

    /// The handler for a signal: one, so that whoever it is for is told at the same time.
    fn handler(&mut self, signal: i32) -> io::Result<&mut Handler> {
        match self.handlers.entry(signal) {
            Entry::Occupied(place) => Ok(place.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(Handler::install(signal, &self.writing)?)),
        }
    }

    /// Takes the handler for a signal's subscribers away, unless it stops the reactor as well.
    pub(super) fn unsubscribe(&mut self, signal: i32) {
        if let Some(handler) = self.handlers.get_mut(&signal) {
            handler.is_subscribed = false;
            if !handler.stops {
                self.handlers.remove(&signal);
            }
        }
    }

    /// The descriptor that becomes readable when a signal came.
    pub(super) fn descriptor(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// Takes out the signals that came since this was called last.
    pub(super) fn take(&mut self) -> Came {
        let mut bytes = [0; 64];
        // What came is stored before the byte is written, so it is read behind it. An error says that there is no more.
        while matches!(self.pipe.read(&mut bytes), Ok(count) if count > 0) {}
        let mut came = Came { stop: None, subscribed: Vec::new() };
        for (&signal, handler) in self.handlers.iter().filter(|(_, handler)| handler.came.swap(false, Ordering::SeqCst))
        {
            if handler.stops {
                came.stop = Some(signal);
            }
            if handler.is_subscribed {
                came.subscribed.push(signal);
            }
        }
        came
    }
}

/// One reactor's handler for one signal.
struct Handler {
    signal: i32,
    came: Arc<AtomicBool>,
    stops: bool,
    is_subscribed: bool,
    registered: [SigId; 2],
}

impl Handler {
    fn install(signal: i32, writing: &UnixStream) -> io::Result<Self> {
        prepare(signal)?;
        let came = Arc::default();
        let writing = writing.try_clone()?;
        let stores = flag::register(signal, Arc::clone(&came))?;
        let wakes = low_level::pipe::register(signal, writing).inspect_err(|_| {
            low_level::unregister(stores);
        })?;
        // Only now: a signal that comes between does what it did before, and is not lost.
        if let Some(disposition) = process().get_mut(&signal) {
            disposition.handlers += 1;
            disposition.is_idle.store(false, Ordering::SeqCst);
        }
        Ok(Self { signal, came, stops: false, is_subscribed: false, registered: [stores, wakes] })
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if let Some(disposition) = process().get_mut(&self.signal) {
            disposition.handlers -= 1;
            disposition.is_idle.store(disposition.handlers == 0, Ordering::SeqCst);
        }
        for id in self.registered {
            low_level::unregister(id);
        }
    }
}

/// Every signal that a reactor has handled in this process.
static PROCESS: Mutex<BTreeMap<i32, Disposition>> = Mutex::new(BTreeMap::new());

/// What becomes of a signal that no reactor handles.
struct Disposition {
    /// Handlers of reactors.
    handlers: usize,
    /// Whether there are none: then the default action is due, if it was due before.
    is_idle: Arc<AtomicBool>,
    was_ignored: bool,
}

fn process() -> MutexGuard<'static, BTreeMap<i32, Disposition>> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Refuses the signals that no handler of ours can be for.
pub(super) fn check(signal: i32) -> Result<(), SignalError> {
    if FORBIDDEN.contains(&signal) {
        return Err(SignalError::Forbidden { signal });
    }
    // Of these alone the default action is known, which is due when the handler is gone.
    low_level::signal_name(signal).map(drop).ok_or(SignalError::Unknown { signal })
}

/// Sees to it, once for each signal, that it does what it did before while no reactor handles it.
pub(super) fn prepare(signal: i32) -> io::Result<()> {
    if let Entry::Vacant(place) = process().entry(signal) {
        let (was_ignored, is_idle) = (is_in_mask("SigIgn:", signal), Arc::new(AtomicBool::new(true)));
        if !was_ignored && !is_in_mask("SigCgt:", signal) {
            flag::register_conditional_default(signal, Arc::clone(&is_idle))?;
        }
        place.insert(Disposition { handlers: 0, is_idle, was_ignored });
    }
    Ok(())
}

/// Whether a signal was ignored before a reactor handled it.
fn was_ignored(signal: i32) -> bool {
    process().get(&signal).map_or_else(|| is_in_mask("SigIgn:", signal), |disposition| disposition.was_ignored)
}

/// Asks the system what a signal does now. Where it does not say, it is taken to do what it does by default.
fn is_in_mask(name: &str, signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(name));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
