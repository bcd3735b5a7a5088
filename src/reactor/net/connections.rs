//! The connections of a reactor: hands completions to joints, performs the requests of streams, and
//! releases ended connections.

use std::io;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use super::admission::Entry;
use super::listener::PortCore;
use super::port::BacklogPolicy;
use super::port_role::CountedGuard;
use crate::error::ConnectionClosed;
use crate::failure::Failure;
use crate::log::error;
use crate::protocol::ErasedJoint;
use crate::reactor::backend::{AnyBackend, Completion, Inbox, Incoming, Progress};
use crate::reactor::watched::Watched;
use crate::reactor::{Core, Slot};
use crate::time::Clock;
use crate::transport::Transport;
use crate::transport::id::Id;
use crate::transport::send_queue::InFlight;
use crate::transport::settle::{self, Later, Settler};
use crate::transport::step::CloseMode;
use crate::transport::stream::Stream;

/// Delay before a send is tried again that failed because the system had no memory.
const STARVED_RETRY: Duration = Duration::from_millis(10);

impl Core {
    /// Phase 6: delivers received bytes.
    #[inline(always)]
    pub(in crate::reactor) fn received(&self, id: Id, inbox: &mut Inbox) {
        let Some(joint) = self.joint(id) else { return self.received_after_end(id, inbox) };
        if let Some(descriptors) = inbox.take_descriptors() {
            joint.descriptors_received(descriptors);
        }
        joint.data_received(inbox.bytes());
    }

    #[cold]
    fn received_after_end(&self, id: Id, inbox: &mut Inbox) {
        drop(inbox.take_descriptors());
        self.lingering_received(id, inbox.bytes().len());
    }

    /// Phase 6: delivers any other completion.
    #[inline(never)]
    pub(in crate::reactor) fn complete(self: &Rc<Self>, id: Id, completion: Completion) {
        match completion {
            Completion::SendReady => match self.joint(id) {
                Some(joint) => joint.transport().update(|stream| stream.unblocked()),
                None => self.datagrams_can_be_sent(id),
            },
            Completion::DatagramsReady => self.datagrams_ready(id),
            Completion::EndOfStream => match self.joint(id) {
                Some(joint) => joint.end_of_stream(),
                None => self.end_lingering(id),
            },
            Completion::Broken { error, rest } => match self.joint(id) {
                Some(joint) => joint.transport().update(|stream| stream.broken(error, rest)),
                None => self.end_lingering(id),
            },
            Completion::Accepted(incoming) => self.accepted(id, incoming),
            Completion::NoDescriptors => {
                if self.end_oldest_lingering() {
                    self.backend.borrow_mut().accept(id);
                }
            }
            Completion::Shed(count) => self.shed(id, count),
            Completion::AcceptFailed(error) => self.accept_failed(id, &error),
            Completion::Connected(host) => self.connected(id, host),
            Completion::ConnectFailed(error) => self.connect_failed(id, error),
            Completion::Ready(ready) => match self.watched(id) {
                Some(watched) => watched.ready(ready),
                // Without effect for any other id.
                None => self.signalled(),
            },
            Completion::DescriptorLost(error) => match self.watched(id) {
                Some(watched) => watched.lost(error),
                None if self.is_for_signals(id) => error!(%error, "signals are not handled any more"),
                None => {}
            },
        }
    }

    /// Takes back a buffer of a finished send. Usually there is nothing more to do.
    #[inline]
    pub(in crate::reactor) fn returned(self: &Rc<Self>, id: Id, in_flight: InFlight, result: io::Result<usize>) {
        let Some(joint) = self.joint(id) else { return self.context.pool.give(in_flight.into_buffer()) };
        let mut stream = joint.transport().stream();
        if !stream.returned(in_flight, result, &self.context.pool) {
            self.unblock_later(id);
        }
        if !stream.is_idle() {
            joint.transport().mark_stream_dirty(&mut stream);
        }
    }

    /// Handles an accepted connection.
    fn accepted(&self, port: Id, incoming: Incoming) {
        if let Some(port) = self.port(port) {
            port.accepted();
            self.serve(&port, incoming);
        }
    }

    /// Counts a connection, and serves it.
    pub(in crate::reactor) fn serve(&self, port: &PortCore, incoming: Incoming) {
        self.count_accepted(port);
        self.admit_incoming(port, incoming);
    }

