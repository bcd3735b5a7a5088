//! [`GroupBuilder`]: the settings of a group.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::member::Member;
use super::{GroupRemote, MemberEnd};
use crate::deferred::Deferred;
use crate::failure::Result;
use crate::protocol::BoxedFactory;
use crate::reactor::net::port_role::SharedGate;
use crate::reactor::{BackendKind, Builder, Port, Reactor};

/// Default time limit of a stop: 30 s. Shorter than a reactor's own, because a group stops when its
/// service is replaced: service managers wait for 90 s (systemd) or 30 s (Kubernetes).
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The way in which the members of a group share a port.
///
/// | | `HandOver` | `ReusePort` |
/// |---|---|---|
/// | a new connection goes | to the member with the fewest | where the kernel's hash of the addresses leads |
/// | accepting | one thread, which wakes the member | each member by itself |
/// | descriptions | all that listen at once | `tcp:`, `tcp6:`, and TLS on them |
/// | a member that ends | gets no more connections | the connections that wait at its socket are reset |
///
/// `docs/guide/src/how-to/cores.md` has measurements of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PortSharing {
    /// The group's own reactor accepts, and hands each connection to the member that has the fewest
    /// open ones, in turn among equals. The default: it is even at any number of connections.
    #[default]
    HandOver,
    /// Each member has a socket on the same address (`SO_REUSEPORT`). For TCP only. It accepts
    /// short connections for less CPU, and spreads few connections unevenly. Other processes of the
    /// same user can listen on the address as well, and get a part of the connections.
    ReusePort,
}

/// The effect of a member that fails on its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnMemberFailure {
    /// The group stops, as by [`stop`](super::ReactorGroup::stop). The default: a service manager
    /// starts a process again that is whole.
    #[default]
    StopGroup,
    /// The other members go on. The group ends with the last of them.
    KeepOthers,
}

/// The settings of a [`ReactorGroup`](super::ReactorGroup), from
/// [`ReactorGroup::builder`](super::ReactorGroup::builder).
///
/// The functions that make the members' factories run on the members' threads, so factories and
/// protocols need not be `Send`.
///
/// ```no_run
/// use std::process::ExitCode;
/// use std::time::Duration;
/// use ropewalk::reactor::ReactorGroup;
/// use ropewalk::{Result, for_protocol};
/// # use ropewalk::{Protocol, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
///
/// fn main() -> Result<ExitCode> {
///     let report = ReactorGroup::builder()
///         .threads(4)
///         .stop_timeout(Some(Duration::from_secs(5)))
///         .listen("tcp:8888", |_member| Ok(for_protocol(|_peer| Echo)))
///         .started(|group| println!("listening on {}", group.addresses()[0]))
///         .run()?;
///     Ok(report.exit_code())
/// }
/// ```
#[must_use = "a group is started by `start` or `run`"]
pub struct GroupBuilder {
    pub(super) plan: Plan,
    pub(super) started: Option<Box<StartedCall>>,
    pub(super) member_ended: Option<Box<MemberEndedCall>>,
}

/// The settings that all threads of a group share.
pub(super) struct Plan {
    pub(super) threads: usize,
    pub(super) name: String,
    pub(super) backend: Option<BackendKind>,
    pub(super) signals: bool,
    pub(super) stop_timeout: Option<Duration>,
    pub(super) sharing: PortSharing,
    pub(super) on_failure: OnMemberFailure,
    pub(super) ports: Vec<PortPlan>,
    pub(super) configure: Option<Box<Configure>>,
    pub(super) setup: Option<Box<Setup>>,
    pub(super) drain: Option<Box<Drain>>,
}

/// A port of the group, as each of its reactors makes it.
pub(super) struct PortPlan {
    /// The description of the endpoint, for errors.
    pub(super) endpoint: String,
    /// The limits of the port, if each reactor has a socket.
    pub(super) gate: Arc<SharedGate>,
    pub(super) listen: Box<Listen>,
    pub(super) factory: Box<MakeFactory>,
}

