//! Cases about the ends of connections: orderly, forced, and by the network.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::link::NO_RESETS;
use super::scene::{End, Role, SeenCall, pattern};
use super::{CaseOutcome, Scene, Setting};
use crate::error::ConnectionClosed;
use crate::transport::Transport;

/// A few bytes. More would take long on a network that cuts to single bytes.
const FEW: &[u8] = b"few";

pub(super) fn connection_lost_comes_once_and_last(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for (one_loses, other_loses) in [(true, false), (false, true), (true, true)] {
        let writes = |scene: &Scene<'_>| {
            Role::new().expects(FEW, &scene.witness).does(SeenCall::Made, |transport| transport.write(FEW))
        };
        let (one, other) = (writes(&scene), writes(&scene));
        let (one, other) = scene.pair(one, other);
        for (end, loses) in [(&one, one_loses), (&other, other_loses)] {
            if loses {
                end.transport().lose_connection();
                // A repeated request is carried out once.
                end.transport().lose_connection();
            }
        }
        scene.until(|| one.is_over() && other.is_over());
        for end in [&one, &other] {
            end.assert_done();
            assert_eq!(end.calls(), [SeenCall::Made, SeenCall::Lost]);
        }
        // Only a side that closes may miss bytes.
        assert!(one_loses || one.received() == FEW);
        assert!(other_loses || other.received() == FEW);
    }
    scene.moment();
    scene.finish(&[]);
}

pub(super) fn losing_inside_data_received_sends_what_was_written(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let answer = pattern(scene.setting.big().min(20_000));
    let body = answer.clone();
    let server = Role::new().does(SeenCall::Data, move |transport| {
        transport.write(&body);
        transport.lose_connection();
    });
    let client = Role::new().expects(answer.clone(), &scene.witness).does(SeenCall::Made, |transport| {
        transport.write(FEW);
        transport.write(FEW);
    });
    let (server, client) = scene.pair(server, client);
    scene.until(|| server.is_over() && client.is_over());
    assert_eq!(server.count(SeenCall::Data), 1, "data was delivered after lose_connection");
    assert_eq!(client.count_received(), answer.len());
    server.assert_done();
    client.assert_done();
    scene.finish(&[]);
}

pub(super) fn losing_waits_for_a_full_socket(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (reader, writer, body) = full(&mut scene, Role::new());
    writer.transport().lose_connection();
    // Bytes written before the connection is closed are still sent.
    let late = pattern(body + FEW.len());
    writer.transport().write(&late[body..]);
    scene.moment();
    assert!(!writer.is_over() && writer.transport().is_disconnecting() && !writer.transport().is_disconnected());
    reader.transport().resume_producing();
    scene.until(|| reader.is_over() && writer.is_over());
    assert_eq!(reader.count_received(), late.len());
    reader.assert_done();
    writer.assert_done();
    scene.finish(&[]);
}

pub(super) fn aborting_drops_the_queue(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for paused in [true, false] {
        let (reader, writer, body) = full(&mut scene, Role::new());
        if !paused {
            // Some of the bytes may come before the reset.
            reader.transport().resume_producing();
        }
        writer.transport().abort_connection();
        scene.until(|| writer.is_over());
        writer.assert_aborted();
        assert_eq!(writer.transport().queued_bytes(), 0);
        if paused && !scene.is_unix() {
            // The reset ends it, although it reads nothing.
            scene.until(|| reader.is_over());
            assert_eq!(reader.count_received(), 0, "it was paused");
        }
        scene.until_told_of_the_abort(&reader);
        assert!(reader.count_received() < body, "the queue was sent");
    }
    // An abort overrides a close, in either order of the requests.
    let (reader, writer, _) = full(&mut scene, Role::new());
    writer.transport().lose_connection();
    scene.moment();
    writer.transport().abort_connection();
    writer.transport().lose_connection();
    scene.until(|| writer.is_over());
    writer.assert_aborted();
    scene.until_told_of_the_abort(&reader);
    scene.finish(&[]);
}

pub(super) fn both_may_abort_at_once(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (one, other) = scene.pair(Role::new(), Role::new());
    one.transport().abort_connection();
    other.transport().abort_connection();
    scene.until(|| one.is_over() && other.is_over());
    one.assert_aborted();
    other.assert_aborted();
    scene.finish(&[]);
}

