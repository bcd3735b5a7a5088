//! [`Simulated`]: the suite's setting on the simulated network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Begin, SetDescriptor, Setting};
use crate::address::{Address, UnixAddress};
use crate::reactor::{Descriptor, Reactor};
use crate::testing::{Conditions, Network, VirtualDescriptor};

/// The host of all reactors.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// A host that can't be reached.
const AWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));

/// Time limit of a case: longer than any takes on the slowest of networks.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs the suite on a [`Network`], under conditions. A [`Setting`].
///
/// If the network cuts finely or is slow, the window is smaller here than in its conditions, and so
/// are the big transfers. A case then takes thousands of turns, not millions. No datagram is lost,
/// doubled or late: the cases state what a backend does with those that arrive.
pub struct Simulated {
    network: Network,
    window: usize,
    big: usize,
    /// Number of names given to UNIX sockets, if connections run over those.
    names: Option<u32>,
    begins: Option<(Begin, Begin)>,
}

impl Simulated {
    /// Creates the setting of this seed.
    pub fn new(seed: u64, conditions: Conditions) -> Self {
        let window = conditions.window_for_tests();
        let big = conditions.finest().saturating_mul(PIECES).clamp(window, 1 << 20);
        Self {
            network: Network::with_conditions(seed, conditions.window(window).with_safe_datagrams()),
            window,
            big,
            names: None,
            begins: None,
        }
    }

    /// Runs the cases over UNIX sockets.
    pub fn unix(mut self) -> Self {
        self.names = Some(0);
        self
    }

    /// Begins something on each transport first: `listened` on the side that listened, `connected`
    /// on the one that connected.
    pub fn beginning(mut self, listened: Begin, connected: Begin) -> Self {
        self.begins = Some((listened, connected));
        self
    }

    /// Returns the network, for access to its trace.
    pub fn network(&self) -> &Network {
        &self.network
    }
}

/// Minimum number of segments or chunks of a big transfer. Short sends make it many times as many.
const PIECES: usize = 200;

impl Setting for Simulated {
    fn reactor(&mut self) -> Reactor {
        self.network.reactor(HOST)
    }

    fn address(&mut self) -> Address {
        let Some(names) = &mut self.names else { return SocketAddr::new(HOST, 0).into() };
        *names += 1;
        let name = UnixAddress::abstract_name(names.to_string());
        name.unwrap_or_else(|error| unreachable!("a number is a name: {error}")).into()
    }

    fn begins(&self) -> Option<(Begin, Begin)> {
        self.begins.clone()
    }

    #[track_caller]
    fn drive(&mut self, done: &mut dyn FnMut() -> bool) {
        self.network.run_until(LIMIT, done).unwrap_or_else(|error| panic!("{error}"));
    }

    fn moment(&self) -> Duration {
        // Covers a few bytes, one by one, with 150 ms there and back for each, and late timers.
        Duration::from_secs(5)
    }

    fn plenty(&self) -> usize {
        self.window + self.window / 2 + 100
    }

    fn big(&self) -> usize {
        self.big
    }

    fn limit_descriptors(&mut self, reactor: &Reactor, limit: Option<usize>) -> bool {
        self.network.limit_descriptors(reactor, limit);
        true
    }

    fn descriptor(&mut self) -> Option<Box<dyn SetDescriptor>> {
        Some(Box::new(self.network.descriptor()))
    }

    fn silent(&mut self) -> Option<Address> {
        if self.names.is_some() {
            // All UNIX sockets are on one host, and every address there answers.
            return None;
        }
        self.network.partition(HOST, AWAY);
        Some(SocketAddr::new(AWAY, 9).into())
    }
}

impl SetDescriptor for VirtualDescriptor {
    fn descriptor(&self) -> Descriptor {
        self.into()
    }

    fn set_readable(&self, on: bool) {
        Self::set_readable(self, on);
    }

    fn set_writable(&self, on: bool) {
        Self::set_writable(self, on);
    }

    fn hang_up(&self) {
        Self::hang_up(self);
    }
}

impl fmt::Debug for Simulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulated").field("network", &self.network).finish_non_exhaustive()
    }
}
