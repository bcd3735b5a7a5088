//! [`Member`]: a reactor on a thread of its own, its ports, and its drain.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use super::GroupRemote;
use super::builder::{Plan, PortPlan, PortSharing};
use crate::address::Address;
use crate::deferred::{Deferred, gather_results, maybe_deferred};
use crate::error::GroupError;
use crate::failure::{Failure, Result, guarded, guarded_result};
use crate::log::error;
use crate::protocol::BoxedFactory;
use crate::reactor::net::port_role::{Load, OpenCount, PortRole, ReceivingPort};
use crate::reactor::{BackendKind, Phase, Port, Reactor, Remote, SystemEvent};

/// A member of a [`ReactorGroup`](super::ReactorGroup), as its functions are given it: on its own
/// thread.
///
/// ```
/// use ropewalk::reactor::Member;
/// use ropewalk::{Factory, Protocol, Result, Transport, for_protocol};
///
/// struct Greeter { name: String }
///
/// impl Protocol for Greeter {
///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
///         transport.write(self.name.as_bytes());
///         Ok(())
///     }
/// #     fn data_received(&mut self, _: &Transport, _: &[u8]) -> Result<()> { Ok(()) }
/// }
///
/// fn greeters(member: &Member) -> Result<impl Factory<Protocol = Greeter> + use<>> {
///     let name = format!("member {} of {}\r\n", member.index(), member.count());
///     Ok(for_protocol(move |_peer| Greeter { name: name.clone() }))
/// }
/// # let builder = ropewalk::reactor::ReactorGroup::builder().listen("tcp:0", greeters);
/// # drop(builder);
/// ```
pub struct Member {
    index: usize,
    count: usize,
    reactor: Reactor,
    group: GroupRemote,
}

impl Member {
    /// Returns the index, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the number of members.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the reactor of this member.
    pub fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// Returns a handle to the group. It has the other members once the group has started.
    pub fn group(&self) -> &GroupRemote {
        &self.group
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("index", &self.index).field("count", &self.count).finish_non_exhaustive()
    }
}

/// A report of a member to the leader, during the start.
pub(super) enum StartReport {
    Built(Remote),
    /// The member is set up. Its ports have these addresses.
    Ready(Vec<Address>),
}

/// An order of the leader. A closed channel orders the end of a start that has failed.
pub(super) enum Order {
    /// The addresses are those of the ports that listen already.
    SetUp {
        group: GroupRemote,
        addresses: Vec<Option<Address>>,
    },
    Run,
}

/// A member on its way, on its own thread.
pub(super) struct Recruit {
    pub(super) index: usize,
    pub(super) plan: Arc<Plan>,
    /// The backend of the leader, which all have.
    pub(super) backend: BackendKind,
    pub(super) load: Arc<Load>,
    pub(super) orders: Receiver<Order>,
    pub(super) reports: Sender<Result<StartReport, GroupError>>,
}

impl Recruit {
    /// Serves from the start of the thread to its end.
    pub(super) fn serve(&self) -> Result<()> {
        let reactor = match self.build() {
            Ok(reactor) => reactor,
            Err(error) => {
                self.report(Err(error));
                return Ok(());
            }
        };
        self.report(Ok(StartReport::Built(reactor.remote())));
        let Ok(Order::SetUp { group, addresses }) = self.orders.recv() else { return Ok(()) };
        let member = Member { index: self.index, count: self.plan.threads, reactor: reactor.clone(), group };
        let set_up = self.set_up(member, addresses);
        let is_ready = set_up.is_ok();
        self.report(set_up.map(StartReport::Ready));
        let runs = is_ready && matches!(self.orders.recv(), Ok(Order::Run));
        let ran = if runs { guarded(|| reactor.run()) } else { Ok(Ok(())) };
        // After a panic out of the loop, protocols and factories are told here.
        let closed = reactor.close();
        ran??;
        Ok(closed?)
    }

    fn report(&self, report: Result<StartReport, GroupError>) {
        // A leader that is gone needs no report, and gives no orders.
        let _ = self.reports.send(report);
    }

