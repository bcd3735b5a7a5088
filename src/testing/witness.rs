//! [`Witness`]: checks that the engine keeps its promises to protocols and factories.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::address::Address;
use crate::failure::{Failure, Result};
use crate::protocol::{Factory, Protocol};
use crate::transport::Transport;

/// Wraps protocols and factories, and records every promise that the engine breaks.
///
/// It detects: a `connection_made` that is not the first callback or comes twice; a
/// `connection_lost` that is not the last or comes twice; bytes after the end of a direction; a
/// callback inside another; a protocol built before `do_start` or after `do_stop`.
///
/// A `Witness` is a cheap handle. It records faults from inside callbacks, where an assertion would
/// be caught like any other panic. The test reads the record from outside, with
/// [`check`](Self::check) or [`assert_all_lost`](Self::assert_all_lost).
///
/// ```
/// use ropewalk::testing::{Network, Witness};
/// use ropewalk::{ListenOptions, Protocol, Result, Transport};
///
/// struct Echo;
///
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
///         transport.write(data);
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let (network, witness) = (Network::new(1), Witness::new());
/// let reactor = network.reactor("10.0.0.1".parse()?);
/// let factory = witness.factory(|_| Some(Echo));
/// reactor.listen_tcp("10.0.0.1:7".parse()?, &ListenOptions::new(), factory)?;
/// let peer = network.connect("10.0.0.1:7".parse()?);
/// network.settle()?;
/// assert_eq!((witness.made(), witness.lost()), (1, 0));
/// peer.close();
/// network.settle()?;
/// witness.assert_all_lost();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Witness(Rc<WitnessSeen>);

#[derive(Default)]
struct WitnessSeen {
    made: Cell<usize>,
    lost: Cell<usize>,
    /// Number of protocols dropped before `connection_lost`.
    left: Cell<usize>,
    /// The running callback.
    running: Cell<Option<&'static str>>,
    faults: RefCell<Vec<String>>,
}

impl Witness {
    /// Creates a witness with an empty record.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wraps a protocol.
    pub fn protocol<P: Protocol>(&self, protocol: P) -> Witnessed<P> {
        Witnessed {
            inner: protocol,
            witness: self.clone(),
            stage: WitnessStage::Built,
            read_ended: false,
            write_ended: false,
        }
    }

    /// Wraps a factory, and all protocols that it builds.
    pub fn factory<F: Factory>(&self, factory: F) -> WitnessedFactory<F> {
        WitnessedFactory { inner: factory, witness: self.clone(), started: false }
    }

    /// Returns the number of calls of `connection_made`.
    pub fn made(&self) -> usize {
        self.0.made.get()
    }

    /// Returns the number of calls of `connection_lost`.
    pub fn lost(&self) -> usize {
        self.0.lost.get()
    }

    /// Returns the number of protocols that were made, and dropped without `connection_lost`: those
    /// of [discarded](Transport::discard) connections, or of a reactor that was dropped.
    pub fn left(&self) -> usize {
        self.0.left.get()
    }

    /// Records a fault that the test itself has seen, from inside a callback.
    pub fn fault(&self, what: impl Into<String>) {
        self.0.faults.borrow_mut().push(what.into());
    }

    /// Returns the recorded faults, in order.
    pub fn faults(&self) -> Vec<String> {
        self.0.faults.borrow().clone()
    }

    /// Fails the test if a fault was recorded.
    ///
    /// # Panics
    /// With all recorded faults.
    #[track_caller]
    pub fn check(&self) {
        let faults = self.0.faults.borrow();
        assert!(faults.is_empty(), "{}", faults.join("; "));
    }

    /// [Checks](Self::check) the record at the end of a test, and that every connection that was
    /// made has also been lost.
    ///
    /// # Panics
    /// With all recorded faults, or with the number of connections made and lost.
    #[track_caller]
    pub fn assert_all_lost(&self) {
        self.check();
        let (made, lost, left) = (self.made(), self.lost(), self.0.left.get());
        assert_eq!(
            made, lost,
            "{made} connections were made, and {lost} were lost ({left} were dropped without connection_lost)"
        );
    }

    /// Runs a callback, and records a fault if another is running.
    fn during<R>(&self, name: &'static str, call: impl FnOnce() -> R) -> R {
        if let Some(outer) = self.0.running.get() {
            self.fault(format!("{name} was called inside {outer}"));
        }
        // Cleared by a drop guard, because the callback may panic.
        let _running = Running { seen: &self.0, outer: self.0.running.replace(Some(name)) };
        call()
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness")
            .field("made", &self.made())
            .field("lost", &self.lost())
            .field("faults", &self.0.faults.borrow().len())
            .finish()
    }
}

/// A protocol wrapped by a [`Witness`].
pub struct Witnessed<P> {
    inner: P,
    witness: Witness,
    stage: WitnessStage,
    read_ended: bool,
    write_ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WitnessStage {
    Built,
    Made,
    Lost,
}

impl<P> Witnessed<P> {
    /// Returns the wrapped protocol.
    pub fn protocol(&self) -> &P {
        &self.inner
    }

