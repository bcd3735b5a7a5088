//! [`StatusService`]: shows a reactor to other programs, on a UNIX socket. (Twisted's
//! `twisted.conch.manhole` and its like answer the same need with an interpreter.)

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{Service, StreamServerEndpointService};
use crate::address::{Address, UnixAddress, UnixAddressError};
use crate::deferred::Deferred;
use crate::endpoints::{ServerEndpoint, UnixServerEndpoint};
use crate::failure::Result;
use crate::protocol::{Factory, Protocol, for_protocol};
use crate::reactor::{Reactor, UnixListenOptions, WeakReactor};
use crate::task::LoopingCall;
use crate::transport::Transport;

/// Longest request, in bytes: more than the digits of any useful number of seconds.
const REQUEST_BYTES: usize = 32;

/// Number of queued bytes above which a peer gets no further answer, and is cut off. 1 MiB: a few
/// thousand connections, and little beside the memory that these take.
const UNREAD_BYTES: usize = 1024 * 1024;

/// Shortest and longest interval of snapshots. Arbitrary: ten times a second is more than a person
/// can read, and a day is longer than a monitor waits.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Time that a stop waits for peers that read slowly.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Answers each connection with snapshots of a reactor, as lines of JSON. The command
/// `ropewalk top` reads them.
///
/// | the peer | the service |
/// |---|---|
/// | connects | sends a [snapshot](crate::reactor::Snapshot) of the reactor, as one line of JSON |
/// | sends an empty line | sends one more |
/// | sends a number of seconds, such as `1` or `0.5`, in a line | sends one each so many seconds |
/// | sends `0` in a line | ends these |
/// | sends anything else | sends a line with the field `error`, and closes |
///
/// A peer that does not read misses the snapshots at intervals. It is cut off if it asks for more.
///
/// A start makes the reactor an [observed](Reactor::observe) one, so that the snapshots have bytes
/// and ages. In a group of reactors, each member has a service of its own, on a path of its own.
///
/// ```
/// use std::process::ExitCode;
/// use ropewalk::application::{MultiService, StatusService, run_service};
///
/// fn main() -> ExitCode {
///     ropewalk::run(|reactor| {
///         let program = MultiService::new();
///         let path = std::env::temp_dir().join(format!("ropewalk-status-{}.sock", std::process::id()));
///         program.add_service(StatusService::at_path(reactor, path)?);
///         // .. the services of the program
/// #       let handle = reactor.clone();
/// #       reactor.call_when_running(move || handle.stop().expect("it runs"));
///         Ok(run_service(reactor, program))
///     })
/// }
/// ```
#[derive(Clone)]
pub struct StatusService {
    reactor: WeakReactor,
    server: StreamServerEndpointService<Status>,
}

impl StatusService {
    /// Makes a service on a UNIX socket that only this user (and root) may connect to: the file has
    /// the permissions 0600. A lock beside it tells a file that a dead process has left, which is
    /// replaced, from that of a living one.
    ///
    /// # Errors
    /// [`UnixAddressError`] if the path cannot be the address of a socket.
    pub fn at_path(reactor: &Reactor, path: impl Into<PathBuf>) -> Result<Self, UnixAddressError> {
        let options = UnixListenOptions::new().mode(0o600).want_pid(true);
        let endpoint = UnixServerEndpoint::new(reactor, UnixAddress::path(path)?).options(options);
        Ok(Self::new(reactor, endpoint))
    }

    /// Makes a service on any endpoint. Everything that can connect to it sees the addresses of all
    /// peers: a TCP port should be one of a loopback interface.
    pub fn new(reactor: &Reactor, endpoint: impl ServerEndpoint + 'static) -> Self {
        let weak = reactor.downgrade();
        let server = StreamServerEndpointService::new(endpoint, Self::factory(weak.clone()));
        Self { reactor: weak, server: server.drain(reactor, DRAIN_LIMIT) }
    }

