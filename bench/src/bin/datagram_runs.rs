//! `datagram_runs`: the CPU time of a datagram from one port to another, each on a thread of its
//! own, with runs carried as one by the system (`UdpOptions::segmentation_offload`) and without.
//!
//! The sender writes 64 datagrams in a turn, and the receiver answers the last of them. Pairs of
//! both kinds alternate. The program prints medians.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use ropewalk::datagram::UdpOptions;
use ropewalk::interfaces::*;
use ropewalk::{Address, DatagramTransport, Reactor};
use rustix::time::{ClockId, clock_gettime};

/// Datagrams that are written in a turn.
const RUN: usize = 64;

/// Runs of a measurement, and measurements of each kind.
const RUNS: usize = 4_000;
const PAIRS: usize = 11;

/// Time after which a datagram counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Writes a run for each answer. An empty answer is the end.
struct Sender {
    reactor: Reactor,
    data: Vec<u8>,
}

impl DatagramProtocol for Sender {
    fn datagram_received(&mut self, port: &DatagramTransport, data: &[u8], peer: &Address) -> ropewalk::Result<()> {
        if data.is_empty() {
            self.reactor.stop()?;
            return Ok(());
        }
        (0..RUN).try_for_each(|_| Ok(port.write(&self.data, peer)?))
    }
}

/// Counts datagrams, and answers each run.
struct Receiver {
    reactor: Reactor,
    to: Address,
    received: usize,
}

impl DatagramProtocol for Receiver {
    fn start_protocol(&mut self, port: &DatagramTransport) -> ropewalk::Result<()> {
        Ok(port.write(b"begin", &self.to)?)
    }

    fn datagram_received(&mut self, port: &DatagramTransport, _: &[u8], peer: &Address) -> ropewalk::Result<()> {
        self.received += 1;
        if self.received == RUN * RUNS {
            self.reactor.stop()?;
            port.write(b"", peer)?;
        } else if self.received.is_multiple_of(RUN) {
            port.write(b"next", peer)?;
        }
        Ok(())
    }
}

/// The CPU times of the sender and of the receiver for one datagram, in nanoseconds.
fn measure(size: usize, offload: bool) -> ropewalk::Result<[u64; 2]> {
    let options = UdpOptions::new().segmentation_offload(offload).collect_writes(true);
    let local = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    let (tell, told) = channel();
    let sender_options = options.clone();
    let sender = thread::spawn(move || -> ropewalk::Result<u64> {
        let reactor = Reactor::new()?;
        let protocol = Sender { reactor: reactor.clone(), data: vec![7; size] };
        let port = reactor.listen_udp(local, &sender_options, protocol)?;
        // The receiver waits for it.
        drop(tell.send(port.host()));
        run(&reactor)
    });
    let reactor = Reactor::new()?;
    let receiver = Receiver { reactor: reactor.clone(), to: told.recv()?, received: 0 };
    reactor.listen_udp(local, &options, receiver)?;
    let receiving = run(&reactor)?;
    let sending = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok([sending, receiving])
}

/// Runs a reactor. Returns the CPU time of this thread for one datagram.
fn run(reactor: &Reactor) -> ropewalk::Result<u64> {
    let late = reactor.clone();
    reactor.call_later(PATIENCE, move || drop(late.stop()));
    let (cpu, begun) = (cpu_time(), std::time::Instant::now());
    reactor.run()?;
    if begun.elapsed() >= PATIENCE {
        return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    }
    Ok((cpu_time() - cpu) / (RUN * RUNS) as u64)
}

/// The CPU time of this thread in nanoseconds.
fn cpu_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn report() -> ropewalk::Result<()> {
    println!("nanoseconds of CPU time for a datagram: alone, in a run, ratio");
    for size in [64, 1_200] {
        let mut times: [[Vec<u64>; 2]; 2] = Default::default();
        for _ in 0..PAIRS {
            for offload in [false, true] {
                let measured = measure(size, offload)?;
                for (end, time) in measured.into_iter().enumerate() {
                    times[end][usize::from(offload)].push(time);
                }
            }
        }
        for (end, kinds) in ["sending", "receiving"].into_iter().zip(times) {
            let [alone, run] = kinds.map(|mut times| {
                times.sort_unstable();
                times[times.len() / 2]
            });
            println!("{end} {size} B: {alone}, {run}, {:.2}", run as f64 / alone as f64);
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    match report() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("datagram_runs: {error}");
            ExitCode::FAILURE
        }
    }
}
