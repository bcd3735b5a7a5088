//! SIGINT and SIGTERM stop a running reactor (Twisted: `run(installSignalHandlers=True)`, `_exitSignal`).
//!
//! The handler itself only stores the number and writes a byte into a socket pair; everything else happens in the loop.
//! Signals belong to the process, so this is the one place with state of the process: once a signal was ever handled
//! here, its default action is brought about by us whenever no reactor handles it, so that Ctrl-C still ends a
//! program whose reactor has stopped. Handlers that were there before go on being called; a signal that was ignored when
//! the first reactor ran (`nohup`) stays ignored.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// The signals that stop a reactor.
const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// Handlers installed for one run of one reactor; dropped, they are taken away.
pub(super) struct Signals {
    registered: Vec<SigId>,
    pipe: UnixStream,
    last: Arc<AtomicUsize>,
}

impl Signals {
    /// Installs them.
    pub(super) fn install() -> io::Result<Self> {
        let (pipe, writing) = UnixStream::pair()?;
        pipe.set_nonblocking(true)?;
        let last = Arc::new(AtomicUsize::new(0));
        let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = process.prepare()?;
        let mut installed = Self { registered: Vec::new(), pipe, last };
        process.running += 1;
        idle.store(false, Ordering::SeqCst);
        drop(process);
        for signal in SIGNALS.into_iter().filter(|&signal| !is_ignored(signal)) {
            // The number is stored before the byte is written; the loop reads them in the other order.
            let last = Arc::clone(&installed.last);
            installed.registered.push(flag::register_usize(signal, last, signal as usize)?);
            installed.registered.push(low_level::pipe::register(signal, writing.try_clone()?)?);
        }
        Ok(installed)
    }

    /// What becomes readable when a signal came.
    pub(super) fn descriptor(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// The signal that came last, if one came since this was asked last.
    pub(super) fn take(&mut self) -> Option<i32> {
        let mut bytes = [0; 64];
        let mut came = false;
        while matches!(self.pipe.read(&mut bytes), Ok(count) if count > 0) {
            came = true;
        }
        came.then(|| self.last.load(Ordering::SeqCst) as i32)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            low_level::unregister(id);
        }
        let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        process.running -= 1;
        if let (0, Some(idle)) = (process.running, &process.idle) {
            idle.store(true, Ordering::SeqCst);
        }
    }
}

static PROCESS: Mutex<Process> = Mutex::new(Process { running: 0, idle: None });

struct Process {
    /// Reactors that handle signals.
    running: usize,
    /// Whether there are none: then the default action is due. Made with the first.
    idle: Option<Arc<AtomicBool>>,
}

impl Process {
    /// Sees to it, once, that a signal that no reactor handles does what it did before.
    fn prepare(&mut self) -> io::Result<Arc<AtomicBool>> {
        if let Some(idle) = &self.idle {
            return Ok(Arc::clone(idle));
        }
        let idle = Arc::new(AtomicBool::new(true));
        for signal in SIGNALS.into_iter().filter(|&signal| !is_caught(signal) && !is_ignored(signal)) {
            flag::register_conditional_default(signal, Arc::clone(&idle))?;
        }
        self.idle = Some(Arc::clone(&idle));
        Ok(idle)
    }
}

fn is_caught(signal: i32) -> bool {
    is_in_mask("SigCgt:", signal)
}

fn is_ignored(signal: i32) -> bool {
    is_in_mask("SigIgn:", signal)
}

/// Asks the system what a signal does now. Where it does not say, it is taken to do what it does by default.
fn is_in_mask(name: &str, signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(name));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}
