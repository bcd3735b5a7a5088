//! Factories build the protocol of each connection (Twisted: `IProtocolFactory`,
//! `twisted.internet.protocol.Factory`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::rc::Rc;

use super::Protocol;
use super::joint::{ErasedJoint, Joint};
use super::preamble::{Preamble, PreambleJoint};
use crate::address::Address;
use crate::error::Unavailable;
use crate::failure::{Guarded, Panicked, Result, drop_guarded, guarded, guarded_result};
use crate::log::error;
use crate::transport::Transport;

/// Builds a protocol for each connection, and holds the state that they share (Twisted:
/// `IProtocolFactory`).
///
/// A closure that returns a protocol is a factory. So is a closure that returns an `Option` of a
/// protocol: `None` refuses the connection. The closure takes the peer's [`Address`]. If it uses
/// the address, it has to declare that type. [`for_protocol`] makes the declaration unnecessary.
///
/// ```
/// use ropewalk::{Address, Factory, Protocol, Result, Transport, for_protocol};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// fn takes_a_factory(_: impl Factory) {}
/// takes_a_factory(|_| Echo);
/// takes_a_factory(for_protocol(|_| Echo));
/// takes_a_factory(|peer: Address| (peer.port() != Some(0)).then_some(Echo));
///
/// /// Serves one peer at a time, and refuses the others.
/// struct Exclusive { taken: bool }
/// impl Factory for Exclusive {
///     type Protocol = Echo;
///     fn build_protocol(&mut self, _peer: &Address) -> Option<Echo> {
///         (!std::mem::replace(&mut self.taken, true)).then_some(Echo)
///     }
/// }
/// takes_a_factory(Exclusive { taken: false });
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a factory",
    label = "expected a factory, which builds a protocol for each connection",
    note = "a closure that returns a protocol: `|_| Echo`, or `|peer: Address| ..` with the type of its argument",
    note = "a closure that may refuse the connection: `|_| Some(Echo)`",
    note = "a protocol that is to be connected once: `connect_protocol(&endpoint, protocol)`"
)]
pub trait Factory: 'static {
    /// The type of the protocols.
    type Protocol: Protocol;

    /// Returns a protocol for the connection with `peer` (Twisted: `buildProtocol`). `None` refuses
    /// the connection, which is then closed at once. A panic refuses it too, and is logged.
    fn build_protocol(&mut self, peer: &Address) -> Option<Self::Protocol>;

    /// Called with the transport of a new connection, after `build_protocol` and before the
    /// protocol's `connection_made`. A factory that wraps another one sets up the transport here:
    /// it sets a queue limit, starts TLS, or applies [policies](crate::policies). (Twisted: the
    /// `makeConnection` of a `ProtocolWrapper`.) A wrapper calls the method of its inner factory.
    ///
    /// # Errors
    /// An `Err` ends the connection, with that failure as the reason.
    ///
    /// ```
    /// use ropewalk::transport::QueueLimit;
    /// use ropewalk::{Address, Factory, Result, Transport};
    ///
    /// /// Bounds the queues of a factory's connections.
    /// struct Bounded<F>(F);
    ///
    /// impl<F: Factory> Factory for Bounded<F> {
    ///     type Protocol = F::Protocol;
    ///
    ///     fn build_protocol(&mut self, peer: &Address) -> Option<F::Protocol> {
    ///         self.0.build_protocol(peer)
    ///     }
    ///
    ///     fn prepare_transport(&mut self, transport: &Transport) -> Result<()> {
    ///         transport.set_queue_limit(Some(QueueLimit::abort(1 << 20)));
    ///         self.0.prepare_transport(transport)
    ///     }
    ///
    ///     fn do_start(&mut self) {
    ///         self.0.do_start();
    ///     }
    ///
    ///     fn do_stop(&mut self) {
    ///         self.0.do_stop();
    ///     }
    /// }
    /// ```
    fn prepare_transport(&mut self, transport: &Transport) -> Result<()> {
        let _ = transport;
        Ok(())
    }

    /// Called before the first connection, when a port starts to listen or a client starts to
    /// connect (Twisted: `doStart`, `startFactory`).
    fn do_start(&mut self) {}

    /// Called after the last connection, when the port has stopped, or when the client's connection
    /// is over or could not be made (Twisted: `doStop`, `stopFactory`).
    fn do_stop(&mut self) {}
}

