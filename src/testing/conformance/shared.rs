//! Cases about shared bytes, which a queue keeps by reference, among copied ones.

use std::sync::Arc;

use bytes::Bytes;

use super::scene::{End, Role, SeenCall, pattern};
use super::{Scene, Setting};
use crate::error::ConnectionClosed;
use crate::transport::{QueueLimit, Transport};

/// Sizes of writes, in turn; the first of each pair is copied, the second shared. 4 KiB are the
/// least that a queue keeps by reference.
const SIZES: [(usize, usize); 6] = [(1, 4096), (100, 4095), (4096, 5000), (7, 1), (9000, 4097), (3, 70_000)];

/// Writes all bytes, in pieces of mixed sizes, copied and shared ones.
fn write_mixed(transport: &Transport, bytes: &Bytes) {
    let mut rest = bytes.clone();
    for (copied, shared) in SIZES.into_iter().cycle() {
        transport.write(&rest.split_to(copied.min(rest.len())));
        transport.write_shared(rest.split_to(shared.min(rest.len())));
        if rest.is_empty() {
            return;
        }
    }
}

/// Connects a writer to a reader that expects the pattern, and is paused.
fn pair_of_paused(scene: &mut Scene<'_>, length: usize) -> (End, End, Bytes) {
    let body = pattern(length);
    let reader = Role::new().expects(body.clone(), &scene.witness).does(SeenCall::Made, Transport::pause_producing);
    let (reader, writer) = scene.pair(reader, Role::new());
    (reader, writer, body.into())
}

pub(super) fn shared_and_copied_bytes_keep_their_order(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    // Three parts: one behind a full socket, one at once, and one in many turns.
    let part = scene.setting.plenty();
    let small = scene.setting.big().max(20_000);
    let (reader, writer, body) = pair_of_paused(&mut scene, part + 2 * small);
    let transport = writer.transport();
    write_mixed(&transport, &body.slice(..part));
    scene.moment();
    assert!(transport.queued_bytes() > 0, "the case needs a full socket");
    write_mixed(&transport, &body.slice(part..part + small));
    reader.transport().resume_producing();
    scene.until(|| reader.count_received() == part + small);
    let step = small.div_ceil(4);
    for at in (0..small).step_by(step) {
        write_mixed(&transport, &body.slice(part + small + at..part + small + small.min(at + step)));
        scene.moment();
    }
    scene.until(|| reader.count_received() == body.len() && transport.queued_bytes() == 0);
    scene.finish(&[&reader, &writer]);
}

pub(super) fn a_reader_that_pauses_gets_shared_bytes_in_order(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let length = scene.setting.big().max(20_000);
    let (reader, writer, body) = pair_of_paused(&mut scene, length);
    write_mixed(&writer.transport(), &body);
    let mut pauses = 0;
    while reader.count_received() < length && pauses < 20 {
        let before = reader.count_received();
        reader.transport().resume_producing();
        scene.until(|| reader.count_received() > before);
        reader.transport().pause_producing();
        scene.moment();
        pauses += 1;
    }
    reader.transport().resume_producing();
    scene.until(|| reader.count_received() == length);
    scene.finish(&[&reader, &writer]);
}

pub(super) fn a_close_sends_shared_bytes_and_an_abort_drops_them(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let length = scene.setting.plenty() + 20_000;
    let (reader, writer, body) = pair_of_paused(&mut scene, length);
    write_mixed(&writer.transport(), &body);
    writer.transport().lose_connection();
    scene.moment();
    assert!(!writer.is_over(), "the queue had not left");
    reader.transport().resume_producing();
    scene.until(|| reader.is_over() && writer.is_over());
    assert_eq!(reader.count_received(), length);
    reader.assert_done();

    let (reader, writer, body) = pair_of_paused(&mut scene, length);
    write_mixed(&writer.transport(), &body);
    writer.transport().lose_write_connection();
    reader.transport().resume_producing();
    scene.until(|| reader.is_over() && writer.is_over());
    assert_eq!(reader.count_received(), length);

    // The owner counts the references that the engine still has.
    let owner = Arc::new(pattern(length));
    let shared = Bytes::from_owner(ArcBytes(Arc::clone(&owner)));
    let (reader, writer, _) = pair_of_paused(&mut scene, length);
    write_mixed(&writer.transport(), &shared);
    drop(shared);
    scene.moment();
    // A layer may have sealed all of them.
    assert!(Arc::strong_count(&owner) == 2 || scene.setting.begins().is_some(), "the queue keeps a reference");
    writer.transport().abort_connection();
    scene.until(|| writer.is_over());
    writer.assert_aborted();
    assert_eq!(writer.transport().queued_bytes(), 0);
    scene.until_told_of_the_abort(&reader);
    assert!(reader.count_received() < length, "the queue was sent");
    // A chunk that was in flight comes back after its connection.
    scene.until(|| Arc::strong_count(&owner) == 1);
    scene.finish(&[]);
}

pub(super) fn shared_bytes_count_for_the_limit_of_a_queue(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let (reader, writer) = scene.pair(Role::new(), Role::new());
    let transport = writer.transport();
    transport.set_queue_limit(Some(QueueLimit::abort(10_000)));
    transport.write_shared(pattern(6000));
    assert_eq!(transport.queued_bytes(), 6000);
    transport.write_shared(pattern(4001));
    assert_eq!(transport.queued_bytes(), 6000, "the write was to be dropped");
    scene.until(|| writer.is_over());
    let reason = writer.reason();
    let Some(ConnectionClosed::QueueLimit { unsent, .. }) = reason.check() else { panic!("{reason}") };
    assert_eq!(*unsent, 10_001);
    scene.until_told_of_the_abort(&reader);

    // Nothing is taken after the end.
    transport.write_shared(pattern(6000));
    assert_eq!(transport.queued_bytes(), 0);
    scene.finish(&[]);
}

/// Bytes of an owner that can be counted.
struct ArcBytes(Arc<Vec<u8>>);

impl AsRef<[u8]> for ArcBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
