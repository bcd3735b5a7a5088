//! Half-closes: the two directions end one by one, in every order.

use super::scene::{Call, Role, pattern};
use super::{Scene, Setting};
use crate::transport::Transport;

/// A few bytes: more would take long where each byte travels alone.
const FEW: &[u8] = b"few";

/// A single byte fits, however little a socket takes whose peer is paused.
const ONE: &[u8] = b"x";

pub(super) fn the_peer_ends_first(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let answer = pattern(scene.setting.big().min(20_000));
    let body = answer.clone();
    let server = Role::new().half_close().expects(FEW, &scene.witness).does(Call::ReadLost, move |transport| {
        transport.write(&body);
        transport.lose_write_connection();
    });
    let client = Role::new().half_close().expects(answer.clone(), &scene.witness).does(Call::Made, |transport| {
        transport.write(FEW);
        transport.lose_write_connection();
    });
    let (server, client) = scene.pair(server, client);
    scene.until(|| server.is_over() && client.is_over());
    assert_eq!((server.received(), client.count_received()), (FEW.to_vec(), answer.len()));
    assert_eq!(server.calls(), [Call::Made, Call::ReadLost, Call::WriteLost, Call::Lost]);
    assert_eq!(client.calls(), [Call::Made, Call::WriteLost, Call::ReadLost, Call::Lost]);
    server.assert_done();
    client.assert_done();
    scene.finish(&[]);
}

pub(super) fn we_end_first(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let much = pattern(scene.setting.big());
    let sender = Role::new().half_close().expects(FEW, &scene.witness);
    let reader = Role::new().half_close().expects(much.clone(), &scene.witness);
    let (sender, reader) = scene.pair(sender, reader);
    sender.transport().write(&much);
    sender.transport().lose_write_connection();
    // Asked for again, it is done once.
    sender.transport().lose_write_connection();
    scene.until(|| reader.has(Call::ReadLost));
    assert_eq!(reader.count_received(), much.len());
    scene.until(|| sender.has(Call::WriteLost));
    // Our side is shut: this is dropped.
    sender.transport().write(FEW);
    assert_eq!(sender.transport().queued(), 0);
    reader.transport().write(FEW);
    scene.until(|| sender.count_received() == FEW.len());
    assert!(!sender.is_over() && !reader.is_over());
    reader.transport().lose_connection();
    scene.until(|| sender.is_over() && reader.is_over());
    assert_eq!(sender.calls(), [Call::Made, Call::WriteLost, Call::ReadLost, Call::Lost]);
    assert_eq!(reader.calls(), [Call::Made, Call::ReadLost, Call::Lost]);
    sender.assert_done();
    reader.assert_done();
    scene.finish(&[]);
}

pub(super) fn both_end_at_once(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for half_close in [true, false] {
        for with_data in [true, false] {
            let role = |scene: &Scene<'_>| {
                let role = Role::new().expects(FEW, &scene.witness);
                if half_close { role.half_close() } else { role }
            };
            let (one, other) = (role(&scene), role(&scene));
            let (one, other) = scene.pair(one, other);
            for end in [&one, &other] {
                if with_data {
                    end.transport().write(FEW);
                }
                end.transport().lose_write_connection();
            }
            scene.until(|| one.is_over() && other.is_over());
            for end in [&one, &other] {
                end.assert_done();
                assert_eq!(end.received(), if with_data { FEW } else { b"" });
                let told = usize::from(half_close);
                assert_eq!((end.count(Call::ReadLost), end.count(Call::WriteLost)), (told, told));
            }
        }
    }
    scene.finish(&[]);
}

pub(super) fn an_end_with_a_full_queue_waits(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for peer_ends in [false, true] {
        let plenty = scene.setting.plenty();
        let all = pattern(plenty);
        let reader = Role::new().half_close().expects(all.clone(), &scene.witness);
        let reader = reader.does(Call::Made, Transport::pause_producing);
        let (reader, writer) = scene.pair(reader, Role::new().half_close());
        writer.transport().write(&all);
        writer.transport().lose_write_connection();
        scene.moment();
        assert!(writer.transport().queued() > 0 && !writer.has(Call::WriteLost), "the case needs a full socket");
        if peer_ends {
            reader.transport().lose_write_connection();
            scene.until(|| writer.has(Call::ReadLost));
            scene.moment();
            assert!(!writer.is_over() && !writer.transport().is_disconnecting());
        }
        reader.transport().resume_producing();
        scene.until(|| reader.has(Call::ReadLost) && writer.has(Call::WriteLost));
        assert_eq!(reader.count_received(), plenty);
        if !peer_ends {
            assert!(!writer.is_over() && !reader.is_over());
            reader.transport().lose_write_connection();
        }
        scene.until(|| reader.is_over() && writer.is_over());
        reader.assert_done();
        writer.assert_done();
    }
    scene.finish(&[]);
}

pub(super) fn without_half_close_the_peers_end_is_the_end(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let plenty = scene.setting.plenty();
    let reader = Role::new().half_close().expects(pattern(plenty), &scene.witness);
    let (reader, writer) = scene.full(reader, Role::new(), plenty);
    reader.transport().lose_write_connection();
    scene.until(|| writer.transport().is_disconnecting());
    assert!(writer.transport().queued() > 0 && !writer.is_over());
    reader.transport().resume_producing();
    scene.until(|| reader.is_over() && writer.is_over());
    assert_eq!(reader.count_received(), plenty);
    assert_eq!(reader.calls(), [Call::Made, Call::WriteLost, Call::ReadLost, Call::Lost]);
    assert_eq!(writer.calls(), [Call::Made, Call::Lost]);
    reader.assert_done();
    writer.assert_done();
    scene.finish(&[]);
}

pub(super) fn an_end_waits_behind_a_pause(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for half_close in [true, false] {
        for with_data in [true, false] {
            let reader = Role::new().expects(ONE, &scene.witness).does(Call::Made, Transport::pause_producing);
            let reader = if half_close { reader.half_close() } else { reader };
            let (reader, peer) = scene.pair(reader, Role::new().half_close());
            if with_data {
                peer.transport().write(ONE);
            }
            peer.transport().lose_write_connection();
            scene.until(|| peer.has(Call::WriteLost));
            scene.moment();
            assert_eq!((reader.calls(), reader.count_received()), (vec![Call::Made], 0), "it was paused");
            reader.transport().resume_producing();
            scene.until(|| if half_close { reader.has(Call::ReadLost) } else { reader.is_over() });
            assert_eq!(reader.received(), if with_data { ONE } else { b"" });
            reader.transport().lose_connection();
            scene.until(|| reader.is_over() && peer.is_over());
            reader.assert_done();
            peer.assert_done();
        }
    }
    scene.finish(&[]);
}