impl<F, R> Factory for F
where
    F: FnMut(Address) -> R + 'static,
    R: IntoProtocol,
{
    type Protocol = R::Protocol;

    fn build_protocol(&mut self, peer: &Address) -> Option<R::Protocol> {
        self(peer.clone()).into_protocol()
    }
}

/// The result of a closure that is a [`Factory`]: a protocol, or an `Option` of one. `None` refuses
/// the connection.
#[diagnostic::on_unimplemented(
    message = "a factory can't build `{Self}`",
    label = "expected a protocol, or an `Option` of one",
    note = "write `impl Protocol for ..` with a `data_received`",
    note = "a factory builds a protocol for each connection, which owns it: `|_| Echo`, no reference and no `Rc`"
)]
pub trait IntoProtocol {
    /// The type of the protocol.
    type Protocol: Protocol;

    /// Returns the protocol, or `None` to refuse the connection.
    fn into_protocol(self) -> Option<Self::Protocol>;
}

impl<P: Protocol> IntoProtocol for P {
    type Protocol = P;

    fn into_protocol(self) -> Option<P> {
        Some(self)
    }
}

impl<P: Protocol> IntoProtocol for Option<P> {
    type Protocol = P;

    fn into_protocol(self) -> Self {
        self
    }
}

/// Makes a factory that calls `build` for the protocol of every connection (Twisted:
/// `Factory.forProtocol`). The factory is `build` itself. As an argument of this function, the
/// closure need not declare the type of the peer's address.
///
/// ```
/// use ropewalk::{Factory, Protocol, Result, Transport, for_protocol};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// let mut factory = for_protocol(|peer| {
///     println!("{peer}");
///     Echo
/// });
/// assert!(factory.build_protocol(&ropewalk::Address::Inet(([127, 0, 0, 1], 7).into())).is_some());
/// ```
pub fn for_protocol<P: Protocol>(build: impl FnMut(Address) -> P + 'static) -> impl Factory<Protocol = P> {
    build
}

/// Lets a program choose a factory at run time: a boxed factory is a factory. Its type names the
/// type of its protocols. For protocols of several types, that is `Box<dyn Protocol>`.
impl<P: Protocol> Factory for Box<dyn Factory<Protocol = P>> {
    type Protocol = P;

    fn build_protocol(&mut self, peer: &Address) -> Option<P> {
        (**self).build_protocol(peer)
    }

    fn prepare_transport(&mut self, transport: &Transport) -> Result<()> {
        (**self).prepare_transport(transport)
    }

    fn do_start(&mut self) {
        (**self).do_start();
    }

    fn do_stop(&mut self) {
        (**self).do_stop();
    }
}

/// One factory for several ports or clients (Twisted: the same factory object passed to several
/// `listen` calls). `do_start` is called once, on the first start, and `do_stop` once, on the last
/// stop.
///
/// ```
/// use ropewalk::SharedFactory;
/// # use ropewalk::{Protocol, Result, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
/// let factory = SharedFactory::new(|_| Some(Echo));
/// let another_handle = factory.clone();
/// ```
///
/// A start or a stop that is requested from inside one of the factory's own calls takes effect when
/// that call has returned.
pub struct SharedFactory<F>(Rc<Counted<F>>);

impl<F: Factory> SharedFactory<F> {
    /// Shares a factory.
    pub fn new(factory: F) -> Self {
        Self(Rc::new(Counted::new(factory)))
    }

