//! The leader: the group's own reactor. It starts the members, hands connections to them, and waits
//! for their ends. `mod.rs` has the steps.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::builder::{GroupBuilder, MemberEndedCall, OnMemberFailure, Plan, PortSharing, StartedCall};
use super::ends::{Ends, GroupReport, MemberEnd};
use super::member::{Order, Recruit, StartReport, check_backend, listen, stop_listening};
use super::{GroupRemote, ReactorGroup, Started};
use crate::address::Address;
use crate::deferred::{Abandoned, Deferred, Promise};
use crate::error::GroupError;
use crate::failure::{Failure, Result, guarded, guarded_result};
use crate::log::error;
use crate::protocol::{BoxedFactory, Protocol};
use crate::reactor::net::port_role::{HandedSocket, Load, PortRole};
use crate::reactor::{BackendKind, Builder, Phase, Port, Reactor, Remote, SystemEvent};

/// Time that members have to end once they were told to end at once. One second: a healthy loop
/// ends within a turn, and a stuck one does not end at all.
const FORCED_END: Duration = Duration::from_secs(1);

impl GroupBuilder {
    /// Starts the group, with its own reactor on a thread of its own. Returns once all members are
    /// set up, and are about to run.
    ///
    /// # Errors
    /// [`GroupError`]. No thread and no port of the group is left then.
    pub fn start(self) -> Result<ReactorGroup, GroupError> {
        let (started, start) = mpsc::channel();
        let named = thread::Builder::new().name(self.plan.name.clone());
        let leader = named.spawn(move || {
            let start = guarded(|| Leader::start(self)).unwrap_or_else(|panic| Err(GroupError::Panicked(panic)));
            let (remote, leader) = match start {
                Ok(leader) => (Ok(leader.remote.clone()), Some(leader)),
                Err(error) => (Err(error), None),
            };
            // The starting thread waits for this.
            let _ = started.send(remote);
            leader.map_or_else(|| Ok(GroupReport::default()), Leader::lead)
        });
        let leader = leader.map_err(GroupError::Thread)?;
        match start.recv().expect("the thread sends the result of the start before it ends") {
            Ok(remote) => Ok(ReactorGroup { remote, leader: Some(leader) }),
            Err(error) => {
                // The thread ends behind its message.
                let _ = leader.join();
                Err(error)
            }
        }
    }

    /// Starts the group with its own reactor on this thread, and runs it to its end. For `fn main`:
    /// [`GroupReport::exit_code`] is its exit code.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`ReactorGroup::join`].
    pub fn run(self) -> Result<GroupReport, GroupError> {
        Leader::start(self)?.lead()
    }
}

/// The group's own reactor, and its members.
struct Leader {
    reactor: Reactor,
    remote: GroupRemote,
    plan: Arc<Plan>,
    ports: Vec<Port>,
    crew: Rc<Crew>,
    started: Option<Box<StartedCall>>,
    member_ended: Option<Box<MemberEndedCall>>,
}

impl Leader {
    fn start(builder: GroupBuilder) -> Result<Self, GroupError> {
        let GroupBuilder { plan, started, member_ended } = builder;
        if plan.threads == 0 {
            return Err(GroupError::NoThreads);
        }
        let plan = Arc::new(plan);
        let reactor = build(&plan)?;
        let shared = Arc::new(OnceLock::new());
        let remote = GroupRemote { leader: reactor.remote(), shared: Arc::clone(&shared) };
        let crew = Rc::new(Crew::new(plan.threads));
        match begin(&plan, &reactor, &remote, &crew) {
            Ok((ports, addresses)) => {
                let first_time = shared.set(Started { members: crew.remotes(), addresses }).is_ok();
                debug_assert!(first_time, "a group starts once");
                crew.order_run();
                Ok(Self { reactor, remote, plan, ports, crew, started, member_ended })
            }
            Err(error) => {
                // The reactor is idle, so it closes. The ports go first.
                let _ = reactor.close();
                crew.dismiss();
                Err(error)
            }
        }
    }

    /// Runs the group to its end.
    fn lead(mut self) -> Result<GroupReport, GroupError> {
        let ended = self.watch_ends();
        let (crew, ports) = (Rc::clone(&self.crew), std::mem::take(&mut self.ports));
        self.reactor.add_system_event_trigger(Phase::Before, SystemEvent::Shutdown, move || {
            // The last connections are handed over by then, ahead of the order to stop.
            stop_listening(&ports).add_callback(move |()| {
                crew.tell_all(|reactor| {
                    // It may be stopping already.
                    let _ = reactor.stop();
                });
                ended
            })
        });
        if let Some(started) = self.started.take() {
            let remote = self.remote.clone();
            // The leader handles signals by then: a group that says it is ready can be stopped.
            self.reactor.add_system_event_trigger(Phase::After, SystemEvent::Startup, move || {
                if let Err(panic) = guarded(|| started(&remote)) {
                    error!(%panic, "the function for a started group failed");
                }
            });
        }
        let ran = guarded(|| self.reactor.run());
        // After a second signal, or at the time limit, members are left.
        self.crew.tell_all(|reactor| {
            // It may have ended meanwhile.
            let _ = reactor.crash();
        });
        let members = self.crew.end();
        let signal = self.reactor.exit_signal();
        let closed = self.reactor.close();
        ran.map_err(GroupError::Panicked)?.and(closed).map_err(GroupError::Reactor)?;
        Ok(GroupReport { signal, members })
    }

