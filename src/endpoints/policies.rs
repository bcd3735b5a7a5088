//! The limits and policies of ports in descriptions (Twisted: the factories of
//! `twisted.protocols.policies`, which no description names). All are given by name only.
//!
//! | argument | sets |
//! |---|---|
//! | `maxConnections=1000` | [`ConnectionLimits::max_connections`] |
//! | `maxPerPeer=20` | [`ConnectionLimits::max_per_peer`], not on UNIX sockets |
//! | `peerPrefix=56` | [`ConnectionLimits::peer_prefix`], with `maxPerPeer` |
//! | `acceptRate=100` | [`ConnectionLimits::accepts_per_second`] |
//! | `whenFull=pause` | [`ConnectionLimits::when_full`]: `pause` or `shed`, with `maxConnections` or `acceptRate` |
//! | `idleTimeout=60` | [`ConnectionPolicies::idle`] |
//! | `receiveTimeout=60` | [`ConnectionPolicies::receive_timeout`] |
//! | `firstBytes=10` | [`ConnectionPolicies::first_byte`] |
//! | `lifetime=3600` | [`ConnectionPolicies::lifetime`] |
//! | `rate=100000` | [`ConnectionPolicies::rate`]; `receiveRate` and `sendRate` for one direction |
//! | `totalRate=1000000` | [`ConnectionPolicies::total_rate`]; `totalReceiveRate` and `totalSendRate` for one direction |
//! | `trafficLog=text` | [`ConnectionPolicies::log_traffic`]: `text` or `hex` |
//!
//! Times are seconds, and rates are bytes per second. A rate of one direction takes the place of
//! the rate of both.

use std::time::Duration;

use super::arguments::{Argument, Arguments};
use super::description_error::DescriptionError;
use crate::policies::{ConnectionLimits, ConnectionPolicies, Rate, TrafficFormat, WhenFull};
use crate::reactor::PortPolicies;

/// A setter of policies.
type Setter<T> = fn(ConnectionPolicies, T) -> ConnectionPolicies;

impl Arguments<'_> {
    /// Reads the given limits and policies of a port.
    pub(super) fn read_policies(&self, policies: &mut PortPolicies) -> Result<(), DescriptionError> {
        policies.limits = self.limits()?;
        policies.begin = self.policies()?;
        Ok(())
    }

    /// Refuses a limit that needs the addresses of peers.
    pub(super) fn refuse_peers(&self) -> Result<(), DescriptionError> {
        let refusal = "nothing here: the peers of a UNIX socket have no addresses";
        self.optional("maxPerPeer", |given| Err(given.invalid(refusal))).map(|_: Option<()>| ())
    }

    fn limits(&self) -> Result<ConnectionLimits, DescriptionError> {
        let count = |argument: Argument<'_>| argument.number(1..=u32::MAX);
        let most = self.optional("maxConnections", count)?;
        let per_peer = self.optional("maxPerPeer", count)?;
        let per_second = self.optional("acceptRate", count)?;
        let prefix = self.optional("peerPrefix", |bits| match per_peer {
            Some(_) => bits.number(0..=128_u8),
            None => Err(bits.invalid("nothing without maxPerPeer, the number of connections")),
        })?;
        let when_full = self.optional("whenFull", |conduct| match conduct.value() {
            _ if most.or(per_second).is_none() => Err(conduct.invalid("nothing without maxConnections or acceptRate")),
            "pause" => Ok(WhenFull::Pause),
            "shed" => Ok(WhenFull::Shed),
            _ => Err(conduct.invalid("pause or shed")),
        })?;
        let limits = most.into_iter().fold(ConnectionLimits::new(), ConnectionLimits::max_connections);
        let limits = per_peer.into_iter().fold(limits, ConnectionLimits::max_per_peer);
        let limits = prefix.into_iter().fold(limits, ConnectionLimits::peer_prefix);
        let limits = per_second.into_iter().fold(limits, ConnectionLimits::accepts_per_second);
        Ok(when_full.into_iter().fold(limits, ConnectionLimits::when_full))
    }

    fn policies(&self) -> Result<ConnectionPolicies, DescriptionError> {
        type Policies = ConnectionPolicies;
        let times: [(_, Setter<Duration>); 4] = [
            ("idleTimeout", Policies::idle),
            ("receiveTimeout", Policies::receive_timeout),
            ("firstBytes", Policies::first_byte),
            ("lifetime", Policies::lifetime),
        ];
        // A rate of one direction comes behind that of both, and replaces it.
        let rates: [(_, Setter<Rate>); 6] = [
            ("rate", Policies::rate),
            ("receiveRate", Policies::receive_rate),
            ("sendRate", Policies::send_rate),
            ("totalRate", Policies::total_rate),
            ("totalReceiveRate", Policies::total_receive_rate),
            ("totalSendRate", Policies::total_send_rate),
        ];
        let mut policies = Policies::new();
        for (name, set) in times {
            policies = self.optional(name, limit_of_time)?.into_iter().fold(policies, set);
        }
        for (name, set) in rates {
            policies = self.optional(name, rate)?.into_iter().fold(policies, set);
        }
        let format = self.optional("trafficLog", |format| match format.value() {
            "text" => Ok(TrafficFormat::Text),
            "hex" => Ok(TrafficFormat::Hex),
            _ => Err(format.invalid("text or hex")),
        })?;
        Ok(format.into_iter().fold(policies, Policies::log_traffic))
    }
}

/// Reads a limit of time, which is not zero.
fn limit_of_time(argument: Argument<'_>) -> Result<Duration, DescriptionError> {
    let after = argument.seconds()?;
    if after.is_zero() { Err(argument.invalid("seconds above 0, such as 30 or 0.5")) } else { Ok(after) }
}

/// Reads a number of bytes per second.
fn rate(argument: Argument<'_>) -> Result<Rate, DescriptionError> {
    argument.number(1..=u64::MAX).map(Rate::bytes_per_second)
}
