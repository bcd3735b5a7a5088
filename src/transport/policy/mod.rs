//! Policies of connections: limits of time, rates, and logs of traffic (Twisted:
//! `twisted.protocols.policies`). The room [`policies`](crate::policies) shows them to programs.
//!
//! | file | holds |
//! |---|---|
//! | `stream_policy.rs` | the policies of one stream |
//! | `rate.rs` | rates, and their token buckets |
//! | `traffic.rs` | logs |
//!
//! A policy is part of a stream's extras, not a protocol around a protocol. So the messages
//! of a connection without one stay on the fast path, and a protocol under policies keeps its own
//! transport, its half-closes, producers, layers and descriptors.

pub(crate) mod rate;
pub(crate) mod stream_policy;
pub(crate) mod traffic;

use std::rc::Rc;
use std::time::Duration;

use self::rate::{Bucket, Rate};
use self::stream_policy::{PolicyParts, PolicyWake, StreamPolicy, TimeLimits};
use self::traffic::{Traffic, TrafficFormat, TrafficLog};
use super::Transport;

/// Limits of time and rates for connections (Twisted: the arguments of `TimeoutFactory` and
/// `ThrottlingFactory`). Nothing is limited by default.
///
/// They are set in the options of a port, in its description (`tcp:8000:idleTimeout=60`), or with
/// [`over`](Self::over) around any factory. They are applied to each connection when it begins.
///
/// A limit of time that has passed closes the connection as
/// [`lose_connection`](Transport::lose_connection) does, and a peer that takes none of the last
/// bytes is cut off after the [close timeout](Transport::set_close_timeout). The reason of the end
/// is [`ConnectionClosed::TimeLimit`](crate::error::ConnectionClosed::TimeLimit).
///
/// ```
/// use std::time::Duration;
/// use ropewalk::policies::{ConnectionPolicies, Rate};
///
/// let policies = ConnectionPolicies::new()
///     .first_byte(Duration::from_secs(10))
///     .idle(Duration::from_secs(60))
///     .rate(Rate::bytes_per_second(1 << 20));
/// # drop(policies);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnectionPolicies {
    limits: TimeLimits,
    receive: Option<Rate>,
    send: Option<Rate>,
    total_receive: Option<Rate>,
    total_send: Option<Rate>,
    log: Option<TrafficFormat>,
}

impl ConnectionPolicies {
    /// Creates policies that limit nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Closes a connection over which no byte was received or sent for this long (Twisted:
    /// `TimeoutFactory`). Bytes count as they come from the network, and as the system takes them.
    /// So a peer that does not read is idle, even if the protocol writes.
    ///
    /// A connection that waits for its rate is not idle. One that its protocol has paused is idle,
    /// unless bytes are sent.
    #[must_use]
    pub fn idle(mut self, after: Duration) -> Self {
        self.limits.idle = Some(after);
        self
    }

    /// Closes a connection whose peer has sent nothing for this long, whatever is sent to it. While
    /// its protocol has paused it, nothing is known of the peer, and the time begins anew.
    #[must_use]
    pub fn receive_timeout(mut self, after: Duration) -> Self {
        self.limits.receive = Some(after);
        self
    }

    /// Closes a connection whose protocol has had no byte this long after its beginning. Over TLS
    /// the time of the handshake counts, and its bytes do not. While the protocol has paused
    /// reading, the time begins anew.
    ///
    /// It bounds peers that connect and say nothing. A peer that trickles needs a limit for a whole
    /// request, which the protocol sets: see [`Timeout`](crate::policies::Timeout).
    #[must_use]
    pub fn first_byte(mut self, after: Duration) -> Self {
        self.limits.first_byte = Some(after);
        self
    }

    /// Closes a connection this long after its beginning, busy or not.
    #[must_use]
    pub fn lifetime(mut self, after: Duration) -> Self {
        self.limits.lifetime = Some(after);
        self
    }

    /// Limits the bytes of each connection, in each direction by itself.
    #[must_use]
    pub fn rate(self, rate: Rate) -> Self {
        self.receive_rate(rate).send_rate(rate)
    }

    /// Limits the bytes that each connection receives (Twisted: `ThrottlingFactory.readLimit`,
    /// which is over all).
    ///
    /// Receiving pauses behind bytes that were over the rate, until they are paid for; then the
    /// system's buffers fill, and the peer has to wait. A receive is never cut: up to 64 KiB arrive
    /// at once. Over TLS the bytes of the network count.
    #[must_use]
    pub fn receive_rate(mut self, rate: Rate) -> Self {
        self.receive = Some(rate);
        self
    }

    /// Limits the bytes that each connection sends (Twisted: `ThrottlingFactory.writeLimit`, which
    /// is over all).
    ///
    /// Written bytes wait in the connection's queue, and leave in portions of a fiftieth of a
    /// second. They count for the [queue limit](Transport::set_queue_limit) and for producers. A
    /// close waits for them. A protocol that fails, and a reactor that stops, send without a rate.
    #[must_use]
    pub fn send_rate(mut self, rate: Rate) -> Self {
        self.send = Some(rate);
        self
    }

    /// Limits the bytes of all connections together, in each direction by itself. Each reactor of a
    /// [`ReactorGroup`](crate::reactor::ReactorGroup) has an equal part of a port's total rates.
    #[must_use]
    pub fn total_rate(self, rate: Rate) -> Self {
        self.total_receive_rate(rate).total_send_rate(rate)
    }

