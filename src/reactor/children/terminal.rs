//! Pseudo-terminals for child processes (Twisted: `usePTY`, `PTYProcess`).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::termios::{Winsize, tcsetwinsize};

use super::exec::Mapping;
use super::spawn::{Start, system_error};
use crate::error::{SpawnError, SpawnStep};
use crate::process::{PipeDirection, WindowSize};
use crate::reactor::Core;
use crate::reactor::backend::PipeEnds;

/// The child's standard input, output and error: all of them are its terminal.
const STANDARD: [i32; 3] = [0, 1, 2];

/// The descriptor at which the child's output is reported.
const OUTPUT: i32 = 1;

impl Core {
    /// Makes a terminal, and joins our side of it to the reactor. Returns the child's side, for its
    /// three standard streams.
    pub(super) fn open_terminal(
        self: &Rc<Self>,
        start: &Start<'_>,
        size: WindowSize,
    ) -> Result<Vec<Mapping>, SpawnError> {
        let setup = |error| start.setup(SpawnStep::Pipes, error);
        let (ours, theirs) = open(size).map_err(setup)?;
        let second = || ours.try_clone().map_err(setup);
        let ends = PipeEnds { read: Some(second()?), write: Some(second()?), is_shared: false, of_child: None };
        let joined = self.join_pipe(ends, &start.joint, OUTPUT);
        let transport = joined.map_err(|error| setup(system_error(error)))?;
        start.joint.process().state().add_pipe(OUTPUT, PipeDirection::Terminal(ours), transport);
        let mapping = |number| Ok(Mapping { number, source: Some(theirs.try_clone().map_err(setup)?) });
        STANDARD.into_iter().map(mapping).collect()
    }
}

/// Sets the size of a terminal. The programs in it get `SIGWINCH`.
pub(super) fn resize(terminal: BorrowedFd<'_>, size: WindowSize) -> io::Result<()> {
    let size = Winsize {
        ws_row: size.rows,
        ws_col: size.columns,
        ws_xpixel: size.width_pixels,
        ws_ypixel: size.height_pixels,
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Makes a terminal. Returns our side, and the child's. Both are close-on-exec.
#[cfg(target_os = "linux")]
fn open(size: WindowSize) -> io::Result<(OwnedFd, OwnedFd)> {
    use std::os::fd::AsFd;

    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    // By its other side, and not by its name, which may belong to another file system.
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    resize(ours.as_fd(), size)?;
    Ok((ours, theirs))
}

/// Processes do not start here.
#[cfg(not(target_os = "linux"))]
fn open(_size: WindowSize) -> io::Result<(OwnedFd, OwnedFd)> {
    Err(io::ErrorKind::Unsupported.into())
}