    /// Runs `call` with the factory, for instance to read a counter of it.
    ///
    /// # Errors
    /// [`Unavailable::Busy`] from inside one of the factory's own calls.
    pub fn with<R>(&self, call: impl FnOnce(&mut F) -> R) -> Result<R, Unavailable> {
        self.0.with(call)
    }
}

impl<F: Factory> Factory for SharedFactory<F> {
    type Protocol = F::Protocol;

    fn build_protocol(&mut self, peer: &Address) -> Option<F::Protocol> {
        let built = self.0.with(|factory| factory.build_protocol(peer));
        built.unwrap_or_else(|busy| refuse(&busy))
    }

    fn prepare_transport(&mut self, transport: &Transport) -> Result<()> {
        self.0.with(|factory| factory.prepare_transport(transport))?
    }

    fn do_start(&mut self) {
        self.0.add();
    }

    fn do_stop(&mut self) {
        self.0.take_back();
    }
}

impl<F> Clone for SharedFactory<F> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<F> fmt::Debug for SharedFactory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFactory").field("starts", &self.0.count.get()).finish_non_exhaustive()
    }
}

/// A factory with its type erased, so that endpoints can be trait objects. Endpoints pass it on to
/// the reactor. Its clones are the same factory, which starts once, on the first start, and stops
/// once, on the last stop.
#[derive(Clone)]
pub struct BoxedFactory {
    shared: FactoryHandle,
    /// `None` for most factories, so that a connection without steps checks for them once.
    steps: Option<Rc<BuildSteps>>,
}

/// A step for each transport, taken before its protocol's first callback.
type Preparation = dyn Fn(&Transport) -> Result<()>;

/// Begins to read the bytes in front of those of the protocol. `None` refuses the peer.
type BeginPreamble = dyn Fn(&Address) -> Option<Box<dyn Preamble>>;

/// Steps of each connection beyond building its protocol.
enum BuildSteps {
    /// Taken after the protocol was built: first those that lead, then the others.
    Prepare { lead: Option<Rc<Preparation>>, rest: Option<Rc<Preparation>> },
    /// Read first. The factory behind it builds the protocol.
    Preamble(Rc<BeginPreamble>, BoxedFactory),
}

impl BoxedFactory {
    /// Erases the factory's type.
    pub fn new(factory: impl Factory) -> Self {
        Self { shared: FactoryHandle(Some(Rc::new(Counted::new(factory)))), steps: None }
    }

    /// Returns the same factory with a step that each transport takes first (Twisted: a wrapping
    /// factory). It is for endpoints that wrap other endpoints, to start TLS for instance. The step
    /// runs after the protocol was built, and before its `connection_made`. Of several steps, the
    /// one added last runs first, because it is nearest to the network. A PROXY header is nearer
    /// than all of them. A failure ends the connection.
    ///
    /// ```
    /// use ropewalk::protocol::BoxedFactory;
    /// # use ropewalk::{Protocol, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    /// let factory = BoxedFactory::new(|_| Some(Echo));
    /// let prompt = factory.prepared(|transport| Ok(transport.set_tcp_no_delay(true)?));
    /// # drop(prompt);
    /// ```
    #[must_use]
    pub fn prepared(self, first: impl Fn(&Transport) -> Result<()> + 'static) -> Self {
        let first = Guarded::new(first);
        self.prepared_by(Rc::new(move |transport| (*first)(transport)), false)
    }

    /// Returns the same factory with a step that comes before all those of
    /// [`prepared`](Self::prepared), whichever is added last. It is for bytes that are the first on
    /// the wire.
    pub(crate) fn led_by(self, first: impl Fn(&Transport) -> Result<()> + 'static) -> Self {
        self.prepared_by(Rc::new(first), true)
    }

