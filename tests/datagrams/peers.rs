//! Peers that are not ours: Python's sockets and socat, in processes of their own.

use std::net::{IpAddr, Ipv4Addr};

use super::unix::{Folder, listen_unix};
use super::*;
use crate::common::programs::{has, run_program, said};
use ropewalk::address::UnixAddress;
use ropewalk::datagram::{MulticastInterface, UnixDatagramOptions};

/// A client in Python gets each of its datagrams back, the empty and the longest too.
#[test]
fn python_gets_its_datagrams_back() {
    if !has("python3") {
        return;
    }
    const CLIENT: &str = "
import socket, sys
host, port = sys.argv[1], int(sys.argv[2])
peer = socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM)
peer.settimeout(20)
for length in (0, 1, 500, 1472, 9000, 65507):
    sent = bytes(i % 251 for i in range(length))
    peer.sendto(sent, (host, port))
    data, address = peer.recvfrom(70000)
    assert data == sent and address[:2] == (host, port), (len(data), length, address)
print('all is well')
";
    on_each(|reactor| {
        for local in LOCAL {
            let port = bind(&reactor, local, Recorder::echo(&Log::default()));
            let (host, number) = (address_of(&port).ip().to_string(), address_of(&port).port().to_string());
            let output = run_beside(&reactor, run_program(&["python3", "-c", CLIENT, &host, &number], b""));
            assert!(said(&output).contains("all is well"), "{}", said(&output));
            assert_eq!((port.counts().received, port.counts().sent), (6, 6));
        }
    });
}

/// The same over a UNIX socket. A client without a name is heard too.
#[test]
fn python_gets_its_unix_datagrams_back() {
    if !has("python3") {
        return;
    }
    const CLIENT: &str = "
import socket, sys
server, own = sys.argv[1:]
nameless = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
nameless.sendto(b'without a name', server)
peer = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
peer.settimeout(20)
peer.bind(own)
for length in (0, 1, 500, 9000, 65000):
    sent = bytes(i % 251 for i in range(length))
    peer.sendto(sent, server)
    data, address = peer.recvfrom(70000)
    assert data == sent and address == server, (len(data), length, address)
print('all is well')
";
    on_each(|reactor| {
        let (folder, log) = (Folder::new(), Log::default());
        let echo = Recorder::new(&log).received(|transport, data, peer| match peer.unix() {
            Some(name) if name.is_unnamed() => Ok(()),
            _ => Ok(transport.write(data, peer)?),
        });
        let port = listen_unix(&reactor, &folder.address("server"), echo);
        let paths = [folder.path("server"), folder.path("client")].map(|path| path.display().to_string());
        let client = run_program(&["python3", "-c", CLIENT, &paths[0], &paths[1]], b"");
        let output = run_beside(&reactor, client);
        assert!(said(&output).contains("all is well"), "{}", said(&output));
        assert_eq!((port.counts().received, port.counts().sent), (6, 5));
        assert!(log.has("received without a name"));
    });
}

/// Echoes a datagram, and sends an empty one, which is the end for socat.
fn echo_and_end(log: &Log) -> Recorder {
    Recorder::new(log).received(|transport, data, peer| {
        transport.write(data, peer)?;
        Ok(transport.write(b"", peer)?)
    })
}

/// Runs socat beside a reactor. Returns its output.
#[track_caller]
fn socat(reactor: &Reactor, arguments: &[&str]) -> String {
    let command = [&["socat"], arguments].concat();
    let output = run_beside(reactor, run_program(&command, b"hello"));
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// socat gets its datagram back over both families, and over a UNIX socket.
#[test]
fn socat_gets_its_datagrams_back() {
    if !has("socat") {
        return;
    }
    on_each(|reactor| {
        for (local, family) in LOCAL.into_iter().zip(["UDP4", "UDP6"]) {
            let port = bind(&reactor, local, echo_and_end(&Log::default()));
            let to = format!("{family}:{},null-eof", port.host());
            assert_eq!(socat(&reactor, &["-t", "0.1", "-", &to]), "hello");
        }
        let folder = Folder::new();
        let _port = listen_unix(&reactor, &folder.address("server"), echo_and_end(&Log::default()));
        let (server, own) = (folder.path("server"), folder.path("client"));
        let to = format!("UNIX-SENDTO:{},bind={},null-eof", server.display(), own.display());
        assert_eq!(socat(&reactor, &["-t", "0.1", "-", &to]), "hello");
    });
}

/// socat and a port are members of a group, and hear each other.
#[test]
fn socat_is_a_member_of_a_group() {
    if !has("socat") {
        return;
    }
    on_each(|reactor| {
        let (log, group) = (Log::default(), IpAddr::V4(Ipv4Addr::new(239, 255, 77, 2)));
        let interface = MulticastInterface::from(Ipv4Addr::LOCALHOST);
        let options = UdpOptions::new().reuse_address(true);
        let port = bind_with(&reactor, "0.0.0.0:0", &options, Recorder::new(&log));
        let number = port.host().port().expect("a number");
        port.join_group(group, &interface).expect("it joins");
        port.set_outgoing_interface(&interface).expect("it is set");
        let to = format!("UDP4-DATAGRAM:{group}:{number},ip-multicast-if=127.0.0.1");
        socat(&reactor, &["-u", "STDIN,readbytes=5", &to]);
        run_until(&reactor, || log.has("received hello"));
        let from = format!("UDP4-RECV:{number},reuseaddr,ip-add-membership={group}:127.0.0.1,readbytes=7");
        let member = run_program(&["socat", "-u", &from, "-"], b"");
        // It does not tell when it has joined.
        run_until(&reactor, || {
            port.write(b"to each", &SocketAddr::new(group, number).into()).expect("it is sent");
            member.is_finished()
        });
        let output = member.join().expect("it was waited for");
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "to each", "{}", said(&output));
    });
}

/// A connected port sends to the UNIX socket of socat.
#[test]
fn socat_receives_from_a_connected_port() {
    if !has("socat") {
        return;
    }
    on_each(|reactor| {
        let folder = Folder::new();
        let from = format!("UNIX-RECV:{},null-eof", folder.path("log").display());
        let receiver = run_program(&["socat", "-u", &from, "-"], b"");
        let mut port = None;
        run_until(&reactor, || {
            let (to, own, options) = (folder.address("log"), UnixAddress::unnamed(), UnixDatagramOptions::new());
            port = reactor.connect_unix_datagram(&to, &own, &options, Recorder::new(&Log::default())).ok();
            port.is_some()
        });
        let port = port.expect("a port");
        for data in [&b"hello"[..], b""] {
            port.write_to_peer(data).expect("it is sent");
        }
        let output = run_beside(&reactor, receiver);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hello", "{}", said(&output));
    });
}
