//! Echoes of datagrams: the CPU time of a server for one of them. Windows of a peer alternate with
//! those of a loop of `recvmmsg` and `sendmmsg` in C.
//!
//! In a round, each of 64 sockets sends a datagram, and waits for it. So the server finds several
//! at a time, as a busy one does. The sockets are in this process, on the last core.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use super::Effort;
use crate::Result;
use crate::peers::Service;
use crate::programs::{DATAGRAM_BASELINE, Peer, Programs};
use crate::results::{WindowFigures, WindowPair};
use crate::server::Server;

/// Sizes of the datagrams in bytes. The larger one fills an Ethernet frame almost.
pub const SIZES: [usize; 2] = [64, 1_200];

/// Number of sockets that send.
const FLOWS: usize = 64;

/// Time to wait for an echo. Nothing gets lost on one machine, because a round fits the server's
/// receive buffer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Measures a peer. `tick` is called after each round.
///
/// # Errors
/// Fails if the peer is missing, if it fails, or if a datagram is lost or comes back changed.
pub fn measure(
    programs: &Programs,
    peer: &Peer,
    size: usize,
    effort: &Effort,
    mut tick: impl FnMut(),
) -> Result<Vec<WindowPair>> {
    let mut tested = Flows::start(programs, peer, size)?;
    let mut baseline = Flows::start(programs, &DATAGRAM_BASELINE, size)?;
    // Warm-up, as for echoes of streams.
    tested.window(effort.window / 2)?;
    baseline.window(effort.window / 2)?;
    let mut pairs = Vec::new();
    for round in 0..effort.rounds {
        // The side that begins alternates.
        pairs.push(if round % 2 == 0 {
            let peer = tested.window(effort.window)?;
            WindowPair { peer, baseline: baseline.window(effort.window)? }
        } else {
            let baseline = baseline.window(effort.window)?;
            WindowPair { peer: tested.window(effort.window)?, baseline }
        });
        tick();
    }
    Ok(pairs)
}

/// A server and the sockets that send to it.
struct Flows {
    server: Server,
    sockets: Vec<UdpSocket>,
    content: Vec<u8>,
    answer: Vec<u8>,
}

impl Flows {
    fn start(programs: &Programs, peer: &Peer, size: usize) -> Result<Self> {
        let server = Server::start(programs, peer, Service::DATAGRAMS, &[])?;
        let socket = |_| -> Result<UdpSocket> {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(server.address)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        };
        let sockets = (0..FLOWS).map(socket).collect::<Result<_>>()?;
        let content = (0..size).map(|at| at as u8).collect();
        Ok(Self { server, sockets, content, answer: vec![0; size + 1] })
    }

    /// Makes rounds for `time`.
    fn window(&mut self, time: Duration) -> Result<WindowFigures> {
        let (before, begun, mut messages) = (self.server.cpu_time()?, Instant::now(), 0);
        while begun.elapsed() < time {
            for socket in &self.sockets {
                socket.send(&self.content)?;
            }
            for socket in &self.sockets {
                let count = socket.recv(&mut self.answer).map_err(|error| format!("a datagram is lost: {error}"))?;
                if self.answer[..count] != self.content {
                    return Err(format!("a datagram of {} B came back changed", self.content.len()).into());
                }
                messages += 1;
            }
        }
        let nanoseconds = begun.elapsed().as_nanos() as u64;
        Ok(WindowFigures { messages, nanoseconds, cpu: self.server.cpu_time()? - before })
    }
}
