//! The addresses of UNIX sockets.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The address of a UNIX socket (Twisted: `UNIXAddress`): a path, a name in Linux's abstract namespace, or nothing, as clients
/// usually have it.
///
/// ```
/// use ropewalk::address::UnixAddress;
///
/// let address = UnixAddress::path("/run/ropewalk.sock").unwrap();
/// assert_eq!(address.to_string(), "/run/ropewalk.sock");
/// assert_eq!(UnixAddress::abstract_name("ropewalk").unwrap().to_string(), "@ropewalk");
/// assert!(UnixAddress::path("x".repeat(200)).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixAddress(Name);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    Unnamed,
    Path(PathBuf),
    Abstract(Box<[u8]>),
}

impl UnixAddress {
    /// A path in the file system.
    ///
    /// # Errors
    /// [`UnixAddressError`]: it is empty, too long for a socket address, or has a NUL in it.
    pub fn path(path: impl Into<PathBuf>) -> Result<Self, UnixAddressError> {
        let path = path.into();
        let name = check(path.as_os_str().as_bytes())?;
        if name.contains(&0) { Err(UnixAddressError::Nul) } else { Ok(Self(Name::Path(path))) }
    }

    /// A name in Linux's abstract namespace, without the NUL that marks it: nothing in the file system, gone with its last user
    /// (Twisted: a path that begins with a NUL).
    ///
    /// # Errors
    /// [`UnixAddressError`]: it is empty, or too long. Any byte may be in it.
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Result<Self, UnixAddressError> {
        Ok(Self(Name::Abstract(check(name.as_ref())?.into())))
    }

    /// The address of a socket that was not bound.
    pub fn unnamed() -> Self {
        Self(Name::Unnamed)
    }

    /// The path, if it is one.
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Name::Path(path) => Some(path),
            Name::Unnamed | Name::Abstract(_) => None,
        }
    }

    /// The abstract name, if it is one.
    pub fn as_abstract_name(&self) -> Option<&[u8]> {
        match &self.0 {
            Name::Abstract(name) => Some(name),
            Name::Unnamed | Name::Path(_) => None,
        }
    }

    /// Whether it has no name.
    pub fn is_unnamed(&self) -> bool {
        matches!(self.0, Name::Unnamed)
    }
}

impl fmt::Display for UnixAddress {
    /// The path; an abstract name behind an `@`, as Linux's tools write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Name::Unnamed => f.write_str("an unnamed socket"),
            Name::Path(path) => path.display().fmt(f),
            Name::Abstract(name) => write!(f, "@{}", OsStr::from_bytes(name).display()),
        }
    }
}

/// Why something is not the address of a UNIX socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnixAddressError {
    /// Nothing is no name.
    #[error("the name of a UNIX socket is empty")]
    Empty,
    /// It does not fit.
    #[error("the name of a UNIX socket has {length} bytes, and {limit} is the limit")]
    TooLong {
        /// How long it is.
        length: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A path ends at its first NUL.
    #[error("the path of a UNIX socket has a NUL in it")]
    Nul,
}

/// How long a name may be on Linux: 108 bytes with the NUL behind a path, or before an abstract name.
const LIMIT: usize = 107;

fn check(name: &[u8]) -> Result<&[u8], UnixAddressError> {
    match name.len() {
        0 => Err(UnixAddressError::Empty),
        length if length > LIMIT => Err(UnixAddressError::TooLong { length, limit: LIMIT }),
        _ => Ok(name),
    }
}