    /// Returns the address of the port, while it listens.
    pub fn host(&self) -> Option<Address> {
        self.server.host()
    }

    fn factory(reactor: WeakReactor) -> impl Factory<Protocol = Status> {
        for_protocol(move |_| Status { reactor: reactor.clone(), request: Vec::new(), repeated: None })
    }

    fn observe(&self) {
        if let Some(reactor) = self.reactor.upgrade() {
            reactor.observe();
        }
    }
}

impl Service for StatusService {
    fn privileged_start_service(&self) -> Deferred<()> {
        self.observe();
        self.server.privileged_start_service()
    }

    fn start_service(&self) -> Deferred<()> {
        self.observe();
        self.server.start_service()
    }

    fn stop_service(&self) -> Deferred<()> {
        self.server.stop_service()
    }
}

impl fmt::Debug for StatusService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusService").field("host", &self.host()).finish_non_exhaustive()
    }
}

/// One connection of a status service.
struct Status {
    reactor: WeakReactor,
    /// The request that has not ended yet.
    request: Vec<u8>,
    /// Sends a snapshot at intervals.
    repeated: Option<LoopingCall>,
}

impl Status {
    /// Handles a whole request. Its error is a text for the peer.
    fn requested(&mut self, transport: &Transport, request: &str) -> Result<(), String> {
        if request.is_empty() {
            return self.answer(transport);
        }
        let interval = request.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        self.stop_repeating();
        match interval {
            Some(Duration::ZERO) => Ok(()),
            Some(interval) if (SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&interval) => {
                self.repeat(transport, interval);
                Ok(())
            }
            _ => Err(format!(
                "expected an empty line, 0, or a number of seconds from {} to {}",
                SHORTEST_INTERVAL.as_secs_f64(),
                LONGEST_INTERVAL.as_secs()
            )),
        }
    }

    fn answer(&self, transport: &Transport) -> Result<(), String> {
        if transport.queued_bytes() > UNREAD_BYTES {
            return Err("too many answers wait to be read".to_owned());
        }
        write_snapshot(&self.reactor, transport);
        Ok(())
    }

    fn repeat(&mut self, transport: &Transport, interval: Duration) {
        let (reactor, peer) = (self.reactor.clone(), transport.clone());
        let looping = LoopingCall::new(&transport.timers(), move || {
            // A slow reader misses this one.
            if peer.queued_bytes() == 0 {
                write_snapshot(&reactor, &peer);
            }
        });
        looping.start_later(interval).or_log("the snapshots of a status service");
        self.repeated = Some(looping);
    }

    fn stop_repeating(&mut self) {
        if let Some(repeated) = self.repeated.take() {
            // It stops by itself only if its call fails, which is logged.
            let _ = repeated.stop();
        }
    }
}

impl Protocol for Status {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        write_snapshot(&self.reactor, transport);
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            self.request.extend_from_slice(&piece[..piece.len().min(REQUEST_BYTES + 1)]);
            let refusal = if self.request.last() == Some(&b'\n') {
                let request = std::mem::take(&mut self.request);
                self.requested(transport, String::from_utf8_lossy(&request).trim()).err()
            } else {
                (self.request.len() > REQUEST_BYTES).then(|| format!("a line has at most {REQUEST_BYTES} bytes"))
            };
            if let Some(refusal) = refusal {
                // The texts are our own, and need no escapes.
                transport.write(format!("{{\"error\":\"{refusal}\"}}\n").as_bytes());
                transport.lose_connection();
                break;
            }
        }
        Ok(())
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.stop_repeating();
    }
}

/// Sends a line with the state of the reactor.
fn write_snapshot(reactor: &WeakReactor, transport: &Transport) {
    // A reactor that is gone has ended its connections.
    if let Some(reactor) = reactor.upgrade() {
        let mut line = reactor.snapshot().to_json();
        line.push('\n');
        transport.write(line.as_bytes());
    }
}
