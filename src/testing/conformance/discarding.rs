//! Cases about connections that are closed at once, without a word to their protocols.

use std::cell::Cell;
use std::rc::Rc;

use super::scene::{End, Role, SeenCall, once, pattern};
use super::{Scene, Setting};
use crate::protocol::Connection;
use crate::testing::witness::Witnessed;
use crate::transport::{DiscardMode, Producer, QueueLimit, Streaming, Transport};

const MODES: [DiscardMode; 2] = [DiscardMode::End, DiscardMode::Reset];

/// A few bytes. More would take long on a network that cuts to single bytes.
const FEW: &[u8] = b"few";

pub(super) fn a_discarded_connection_is_closed_at_once(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for mode in MODES {
        let (one, other) = scene.pair(Role::new(), Role::new());
        let (transport, before) = (one.transport(), scene.reactor.counters().watched);
        transport.write(FEW);
        transport.discard(mode);
        assert_eq!(scene.reactor.counters().watched, before - 1, "the socket is still watched");
        assert!(transport.is_disconnected() && transport.raw_fd().is_none() && transport.queued_bytes() == 0);
        let handle = transport.connection::<Witnessed<Role>>();
        assert!(handle.with(|_, _| ()).is_err(), "the protocol is still there");
        // A second request does nothing, as any other.
        transport.discard(DiscardMode::Reset);
        transport.write(FEW);
        until_told(&mut scene, &other, mode);
        assert_eq!((one.calls(), other.count_received()), (vec![SeenCall::Made], 0));
    }
    scene.finish_without(MODES.len());
}

pub(super) fn a_discard_drops_what_waits_for_a_full_socket(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for mode in MODES {
        let body = pattern(scene.setting.plenty());
        let reader = Role::new().expects(body.clone(), &scene.witness);
        let (reader, writer) = scene.full(reader, Role::new(), body.len());
        let transport = writer.transport();
        let dropped = Rc::new(Cell::new(false));
        transport
            .register_producer(Told(Rc::clone(&dropped)), Streaming::Push)
            .unwrap_or_else(|error| panic!("{error}"));
        transport.discard(mode);
        assert!(dropped.get() && transport.queued_bytes() == 0, "something is kept");
        // Over TLS, a reader that did not read the end of its queue is at a loss as well.
        match mode {
            DiscardMode::Reset => scene.until_told_of_the_abort(&reader),
            DiscardMode::End => {
                reader.transport().resume_producing();
                scene.until(|| reader.is_over());
            }
        }
        assert!(reader.count_received() < body.len(), "the queue was sent");
        assert_eq!(writer.calls(), [SeenCall::Made]);
    }
    scene.finish_without(MODES.len());
}

/// A producer that must be told nothing.
struct Told(Rc<Cell<bool>>);

impl Producer for Told {
    fn pause_producing(&mut self, _transport: &Transport) -> crate::failure::Result<()> {
        Ok(())
    }

    fn resume_producing(&mut self, _transport: &Transport) -> crate::failure::Result<()> {
        panic!("a discarded connection resumes its producer")
    }

