//! [`PolicedFactory`]: a factory whose connections begin with policies.

use super::{ConnectionPolicies, SharedPolicies};
use crate::address::Address;
use crate::failure::Result;
use crate::protocol::Factory;
use crate::transport::Transport;

/// A factory whose connections begin with policies (Twisted: `WrappingFactory`), from
/// [`ConnectionPolicies::over`]. Its protocols are those of the inner factory.
#[derive(Debug)]
pub struct PolicedFactory<F> {
    inner: F,
    policies: SharedPolicies,
}

impl ConnectionPolicies {
    /// Puts the policies on every connection of a factory: of a port or of a client. Several may
    /// stand around each other.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::endpoints::{ServerEndpoint, ServerEndpointExt};
    /// use ropewalk::policies::{ConnectionPolicies, Rate};
    /// use ropewalk::{Deferred, Port, for_protocol};
    /// # use ropewalk::{Protocol, Result, Transport};
    /// # struct Echo;
    /// # impl Protocol for Echo {
    /// #     fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> { transport.write(data); Ok(()) }
    /// # }
    ///
    /// fn serve(endpoint: &dyn ServerEndpoint) -> Deferred<Port> {
    ///     let patient = ConnectionPolicies::new().idle(Duration::from_secs(60));
    ///     let slow = ConnectionPolicies::new().total_rate(Rate::bytes_per_second(100_000));
    ///     endpoint.listen(patient.over(slow.over(for_protocol(|_| Echo))))
    /// }
    /// # let reactor = ropewalk::Reactor::new().unwrap();
    /// # let endpoint = ropewalk::endpoints::server_from_string(&reactor, "tcp:0:interface=127.0.0.1").unwrap();
    /// # serve(&endpoint).or_log("listening");
    /// ```
    pub fn over<F: Factory>(self, factory: F) -> PolicedFactory<F> {
        self.share().over(factory)
    }
}

impl SharedPolicies {
    /// Puts the policies on every connection of a factory, as [`ConnectionPolicies::over`] does.
    /// The factories of all clones share the total rates.
    pub fn over<F: Factory>(&self, factory: F) -> PolicedFactory<F> {
        PolicedFactory { inner: factory, policies: self.clone() }
    }
}

impl<F: Factory> Factory for PolicedFactory<F> {
    type Protocol = F::Protocol;

    fn build_protocol(&mut self, peer: &Address) -> Option<Self::Protocol> {
        self.inner.build_protocol(peer)
    }

    fn prepare_transport(&mut self, transport: &Transport) -> Result<()> {
        self.policies.apply(transport);
        self.inner.prepare_transport(transport)
    }

    fn do_start(&mut self) {
        self.inner.do_start();
    }

    fn do_stop(&mut self) {
        self.inner.do_stop();
    }
}
