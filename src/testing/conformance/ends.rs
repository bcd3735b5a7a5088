//! Cases about half-closes: the two directions end one by one, in every order.

use super::flow::{Told, register};
use super::scene::{End, Role, SeenCall, pattern};
use super::{Scene, Setting};
use crate::transport::{Streaming, Transport};

/// A few bytes. More would take long on a network that cuts to single bytes.
const FEW: &[u8] = b"few";

/// The order in which the two directions end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// The peer's ends first, and ours once that is known.
    TheyThenWe,
    /// Ours ends first, and the peer's, after a last word, once that is known there.
    WeThenThey,
    /// Both are requested in the same turn.
    AtOnce,
    /// Ours is requested, and the peer's end comes while there may still be bytes to send.
    TheyMeanwhile,
}

/// A single byte always fits, even if the socket takes little while its peer is paused.
const ONE: &[u8] = b"x";

pub(super) fn the_peer_ends_first(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let answer = pattern(scene.setting.big().min(20_000));
    let body = answer.clone();
    let server = Role::new().half_close().expects(FEW, &scene.witness).does(SeenCall::ReadLost, move |transport| {
        transport.write(&body);
        transport.lose_write_connection();
    });
    let client = Role::new().half_close().expects(answer.clone(), &scene.witness).does(SeenCall::Made, |transport| {
        transport.write(FEW);
        transport.lose_write_connection();
    });
    let (server, client) = scene.pair(server, client);
    scene.until(|| server.is_over() && client.is_over());
    assert_eq!((server.received(), client.count_received()), (FEW.to_vec(), answer.len()));
    assert_eq!(server.calls(), [SeenCall::Made, SeenCall::ReadLost, SeenCall::WriteLost, SeenCall::Lost]);
    assert_eq!(client.calls(), [SeenCall::Made, SeenCall::WriteLost, SeenCall::ReadLost, SeenCall::Lost]);
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
    // A repeated request is carried out once.
    sender.transport().lose_write_connection();
    scene.until(|| reader.has(SeenCall::ReadLost));
    assert_eq!(reader.count_received(), much.len());
    scene.until(|| sender.has(SeenCall::WriteLost));
    // Our direction is shut, so this is dropped.
    sender.transport().write(FEW);
    assert_eq!(sender.transport().queued_bytes(), 0);
    reader.transport().write(FEW);
    scene.until(|| sender.count_received() == FEW.len());
    assert!(!sender.is_over() && !reader.is_over());
    reader.transport().lose_connection();
    scene.until(|| sender.is_over() && reader.is_over());
    assert_eq!(sender.calls(), [SeenCall::Made, SeenCall::WriteLost, SeenCall::ReadLost, SeenCall::Lost]);
    assert_eq!(reader.calls(), [SeenCall::Made, SeenCall::ReadLost, SeenCall::Lost]);
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
                assert_eq!((end.count(SeenCall::ReadLost), end.count(SeenCall::WriteLost)), (told, told));
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
        let reader = reader.does(SeenCall::Made, Transport::pause_producing);
        let (reader, writer) = scene.pair(reader, Role::new().half_close());
        writer.transport().write(&all);
        writer.transport().lose_write_connection();
        scene.moment();
        assert!(
            writer.transport().queued_bytes() > 0 && !writer.has(SeenCall::WriteLost),
            "the case needs a full socket"
        );
        if peer_ends {
            reader.transport().lose_write_connection();
            scene.until(|| writer.has(SeenCall::ReadLost));
            scene.moment();
            assert!(!writer.is_over() && !writer.transport().is_disconnecting());
        }
        reader.transport().resume_producing();
        scene.until(|| reader.has(SeenCall::ReadLost) && writer.has(SeenCall::WriteLost));
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
    assert!(writer.transport().queued_bytes() > 0 && !writer.is_over());
    reader.transport().resume_producing();
    scene.until(|| reader.is_over() && writer.is_over());
    assert_eq!(reader.count_received(), plenty);
    assert_eq!(reader.calls(), [SeenCall::Made, SeenCall::WriteLost, SeenCall::ReadLost, SeenCall::Lost]);
    assert_eq!(writer.calls(), [SeenCall::Made, SeenCall::Lost]);
    reader.assert_done();
    writer.assert_done();
    scene.finish(&[]);
}

pub(super) fn an_end_waits_behind_a_pause(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for half_close in [true, false] {
        for with_data in [true, false] {
            let reader = Role::new().expects(ONE, &scene.witness).does(SeenCall::Made, Transport::pause_producing);
            let reader = if half_close { reader.half_close() } else { reader };
            let (reader, peer) = scene.pair(reader, Role::new().half_close());
            if with_data {
                peer.transport().write(ONE);
            }
            peer.transport().lose_write_connection();
            scene.until(|| peer.has(SeenCall::WriteLost));
            scene.moment();
            assert_eq!((reader.calls(), reader.count_received()), (vec![SeenCall::Made], 0), "it was paused");
            reader.transport().resume_producing();
            scene.until(|| if half_close { reader.has(SeenCall::ReadLost) } else { reader.is_over() });
            assert_eq!(reader.received(), if with_data { ONE } else { b"" });
            reader.transport().lose_connection();
            scene.until(|| reader.is_over() && peer.is_over());
            reader.assert_done();
            peer.assert_done();
        }
    }
    scene.finish(&[]);
}

