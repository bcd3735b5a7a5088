//! Factories: who decides what protocol a connection gets (Twisted: `IProtocolFactory`,
//! `twisted.internet.protocol.Factory`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::rc::Rc;

use super::Protocol;
use super::joint::{ErasedJoint, Joint};
use crate::address::Address;
use crate::error::Unavailable;
use crate::failure::{Guarded, Panicked, Result, drop_guarded, guarded, guarded_result};
use crate::log::error;
use crate::transport::Transport;

/// Makes a protocol for each connection, and keeps what they share (Twisted: `IProtocolFactory`).
///
/// A closure that returns a protocol is a factory, and so is one that returns an `Option` of a protocol: `None` refuses the connection.
/// It is given the peer's [`Address`], whose type is written down if the closure uses it. [`for_protocol`] spares that.
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
    /// What it makes.
    type Protocol: Protocol;

    /// A protocol for the connection with `peer`, or `None` to refuse it: the connection is closed at once (Twisted:
    /// `buildProtocol`). A panic refuses it too, and is logged.
    fn build_protocol(&mut self, peer: &Address) -> Option<Self::Protocol>;

    /// Called before the first connection can come: when a port starts to listen, or a client to connect (Twisted:
    /// `doStart`, `startFactory`).
    fn do_start(&mut self) {}

    /// Called after the last: when the port has stopped, or the client's connection is over or could not be made (Twisted:
    /// `doStop`, `stopFactory`).
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

/// The result of a closure that is a [`Factory`]: a protocol, or an `Option` of one, of which `None` refuses the connection.
#[diagnostic::on_unimplemented(
    message = "a factory can't build `{Self}`",
    label = "expected a protocol, or an `Option` of one",
    note = "write `impl Protocol for ..` with a `data_received`",
    note = "a factory builds a protocol for each connection, which owns it: `|_| Echo`, no reference and no `Rc`"
)]
pub trait IntoProtocol {
    /// The protocol's type.
    type Protocol: Protocol;

    /// The protocol, unless the connection is refused.
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

/// A factory that builds the protocol of every connection by `build` (Twisted: `Factory.forProtocol`). It is `build` itself; as an argument
/// of this function, the closure needs no type for the peer's address.
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

/// A boxed factory is one, for programs that choose at run time. It says which protocol it makes; of several kinds of
/// protocol, `Box<dyn Protocol>` is one.
impl<P: Protocol> Factory for Box<dyn Factory<Protocol = P>> {
    type Protocol = P;

    fn build_protocol(&mut self, peer: &Address) -> Option<P> {
        (**self).build_protocol(peer)
    }

    fn do_start(&mut self) {
        (**self).do_start();
    }

    fn do_stop(&mut self) {
        (**self).do_stop();
    }
}

/// One factory for several ports or clients (Twisted: the same factory object passed to several `listen` calls). Its
/// `do_start` is called once, on the first start, and its `do_stop` once, on the last stop.
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
/// A start or a stop that is asked for from inside one of the factory's own calls is told when that call has returned.
pub struct SharedFactory<F>(Rc<Counted<F>>);

impl<F: Factory> SharedFactory<F> {
    /// Shares a factory.
    pub fn new(factory: F) -> Self {
        Self(Rc::new(Counted::new(factory)))
    }

    /// Runs `call` with the factory: to read what it counted.
    ///
    /// # Errors
    /// [`Unavailable::Busy`] from inside one of its own calls.
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

/// A factory whose type was forgotten: what endpoints pass on to the reactor, and how endpoints can be trait objects. Its
/// clones are the same factory, which starts once, on the first start, and stops once, on the last stop.
#[derive(Clone)]
pub struct BoxedFactory {
    shared: FactoryHandle,
    prepare: Option<Rc<Preparation>>,
}

/// What is done with each transport before its protocol hears of it.
type Preparation = dyn Fn(&Transport) -> Result<()>;

impl BoxedFactory {
    /// Forgets the factory's type.
    pub fn new(factory: impl Factory) -> Self {
        Self { shared: FactoryHandle(Some(Rc::new(Counted::new(factory)))), prepare: None }
    }

