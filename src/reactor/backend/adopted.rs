//! Sockets that the program hands over: examined, and made ready for a backend. No check trusts the
//! program's word for what the descriptor is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, FdFlags};
use rustix::net::sockopt;
use rustix::net::{AddressFamily as SystemFamily, SocketType};

use super::{ConnectionOptions, PortOptions, PortPolicies, socket, system};
use crate::address::{Address, AddressFamily, AddressPair};
use crate::error::AdoptError;

/// The use that the program wants to make of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Port,
    Connection,
}

/// The options with which a socket is adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AdoptedOptions {
    /// The family that the socket must have.
    pub(crate) family: Option<AddressFamily>,
    pub(crate) connections: ConnectionOptions,
    /// If `true`, a port removes the file of its UNIX socket.
    pub(crate) remove_file: bool,
    pub(crate) policies: PortPolicies,
}

impl AdoptedOptions {
    pub(crate) fn new() -> Self {
        Self {
            family: None,
            connections: ConnectionOptions::new(),
            remove_file: false,
            policies: PortPolicies::default(),
        }
    }

    /// Returns the options of the port that has the socket.
    pub(crate) fn of_port(&self) -> PortOptions {
        PortOptions { connections: self.connections, policies: self.policies, ..PortOptions::new() }
    }
}

/// The addresses of an examined socket.
#[derive(Debug)]
pub(crate) enum Examined {
    Port(Address),
    Connection(AddressPair),
}

/// Examines a socket, and makes it nonblocking and close-on-exec. A socket that is refused keeps
/// its mode: other processes may share it.
pub(super) fn examine(
    descriptor: BorrowedFd<'_>,
    role: Role,
    options: &AdoptedOptions,
) -> Result<Examined, AdoptError> {
    check_type(descriptor)?;
    let family = family(descriptor)?;
    check_family(family, options)?;
    let listens = system::listens(descriptor).map_err(system_error)?;
    let peer = match (role, listens) {
        (Role::Port, false) => return Err(AdoptError::NotListening),
        (Role::Connection, true) => return Err(AdoptError::Listening),
        (Role::Port, true) => None,
        (Role::Connection, false) => Some(peer(descriptor)?),
    };
    prepare(descriptor, family, options)?;
    let host = socket::local_address(descriptor)?;
    Ok(match peer {
        None => Examined::Port(host),
        Some(peer) => Examined::Connection(AddressPair::new(host, peer)),
    })
}

/// Prepares a socket whose addresses the program has named. It is not asked for them, nor for
/// anything else that its first send or receive would tell.
pub(in crate::reactor) fn prepare_named(
    descriptor: BorrowedFd<'_>,
    host: &Address,
    options: &AdoptedOptions,
) -> Result<(), AdoptError> {
    check_type(descriptor)?;
    let family = match host.family() {
        Some(family) => family,
        None => family(descriptor)?,
    };
    check_family(family, options)?;
    prepare(descriptor, family, options)
}

/// Accepts a connection from a listener of the program's. Its socket is nonblocking and
/// close-on-exec.
pub(in crate::reactor) fn accept_from(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Address)> {
    loop {
        match system::accept(listener) {
            // A peer that is gone may have no address any more.
            Ok((socket, peer)) => {
                let peer = peer.ok_or(Errno::CONNABORTED)?;
                return Ok((socket, system::our_address(peer)?));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Checks that a descriptor is of a stream socket, and makes it close-on-exec.
fn check_type(descriptor: BorrowedFd<'_>) -> Result<(), AdoptError> {
    match sockopt::socket_type(descriptor) {
        Ok(SocketType::STREAM) => {}
        Ok(_) => return Err(AdoptError::NotAStream),
        Err(Errno::NOTSOCK) => return Err(AdoptError::NotASocket),
        Err(error) => return Err(system_error(error)),
    }
    let flags = rustix::io::fcntl_getfd(descriptor).map_err(system_error)?;
    if !flags.contains(FdFlags::CLOEXEC) {
        rustix::io::fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC).map_err(system_error)?;
    }
    Ok(())
}

fn check_family(found: AddressFamily, options: &AdoptedOptions) -> Result<(), AdoptError> {
    match options.family {
        Some(expected) if expected != found => Err(AdoptError::WrongFamily { expected, found }),
        _ => Ok(()),
    }
}

/// Sets the options of a socket, and makes it nonblocking.
fn prepare(descriptor: BorrowedFd<'_>, family: AddressFamily, options: &AdoptedOptions) -> Result<(), AdoptError> {
    if family != AddressFamily::Unix && options.connections.no_delay {
        sockopt::set_tcp_nodelay(descriptor, true).map_err(system_error)?;
    }
    system::prepare_adopted(descriptor).map_err(system_error)
}

/// Returns the address of the peer. A peer that has reset the connection has none any more.
fn peer(descriptor: BorrowedFd<'_>) -> Result<Address, AdoptError> {
    match socket::peer_address(descriptor) {
        Ok(peer) => Ok(peer),
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTCONN | Errno::INVAL)) => {
            Err(AdoptError::NotConnected)
        }
        Err(error) => Err(AdoptError::System(error)),
    }
}

fn family(descriptor: impl AsFd) -> Result<AddressFamily, AdoptError> {
    let family = rustix::net::getsockname(descriptor).map_err(system_error)?.address_family();
    match family {
        SystemFamily::INET => Ok(AddressFamily::Inet),
        SystemFamily::INET6 => Ok(AddressFamily::Inet6),
        SystemFamily::UNIX => Ok(AddressFamily::Unix),
        other => Err(AdoptError::UnsupportedFamily { family: u32::from(other.as_raw()) }),
    }
}

fn system_error(error: Errno) -> AdoptError {
    AdoptError::System(error.into())
}