pub(super) fn every_order_of_ends_with_every_producer(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for order in [Order::TheyThenWe, Order::AtOnce, Order::TheyMeanwhile, Order::WeThenThey] {
        let mut ends = Vec::new();
        for producer in [None, Some(Streaming::Push), Some(Streaming::Pull)] {
            for (queued, half_close) in [(false, true), (true, true), (false, false), (true, false)] {
                ends.push(EndsInOrder::new(&mut scene, order, producer, queued, half_close));
            }
        }
        // All sockets that are to be full are filled at once.
        let plenty = scene.setting.plenty();
        let writers: Vec<_> = ends.iter().filter(|ends| ends.queued).map(|ends| &ends.us).collect();
        scene.fill(&writers, plenty);
        ends.iter().for_each(|ends| ends.run(&mut scene));
    }
    scene.finish(&[]);
}

/// Returns `true` if the peer's end is known. Without half-close it starts to close the connection.
fn has_heard_of_the_end(end: &End) -> bool {
    end.has(SeenCall::ReadLost) || end.transport().is_disconnecting()
}

/// A limit above the size of a piece, with any framing.
const MARK: usize = 100;

/// Number of pieces of a producer, of a byte each.
const PIECES: usize = 3;

/// A connection whose directions are to end in an order. `us` may have a producer, and a full
/// socket.
struct EndsInOrder {
    order: Order,
    producer: Option<Streaming>,
    queued: bool,
    half_close: bool,
    peer: End,
    us: End,
}

impl EndsInOrder {
    /// Connects. The peer of an end that is to have a full socket is paused.
    fn new(scene: &mut Scene<'_>, order: Order, producer: Option<Streaming>, queued: bool, half_close: bool) -> Self {
        let plenty = if queued { scene.setting.plenty() } else { 0 };
        let mut all = pattern(plenty);
        all.resize(plenty + PIECES, 0);
        let peer = Role::new().half_close().expects(all, &scene.witness);
        let peer = match order {
            Order::WeThenThey => peer.does(SeenCall::ReadLost, |transport| {
                transport.write(FEW);
                transport.lose_write_connection();
            }),
            _ => peer,
        };
        let peer = if queued { peer.does(SeenCall::Made, Transport::pause_producing) } else { peer };
        let us = Role::new().expects(FEW, &scene.witness);
        let us = if half_close { us.half_close() } else { us };
        let (peer, us) = scene.pair(peer, us);
        Self { order, producer, queued, half_close, peer, us }
    }

    fn run(&self, scene: &mut Scene<'_>) {
        let Self { order, producer, queued, half_close, ref peer, ref us } = *self;
        let case = format!("{order:?}, {producer:?}, queued {queued}, half_close {half_close}");
        let plenty = if queued { scene.setting.plenty() } else { 0 };
        let high = if queued { MARK.min(us.transport().queued_bytes() - 1) } else { MARK };
        us.transport().set_write_marks(0, high);
        let told = producer.map_or_else(Told::default, |streaming| register(us, streaming, 1, PIECES));
        if producer == Some(Streaming::Push) && queued {
            scene.until(|| !told.borrow().is_empty());
        }
        match order {
            Order::TheyThenWe => {
                peer.transport().lose_write_connection();
                scene.until(|| has_heard_of_the_end(us));
                us.transport().lose_write_connection();
            }
            Order::AtOnce => {
                peer.transport().lose_write_connection();
                us.transport().lose_write_connection();
            }
            Order::TheyMeanwhile => {
                us.transport().lose_write_connection();
                if queued {
                    scene.moment();
                    assert!(!us.has(SeenCall::WriteLost), "{case}");
                } else {
                    // A pull producer takes a turn or more for each of its pieces.
                    scene.until(|| peer.has(SeenCall::ReadLost) && us.has(SeenCall::WriteLost) == half_close);
                }
                peer.transport().lose_write_connection();
                if queued {
                    scene.until(|| has_heard_of_the_end(us));
                }
            }
            Order::WeThenThey => us.transport().lose_write_connection(),
        }
        peer.transport().resume_producing();
        scene.until(|| us.is_over() && peer.is_over());

        // A push producer writes once, for its only resume. One that is not paused does not delay
        // the close.
        let (written, heard): (_, &[&str]) = match (producer, queued) {
            (None, _) => (0, &[]),
            (Some(Streaming::Push), true) => (1, &["pause", "resume", "stop"]),
            (Some(Streaming::Push), false) => (0, &["stop"]),
            (Some(Streaming::Pull), _) => (PIECES, &["resume"; PIECES + 1]),
        };
        assert_eq!((peer.count_received(), &**told.borrow()), (plenty + written, heard), "{case}");
        assert_eq!(us.received(), if order == Order::WeThenThey { FEW } else { b"" }, "{case}");
        let (ours, theirs) = (SeenCall::WriteLost, SeenCall::ReadLost);
        let between = match order {
            _ if !half_close => vec![],
            Order::TheyThenWe => vec![theirs, ours],
            Order::WeThenThey => vec![ours, theirs],
            Order::TheyMeanwhile => {
                if queued {
                    vec![theirs, ours]
                } else {
                    vec![ours, theirs]
                }
            }
            // Either order is right.
            Order::AtOnce => {
                if us.calls().get(1) == Some(&ours) {
                    vec![ours, theirs]
                } else {
                    vec![theirs, ours]
                }
            }
        };
        assert_eq!(us.calls(), [&[SeenCall::Made], &*between, &[SeenCall::Lost]].concat(), "{case}");
        us.assert_done();
        peer.assert_done();
    }
}