    fn prepared_by(self, first: Rc<Preparation>, leads: bool) -> Self {
        let steps = match self.steps.as_deref() {
            Some(BuildSteps::Preamble(begin, then)) => {
                BuildSteps::Preamble(Rc::clone(begin), then.clone().prepared_by(first, leads))
            }
            Some(BuildSteps::Prepare { lead, rest }) if leads => {
                BuildSteps::Prepare { lead: Some(in_order(first, lead.clone())), rest: rest.clone() }
            }
            Some(BuildSteps::Prepare { lead, rest }) => {
                BuildSteps::Prepare { lead: lead.clone(), rest: Some(in_order(first, rest.clone())) }
            }
            None if leads => BuildSteps::Prepare { lead: Some(first), rest: None },
            None => BuildSteps::Prepare { lead: None, rest: Some(first) },
        };
        Self { shared: self.shared, steps: Some(Rc::new(steps)) }
    }

    /// Returns the same factory behind a preamble: bytes at the front of each connection that are
    /// read before the protocol is built, and before any preparation. `begin` gets the peer's
    /// address.
    pub(crate) fn preceded_by(self, begin: impl Fn(&Address) -> Option<Box<dyn Preamble>> + 'static) -> Self {
        let shared = self.shared.clone();
        Self { shared, steps: Some(Rc::new(BuildSteps::Preamble(Rc::new(begin), self))) }
    }

    /// Builds a protocol and joins it to `transport`.
    pub(crate) fn build(&self, transport: Transport) -> Result<Option<Rc<dyn ErasedJoint>>, Panicked> {
        match &self.steps {
            None => self.build_joint(transport),
            Some(steps) => self.build_in_steps(steps, transport),
        }
    }

    #[inline(always)]
    fn build_joint(&self, transport: Transport) -> Result<Option<Rc<dyn ErasedJoint>>, Panicked> {
        let built = guarded(|| self.shared.with(|factory| factory.build(transport)))?;
        Ok(built.unwrap_or_else(|busy| refuse(&busy)))
    }

    #[inline(never)]
    fn build_in_steps(
        &self,
        steps: &BuildSteps,
        transport: Transport,
    ) -> Result<Option<Rc<dyn ErasedJoint>>, Panicked> {
        let (lead, rest) = match steps {
            BuildSteps::Preamble(begin, then) => {
                let Some(preamble) = guarded(|| begin(&transport.peer()))? else { return Ok(None) };
                return Ok(Some(Rc::new(PreambleJoint::new(preamble, transport, then.clone())?)));
            }
            BuildSteps::Prepare { lead, rest } => (lead, rest),
        };
        let joint = self.build_joint(transport)?;
        if let Some(joint) = &joint {
            let prepare = |step: &Rc<Preparation>| guarded_result(|| step(joint.transport()));
            if let Err(failure) = lead.iter().chain(rest).try_for_each(prepare) {
                joint.callback_failed("the preparation of a transport", failure);
            }
        }
        Ok(joint)
    }

    /// Starts the factory, unless it is started already. A start that panics does not count.
    pub(crate) fn start(&self) -> Result<(), Panicked> {
        guarded(|| self.shared.add())
    }

    /// Returns a guard that takes a start back, for callers that need nothing else of the factory.
    pub(crate) fn started(&self) -> FactoryGuard {
        FactoryGuard(self.shared.clone())
    }

    /// See [`FactoryGuard::stop`].
    pub(crate) fn stop(&self) {
        self.started().stop();
    }

    /// Takes a start back. The last one stops the factory.
    pub(crate) fn try_stop(&self) -> Result<(), Panicked> {
        guarded(|| self.shared.take_back())
    }
}

/// A factory that has started, and can only be stopped.
pub(crate) struct FactoryGuard(FactoryHandle);

impl FactoryGuard {
    /// Takes a start back. The last one stops the factory. A panic is logged, because there is no
    /// caller to return it to.
    pub(crate) fn stop(&self) {
        if let Err(panic) = guarded(|| self.0.take_back()) {
            error!(%panic, "do_stop failed");
        }
    }
}

impl fmt::Debug for BoxedFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedFactory").finish_non_exhaustive()
    }
}