    pub(super) fn count_accepted(&self, port: &PortCore) {
        self.count(|counters| counters.accepted += 1);
        port.count_served();
    }

    /// Serves a connection, or does what the port's extras say instead.
    pub(super) fn admit_incoming(&self, port: &PortCore, incoming: Incoming) {
        let Some(extras) = &port.extras else { return self.begin_connection(port, incoming, None) };
        match self.admit(port, extras, &incoming.ends.peer()) {
            Entry::Serve(guard) => self.begin_connection(port, incoming, Some(guard)),
            Entry::HandOver(seat) => self.hand_over(port, incoming, seat),
            Entry::Wait => extras.waiting.borrow_mut().push_back(incoming),
            Entry::Refuse => self.backend.borrow_mut().refuse(incoming.socket),
        }
    }

    /// Begins a connection: asks the port's factory for a protocol, and joins it to a transport.
    pub(super) fn begin_connection(&self, port: &PortCore, incoming: Incoming, guard: Option<CountedGuard>) {
        let Incoming { socket, ends } = incoming;
        let id = self.slots.borrow_mut().insert(Slot::Reserved);
        let transport = Transport::new(id, Rc::clone(&self.context), ends);
        transport.begin_with_limit(port.options.connections.queue_limit);
        let named = transport.clone();
        let joint = match port.factory.build(transport) {
            Ok(Some(joint)) => joint,
            refused => {
                if let Err(failure) = refused {
                    let peer = named.peer();
                    error!(%peer, %failure, "build_protocol failed; the connection is closed");
                }
                self.slots.borrow_mut().remove(id);
                return;
            }
        };
        let adopted = self.backend.borrow_mut().adopt(id, socket);
        if let Err(error) = adopted {
            error!(peer = %named.peer(), %error, "the poller refused a new connection, which is closed");
            self.slots.borrow_mut().remove(id);
            return;
        }
        if let Some(slot) = self.slots.borrow_mut().get_mut(id) {
            *slot = match guard {
                None => Slot::Connected(Rc::clone(&joint)),
                Some(guard) => {
                    port.extras.iter().for_each(|extras| extras.begin(joint.transport()));
                    Slot::Counted(Box::new((Rc::clone(&joint), guard)))
                }
            };
        }
        joint.transport().mark_dirty();
        // A failure is already the connection's reason to end.
        let _ = joint.connection_made();
    }

    /// Delivers bytes and ends that were held back while reading was paused.
    pub(in crate::reactor) fn deliver_held(&self) {
        for id in self.aftermath.take_resumed() {
            if let Some(joint) = self.joint(id) {
                joint.deliver_held();
            }
        }
    }

    /// Phase 7: performs the requests of streams. It makes no callbacks; they are recorded for
    /// phase 8.
    #[inline(always)]
    pub(in crate::reactor) fn settle(self: &Rc<Self>) {
        if self.context.is_clean() {
            return;
        }
        let mut due = self.context.take_dirty(self.net.settled.take());
        let mut backend = self.backend.borrow_mut();
        for transport in &due {
            self.settle_one(transport, &mut backend);
        }
        drop(backend);
        due.clear();
        self.net.settled.set(due);
    }

    #[inline(always)]
    fn settle_one(self: &Rc<Self>, transport: &Transport, backend: &mut AnyBackend) {
        let (id, mut stream) = (transport.id(), transport.stream());
        stream.clear_dirty();
        if !stream.is_fast_path() {
            return self.settle_slow(id, transport, &mut stream, backend);
        }
        if !stream.can_send() {
            return;
        }
        // Fast path: a send that empties the queue, or that the socket blocks, needs nothing else.
        match backend.send(id, stream.outgoing(&self.context.pool)) {
            Ok(Progress::Advanced(count)) if stream.queue.is_empty() => stream.sent(count),
            Ok(Progress::Blocked(count)) => {
                stream.sent(count);
                stream.blocked();
            }
            sent => {
                if !self.sent(id, transport, &mut stream, sent) {
                    self.settle_slow(id, transport, &mut stream, backend);
                }
            }
        }
    }

