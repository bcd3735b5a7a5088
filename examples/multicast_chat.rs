//! A chat without a server: each member sends its lines to a multicast group, and shows those of
//! all.
//!
//! ```sh
//! cargo run --example multicast_chat -- ann
//! cargo run --example multicast_chat -- bob        # in another terminal, or on another host
//! ```
//!
//! The arguments are a name, the group with its port (default `239.255.60.60:6060`;
//! `[ff12::60]:6060` is one of IPv6), and the network interface: a name such as `eth0`, or an IPv4
//! address. Without one the system chooses.
//!
//! 1. `UdpOptions::reuse_address` lets all members of a host share the port.
//! 2. `join_group` makes the port a member, and loop-back brings its own lines back.
//! 3. `StandardIo` makes a connection of the terminal. Its end is the farewell, after which the
//!    program stops. Datagrams get lost, so it does not wait for its own farewell for ever.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use ropewalk::datagram::{MulticastInterface, UdpOptions};
use ropewalk::interfaces::*;
use ropewalk::protocols::LineReceiver;
use ropewalk::reactor::StandardIo;
use ropewalk::{Address, DatagramTransport, Failure, Reactor, Result, Transport};

const DEFAULT_GROUP: &str = "239.255.60.60:6060";

/// Longest line in bytes. It fits into one packet of nearly any network.
const LONGEST_LINE_BYTES: usize = 1024;

/// Time to wait for the farewell to come back.
const PATIENCE: Duration = Duration::from_secs(1);

/// The member of the group, which both protocols share.
struct Member {
    reactor: Reactor,
    name: String,
    group: SocketAddr,
    interface: MulticastInterface,
    screen: OnceCell<Transport>,
}

impl Member {
    fn farewell(&self) -> String {
        format!("* {} has left", self.name)
    }

    fn show(&self, line: &[u8]) {
        if let Some(screen) = self.screen.get() {
            screen.write(line);
            screen.write(b"\n");
        }
    }

    /// Closes the screen, once all lines are on it. Its end stops the program.
    fn leave(&self) {
        if let Some(screen) = self.screen.get() {
            screen.lose_connection();
        }
    }

    /// Sends a line to the group. The port of the group is that of each member.
    fn tell_all(&self, room: &DatagramTransport, line: &str) -> Result<()> {
        let port = room.host().port().unwrap_or(self.group.port());
        Ok(room.write(line.as_bytes(), &SocketAddr::new(self.group.ip(), port).into())?)
    }
}

/// Shows the lines of the group.
struct Room(Rc<Member>);

impl DatagramProtocol for Room {
    fn start_protocol(&mut self, transport: &DatagramTransport) -> Result<()> {
        transport.join_group(self.0.group.ip(), &self.0.interface)?;
        Ok(transport.set_outgoing_interface(&self.0.interface)?)
    }

    fn datagram_received(&mut self, _transport: &DatagramTransport, data: &[u8], _peer: &Address) -> Result<()> {
        // Others may send anything: control characters would move the cursor.
        let line: String = String::from_utf8_lossy(data).chars().filter(|char| !char.is_control()).collect();
        self.0.show(line.as_bytes());
        if line == self.0.farewell() {
            self.0.leave();
        }
        Ok(())
    }
}

/// Sends the lines of the terminal.
struct Terminal {
    member: Rc<Member>,
    room: DatagramTransport,
    lines: LineReceiver,
}

impl LineProtocol for Terminal {
    fn lines(&mut self) -> &mut LineReceiver {
        &mut self.lines
    }

    fn line_received(&mut self, _transport: &Transport, line: &[u8]) -> Result<()> {
        let line = format!("<{}> {}", self.member.name, String::from_utf8_lossy(line).trim());
        if let Err(error) = self.member.tell_all(&self.room, &line) {
            self.member.show(format!("! {error}").as_bytes());
        }
        Ok(())
    }
}

impl Protocol for Terminal {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        let screen = self.member.screen.get_or_init(|| transport.clone());
        let port = self.room.host().port().unwrap_or_default();
        screen.write(format!("group {}\n", SocketAddr::new(self.member.group.ip(), port)).as_bytes());
        self.member.tell_all(&self.room, &format!("* {} is here", self.member.name))
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.receive_lines(transport, data)
    }

    // The screen outlives the keyboard.
    fn half_close(&self) -> bool {
        true
    }

    fn read_connection_lost(&mut self, _transport: &Transport) -> Result<()> {
        let member = Rc::clone(&self.member);
        self.member.reactor.call_later(PATIENCE, move || member.leave());
        self.member.tell_all(&self.room, &self.member.farewell())
    }

    fn connection_lost(&mut self, _transport: &Transport, _reason: &Failure) {
        // Ctrl-C may have stopped it already.
        let _ = self.member.reactor.stop();
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let mut arguments = std::env::args().skip(1);
        let name = arguments.next().unwrap_or_else(|| "anonymous".to_owned());
        let group: SocketAddr = arguments.next().as_deref().unwrap_or(DEFAULT_GROUP).parse()?;
        let interface = match arguments.next() {
            None => MulticastInterface::Default,
            Some(text) => text.parse().map_or_else(|_| MulticastInterface::Name(text), MulticastInterface::Address),
        };
        let all: IpAddr = if group.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let (reactor, screen) = (reactor.clone(), OnceCell::new());
        let member = Rc::new(Member { reactor: reactor.clone(), name, group, interface, screen });
        let options = UdpOptions::new().reuse_address(true);
        let room = reactor.listen_udp(SocketAddr::new(all, group.port()), &options, Room(Rc::clone(&member)))?;
        let lines = LineReceiver::newline().max_length(LONGEST_LINE_BYTES);
        StandardIo::new(&reactor).join(Terminal { member, room, lines })?;
        Ok(reactor.when_stopped())
    })
}