/// A reference to a factory of the program, whose `Drop` may panic. Each connection of a client has
/// one.
#[derive(Clone)]
struct FactoryHandle(Option<Rc<Counted<dyn AnyFactory>>>);

impl Deref for FactoryHandle {
    type Target = Counted<dyn AnyFactory>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("the factory is taken only by `Drop`")
    }
}

impl Drop for FactoryHandle {
    fn drop(&mut self) {
        drop_guarded("a factory", self.0.take());
    }
}

/// A factory, and the number of its starts without a stop (Twisted: `numPorts`). The factory is
/// borrowed while one of its calls runs. Starts and stops requested during that call are counted,
/// and take effect after it.
struct Counted<F: ?Sized> {
    count: Cell<u32>,
    /// True if the last call was `start`, false if it was `stop`.
    started: Cell<bool>,
    factory: RefCell<F>,
}

impl<F> Counted<F> {
    fn new(factory: F) -> Self {
        Self { count: Cell::new(0), started: Cell::new(false), factory: RefCell::new(factory) }
    }
}

impl<F: AnyFactory + ?Sized> Counted<F> {
    /// Runs `call` with the factory, unless another call of it runs.
    fn with<R>(&self, call: impl FnOnce(&mut F) -> R) -> Result<R, Unavailable> {
        let mut factory = self.factory.try_borrow_mut().map_err(|_| Unavailable::Busy)?;
        let result = call(&mut factory);
        drop(factory);
        if let Err(panic) = guarded(|| self.tell()) {
            error!(%panic, "do_start or do_stop failed");
        }
        Ok(result)
    }

    /// Counts a start. A start that panics does not count.
    fn add(&self) {
        self.count.set(self.count.get() + 1);
        let counted = Uncounted(&self.count);
        self.tell();
        mem::forget(counted);
    }

    /// Takes a start back.
    fn take_back(&self) {
        self.count.set(self.count.get().saturating_sub(1));
        self.tell();
    }

    /// Calls `start` for the first start and `stop` for the last stop. If a call of the factory
    /// runs, that call does so when it returns.
    fn tell(&self) {
        while let Ok(mut factory) = self.factory.try_borrow_mut() {
            match (self.count.get() > 0, self.started.get()) {
                (true, false) => {
                    factory.start();
                    self.started.set(true);
                }
                (false, true) => {
                    self.started.set(false);
                    factory.stop();
                }
                _ => return,
            }
        }
    }
}

/// Takes back a counted start whose `start` panicked.
struct Uncounted<'a>(&'a Cell<u32>);

impl Drop for Uncounted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Makes one step of two.
fn in_order(first: Rc<Preparation>, then: Option<Rc<Preparation>>) -> Rc<Preparation> {
    match then {
        None => first,
        Some(then) => Rc::new(move |transport| {
            first(transport)?;
            then(transport)
        }),
    }
}

/// Refuses a connection, because the factory is in the middle of another call.
fn refuse<T>(busy: &Unavailable) -> Option<T> {
    error!(error = %busy, "a factory was asked for a protocol from inside one of its own calls; the connection is refused");
    None
}

/// [`Factory`] without its associated type.
trait AnyFactory {
    fn build(&mut self, transport: Transport) -> Option<Rc<dyn ErasedJoint>>;
    fn start(&mut self);
    fn stop(&mut self);
}

impl<F: Factory> AnyFactory for F {
    fn build(&mut self, transport: Transport) -> Option<Rc<dyn ErasedJoint>> {
        let protocol = self.build_protocol(&transport.peer())?;
        let joint = Rc::new(Joint::new(protocol, transport));
        if let Err(failure) = self.prepare_transport(joint.transport()) {
            joint.callback_failed("the preparation of a transport", failure);
        }
        Some(joint)
    }

    fn start(&mut self) {
        self.do_start();
    }

    fn stop(&mut self) {
        self.do_stop();
    }
}
