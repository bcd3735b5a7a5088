//! Listening ports that go to the process that replaces this one. (Twisted has `adoptStreamPort`,
//! and leaves the rest to the program.)
//!
//! The two processes have a connected UNIX socket between them, such as a socket pair of which the
//! old process gives one end to the new one. The program makes it, and starts the new process.
//!
//! | step | old process | new process |
//! |---|---|---|
//! | 1 | [`hand_over_ports`] sends a descriptor of each port, with its name | |
//! | 2 | goes on serving | [`take_over_ports`] receives them; the program makes its services |
//! | 3 | goes on serving | starts its services ([`TakenPorts::ready_after`]), and says so |
//! | 4 | its Deferred fires: the program stops its services, which drain | serves |
//!
//! There is one socket all the time, and each process accepts from one queue. So no connection is
//! refused or lost. If the new process ends before step 4, the Deferred fails, and the old process
//! goes on.
//!
//! On the wire, a port is a descriptor on a line with its name. An empty line ends the list. The
//! answer is one byte.

use std::cell::RefCell;
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::Service;
use crate::deferred::{Deferred, Promise};
use crate::failure::{Failure, Result};
use crate::log::error;
use crate::protocol::Protocol;
use crate::reactor::{AdoptOptions, Port, Reactor};
use crate::transport::Transport;

/// Most bytes of the names of all ports. More than any program has, and little enough to collect.
const MAX_NAMES_BYTES: usize = 16 << 10;

/// The answer of a new process that serves.
const READY: u8 = b'R';

/// Sends the listening sockets of `ports` to the process at the other end of `control`, and waits
/// until it says that it is ready ([`take_over_ports`]). This process goes on accepting meanwhile:
/// stop its services once the Deferred has fired, for example by [`Reactor::stop`] in a program of
/// [`run_service`](super::run_service). Their ports serve the connections that wait by then, and
/// drain.
///
/// The names are for the new process, and need not be unique. The file of a UNIX socket is
/// [left](Port::leave_socket_file) to the new process, which adopts the socket with
/// [`remove_file`](AdoptOptions::remove_file).
///
/// ```
/// use std::os::fd::OwnedFd;
/// use std::os::unix::net::UnixStream;
/// use std::process::Command;
/// use ropewalk::application::{StreamServerEndpointService, hand_over_ports};
/// use ropewalk::{Deferred, Protocol, Reactor, Result};
///
/// /// Starts this program again, which gets the port from its standard input.
/// fn replace<P: Protocol>(reactor: &Reactor, web: &StreamServerEndpointService<P>) -> Result<Deferred<()>> {
///     let (ours, theirs) = UnixStream::pair()?;
///     let port = web.port().ok_or("the port does not listen")?;
///     Command::new(std::env::current_exe()?).arg("--take-over").stdin(OwnedFd::from(theirs)).spawn()?;
///     let stopping = reactor.clone();
///     Ok(hand_over_ports(reactor, ours, [("web", port)]).add_callback(move |()| Ok(stopping.stop()?)))
/// }
/// ```
///
/// # Errors
/// The Deferred fails with [`HandoverError`] if a name is empty or has a line feed, or if the new
/// process ends before it is ready, and with the error of [`Port::duplicate`] or of an adoption.
/// This process can go on then, and hand its ports over to another one. A cancelled Deferred closes
/// the control connection.
pub fn hand_over_ports<'a>(
    reactor: &Reactor,
    control: impl Into<OwnedFd>,
    ports: impl IntoIterator<Item = (&'a str, Port)>,
) -> Deferred<()> {
    let mut handed = Vec::new();
    for (name, port) in ports {
        if name.is_empty() || name.contains('\n') {
            return Deferred::fail(HandoverError::Name { name: name.to_owned() });
        }
        match port.duplicate() {
            Ok(socket) => handed.push((name.to_owned(), socket, port)),
            Err(error) => return Deferred::fail(error),
        }
    }
    let open = OpenControl::default();
    let (promise, done) = open.promise();
    let side = OldSide { handed, promise: Rc::clone(&promise), open };
    adopt(reactor, control.into(), side, promise);
    done
}

