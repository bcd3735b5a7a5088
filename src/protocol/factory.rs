//! Factories: who decides what protocol a connection gets (Twisted: `IProtocolFactory`,
//! `twisted.internet.protocol.Factory`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use super::Protocol;
use super::connection::{AnyJoint, Joint};
use crate::address::Address;
use crate::failure::{Panicked, Result, guarded, guarded_result};
use crate::transport::Transport;

/// Makes a protocol for each connection, and keeps what they share (Twisted: `IProtocolFactory`).
///
/// A closure is a factory:
///
/// ```
/// use ropewalk::{Address, Factory, Protocol, Result, Transport};
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
/// takes_a_factory(|_peer: &Address| Some(Echo));
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

impl<F, P> Factory for F
where
    F: FnMut(&Address) -> Option<P> + 'static,
    P: Protocol,
{
    type Protocol = P;

    fn build_protocol(&mut self, peer: &Address) -> Option<P> {
        self(peer)
    }
}

/// One factory for several ports or clients (Twisted: the same factory object passed to several `listen` calls). Its
/// `do_start` is called once, on the first start, and its `do_stop` once, on the last stop.
///
/// ```
/// use ropewalk::{Address, SharedFactory};
/// # use ropewalk::{Protocol, Result, Transport};
/// # struct Echo;
/// # impl Protocol for Echo {
/// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
/// # }
/// let factory = SharedFactory::new(|_peer: &Address| Some(Echo));
/// let another_handle = factory.clone();
/// ```
pub struct SharedFactory<F>(Rc<Shared<F>>);

struct Shared<F> {
    factory: RefCell<F>,
    starts: Starts,
}

impl<F: Factory> SharedFactory<F> {
    /// Shares a factory.
    pub fn new(factory: F) -> Self {
        Self(Rc::new(Shared { factory: RefCell::new(factory), starts: Starts::default() }))
    }

    /// Runs `call` with the factory: to read what it counted.
    ///
    /// # Errors
    /// [`Unavailable::Busy`](crate::error::Unavailable) from inside one of its own calls.
    pub fn with<R>(&self, call: impl FnOnce(&mut F) -> R) -> Result<R, crate::error::Unavailable> {
        let mut factory = self.0.factory.try_borrow_mut().map_err(|_| crate::error::Unavailable::Busy)?;
        Ok(call(&mut factory))
    }
}

impl<F: Factory> Factory for SharedFactory<F> {
    type Protocol = F::Protocol;

    fn build_protocol(&mut self, peer: &Address) -> Option<F::Protocol> {
        self.0.factory.borrow_mut().build_protocol(peer)
    }

    fn do_start(&mut self) {
        self.0.starts.add(|| self.0.factory.borrow_mut().do_start());
    }

    fn do_stop(&mut self) {
        self.0.starts.take_back(|| self.0.factory.borrow_mut().do_stop());
    }
}

impl<F> Clone for SharedFactory<F> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<F> fmt::Debug for SharedFactory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedFactory").field("starts", &self.0.starts.0.get()).finish_non_exhaustive()
    }
}

/// A factory whose type was forgotten: what endpoints pass on to the reactor, and how endpoints can be trait objects. Its
/// clones are the same factory, which starts once, on the first start, and stops once, on the last stop.
#[derive(Clone)]
pub struct BoxedFactory {
    shared: Rc<Boxed<dyn AnyFactory>>,
    prepare: Option<Rc<Preparation>>,
}

/// What is done with each transport before its protocol hears of it.
type Preparation = dyn Fn(&Transport) -> Result<()>;

struct Boxed<F: ?Sized> {
    starts: Starts,
    factory: RefCell<F>,
}

impl BoxedFactory {
    /// Forgets the factory's type.
    pub fn new(factory: impl Factory) -> Self {
        let shared = Rc::new(Boxed { starts: Starts::default(), factory: RefCell::new(factory) });
        Self { shared, prepare: None }
    }

    /// The same factory, for transports with which something is done first: for endpoints around other endpoints, which start TLS,
    /// say (Twisted: a wrapping factory). It is done after the protocol was built, and before its `connection_made`; of several
    /// preparations the last that was added comes first, for it is nearest to the network. A failure ends the connection.
    ///
    /// ```
    /// use ropewalk::protocol::BoxedFactory;
    /// # use ropewalk::{Address, Protocol, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    /// let factory = BoxedFactory::new(|_peer: &Address| Some(Echo));
    /// let prompt = factory.prepared(|transport| Ok(transport.set_tcp_no_delay(true)?));
    /// # drop(prompt);
    /// ```
    #[must_use]
    pub fn prepared(self, first: impl Fn(&Transport) -> Result<()> + 'static) -> Self {
        let prepare: Rc<Preparation> = match self.prepare {
            None => Rc::new(first),
            Some(then) => Rc::new(move |transport| {
                first(transport)?;
                then(transport)
            }),
        };
        Self { shared: self.shared, prepare: Some(prepare) }
    }

    /// Builds a protocol and joins it to `transport`.
    pub(crate) fn build(&self, transport: Transport) -> Result<Option<Rc<dyn AnyJoint>>, Panicked> {
        let joint = guarded(|| self.shared.factory.borrow_mut().build(transport))?;
        if let (Some(joint), Some(prepare)) = (&joint, &self.prepare)
            && let Err(failure) = guarded_result(|| prepare(joint.transport()))
        {
            joint.transport().ask(|stream| stream.fail(failure));
        }
        Ok(joint)
    }

    /// Starts the factory, unless it has been started. A start that panicked does not count.
    pub(crate) fn start(&self) -> Result<(), Panicked> {
        guarded(|| self.shared.starts.add(|| self.shared.factory.borrow_mut().start()))
    }

    /// What a start is taken back with, for who needs no more of it.
    pub(crate) fn started(&self) -> Started {
        Started(Rc::clone(&self.shared))
    }

    /// Takes a start back, and with the last one stops the factory; a panic is logged, for there is nobody left to tell.
    pub(crate) fn stop(&self) {
        self.started().stop();
    }
}

/// A factory that has started, and can only be stopped.
pub(crate) struct Started(Rc<Boxed<dyn AnyFactory>>);

impl Started {
    /// See [`BoxedFactory::stop`].
    pub(crate) fn stop(&self) {
        let Self(shared) = self;
        if let Err(panic) = guarded(|| shared.starts.take_back(|| shared.factory.borrow_mut().stop())) {
            tracing::error!(%panic, "do_stop failed");
        }
    }
}

impl fmt::Debug for BoxedFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedFactory").finish_non_exhaustive()
    }
}

/// How often something was started and not stopped (Twisted: `numPorts`).
#[derive(Default)]
struct Starts(Cell<usize>);

impl Starts {
    /// Counts a start, the first of which is made with `start`. One that panics does not count.
    fn add(&self, start: impl FnOnce()) {
        if self.0.get() == 0 {
            start();
        }
        self.0.set(self.0.get() + 1);
    }

    /// Takes a start back, the last with `stop`.
    fn take_back(&self, stop: impl FnOnce()) {
        self.0.set(self.0.get().saturating_sub(1));
        if self.0.get() == 0 {
            stop();
        }
    }
}

/// [`Factory`] without its associated type.
trait AnyFactory {
    fn build(&mut self, transport: Transport) -> Option<Rc<dyn AnyJoint>>;
    fn start(&mut self);
    fn stop(&mut self);
}

impl<F: Factory> AnyFactory for F {
    fn build(&mut self, transport: Transport) -> Option<Rc<dyn AnyJoint>> {
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