    /// Slow path: more to do than send.
    #[cold]
    #[inline(never)]
    fn settle_slow(self: &Rc<Self>, id: Id, transport: &Transport, stream: &mut Stream, backend: &mut AnyBackend) {
        if stream.is_failing()
            && let Some((in_flight, result)) = backend.recall(id)
        {
            stream.returned(in_flight, result, &self.context.pool);
        }
        if stream.take_corked() {
            backend.uncork(id);
        }
        let mut settler = StreamSettler { core: self, id, transport, backend };
        settle::settle(transport, stream, &mut settler);
    }

    /// Records the result of a send. Returns `true` if the stream has more to send, in another
    /// turn.
    #[inline(never)]
    fn sent(self: &Rc<Self>, id: Id, transport: &Transport, stream: &mut Stream, sent: io::Result<Progress>) -> bool {
        match sent {
            Ok(Progress::Advanced(count)) => {
                stream.sent(count);
                if stream.has_more_to_send() {
                    transport.mark_stream_dirty(stream);
                    return true;
                }
            }
            Ok(Progress::Blocked(count)) => {
                stream.sent(count);
                stream.blocked();
            }
            Ok(Progress::Starved(count)) => {
                stream.sent(count);
                stream.blocked();
                self.unblock_later(id);
            }
            Err(error) => stream.broken(error, true),
        }
        false
    }

    /// Phase 8: tells producers to pause or to resume, then tells protocols of ends, and releases
    /// the connections.
    pub(in crate::reactor) fn deliver_losses(self: &Rc<Self>) {
        for id in self.aftermath.take_queue_notices() {
            if let Some(joint) = self.joint(id) {
                joint.tell_of_queue();
            }
        }
        for id in self.aftermath.take_shut() {
            if let Some(joint) = self.joint(id) {
                joint.write_connection_lost();
            }
        }
        for (id, mode) in self.aftermath.take_lost() {
            // A callback may have forked. In the child, the sockets belong to the parent.
            if self.is_forked_child() {
                return;
            }
            self.lose(id, mode);
        }
    }

    fn lose(self: &Rc<Self>, id: Id, mode: CloseMode) {
        let lingers = mode == CloseMode::Linger && !self.run.is_closing();
        let mut slots = self.slots.borrow_mut();
        let slot = match slots.get_mut(id) {
            Some(slot) if lingers => Some(mem::replace(slot, Slot::Reserved)),
            _ => slots.remove(id),
        };
        drop(slots);
        let (joint, factory, counted) = match slot {
            Some(Slot::Connected(joint)) => (joint, None, None),
            Some(Slot::Client(client)) => (client.0, Some(client.1), None),
            Some(Slot::Counted(counted)) => (counted.0, None, Some(counted.1)),
            _ => return,
        };
        let (reason, was_shut, had_deadline) = {
            let mut stream = joint.transport().stream();
            (stream.take_reason(), stream.is_shut(), stream.has_deadline())
        };
        if had_deadline {
            self.disarm_deadline(id);
        }
        if lingers {
            self.linger(id, was_shut, counted);
            joint.connection_lost(&reason);
        } else {
            self.backend.borrow_mut().close(id, mode == CloseMode::Reset);
            joint.connection_lost(&reason);
            drop(counted);
        }
        if let Some(factory) = factory {
            factory.stop();
        }
    }

    /// Schedules a check of a connection after a time.
    fn arm_deadline(self: &Rc<Self>, id: Id, after: Duration) {
        let core = Rc::downgrade(self);
        let timer = self.timers.call_later(after, move || {
            let Some(core) = core.upgrade() else { return };
            core.net.deadlines.borrow_mut().remove(&id);
            if let Some(joint) = core.joint(id) {
                joint.deadline_passed();
            }
        });
        self.net.deadlines.borrow_mut().insert(id, timer);
    }

    pub(super) fn disarm_deadline(&self, id: Id) {
        let timer = self.net.deadlines.borrow_mut().remove(&id);
        if let Some(timer) = timer {
            // This timer may be the one that runs now.
            let _ = timer.cancel();
        }
    }

    fn unblock_later(self: &Rc<Self>, id: Id) {
        let core = Rc::downgrade(self);
        self.timers.call_later(STARVED_RETRY, move || {
            if let Some(core) = core.upgrade() {
                core.with_transport(id, |transport| transport.update(|stream| stream.unblocked()));
            }
        });
    }