/// Receives the listening sockets that the old process hands over on `control`
/// ([`hand_over_ports`]). Its Deferred fires with all of them. They listen already, and the old
/// process accepts until this one is ready.
///
/// ```no_run
/// use std::os::fd::AsFd;
/// use std::process::ExitCode;
/// use std::time::Duration;
/// use ropewalk::application::{StreamServerEndpointService, run_service, take_over_ports};
/// use ropewalk::endpoints::AdoptedStreamServerEndpoint;
/// use ropewalk::{Deferred, for_protocol};
/// # use ropewalk::{Protocol, Result, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
///
/// fn main() -> ExitCode {
///     ropewalk::run(|reactor| {
///         let control = std::io::stdin().as_fd().try_clone_to_owned()?;
///         let reactor = reactor.clone();
///         Ok(take_over_ports(&reactor, control).add_callback(move |mut ports| {
///             let Some(socket) = ports.take("web") else { return Deferred::fail("there is no port web") };
///             let endpoint = AdoptedStreamServerEndpoint::new(&reactor, socket);
///             let web = StreamServerEndpointService::new(endpoint, for_protocol(|_| Echo))
///                 .drain(&reactor, Duration::from_secs(10));
///             run_service(&reactor, ports.ready_after(web))
///         }))
///     })
/// }
/// ```
///
/// # Errors
/// The Deferred fails with [`HandoverError`] if the old process ends before it has sent all, or
/// sends anything else.
pub fn take_over_ports(reactor: &Reactor, control: impl Into<OwnedFd>) -> Deferred<TakenPorts> {
    let open = OpenControl::default();
    let (promise, done) = open.promise();
    let side = NewSide { names: Vec::new(), sockets: Vec::new(), promise: Rc::clone(&promise), open };
    adopt(reactor, control.into(), side, promise);
    done
}

/// The listening sockets that an old process has handed over, from [`take_over_ports`]. Dropping
/// them without a readiness ends the control connection, and the old process goes on.
pub struct TakenPorts {
    sockets: Vec<(String, OwnedFd)>,
    control: Transport,
    is_ready: bool,
}

impl TakenPorts {
    /// Returns the names of the sockets that were not taken, in the old process's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sockets.iter().map(|(name, _)| &**name)
    }

    /// Takes the first socket with this name, for
    /// [`AdoptedStreamServerEndpoint`](crate::endpoints::AdoptedStreamServerEndpoint).
    pub fn take(&mut self, name: &str) -> Option<OwnedFd> {
        let place = self.sockets.iter().position(|(other, _)| other == name)?;
        Some(self.sockets.remove(place).1)
    }

    /// Tells the old process that this one serves. Sockets that were not taken are closed.
    pub fn ready(mut self) {
        self.is_ready = true;
        self.control.write(&[READY]);
        self.control.lose_connection();
    }

    /// Wraps a service, so that the old process is told when it has started for the first time. If
    /// it fails to start, the old process goes on.
    pub fn ready_after(self, service: impl Service) -> impl Service {
        TellsOldProcess { service, ports: RefCell::new(Some(self)) }
    }
}

impl Drop for TakenPorts {
    fn drop(&mut self) {
        if !self.is_ready {
            self.control.abort_connection();
        }
    }
}

impl fmt::Debug for TakenPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TakenPorts").field("names", &self.names().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

/// The failure of a handover.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HandoverError {
    /// The name of a port is empty, or has a line feed.
    #[error("a port that is handed over cannot have the name {name:?}")]
    Name {
        /// The name.
        name: String,
    },
    /// The other process has ended, or has closed its end.
    #[error("the other process has ended before the ports were handed over: {reason}")]
    Ended {
        /// The end of the control connection.
        reason: Failure,
    },
    /// The other process has sent something else than this version of Ropewalk does.
    #[error("the other process does not speak the protocol of a handover")]
    Protocol,
}

/// See [`TakenPorts::ready_after`].
struct TellsOldProcess<S> {
    service: S,
    ports: RefCell<Option<TakenPorts>>,
}

impl<S: Service> Service for TellsOldProcess<S> {
    fn privileged_start_service(&self) -> Deferred<()> {
        self.service.privileged_start_service()
    }

    fn start_service(&self) -> Deferred<()> {
        let ports = self.ports.take();
        self.service.start_service().add_callback(move |()| {
            if let Some(ports) = ports {
                ports.ready();
            }
        })
    }