    /// Returns the wrapped protocol.
    pub fn protocol_mut(&mut self) -> &mut P {
        &mut self.inner
    }

    /// Checks that a callback comes after `connection_made` and before `connection_lost`.
    fn expect_made(&self, name: &str) {
        match self.stage {
            WitnessStage::Built => self.witness.fault(format!("{name} came before connection_made")),
            WitnessStage::Made => {}
            WitnessStage::Lost => self.witness.fault(format!("{name} came after connection_lost")),
        }
    }
}

impl<P: Protocol> Protocol for Witnessed<P> {
    fn inner(&mut self) -> Option<&mut dyn Protocol> {
        Some(&mut self.inner)
    }

    fn protocol_name() -> &'static str {
        P::protocol_name()
    }

    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        if self.stage != WitnessStage::Built {
            self.witness.fault("connection_made came twice");
        }
        self.stage = WitnessStage::Made;
        self.witness.0.made.set(self.witness.made() + 1);
        self.witness.during("connection_made", || self.inner.connection_made(transport))
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.expect_made("data_received");
        if self.read_ended {
            self.witness.fault("data_received came after read_connection_lost");
        }
        if data.is_empty() {
            self.witness.fault("data_received came without data");
        }
        self.witness.during("data_received", || self.inner.data_received(transport, data))
    }

    fn handshake_completed(&mut self, transport: &Transport) -> Result<()> {
        self.expect_made("handshake_completed");
        self.witness.during("handshake_completed", || self.inner.handshake_completed(transport))
    }

    fn file_descriptor_received(&mut self, transport: &Transport, descriptor: OwnedFd) -> Result<()> {
        self.expect_made("file_descriptor_received");
        self.witness.during("file_descriptor_received", || self.inner.file_descriptor_received(transport, descriptor))
    }

    fn connection_lost(&mut self, transport: &Transport, reason: &Failure) {
        self.expect_made("connection_lost");
        self.stage = WitnessStage::Lost;
        self.witness.0.lost.set(self.witness.lost() + 1);
        if !transport.is_disconnected() {
            self.witness.fault("connection_lost came, and the transport says that it is connected");
        }
        self.witness.during("connection_lost", || self.inner.connection_lost(transport, reason));
    }

    fn half_close(&self) -> bool {
        self.inner.half_close()
    }

    fn queue_limit_reached(&mut self, transport: &Transport) -> Result<()> {
        self.expect_made("queue_limit_reached");
        self.witness.during("queue_limit_reached", || self.inner.queue_limit_reached(transport))
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.expect_made("read_connection_lost");
        if std::mem::replace(&mut self.read_ended, true) {
            self.witness.fault("read_connection_lost came twice");
        }
        self.witness.during("read_connection_lost", || self.inner.read_connection_lost(transport))
    }

    fn write_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.expect_made("write_connection_lost");
        if std::mem::replace(&mut self.write_ended, true) {
            self.witness.fault("write_connection_lost came twice");
        }
        self.witness.during("write_connection_lost", || self.inner.write_connection_lost(transport))
    }
}

impl<P> Drop for Witnessed<P> {
    /// Counts a protocol that is dropped while connected. A dropped reactor drops its protocols
    /// without a callback: that is no fault, but no `connection_lost` either.
    fn drop(&mut self) {
        if self.stage == WitnessStage::Made {
            self.witness.0.left.set(self.witness.0.left.get() + 1);
        }
    }
}

impl<P> fmt::Debug for Witnessed<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witnessed").field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// A factory wrapped by a [`Witness`].
pub struct WitnessedFactory<F> {
    inner: F,
    witness: Witness,
    started: bool,
}

impl<F: Factory> Factory for WitnessedFactory<F> {
    type Protocol = Witnessed<F::Protocol>;

    fn build_protocol(&mut self, peer: &Address) -> Option<Self::Protocol> {
        if !self.started {
            self.witness.fault("build_protocol came outside of do_start and do_stop");
        }
        let built = self.witness.during("build_protocol", || self.inner.build_protocol(peer));
        built.map(|protocol| self.witness.protocol(protocol))
    }

    fn prepare_transport(&mut self, transport: &Transport) -> Result<()> {
        self.witness.during("prepare_transport", || self.inner.prepare_transport(transport))
    }

    fn do_start(&mut self) {
        if std::mem::replace(&mut self.started, true) {
            self.witness.fault("do_start came twice");
        }
        // Not checked for nesting: `listen` and `connect` call it at once, also from inside a
        // callback.
        self.inner.do_start();
    }

    fn do_stop(&mut self) {
        if !std::mem::replace(&mut self.started, false) {
            self.witness.fault("do_stop came without do_start");
        }
        self.witness.during("do_stop", || self.inner.do_stop());
    }
}

impl<F> fmt::Debug for WitnessedFactory<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WitnessedFactory").field("started", &self.started).finish_non_exhaustive()
    }
}

/// Restores the name of the outer callback when a callback has ended.
struct Running<'a> {
    seen: &'a WitnessSeen,
    outer: Option<&'static str>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.seen.running.set(self.outer);
    }
}
