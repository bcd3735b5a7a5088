//! Taking a [`Snapshot`], and asking for the numbers that cost something.

use std::os::fd::AsRawFd;

use super::{ConnectionSnapshot, ConnectionState, LongestCallback, PortSnapshot, Snapshot, TimersSnapshot};
use crate::protocol::ErasedJoint;
use crate::reactor::core::{Core, Slot};
use crate::reactor::{Builder, Reactor};
use crate::time::Clock;
use crate::transport::id::Id;
use crate::transport::stream::Stream;

impl Reactor {
    /// Returns the state of the reactor: its connections, ports, timers and pools.
    ///
    /// It changes nothing, and may be called in any callback. It takes time for each connection.
    /// Bytes, ages and durations are in it once the reactor is [observed](Self::observe).
    ///
    /// ```
    /// use ropewalk::{Clock, Reactor};
    /// use std::time::Duration;
    ///
    /// # fn main() -> ropewalk::Result<()> {
    /// let reactor = Reactor::builder().observe(true).build()?;
    /// reactor.call_later(Duration::from_secs(3), || ());
    /// let snapshot = reactor.snapshot();
    /// assert_eq!(snapshot.timers.pending, 1);
    /// assert!(snapshot.observed.is_some());
    /// # Ok(())
    /// # }
    /// ```
    pub fn snapshot(&self) -> Snapshot {
        let core = &self.0;
        let now = core.timers.seconds();
        let since = core.meter.get().and_then(|meter| meter.since());
        let totals = core.meter.get().filter(|_| since.is_some()).map(|meter| meter.totals());
        let Tables { connections, ports, connecting, lingering, descriptors, datagram_ports } = core.tables();
        Snapshot {
            time: now,
            backend: self.backend(),
            is_running: self.is_running(),
            observed: since.map(|since| now.saturating_sub(since)),
            received_bytes: totals.map(|(received, _)| received),
            written_bytes: totals.map(|(_, written)| written),
            counters: self.counters(),
            connections,
            ports,
            connecting,
            lingering,
            descriptors,
            datagram_ports,
            timers: TimersSnapshot {
                pending: core.timers.len(),
                next_due: core.timers.next_deadline().map(|due| due.saturating_sub(now)),
            },
            jobs: core.threads.load(),
            lookups: core.threads.lookup_load(),
            pools: core.threads.own_pool_loads(),
            longest_callback: core.longest_callback(),
        }
    }

    /// Counts the bytes of connections and measures callbacks, from now on: see [`Snapshot`]. A
    /// reactor that is observed already goes on.
    ///
    /// An observed reactor reads its clock before and after each callback. Its writes take the path
    /// of those that have to wait. Without this call, none of that costs anything.
    ///
    /// Connections that were made before have no age, and count from their next event on.
    pub fn observe(&self) {
        self.0.observe();
    }
}

impl Builder {
    /// Sets whether the reactor is [observed](Reactor::observe) from the start. Off by default.
    pub fn observe(mut self, on: bool) -> Self {
        self.is_observed = on;
        self
    }
}

/// The contents of the reactor's table of watched items.
#[derive(Default)]
struct Tables {
    connections: Vec<ConnectionSnapshot>,
    ports: Vec<PortSnapshot>,
    connecting: usize,
    lingering: usize,
    descriptors: usize,
    datagram_ports: usize,
}

impl Core {
    fn tables(&self) -> Tables {
        let mut tables = Tables::default();
        let slots = self.slots.borrow();
        for id in slots.ids(|_| true) {
            match slots.get(id) {
                Some(Slot::Port(port)) => tables.ports.push(PortSnapshot {
                    id: id.into(),
                    host: port.address(),
                    accepted: port.served(),
                    descriptor: self.descriptor_number(id),
                }),
                Some(Slot::Connecting(_)) => tables.connecting += 1,
                Some(Slot::Lingering(_)) => tables.lingering += 1,
                Some(Slot::Watched(_)) => tables.descriptors += 1,
                Some(Slot::Datagrams(_)) => tables.datagram_ports += 1,
                Some(slot @ (Slot::Client(_) | Slot::Connected(_) | Slot::Counted(_))) => {
                    let is_client = matches!(slot, Slot::Client(_));
                    let shown = slot.joint().map(|joint| self.connection_snapshot(id, &**joint, is_client));
                    tables.connections.extend(shown);
                }
                Some(Slot::Reserved | Slot::Signals) | None => {}
            }
        }
        tables
    }

    fn connection_snapshot(&self, id: Id, joint: &dyn ErasedJoint, is_client: bool) -> ConnectionSnapshot {
        let transport = joint.transport();
        let meter = self.meter.get().filter(|meter| meter.since().is_some());
        let traffic = meter.map(|meter| meter.traffic(id).unwrap_or_default());
        let now = self.timers.seconds();
        let stream = transport.stream();
        ConnectionSnapshot {
            id: id.into(),
            host: transport.host(),
            peer: transport.peer(),
            protocol: joint.protocol_name(),
            is_client,
            state: state(&stream),
            is_paused: stream.is_paused(),
            layers: stream.levels(),
            queued_bytes: stream.queued_bytes(),
            descriptor: self.descriptor_number(id),
            age: traffic.and_then(|traffic| traffic.made_at).map(|made_at| now.saturating_sub(made_at)),
            received_bytes: traffic.map(|traffic| traffic.received),
            written_bytes: traffic.map(|traffic| traffic.written),
            busy: traffic.map(|traffic| traffic.busy),
        }
    }

    fn longest_callback(&self) -> Option<LongestCallback> {
        let longest = self.meter.get()?.longest()?;
        Some(LongestCallback {
            took: longest.took,
            ended_at: longest.ended_at,
            callback: longest.name,
            connection: longest.connection.map(Into::into),
        })
    }

    /// Returns the number of a descriptor, unless the backend is in a wait.
    fn descriptor_number(&self, id: Id) -> Option<i32> {
        let backend = self.awake_backend().ok()?;
        backend.descriptor(id).map(|descriptor| descriptor.as_raw_fd())
    }
}

fn state(stream: &Stream) -> ConnectionState {
    if stream.is_closing() {
        ConnectionState::Closing
    } else if stream.is_write_closing() {
        ConnectionState::WriteClosed
    } else if stream.has_read_all() {
        ConnectionState::ReadClosed
    } else {
        ConnectionState::Open
    }
}