    /// The same factory, for transports with which something is done first: for endpoints around other endpoints, which start TLS,
    /// say (Twisted: a wrapping factory). It is done after the protocol was built, and before its `connection_made`; of several
    /// preparations the last that was added comes first, for it is nearest to the network. A failure ends the connection.
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
        let prepare: Rc<Preparation> = match self.prepare {
            None => Rc::new(move |transport| (*first)(transport)),
            Some(then) => Rc::new(move |transport| {
                (*first)(transport)?;
                then(transport)
            }),
        };
        Self { shared: self.shared, prepare: Some(prepare) }
    }

    /// Builds a protocol and joins it to `transport`.
    pub(crate) fn build(&self, transport: Transport) -> Result<Option<Rc<dyn ErasedJoint>>, Panicked> {
        let built = guarded(|| self.shared.with(|factory| factory.build(transport)))?;
        let joint = built.unwrap_or_else(|busy| refuse(&busy));
        if let (Some(joint), Some(prepare)) = (&joint, &self.prepare)
            && let Err(failure) = guarded_result(|| prepare(joint.transport()))
        {
            joint.callback_failed("the preparation of a transport", failure);
        }
        Ok(joint)
    }

    /// Starts the factory, unless it has been started. A start that panicked does not count.
    pub(crate) fn start(&self) -> Result<(), Panicked> {
        guarded(|| self.shared.add())
    }

    /// What a start is taken back with, for who needs no more of it.
    pub(crate) fn started(&self) -> FactoryGuard {
        FactoryGuard(self.shared.clone())
    }

    /// See [`FactoryGuard::stop`].
    pub(crate) fn stop(&self) {
        self.started().stop();
    }

    /// Takes a start back, and with the last one stops the factory.
    pub(crate) fn try_stop(&self) -> Result<(), Panicked> {
        guarded(|| self.shared.take_back())
    }
}

/// A factory that has started, and can only be stopped.
pub(crate) struct FactoryGuard(FactoryHandle);

impl FactoryGuard {
    /// Takes a start back, and with the last one stops the factory. A panic is logged: there is nobody to tell.
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

/// A share of a factory of the program's, whose `Drop` is not ours. Each connection of a client has one.
#[derive(Clone)]
struct FactoryHandle(Option<Rc<Counted<dyn AnyFactory>>>);

impl Deref for FactoryHandle {
    type Target = Counted<dyn AnyFactory>;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref().expect("it is there until this is dropped")
    }
}

impl Drop for FactoryHandle {
    fn drop(&mut self) {
        drop_guarded("a factory", self.0.take());
    }
}

/// A factory, and how often it was started and not stopped (Twisted: `numPorts`). While one of its calls runs it is borrowed; starts
/// and stops that are asked for meanwhile are counted, and told behind that call.
struct Counted<F: ?Sized> {
    count: Cell<u32>,
    /// What the factory was told last.
    started: Cell<bool>,
    factory: RefCell<F>,
}

impl<F> Counted<F> {
    fn new(factory: F) -> Self {
        Self { count: Cell::new(0), started: Cell::new(false), factory: RefCell::new(factory) }
    }
}

impl<F: AnyFactory + ?Sized> Counted<F> {
    /// Runs `call` with the factory, unless a call of it runs.
    fn with<R>(&self, call: impl FnOnce(&mut F) -> R) -> Result<R, Unavailable> {
        let mut factory = self.factory.try_borrow_mut().map_err(|_| Unavailable::Busy)?;
        let result = call(&mut factory);
        drop(factory);
        if let Err(panic) = guarded(|| self.tell()) {
            error!(%panic, "do_start or do_stop failed");
        }
        Ok(result)
    }

    /// Counts a start. One that panics does not count.
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

    /// Tells the factory of its first start and its last stop, unless a call of it runs, which will.
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

/// Takes a start back that was counted and did not come about.
struct Uncounted<'a>(&'a Cell<u32>);

impl Drop for Uncounted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// No protocol of a factory that is in the middle of another call.
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
        Some(Rc::new(Joint::new(protocol, transport)))
    }

    fn start(&mut self) {
        self.do_start();
    }

    fn stop(&mut self) {
        self.do_stop();
    }
}
