//! The addresses of UNIX sockets.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The address of a UNIX socket (Twisted: `UNIXAddress`): a path, a name in Linux's abstract
/// namespace, or no name, as most clients have it.
///
/// ```
/// use ropewalk::address::UnixAddress;
///
/// let address = UnixAddress::path("/run/ropewalk.sock").unwrap();
/// assert_eq!(address.to_string(), "/run/ropewalk.sock");
/// assert_eq!(UnixAddress::abstract_name("ropewalk").unwrap().to_string(), "@ropewalk");
/// assert!(UnixAddress::path("x".repeat(200)).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixAddress(Name);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Name {
    Unnamed,
    Path(PathBuf),
    Abstract(Box<[u8]>),
}

impl UnixAddress {
    /// Makes the address of a path in the file system.
    ///
    /// # Errors
    /// [`UnixAddressError`] if the path is empty, is too long for a socket address, or contains a
    /// NUL.
    pub fn path(path: impl Into<PathBuf>) -> Result<Self, UnixAddressError> {
        let path = path.into();
        let name = check(path.as_os_str().as_bytes())?;
        if name.contains(&0) { Err(UnixAddressError::Nul) } else { Ok(Self(Name::Path(path))) }
    }

    /// Makes a name in Linux's abstract namespace, without the NUL that marks it (Twisted: a path
    /// that begins with a NUL). Such a name is not in the file system, and disappears with its last
    /// user.
    ///
    /// Linux only: on other systems, listening on such an address or connecting to it fails with
    /// [`Unsupported`](std::io::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// [`UnixAddressError`] if the name is empty or too long. It may contain any byte.
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Result<Self, UnixAddressError> {
        Ok(Self(Name::Abstract(check(name.as_ref())?.into())))
    }

    /// Returns the address of a socket that was not bound.
    pub fn unnamed() -> Self {
        Self(Name::Unnamed)
    }

    /// Returns the path, if the address is one.
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Name::Path(path) => Some(path),
            Name::Unnamed | Name::Abstract(_) => None,
        }
    }

    /// Returns the abstract name, if the address is one.
    pub fn as_abstract_name(&self) -> Option<&[u8]> {
        match &self.0 {
            Name::Abstract(name) => Some(name),
            Name::Unnamed | Name::Path(_) => None,
        }
    }

    /// Returns `true` if the socket has no name.
    pub fn is_unnamed(&self) -> bool {
        matches!(self.0, Name::Unnamed)
    }
}

impl fmt::Display for UnixAddress {
    /// Writes the path, or an abstract name after an `@`, as Linux's tools do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Name::Unnamed => f.write_str("an unnamed socket"),
            Name::Path(path) => path.display().fmt(f),
            Name::Abstract(name) => write!(f, "@{}", OsStr::from_bytes(name).display()),
        }
    }
}

/// The reason why a name is not the address of a UNIX socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnixAddressError {
    /// The name is empty.
    #[error("the name of a UNIX socket is empty")]
    Empty,
    /// The name is too long for a socket address.
    #[error("the name of a UNIX socket has {length} bytes, and {limit} is the limit")]
    TooLong {
        /// Length of the name, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The path contains a NUL, at which the system would end it.
    #[error("the path of a UNIX socket contains a NUL")]
    Nul,
}

/// Longest name on Linux, in bytes: 108, less the NUL after a path or before an abstract name.
#[cfg(any(target_os = "linux", target_os = "android"))]
const LIMIT: usize = 107;
/// Longest name on BSD and Apple's systems, in bytes: 104, less the NUL after a path.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const LIMIT: usize = 103;

fn check(name: &[u8]) -> Result<&[u8], UnixAddressError> {
    match name.len() {
        0 => Err(UnixAddressError::Empty),
        length if length > LIMIT => Err(UnixAddressError::TooLong { length, limit: LIMIT }),
        _ => Ok(name),
    }
}