pub(super) fn a_stuck_peer_is_cut_off(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (reader, writer, _) = full(&mut scene, Role::new());
    // A close timeout has whole milliseconds.
    let limit = Duration::from_millis(scene.setting.moment().as_millis() as u64);
    writer.transport().set_close_timeout(Some(limit));
    writer.transport().lose_connection();
    scene.until(|| writer.is_over());
    let reason = writer.reason();
    let Some(ConnectionClosed::CloseTimedOut { after, unsent }) = reason.check() else { panic!("{reason}") };
    assert_eq!(*after, limit);
    assert!(*unsent > 0);
    scene.until_told_of_the_abort(&reader);
    scene.finish(&[]);
}

pub(super) fn a_reset_is_noticed_while_paused(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    if scene.is_unix() {
        return CaseOutcome::Skipped(NO_RESETS);
    }
    let pairs = [false, true].map(|with_data| {
        let reader = Role::new().does(SeenCall::Made, Transport::pause_producing);
        reset_a_paused_reader(&mut scene, reader, |_, peer| {
            if with_data {
                peer.transport().write(FEW);
            }
        })
    });
    until_reset(&mut scene, &pairs);
    scene.finish(&[]);
    CaseOutcome::Passed
}

pub(super) fn a_reset_behind_a_pause_loses_nothing(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    if scene.is_unix() {
        return CaseOutcome::Skipped(NO_RESETS);
    }
    for pauses_inside in [false, true] {
        let reader = Role::new().expects(FEW, &scene.witness).does(SeenCall::Made, Transport::pause_producing);
        let reader = reader.does(SeenCall::Data, move |transport| {
            if pauses_inside {
                transport.pause_producing();
            }
        });
        let (reader, peer) = scene.pair(reader, Role::new());
        peer.transport().write(FEW);
        scene.moment();
        // A socket may take few bytes while its peer is paused. The abort drops the rest.
        let sent = &FEW[..FEW.len() - peer.transport().queued_bytes()];
        peer.transport().abort_connection();
        scene.until(|| peer.is_over() && reader.transport().is_disconnecting());
        assert_eq!(reader.calls(), [SeenCall::Made], "the loss overtook bytes");
        while !reader.is_over() {
            reader.transport().resume_producing();
            let before = (reader.count_received(), reader.is_over());
            scene.until(|| (reader.count_received(), reader.is_over()) != before);
        }
        assert_eq!(reader.received(), sent);
        reader.assert_reset();
        reader.transport().write(FEW);
        assert_eq!(reader.transport().queued_bytes(), 0);
    }
    scene.finish(&[]);
    CaseOutcome::Passed
}

/// Runs `does` on a peer of a paused reader, and resets once its effects have arrived. Returns the
/// reader and its peer.
fn reset_a_paused_reader(scene: &mut Scene<'_>, reader: Role, does: impl FnOnce(&mut Scene<'_>, &End)) -> (End, End) {
    let (reader, peer) = scene.pair(reader, Role::new().half_close());
    reader.transport().pause_producing();
    does(scene, &peer);
    scene.moment();
    peer.transport().abort_connection();
    (reader, peer)
}

/// Waits until these paused readers and their peers are over. Only the reset is reported. The
/// readers have bytes left, so the engine waits for each before it cuts it off: for all at once.
fn until_reset(scene: &mut Scene<'_>, pairs: &[(End, End)]) {
    scene.until(|| pairs.iter().all(|(reader, peer)| reader.is_over() && peer.is_over()));
    for (reader, _) in pairs {
        reader.assert_reset();
        assert_eq!(reader.calls(), [SeenCall::Made, SeenCall::Lost]);
        assert_eq!(reader.count_received(), 0, "it was paused");
    }
}

