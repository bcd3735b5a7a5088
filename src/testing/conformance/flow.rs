//! The flow of bytes: full sockets, slow readers, and much at once.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::scene::{Call, End, Role, pattern};
use super::{Scene, Setting};
use crate::time::Clock;
use crate::transport::Transport;

pub(super) fn a_full_socket_goes_on_when_its_peer_reads(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let plenty = scene.setting.plenty();
    let body = pattern(plenty + 3 * MORE);
    let reader = Role::new().expects(body.clone(), &scene.witness).does(Call::Made, Transport::pause_producing);
    let (reader, writer) = scene.pair(reader, Role::new());
    writer.transport().write(&body[..plenty]);
    scene.moment();
    let queued = writer.transport().queued();
    assert!(queued > 0, "the case needs a full socket");
    // What comes while it is full stands behind what is queued.
    writer.transport().write(&body[plenty..plenty + MORE]);
    writer.transport().write_sequence(body[plenty + MORE..plenty + 2 * MORE].chunks(7));
    scene.moment();
    assert_eq!(writer.transport().queued(), queued + 2 * MORE, "it sent to a reader that does not read");
    assert_eq!(reader.count_received(), 0);
    reader.transport().resume_producing();
    scene.until(|| writer.transport().queued() == 0 && reader.count_received() == plenty + 2 * MORE);
    // The socket that was full takes more.
    writer.transport().write(&body[plenty + 2 * MORE..]);
    scene.until(|| reader.count_received() == body.len());
    assert_eq!(writer.transport().queued(), 0);
    scene.finish(&[&reader, &writer]);
}

/// A few bytes more.
const MORE: usize = 100;

pub(super) fn nothing_comes_while_paused(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let body = pattern(20);
    // Paused from the beginning, then inside `data_received`, then from outside.
    let reader = Role::new().expects(body.clone(), &scene.witness).does(Call::Made, Transport::pause_producing);
    let end = reader.end();
    let inside = Rc::new(Cell::new(false));
    let pausing = Rc::clone(&inside);
    let reader = reader.does(Call::Data, move |transport| {
        if pausing.get() {
            transport.pause_producing();
        }
    });
    let (reader, writer) = scene.pair(reader, Role::new());
    writer.transport().write(&body[..4]);
    scene.moment();
    assert_eq!(reader.count_received(), 0, "it was paused in connection_made");
    inside.set(true);
    reader.transport().resume_producing();
    scene.until(|| end.count_received() > 0);
    writer.transport().write(&body[4..8]);
    let before = reader.count(Call::Data);
    scene.moment();
    assert_eq!((before, reader.count(Call::Data)), (1, 1), "it was paused inside data_received");
    inside.set(false);
    reader.transport().resume_producing();
    scene.until(|| end.count_received() == 8);
    // Paused and resumed at once, and the reverse: what was asked last holds.
    reader.transport().pause_producing();
    reader.transport().resume_producing();
    writer.transport().write(&body[8..12]);
    scene.until(|| end.count_received() == 12);
    reader.transport().resume_producing();
    reader.transport().pause_producing();
    writer.transport().write(&body[12..]);
    scene.moment();
    assert_eq!(reader.count_received(), 12, "it was paused from outside");
    reader.transport().resume_producing();
    scene.until(|| end.count_received() == body.len());
    scene.finish(&[&reader, &writer]);
}

pub(super) fn a_reader_that_pauses_at_every_chunk_gets_everything(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let body: Rc<[u8]> = pattern(scene.setting.big()).into();
    let clock = scene.reactor.clone();
    let paused = Rc::new(Cell::new(false));
    let (now, witness) = (Rc::clone(&paused), scene.witness.clone());
    let reader = Role::new().expects(Rc::clone(&body), &scene.witness).does(Call::Data, move |transport| {
        if now.replace(true) {
            witness.fault("data came while it was paused");
        }
        transport.pause_producing();
        let (now, transport) = (Rc::clone(&now), transport.clone());
        clock.call_later(Duration::from_micros(10), move || {
            now.set(false);
            transport.resume_producing();
        });
    });
    let (reader, writer) = scene.pair(reader, Role::new());
    writer.transport().write(&body);
    scene.until(|| reader.count_received() == body.len());
    scene.until(|| !paused.get());
    scene.finish(&[&reader, &writer]);
}

pub(super) fn big_transfers_both_ways_arrive_intact(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let reactor = scene.reactor.clone();
    let (one, other) = (talker(&scene), talker(&scene));
    let (one, other) = scene.pair_on(&reactor, one, &reactor, other);
    talk(&mut scene, &one, &other);
    scene.finish(&[&one, &other]);
}

pub(super) fn two_reactors_talk(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (here, there) = (scene.reactor.clone(), scene.setting.reactor());
    let (one, other) = (talker(&scene), talker(&scene));
    let (one, other) = scene.pair_on(&here, one, &there, other);
    talk(&mut scene, &one, &other);
    other.transport().lose_connection();
    scene.until(|| there.counters().watched == 0 && other.is_over());
    scene.finish(&[&one, &other]);
}

/// Sends a big transfer at once, and expects the same.
fn talker(scene: &Scene<'_>) -> Role {
    let body: Rc<[u8]> = pattern(scene.setting.big()).into();
    Role::new()
        .expects(Rc::clone(&body), &scene.witness)
        .does(Call::Made, move |transport| body.chunks(PIECE).for_each(|piece| transport.write(piece)))
}

/// Some of its writes are small enough to be gathered, with the rest of the queue.
const PIECE: usize = 50_000;

fn talk(scene: &mut Scene<'_>, one: &End, other: &End) {
    let big = scene.setting.big();
    scene.until(|| one.count_received() == big && other.count_received() == big);
    assert_eq!((one.transport().queued(), other.transport().queued()), (0, 0));
}