    /// Returns the joint of the connection that `id` names.
    #[inline(always)]
    pub(in crate::reactor) fn joint(&self, id: Id) -> Option<Rc<dyn ErasedJoint>> {
        self.slots.borrow().get(id)?.joint().cloned()
    }

    pub(in crate::reactor) fn with_transport(&self, id: Id, call: impl FnOnce(&Transport)) {
        if let Some(joint) = self.joint(id) {
            call(joint.transport());
        }
    }

    /// Ends every open connection and stops every factory, when the reactor stops.
    pub(in crate::reactor) fn disconnect_all(self: &Rc<Self>) {
        self.run.begin_closing();
        for id in self.ids(|slot| slot.joint().is_some()) {
            if let Some(joint) = self.joint(id)
                && joint.transport().stream().take_unmade()
            {
                // A failure is already the connection's reason to end.
                let _ = joint.connection_made();
            }
            let reason = Failure::untraced(ConnectionClosed::ReactorStopped);
            self.with_transport(id, |transport| transport.update(|stream| stream.fail(reason)));
        }
        for id in self.ids(|slot| matches!(slot, Slot::Lingering(_))) {
            self.end_lingering(id);
        }
        self.settle_all();
        // Ports and attempts come after that. At the other end of an attempt, or of a connection
        // that was accepted but not delivered yet, there may be a connection of our own. It has
        // then sent its last bytes before its peer closes.
        for id in self.ids(|slot| matches!(slot, Slot::Port(_))) {
            if let Some(port) = self.port(id) {
                // Every call of `stop_listening` has a Deferred of its own.
                drop(self.stop_port(&port, BacklogPolicy::Refuse));
            }
        }
        self.stop_datagram_ports();
        for id in self.ids(|slot| matches!(slot, Slot::Connecting(_))) {
            self.attempt_stopped(id);
        }
        self.watches().into_iter().for_each(|watched| watched.reactor_stopped());
        self.settle_all();
        self.deliver_losses();
        // There may be no other turn.
        while self.aftermath.has_calls() {
            self.end_turn();
        }
    }

    /// Settles until the dirty list is empty. A stream with more to send than one settling sends is
    /// marked again, and closed by the next settling.
    fn settle_all(self: &Rc<Self>) {
        while !self.context.is_clean() {
            self.settle();
        }
    }

    /// Returns the watch of a foreign descriptor.
    fn watched(&self, id: Id) -> Option<Rc<dyn Watched>> {
        match self.slots.borrow().get(id)? {
            Slot::Watched(watched) => Some(Rc::clone(watched)),
            _ => None,
        }
    }

    /// Returns `true` for the descriptor of the signal handlers.
    fn is_for_signals(&self, id: Id) -> bool {
        matches!(self.slots.borrow().get(id), Some(Slot::Signals))
    }

    /// Returns the watches of foreign descriptors.
    pub(in crate::reactor) fn watches(&self) -> Vec<Rc<dyn Watched>> {
        let ids = self.ids(|slot| matches!(slot, Slot::Watched(_)));
        ids.into_iter().filter_map(|id| self.watched(id)).collect()
    }

    fn ids(&self, matches: impl FnMut(&Slot) -> bool) -> Vec<Id> {
        self.slots.borrow().ids(matches)
    }
}

/// Performs the requests of one connection of a reactor.
struct StreamSettler<'a> {
    core: &'a Rc<Core>,
    id: Id,
    transport: &'a Transport,
    backend: &'a mut AnyBackend,
}

impl Settler for StreamSettler<'_> {
    fn send(&mut self, stream: &mut Stream) -> bool {
        let sent = self.backend.send(self.id, stream.outgoing(&self.core.context.pool));
        self.core.sent(self.id, self.transport, stream, sent)
    }

    fn shut_down_writing(&mut self) {
        self.backend.shut_down_writing(self.id);
    }

    fn receive(&mut self, on: bool) {
        self.backend.receive(self.id, on);
    }

    fn receive_rest(&mut self) {
        self.backend.receive_rest(self.id);
    }

    fn arm_deadline(&mut self, after: Duration) {
        self.core.arm_deadline(self.id, after);
    }

    fn disarm_deadline(&mut self) {
        self.core.disarm_deadline(self.id);
    }

    fn leave(&mut self, later: Later) {
        self.core.aftermath.push(self.id, later);
    }
}