pub(super) fn a_reset_is_noticed_after_a_half_close(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for paused in [false, true] {
        let (reader, peer) = scene.pair(Role::new().half_close(), Role::new().half_close());
        peer.transport().lose_write_connection();
        scene.until(|| reader.has(SeenCall::ReadLost));
        if paused {
            reader.transport().pause_producing();
            scene.moment();
        }
        peer.transport().abort_connection();
        scene.until(|| reader.is_over() && peer.is_over());
        reader.assert_reset();
        assert_eq!(reader.calls(), [SeenCall::Made, SeenCall::ReadLost, SeenCall::Lost]);
    }
    // Other order: our own direction has ended, nothing is read, and the peer resets.
    let (reader, peer) = scene.pair(Role::new().half_close(), Role::new().half_close());
    reader.transport().lose_write_connection();
    scene.until(|| reader.has(SeenCall::WriteLost) && peer.has(SeenCall::ReadLost));
    reader.transport().pause_producing();
    scene.moment();
    peer.transport().abort_connection();
    scene.until(|| peer.is_over());
    if scene.is_unix() {
        // Over UNIX sockets the abort is an end, and the other direction has already ended.
        reader.transport().resume_producing();
        scene.until(|| reader.is_over());
    } else {
        scene.until(|| reader.is_over());
        reader.assert_reset();
    }
    scene.finish(&[]);
}

pub(super) fn a_reset_is_noticed_behind_an_end_that_waits(setting: &mut dyn Setting) -> CaseOutcome {
    let mut scene = Scene::new(setting);
    if scene.is_unix() {
        return CaseOutcome::Skipped(NO_RESETS);
    }
    let pairs = [true, false].map(|paused_first| {
        let reader = Role::new().half_close();
        let reader = if paused_first { reader.does(SeenCall::Made, Transport::pause_producing) } else { reader };
        reset_a_paused_reader(&mut scene, reader, |scene, peer| {
            // A single byte always fits, even if the socket takes little while its peer is paused.
            peer.transport().write(b"x");
            peer.transport().lose_write_connection();
            scene.until(|| peer.has(SeenCall::WriteLost));
        })
    });
    until_reset(&mut scene, &pairs);
    scene.finish(&[]);
    CaseOutcome::Passed
}

pub(super) fn a_reset_is_noticed_while_writing(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (reader, writer, _) = full(&mut scene, Role::new());
    reader.transport().abort_connection();
    scene.until(|| reader.is_over() && writer.is_over());
    reader.assert_aborted();
    let reason = writer.reason();
    let Some(ConnectionClosed::Reset { unsent }) = reason.check() else { panic!("{reason}") };
    assert!(*unsent > 0);
    assert_eq!(writer.transport().queued_bytes(), 0);
    scene.finish(&[]);
}

pub(super) fn nothing_is_taken_after_the_end(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let asked = Rc::new(Cell::new(0));
    let (asking, witness) = (Rc::clone(&asked), scene.witness.clone());
    let role = Role::new().does(SeenCall::Lost, move |transport| {
        ask_everything(transport);
        if transport.set_tcp_no_delay(true).is_ok()
            || transport.tcp_keep_alive().is_ok()
            || transport.raw_fd().is_some()
        {
            witness.fault("a connection that has ended has a socket");
        }
        asking.set(asking.get() + 1);
    });
    let (one, other) = scene.pair(role, Role::new());
    one.transport().lose_connection();
    scene.until(|| one.is_over() && other.is_over());
    assert_eq!(asked.get(), 1);
    ask_everything(&one.transport());
    ask_everything(&other.transport());
    scene.moment();
    for end in [&one, &other] {
        assert!(end.transport().is_disconnected() && end.transport().is_disconnecting());
        assert_eq!(end.transport().queued_bytes(), 0);
        assert_eq!(end.calls(), [SeenCall::Made, SeenCall::Lost]);
        end.assert_done();
    }
    scene.finish(&[]);
}

fn ask_everything(transport: &Transport) {
    transport.write(FEW);
    transport.write(&[0; 20_000]);
    transport.pause_producing();
    transport.resume_producing();
    transport.set_close_timeout(None);
    transport.lose_write_connection();
    transport.lose_connection();
    transport.abort_connection();
}

/// Connects a writer to a paused reader, and writes more than the socket takes. Returns reader,
/// writer, and the number of bytes.
pub(super) fn full(scene: &mut Scene<'_>, writer: Role) -> (End, End, usize) {
    let plenty = scene.setting.plenty();
    let reader = Role::new().expects(pattern(plenty + FEW.len()), &scene.witness);
    let (reader, writer) = scene.full(reader, writer, plenty);
    (reader, writer, plenty)
}