pub(super) type StartedCall = dyn FnOnce(&GroupRemote) + Send;
pub(super) type MemberEndedCall = dyn FnMut(usize, &MemberEnd) + Send;
type Configure = dyn Fn(Builder, usize) -> Builder + Send + Sync;
type Setup = dyn Fn(&Member) -> Result<()> + Send + Sync;
type Drain = dyn Fn(&Member) -> Deferred<()> + Send + Sync;
type Listen = dyn Fn(&Reactor, BoxedFactory) -> Result<Deferred<Port>> + Send + Sync;
type MakeFactory = dyn Fn(&Member) -> Result<BoxedFactory> + Send + Sync;

impl GroupBuilder {
    pub(super) fn new() -> Self {
        let plan = Plan {
            // A system that does not tell gets one thread.
            threads: thread::available_parallelism().map_or(1, Into::into),
            name: "reactor".to_owned(),
            backend: None,
            signals: true,
            stop_timeout: Some(STOP_TIMEOUT),
            sharing: PortSharing::default(),
            on_failure: OnMemberFailure::default(),
            ports: Vec::new(),
            configure: None,
            setup: None,
            drain: None,
        };
        Self { plan, started: None, member_ended: None }
    }

    /// Sets the number of members, each with a thread. The group's own thread comes on top of that:
    /// it sleeps, but for new connections and signals. The default is the number of processors that
    /// this process may use.
    pub fn threads(mut self, threads: usize) -> Self {
        self.plan.threads = threads;
        self
    }

    /// Sets the name of the group's thread. The threads of the members have their index appended:
    /// `reactor-0`. The default is `reactor`. A NUL becomes a question mark. Linux shows 15 bytes
    /// of a name.
    pub fn name(mut self, name: &str) -> Self {
        self.plan.name = name.replace('\0', "?");
        self
    }

    /// Selects the backend of all reactors. Unlike [`Builder::backend`], the group does not start
    /// if the system does not provide it
    /// ([`GroupError::Backend`](crate::error::GroupError::Backend)).
    pub fn backend(mut self, kind: BackendKind) -> Self {
        self.plan.backend = Some(kind);
        self
    }

    /// Sets whether SIGINT and SIGTERM stop the group. On by default. Only the group's own thread
    /// handles signals. A second signal ends the members at once, without a drain.
    pub fn signals(mut self, install: bool) -> Self {
        self.plan.signals = install;
        self
    }