    /// Handles the ends of the members while the loop runs. The Deferred fires after the last.
    fn watch_ends(&mut self) -> Deferred<()> {
        let (promise, all_ended) = Promise::new();
        let (crew, reactor, plan) = (Rc::clone(&self.crew), self.reactor.clone(), Arc::clone(&self.plan));
        let mut told = self.member_ended.take();
        let watching = self.reactor.spawn(async move {
            for _ in 0..plan.threads {
                let (member, end) = crew.ends.next().await;
                if let Some(told) = &mut told
                    && let Err(panic) = guarded(|| told(member, &end))
                {
                    error!(%panic, "the function for a member that has ended failed");
                }
                if let MemberEnd::Failed(failure) = &end {
                    error!(member, %failure, "a reactor of a group failed");
                    if plan.on_failure == OnMemberFailure::StopGroup {
                        // It may be stopping already.
                        let _ = reactor.stop();
                    }
                }
            }
            // The trigger may be gone, at a time limit.
            let _ = promise.callback(());
            let _ = reactor.stop();
            Ok(())
        });
        unless_abandoned(watching).or_log("watching the members of a group");
        unless_abandoned(all_ended)
    }
}

/// Lets a Deferred succeed that the end of the leader has abandoned. Members that were left behind
/// are reported without it.
fn unless_abandoned(deferred: Deferred<()>) -> Deferred<()> {
    deferred.add_errback(|failure| if failure.check::<Abandoned>().is_some() { Ok(()) } else { Err(failure) })
}

/// Binds the ports, and starts and sets up the members. Returns the ports of the leader, and the
/// addresses.
fn begin(
    plan: &Arc<Plan>,
    reactor: &Reactor,
    remote: &GroupRemote,
    crew: &Rc<Crew>,
) -> Result<(Vec<Port>, Vec<Address>), GroupError> {
    let ports = bind(plan, reactor, crew)?;
    crew.recruit(plan, reactor.backend())?;
    let addresses = ports.iter().map(|port| Some(port.host())).collect();
    let addresses = crew.set_up(plan, remote, addresses)?;
    Ok((ports, addresses))
}

/// Builds the leader's reactor.
fn build(plan: &Plan) -> Result<Reactor, GroupError> {
    // The members have the same limit for themselves, and end first.
    let limit = plan.stop_timeout.map(|timeout| timeout.saturating_add(FORCED_END));
    let builder = Reactor::builder().signals(plan.signals).shutdown_timeout(limit);
    let builder = plan.backend.into_iter().fold(builder, Builder::backend);
    let reactor = builder.build().map_err(GroupError::Reactor)?;
    if let Some(expected) = plan.backend {
        check_backend(&reactor, expected)?;
    }
    Ok(reactor)
}

/// Binds the ports from which the leader hands connections over.
fn bind(plan: &Plan, reactor: &Reactor, crew: &Rc<Crew>) -> Result<Vec<Port>, GroupError> {
    if plan.sharing != PortSharing::HandOver {
        return Ok(Vec::new());
    }
    let bind = |(number, port)| {
        let crew = Rc::clone(crew);
        let role = PortRole::HandsOver(Rc::new(move |handed| crew.hand_over(number, handed)));
        // This factory builds nothing, as its port hands every connection over.
        listen(reactor, port, role, BoxedFactory::new(|_| None::<Box<dyn Protocol>>))
    };
    plan.ports.iter().enumerate().map(bind).collect()
}

/// The members, as the leader sees them.
struct Crew {
    seats: RefCell<Vec<Seat>>,
    ends: Arc<Ends>,
    /// The member that is first among equals for the next connection.
    turn: Cell<usize>,
}

/// One member.
struct Seat {
    /// `None` until the member has a reactor.
    remote: Option<Remote>,
    load: Arc<Load>,
    thread: JoinHandle<()>,
    orders: Sender<Order>,
    reports: Receiver<Result<StartReport, GroupError>>,
}

impl Crew {
    fn new(members: usize) -> Self {
        Self { seats: RefCell::default(), ends: Ends::new(members), turn: Cell::new(0) }
    }