    fn stop_producing(&mut self, _transport: &Transport) {
        panic!("a discarded connection stops its producer");
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

pub(super) fn a_discard_inside_a_callback_is_its_last(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let mut discarded = Vec::new();
    for mode in MODES {
        for call in [SeenCall::Data, SeenCall::ReadLost, SeenCall::WriteLost, SeenCall::Lost] {
            let discards = move |transport: &Transport| {
                transport.discard(mode);
                assert!(transport.is_disconnected());
                transport.write(FEW);
            };
            let (role, peer) = (Role::new().half_close().does(call, discards), Role::new().half_close());
            let (end, other) = (role.end(), peer.end());
            let reading = peer.does(SeenCall::ReadLost, Transport::lose_connection);
            scene.pair(role, reading);
            match call {
                SeenCall::Data => other.with_transport(|peer| peer.write(&[7; 100])),
                SeenCall::ReadLost => other.with_transport(Transport::lose_write_connection),
                SeenCall::WriteLost => end.transport().lose_write_connection(),
                _ => end.transport().lose_connection(),
            }
            scene.until(|| end.has(call) && other.is_over());
            discarded.push((end, call, mode));
        }
    }
    scene.moment();
    for (end, call, mode) in &discarded {
        assert_eq!(end.calls().last().copied().unwrap_or(*call), last_of(*call), "{call:?}, {mode:?}");
        assert!(end.count(SeenCall::Data) <= 1, "data was delivered after the discard");
    }
    scene.finish_without(discarded.iter().filter(|(_, call, _)| *call != SeenCall::Lost).count());
}

/// Returns the last recorded callback of an end that was discarded in `call`. (Data is only
/// counted.)
fn last_of(call: SeenCall) -> SeenCall {
    if call == SeenCall::Data { SeenCall::Made } else { call }
}

pub(super) fn a_discard_inside_connection_made_is_the_last_call_too(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for mode in MODES {
        let role = Role::new().does(SeenCall::Made, move |transport| transport.discard(mode));
        let end = role.end();
        let (port, to) = scene.listen(once(role));
        // A peer that is reset so early may never have had a connection.
        let connecting = scene.connect(&to, once(Role::new()));
        let mut ended = connecting.add_both(|_| ());
        scene.until(|| end.has(SeenCall::Made) && ended.take_result().is_some());
        scene.moment();
        assert_eq!(end.calls(), [SeenCall::Made]);
        drop(port.stop_listening());
    }
    scene.finish_all_gone();
}

pub(super) fn a_discard_of_another_connection_holds_at_once(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    // The victim has data, an end and its close pending in the turns in which it is discarded.
    for call in [SeenCall::Data, SeenCall::Lost] {
        let victim = Role::new();
        let victim_end = victim.end();
        let (seen, at) = (victim.end(), Rc::new(Cell::new(None)));
        let noted = Rc::clone(&at);
        let killer = Role::new().does(call, move |_| {
            seen.with_transport(|transport| transport.discard(DiscardMode::End));
            noted.set(Some((seen.calls().len(), seen.count(SeenCall::Data))));
        });
        let (killer, killers_peer) = scene.pair(killer, Role::new());
        let (_, peer) = scene.pair(victim, Role::new());
        for peer in [&killers_peer, &peer] {
            peer.transport().write(FEW);
            peer.transport().lose_connection();
        }
        scene.until(|| killer.is_over() && killers_peer.is_over() && peer.is_over());
        scene.moment();
        let seen = (victim_end.calls().len(), victim_end.count(SeenCall::Data));
        assert_eq!(at.get(), Some(seen), "{call:?}: the discarded protocol was called");
    }
    // The victims may have been lost before, if their peers were the quicker ones.
    scene.finish_all_gone();
}

pub(super) fn a_discard_in_an_outside_call_waits_for_its_end(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (one, other) = scene.pair(Role::new(), Role::new());
    let (transport, called) = (one.transport(), Rc::new(Cell::new(false)));
    let handle: Connection<Witnessed<Role>> = transport.connection();
    let (inner, made) = (handle.clone(), Rc::clone(&called));
    let done = handle.later(move |_, transport| {
        transport.discard(DiscardMode::Reset);
        made.set(true);
        // The handle of a discarded connection is gone, even while its protocol is still here.
        let late = inner.later(|_, _| ());
        drop(late.add_both(|result| assert!(result.is_err(), "a discarded protocol was called")));
    });
    assert!(called.get() && done.is_called());
    assert!(handle.with(|_, _| ()).is_err());
    assert_eq!(scene.witness.left(), 1, "the protocol is kept");
    scene.until_told_of_the_abort(&other);
    assert_eq!(one.calls(), [SeenCall::Made]);
    scene.finish_without(1);
}

pub(super) fn a_discard_in_a_queue_notice_is_its_last(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let writer = Role::new()
        .does(SeenCall::Made, |transport| transport.set_queue_limit(Some(QueueLimit::tell(1))))
        .does(SeenCall::QueueLimit, |transport| transport.discard(DiscardMode::Reset));
    let (end, reader) = (writer.end(), Role::new().does(SeenCall::Made, Transport::pause_producing));
    let (reader, _) = scene.pair(reader, writer);
    end.transport().write(&pattern(scene.setting.plenty()));
    scene.until(|| end.has(SeenCall::QueueLimit));
    scene.until_told_of_the_abort(&reader);
    assert_eq!(end.calls(), [SeenCall::Made, SeenCall::QueueLimit]);
    scene.finish_without(1);
}

/// Drives the reactors until the peer of an idle connection is told of its end.
#[track_caller]
fn until_told(scene: &mut Scene<'_>, peer: &End, mode: DiscardMode) {
    if mode == DiscardMode::Reset {
        return scene.until_told_of_the_abort(peer);
    }
    scene.until(|| peer.is_over());
    match scene.setting.begins() {
        None => peer.assert_done(),
        Some(_) => peer.assert_truncated(),
    }
}