    fn build(&self) -> Result<Reactor, GroupError> {
        let plan = &self.plan;
        let mut builder = Reactor::builder();
        if let Some(configure) = &plan.configure {
            builder = guarded(|| configure(builder, self.index)).map_err(|panic| self.failed(panic.into()))?;
        }
        let builder = builder.signals(false).shutdown_timeout(plan.stop_timeout).backend(self.backend);
        let reactor = builder.build().map_err(GroupError::Reactor)?;
        check_backend(&reactor, self.backend)?;
        Ok(reactor)
    }

    /// Calls the functions of the program, and makes the ports. Returns their addresses.
    fn set_up(&self, member: Member, addresses: Vec<Option<Address>>) -> Result<Vec<Address>, GroupError> {
        if let Some(setup) = &self.plan.setup {
            guarded_result(|| setup(&member)).map_err(|failure| self.failed(failure))?;
        }
        let open = OpenCount::new(Arc::clone(&self.load));
        let mut ports = Vec::new();
        for (plan, host) in self.plan.ports.iter().zip(addresses) {
            let factory = guarded_result(|| (plan.factory)(&member)).map_err(|failure| self.failed(failure))?;
            let open = Rc::clone(&open);
            let members = self.plan.threads;
            let role = match (self.plan.sharing, host) {
                (PortSharing::HandOver, Some(host)) => PortRole::Receives(ReceivingPort { host, open, members }),
                (_, host) => PortRole::ReusesPort { host, open, members, gate: Arc::clone(&plan.gate) },
            };
            ports.push(listen(&member.reactor, plan, role, factory)?);
        }
        let addresses = ports.iter().map(Port::host).collect();
        let (plan, reactor) = (Arc::clone(&self.plan), member.reactor.clone());
        let load = Arc::clone(&self.load);
        reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
            load.close();
            drain(plan, member, &ports, open)
        });
        Ok(addresses)
    }

    fn failed(&self, failure: Failure) -> GroupError {
        GroupError::Setup { member: self.index, failure }
    }
}

/// Checks that a reactor has the backend that was asked for.
pub(super) fn check_backend(reactor: &Reactor, expected: BackendKind) -> Result<(), GroupError> {
    let found = reactor.backend();
    if found == expected {
        return Ok(());
    }
    Err(GroupError::Backend { expected: expected.name(), found: found.name() })
}

/// Makes a port of the group on one of its reactors.
pub(super) fn listen(
    reactor: &Reactor,
    plan: &PortPlan,
    role: PortRole,
    factory: BoxedFactory,
) -> Result<Port, GroupError> {
    let endpoint = plan.endpoint.clone();
    let (listening, is_made) = reactor.with_port_role(role, || guarded_result(|| (plan.listen)(reactor, factory)));
    let result = listening.map(|mut listening| {
        let result = listening.take_result();
        if result.is_none() {
            // A port that is made later would be none of the group's.
            listening.cancel();
        }
        result
    });
    match result {
        Ok(Some(Ok(port))) if is_made => Ok(port),
        Ok(Some(Ok(_)) | None) => Err(GroupError::NotShareable { endpoint }),
        Ok(Some(Err(failure))) | Err(failure) => Err(GroupError::Listen { endpoint, failure }),
    }
}

/// Stops the ports. The Deferred fires once connections that were accepted by then are served.
pub(super) fn stop_listening(ports: &[Port]) -> Deferred<()> {
    let log = |failure| error!(%failure, "a port of a group stopped with a failure");
    let stopped = ports.iter().map(|port| port.stop_listening().add_errback(log));
    gather_results(stopped).add_callback(|_each| ())
}

/// Stops the ports, has the connections end, and waits for that.
fn drain(plan: Arc<Plan>, member: Member, ports: &[Port], open: Rc<OpenCount>) -> Deferred<()> {
    // Connections that were accepted by then have a protocol afterwards.
    let farewell = stop_listening(ports).add_callback(move |()| {
        let result = match &plan.drain {
            Some(drain) => maybe_deferred(|| drain(&member)),
            None => Deferred::fail(NoFarewell),
        };
        result.add_errback(move |failure| {
            if failure.check::<NoFarewell>().is_none() {
                error!(%failure, member = member.index, "the drain of a reactor failed");
            }
            member.reactor.lose_counted_connections();
        })
    });
    farewell.add_callback(move |()| open.when_none())
}

/// The program has no function for a drain.
#[derive(Debug, thiserror::Error)]
#[error("there is no function for a drain")]
struct NoFarewell;
