//! [`bind`]: datagram sockets of the UNIX family. All calls on a bound socket are those of
//! `udp.rs`.

use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketType};

use super::ListenRefusal;
use super::socket::{local_address, set_send_buffer};
use super::socket_file::SocketFile;
use super::system::{self, unix_address};
use super::udp::BoundDatagrams;
use crate::address::UnixAddress;
use crate::datagram::{DatagramSocketOptions, Reach};

/// Makes a socket. One without a name is not bound.
pub(super) fn bind(name: &UnixAddress, options: &DatagramSocketOptions) -> Result<BoundDatagrams, ListenRefusal> {
    let socket = system::nonblocking_socket(AddressFamily::UNIX, SocketType::DGRAM)?;
    if let Some(bytes) = options.send_buffer {
        set_send_buffer(socket.as_fd(), bytes)?;
    }
    let mut file = None;
    if let Some(path) = name.as_path() {
        file = Some(SocketFile::bind(&socket, path, options.mode, options.lock)?);
    } else if !name.is_unnamed() {
        rustix::net::bind(&socket, &unix_address(name)?)?;
    }
    let host = local_address(&socket)?;
    Ok(BoundDatagrams { socket, host, reach: Reach::Unix, file, is_offloaded: false })
}