    /// Sets the time limit of a stop, 30 s by default. `None` waits without limit.
    ///
    /// A stop, by a signal or by [`stop`](super::ReactorGroup::stop), takes these steps:
    ///
    /// 1. The ports close. Connections that the system has accepted are still served.
    /// 2. Each member drains: it calls the function of [`drain`](Self::drain), or asks each
    ///    connection of the group's ports to close once its queue is sent.
    /// 3. A member whose drain is done, and that has no connection of the group's ports left,
    ///    stops, as [`Reactor::stop`] does.
    /// 4. At the time limit, the other members stop in the same way: every connection is lost with
    ///    [`ReactorStopped`](crate::error::ConnectionClosed::ReactorStopped).
    ///
    /// The limit is one for all of that, with the triggers of the members' shutdowns and their jobs
    /// in threads. A member that a call of the program keeps busy for two seconds longer is
    /// [left behind](MemberEnd::StillRunning).
    pub fn stop_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.plan.stop_timeout = timeout;
        self
    }

    /// Sets the way in which the members share the group's ports.
    pub fn port_sharing(mut self, sharing: PortSharing) -> Self {
        self.plan.sharing = sharing;
        self
    }

    /// Sets the effect of a member that fails: its reactor fails, or a panic gets out of its loop.
    /// Failures and panics of callbacks do not count, as they end only their own connection.
    pub fn on_member_failure(mut self, effect: OnMemberFailure) -> Self {
        self.plan.on_failure = effect;
        self
    }

    /// Changes the settings of the members' reactors, such as their resolver. `configure` is called
    /// on the thread of each member, with its index. The group then sets the signals, the time
    /// limit of the shutdown and the backend.
    ///
    /// ```
    /// use ropewalk::reactor::ReactorGroup;
    ///
    /// let builder = ReactorGroup::builder().configure(|builder, _index| builder.message_limit(Some(1_000)));
    /// # drop(builder);
    /// ```
    pub fn configure(mut self, configure: impl Fn(Builder, usize) -> Builder + Send + Sync + 'static) -> Self {
        self.plan.configure = Some(Box::new(configure));
        self
    }

    /// Has `setup` called on the thread of each member, before its factories are made: for timers,
    /// clients, and ports of its own. Members are set up one after the other. A failure or a panic
    /// ends the start.
    pub fn setup(mut self, setup: impl Fn(&Member) -> Result<()> + Send + Sync + 'static) -> Self {
        self.plan.setup = Some(Box::new(setup));
        self
    }

    /// Replaces the second step of a [stop](Self::stop_timeout): the member waits for the Deferred,
    /// and then until no connection of the group's ports is open. For protocols that have a
    /// farewell of their own, or answers to wait for.
    ///
    /// If the Deferred fails, the failure is logged, and each connection is asked to close.
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use ropewalk::reactor::ReactorGroup;
    /// use ropewalk::{Connections, Deferred, for_protocol};
    /// # use ropewalk::{Protocol, Result, Transport};
    /// # struct Chat;
    /// # impl Protocol for Chat {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    ///
    /// thread_local! {
    ///     /// The connections of this thread's member.
    ///     static ROOM: Connections<Chat> = Connections::new();
    /// }
    ///
    /// let builder = ReactorGroup::builder()
    ///     .listen("tcp:0", |_member| Ok(ROOM.with(|room| room.track(for_protocol(|_peer| Chat)))))
    ///     .drain(|_member| {
    ///         ROOM.with(|room| {
    ///             for chat in room {
    ///                 chat.transport().write(b"the server is going down\r\n");
    ///                 chat.transport().lose_connection();
    ///             }
    ///         });
    ///         Deferred::succeed(())
    ///     });
    /// # drop(builder);
    /// ```
    pub fn drain(mut self, drain: impl Fn(&Member) -> Deferred<()> + Send + Sync + 'static) -> Self {
        self.plan.drain = Some(Box::new(drain));
        self
    }

    /// Has `started` called on the group's thread once all members run. With [`run`](Self::run)
    /// this is the way to learn the addresses, and to hand a [`GroupRemote`] out.
    pub fn started(mut self, started: impl FnOnce(&GroupRemote) + Send + 'static) -> Self {
        self.started = Some(Box::new(started));
        self
    }

    /// Has `ended` called on the group's thread for each member that ends, with its index. A
    /// failure is logged in any case. A panic of `ended` is logged.
    pub fn member_ended(mut self, ended: impl FnMut(usize, &MemberEnd) + Send + 'static) -> Self {
        self.member_ended = Some(Box::new(ended));
        self
    }

    /// Adds a port. The room of endpoints has the methods that programs call.
    pub(crate) fn add_port(
        mut self,
        endpoint: String,
        listen: impl Fn(&Reactor, BoxedFactory) -> Result<Deferred<Port>> + Send + Sync + 'static,
        factory: impl Fn(&Member) -> Result<BoxedFactory> + Send + Sync + 'static,
    ) -> Self {
        self.plan.ports.push(PortPlan {
            endpoint,
            gate: Arc::default(),
            listen: Box::new(listen),
            factory: Box::new(factory),
        });
        self
    }
}

impl fmt::Debug for GroupBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<&str> = self.plan.ports.iter().map(|port| &*port.endpoint).collect();
        f.debug_struct("GroupBuilder")
            .field("threads", &self.plan.threads)
            .field("sharing", &self.plan.sharing)
            .field("ports", &ports)
            .finish_non_exhaustive()
    }
}