    /// Limits the bytes that all connections receive together (Twisted:
    /// `ThrottlingFactory.readLimit`). Each gets its turn.
    #[must_use]
    pub fn total_receive_rate(mut self, rate: Rate) -> Self {
        self.total_receive = Some(rate);
        self
    }

    /// Limits the bytes that all connections send together (Twisted:
    /// `ThrottlingFactory.writeLimit`). Each gets its turn.
    #[must_use]
    pub fn total_send_rate(mut self, rate: Rate) -> Self {
        self.total_send = Some(rate);
        self
    }

    /// Logs the bytes of each connection to `tracing` (Twisted: `TrafficLoggingFactory`); see
    /// [`TrafficLog::events`].
    #[must_use]
    pub fn log_traffic(mut self, format: TrafficFormat) -> Self {
        self.log = Some(format);
        self
    }

    /// Makes the state that the connections of a factory share: the tokens of the total rates.
    /// [`over`](Self::over) does it too.
    pub fn share(self) -> SharedPolicies {
        let bucket = |rate: Option<Rate>| rate.map(|rate| Rc::new(Bucket::new(rate)));
        SharedPolicies {
            total_receive: bucket(self.total_receive),
            total_send: bucket(self.total_send),
            log: self.log.map(TrafficLog::events),
            policies: self,
        }
    }

    /// Returns the policies of one of `members` ports that share a port: each has an equal part of
    /// the total rates.
    pub(crate) fn of_member(mut self, members: usize) -> Self {
        let parts = u64::try_from(members).unwrap_or(u64::MAX).max(1);
        for total in [&mut self.total_receive, &mut self.total_send] {
            *total = total.map(|rate| rate.part_of(parts));
        }
        self
    }

    /// Returns `true` if nothing is limited or logged.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Policies, and the state that their connections share. Its clones share it as well, so that
/// several factories can have one total rate. All their connections belong to one reactor.
///
/// ```
/// use ropewalk::policies::{ConnectionPolicies, Rate, TrafficFormat, TrafficLog};
///
/// let shared = ConnectionPolicies::new().total_rate(Rate::bytes_per_second(10 << 20)).share();
/// let logged = shared.clone().traffic_log(TrafficLog::events(TrafficFormat::Text));
/// # drop((shared, logged));
/// ```
#[derive(Debug, Clone)]
pub struct SharedPolicies {
    policies: ConnectionPolicies,
    total_receive: Option<Rc<Bucket>>,
    total_send: Option<Rc<Bucket>>,
    log: Option<TrafficLog>,
}

impl SharedPolicies {
    /// Sets a log of the bytes, in place of an earlier one.
    #[must_use]
    pub fn traffic_log(self, log: TrafficLog) -> Self {
        Self { log: Some(log), ..self }
    }

    /// Applies the policies to a connection, from now on. Policies that it has already apply as
    /// well: of two limits of time, the shorter one holds, and of two rates, the lower one. Does
    /// nothing once the connection is over.
    ///
    /// ```
    /// use std::time::Duration;
    /// use ropewalk::policies::ConnectionPolicies;
    /// use ropewalk::testing::StringTransport;
    /// use ropewalk::{Protocol, Result, Transport};
    ///
    /// /// Grants a minute to each peer.
    /// struct Brief;
    ///
    /// impl Protocol for Brief {
    ///     fn connection_made(&mut self, transport: &Transport) -> Result<()> {
    ///         ConnectionPolicies::new().lifetime(Duration::from_secs(60)).share().apply(transport);
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, _transport: &Transport, _data: &[u8]) -> Result<()> {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let connection = StringTransport::new().joined(Brief);
    /// connection.advance(Duration::from_secs(60));
    /// assert!(connection.lost().is_some());
    /// ```
    pub fn apply(&self, transport: &Transport) {
        let bucket = |rate: Option<Rate>| rate.map(|rate| Rc::new(Bucket::new(rate)));
        let with_total = |own: Option<Rc<Bucket>>, total: &Option<Rc<Bucket>>| own.into_iter().chain(total.clone());
        let log = self.log.as_ref().map(|log| Traffic::new(log.clone(), transport.peer(), transport.timers()));
        let parts = PolicyParts {
            limits: self.policies.limits,
            receive: with_total(bucket(self.policies.receive), &self.total_receive).collect(),
            send: with_total(bucket(self.policies.send), &self.total_send).collect(),
            traffic: log,
        };
        transport.add_policy(parts);
    }
}

impl Transport {
    fn add_policy(&self, parts: PolicyParts) {
        let begin = || Box::new(StreamPolicy::new(self.timers(), self.policy_wake()));
        self.update(|stream| stream.add_policy(begin, parts));
    }

    /// Tells the policies of the stream, if it has any, that it has moved to this handle.
    pub(super) fn keep_policies(&self) {
        if let Some(policy) = self.stream().policy() {
            policy.follow(self.policy_wake(), &self.peer());
        }
    }

    fn policy_wake(&self) -> PolicyWake {
        let weak = Rc::downgrade(&self.0);
        Rc::new(move |timer| {
            if let Some(inner) = weak.upgrade() {
                Self(inner).update(|stream| stream.policy_timer(timer));
            }
        })
    }

    /// Emits received bytes to the logs of the policies. Nothing is borrowed meanwhile.
    #[cold]
    pub(crate) fn log_received(&self, data: &[u8]) {
        let traffic = self.stream().traffic();
        for log in traffic {
            log.received(data);
        }
    }
}