    fn stop_service(&self) -> Deferred<()> {
        // A service that is stopped before its start will not be ready.
        drop(self.ports.take());
        self.service.stop_service()
    }
}

/// The control connection, so that a cancelled Deferred can close it.
#[derive(Clone, Default)]
struct OpenControl(Rc<RefCell<Option<Transport>>>);

impl OpenControl {
    /// Makes a promise whose Deferred closes the connection when it is cancelled.
    fn promise<T>(&self) -> (Rc<Promise<T>>, Deferred<T>) {
        let open = self.clone();
        let (promise, deferred) = Promise::with_canceller(move || {
            if let Some(transport) = open.0.take() {
                transport.abort_connection();
            }
        });
        (Rc::new(promise), deferred)
    }

    fn made(&self, transport: &Transport) {
        self.0.replace(Some(transport.clone()));
    }

    fn gone(&self) {
        self.0.take();
    }
}

/// Joins one side to its end of the socket. A failure goes to the promise.
fn adopt<P: Protocol, T: 'static>(reactor: &Reactor, control: OwnedFd, side: P, promise: Rc<Promise<T>>) {
    let mut side = Some(side);
    match reactor.adopt_stream_connection(control, &AdoptOptions::new(), move |_| side.take()) {
        Ok(adopting) => drop(adopting.add_both(move |result| {
            if let Err(failure) = result {
                // The end of the connection may have told it.
                let _ = promise.errback(failure);
            }
        })),
        // It cannot be called yet.
        Err(refused) => drop(promise.errback(refused)),
    }
}

/// The old process's end.
struct OldSide {
    handed: Vec<(String, OwnedFd, Port)>,
    promise: Rc<Promise<()>>,
    open: OpenControl,
}

impl Protocol for OldSide {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.open.made(transport);
        for (name, socket, _) in &self.handed {
            transport.send_file_descriptor(socket.try_clone()?, format!("{name}\n").as_bytes())?;
        }
        transport.write(b"\n");
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        if data != [READY] {
            return Err(HandoverError::Protocol.into());
        }
        for (name, _, port) in &self.handed {
            // A port that was stopped meanwhile has no file.
            if port.is_listening()
                && let Err(error) = port.leave_socket_file()
            {
                error!(%name, %error, "the file of a port that was handed over goes with this process");
            }
        }
        transport.lose_connection();
        // A cancelled Deferred has closed the connection.
        let _ = self.promise.callback(());
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.open.gone();
        ended(&self.promise, reason);
    }
}

/// The new process's end.
struct NewSide {
    names: Vec<u8>,
    sockets: Vec<OwnedFd>,
    promise: Rc<Promise<TakenPorts>>,
    open: OpenControl,
}

impl Protocol for NewSide {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        self.open.made(transport);
        Ok(())
    }

    fn file_descriptor_received(&mut self, _transport: &Transport, descriptor: OwnedFd) -> Result<()> {
        self.sockets.push(descriptor);
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.names.extend_from_slice(data);
        if self.names.len() > MAX_NAMES_BYTES {
            return Err(HandoverError::Protocol.into());
        }
        let text = match &self.names[..] {
            b"\n" => &[],
            [text @ .., b'\n'] if text.ends_with(b"\n") => text,
            _ => return Ok(()),
        };
        let text = str::from_utf8(text).map_err(|_| HandoverError::Protocol)?;
        let names: Vec<String> = text.split_terminator('\n').map(str::to_owned).collect();
        if names.len() != self.sockets.len() {
            return Err(HandoverError::Protocol.into());
        }
        let sockets = names.into_iter().zip(self.sockets.drain(..)).collect();
        let ports = TakenPorts { sockets, control: transport.clone(), is_ready: false };
        // If it was cancelled, dropping the ports ends the connection.
        let _ = self.promise.callback(ports);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.open.gone();
        ended(&self.promise, reason);
    }
}

/// Fails a handover that has no result yet.
fn ended<T>(promise: &Promise<T>, reason: &Failure) {
    if promise.is_called() {
        return;
    }
    let failure = match reason.check::<HandoverError>() {
        Some(error) => Failure::from(error.clone()),
        None => HandoverError::Ended { reason: reason.clone() }.into(),
    };
    // The check above says that it can be called.
    let _ = promise.errback(failure);
}
