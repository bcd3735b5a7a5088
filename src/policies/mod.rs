//! Policies around any factory: limits of time, rates, limits of connections, logs of traffic
//! (Twisted: `twisted.protocols.policies`).
//!
//! | Twisted | here |
//! |---|---|
//! | `TimeoutFactory` | [`ConnectionPolicies::idle`] |
//! | `TimeoutMixin` | [`Timeout`] |
//! | `ThrottlingFactory` | [`ConnectionPolicies::total_rate`], [`ConnectionLimits::max_connections`] |
//! | `LimitTotalConnectionsFactory` | [`ConnectionLimits::max_connections`] |
//! | `LimitConnectionsByPeer` | [`ConnectionLimits::max_per_peer`] |
//! | `TrafficLoggingFactory`, `SpewingFactory` | [`TrafficLog`] |
//! | `WrappingFactory`, `ProtocolWrapper` | none needed: see below |
//!
//! A policy is not a protocol around a protocol. It belongs to the connection, and the protocol
//! keeps its type, its transport, half-closes, producers, TLS and descriptors. So
//! [`PolicedFactory`] builds the protocols of its inner factory. The messages of a connection
//! without policies stay on the fast path.
//!
//! [`ConnectionPolicies`] are for the connections of any factory, or of a port.
//! [`ConnectionLimits`] are for a port, because only a port can leave connections in the system's
//! queue. `docs/guide/src/how-to/policies.md` is its guide.

mod factory;
mod limits;
mod timeout;

pub use self::factory::PolicedFactory;
pub(crate) use self::limits::{Admission, Gate, RoomCall, Seat};
pub use self::limits::{ConnectionLimits, WhenFull};
pub use self::timeout::Timeout;
pub use crate::error::TimeLimit;
pub use crate::transport::policy::rate::Rate;
pub use crate::transport::policy::traffic::{TrafficDirection, TrafficFormat, TrafficLog, TrafficRecord};
pub use crate::transport::policy::{ConnectionPolicies, SharedPolicies};
