//! Messages to the service manager that started this process, by systemd's protocol (`sd_notify`):
//! the program is ready, it stops, and a status for people (Twisted has none of it).
//!
//! The variable `NOTIFY_SOCKET` names a UNIX socket for datagrams: a path, or `@` and a name in
//! Linux's abstract namespace. It stays in the environment, because no program with threads can
//! change that soundly. systemd ignores messages of child processes unless its unit allows them
//! (`NotifyAccess=`).

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::Reactor;

/// The environment's name for the manager's socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// The longest wait for a manager that does not read. A manager reads at once, and a second delays
/// no start by much.
const SEND_LIMIT: Duration = Duration::from_secs(1);

impl Reactor {
    /// Sends assignments such as `STATUS=12 rooms are open` to the service manager, one to a line.
    /// Returns `false` if this process has no service manager that asked for messages.
    ///
    /// [`run_service`](crate::application::run_service) sends `READY=1` and `STOPPING=1` itself.
    /// The call waits for the manager's socket for at most a second. A simulated reactor has no
    /// service manager.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if a line is no assignment, or if `NOTIFY_SOCKET`
    /// names no socket; the error of the system if the message cannot be sent.
    ///
    /// ```
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = ropewalk::Reactor::new()?;
    /// if !reactor.notify_service_manager("STATUS=warming up")? {
    ///     println!("started by hand");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn notify_service_manager(&self, assignments: &str) -> io::Result<bool> {
        check(assignments)?;
        if self.is_simulated() {
            return Ok(false);
        }
        let Some(name) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) else { return Ok(false) };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_LIMIT))?;
        let sent = address(&name).and_then(|address| socket.send_to_addr(assignments.as_bytes(), &address));
        match sent {
            Ok(_) => Ok(true),
            Err(error) => Err(io::Error::new(error.kind(), format!("{VARIABLE} is {}: {error}", name.display()))),
        }
    }
}

/// Checks that each line has a name in capitals, and a value.
fn check(assignments: &str) -> io::Result<()> {
    let is_assignment = |line: &str| {
        let name = line.split_once('=').map_or("", |(name, _)| name);
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let mut lines = assignments.lines();
    match lines.find(|line| !is_assignment(line)) {
        None if !assignments.is_empty() => Ok(()),
        wrong => {
            let wrong = wrong.unwrap_or_default();
            let text = format!("a message to a service manager has lines such as STATUS=.., and not {wrong:?}");
            Err(io::Error::new(ErrorKind::InvalidInput, text))
        }
    }
}

fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        [b'@', name @ ..] if !name.is_empty() => abstract_address(name),
        _ => Err(io::Error::new(ErrorKind::InvalidInput, "expected a path from / on, or @ and a name")),
    }
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_name: &[u8]) -> io::Result<SocketAddr> {
    Err(io::Error::new(ErrorKind::Unsupported, "only Linux has abstract names"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line of a message is an assignment, and an empty message has none.
    #[test]
    fn messages_are_assignments() {
        for right in ["READY=1", "READY=1\nSTATUS=a = b\n", "X_SERIAL=", "MAINPID=7"] {
            assert!(check(right).is_ok(), "{right:?}");
        }
        for wrong in ["", "\n", "READY", "=1", "ready=1", "READY=1\n\nSTATUS=x", " STATUS=x"] {
            assert_eq!(check(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong:?}");
        }
    }

    /// A manager's socket has a path, or a name that is not in the file system.
    #[test]
    fn sockets_have_a_path_or_a_name() {
        let path = address(OsStr::new("/run/notify")).unwrap();
        assert_eq!(path.as_pathname(), Some(std::path::Path::new("/run/notify")));
        if cfg!(target_os = "linux") {
            assert!(address(OsStr::new("@manager")).unwrap().as_pathname().is_none());
        }
        for wrong in ["run/notify", "vsock:2:1234", "@"] {
            assert_eq!(address(OsStr::new(wrong)).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        }
    }
}
