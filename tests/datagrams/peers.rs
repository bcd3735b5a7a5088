//! Peers that are not ours: Python's sockets, in a process of their own.

use super::*;
use crate::common::programs::{has, run_program, said};

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