    /// Starts the threads, and waits until each has a reactor.
    fn recruit(&self, plan: &Arc<Plan>, backend: BackendKind) -> Result<(), GroupError> {
        for index in 0..plan.threads {
            let (orders, taken) = mpsc::channel();
            let (reporting, reports) = mpsc::channel();
            let (load, ends) = (Arc::new(Load::default()), Arc::clone(&self.ends));
            let recruit = Recruit {
                index,
                plan: Arc::clone(plan),
                backend,
                load: Arc::clone(&load),
                orders: taken,
                reports: reporting,
            };
            let named = thread::Builder::new().name(format!("{}-{index}", plan.name));
            let thread = named.spawn(move || {
                let end = guarded_result(|| recruit.serve());
                recruit.load.close();
                ends.report(index, end.map_or_else(MemberEnd::Failed, |()| MemberEnd::Stopped));
            });
            let thread = thread.map_err(GroupError::Thread)?;
            self.seats.borrow_mut().push(Seat { remote: None, load, thread, orders, reports });
        }
        for index in 0..plan.threads {
            if let StartReport::Built(remote) = self.report(index)? {
                self.seats.borrow_mut()[index].remote = Some(remote);
            }
        }
        Ok(())
    }

    /// Sets the members up, one after the other. A port without an address gets that of the first
    /// member. Returns the addresses.
    fn set_up(
        &self,
        plan: &Plan,
        group: &GroupRemote,
        mut addresses: Vec<Option<Address>>,
    ) -> Result<Vec<Address>, GroupError> {
        addresses.resize(plan.ports.len(), None);
        for index in 0..plan.threads {
            let order = Order::SetUp { group: group.clone(), addresses: addresses.clone() };
            // A thread that is gone is reported as such.
            let _ = self.seats.borrow()[index].orders.send(order);
            if let StartReport::Ready(ready) = self.report(index)? {
                addresses = ready.into_iter().map(Some).collect();
            }
        }
        Ok(addresses.into_iter().flatten().collect())
    }

    /// Waits for the next report of a member. A thread that ends without one has panicked.
    fn report(&self, index: usize) -> Result<StartReport, GroupError> {
        let report = self.seats.borrow()[index].reports.recv();
        report.unwrap_or_else(|_| {
            let failure = match self.ends.wait_for(index) {
                MemberEnd::Failed(failure) => failure,
                MemberEnd::Stopped | MemberEnd::StillRunning => Failure::message("its thread ended"),
            };
            Err(GroupError::Setup { member: index, failure })
        })
    }

    fn order_run(&self) {
        for seat in &*self.seats.borrow() {
            // A thread that is gone is reported as such.
            let _ = seat.orders.send(Order::Run);
        }
    }

    /// Returns the reactors of the members.
    fn remotes(&self) -> Vec<Remote> {
        self.seats.borrow().iter().filter_map(|seat| seat.remote.clone()).collect()
    }

    /// Hands a connection to the member that has the fewest, in turn among equals. Without members
    /// that take connections it is closed.
    fn hand_over(&self, port: usize, handed: HandedSocket) {
        let seats = self.seats.borrow();
        let in_turn = (0..seats.len()).map(|offset| (self.turn.get() + offset) % seats.len());
        let open = in_turn.filter(|&index| !seats[index].load.is_closed());
        let Some(index) = open.min_by_key(|&index| seats[index].load.connections()) else { return };
        self.turn.set(index + 1);
        let Seat { remote: Some(remote), load, .. } = &seats[index] else { return };
        load.send();
        let load = Arc::clone(load);
        // The reactor of a member that fails at this moment drops the connection, as it does with
        // all others.
        let _ = remote.call_from_thread(move |reactor| reactor.serve_handed(port, handed, &load));
    }

    /// Has `call` called on the reactor of each member.
    fn tell_all(&self, call: fn(&Reactor)) {
        for remote in self.remotes() {
            // A reactor that is gone has ended already.
            let _ = remote.call_from_thread(call);
        }
    }

    /// Ends the threads of a start that has failed. None of them runs its reactor.
    fn dismiss(&self) {
        for Seat { thread, orders, reports, .. } in self.seats.take() {
            drop((orders, reports));
            // Its panic was reported, if it had one.
            let _ = thread.join();
        }
    }

    /// Waits for members that were told to end at once. Returns all ends.
    fn end(&self) -> Vec<MemberEnd> {
        let ends = self.ends.wait(FORCED_END);
        for (index, (seat, end)) in self.seats.take().into_iter().zip(&ends).enumerate() {
            match end {
                MemberEnd::StillRunning => error!(index, "a reactor of a group does not end: its thread is left"),
                // Its panic was reported, if it had one.
                MemberEnd::Stopped | MemberEnd::Failed(_) => drop(seat.thread.join()),
            }
        }
        ends
    }
}
