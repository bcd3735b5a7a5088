//! Cases about the flow of bytes: full sockets, slow readers, and big transfers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::scene::{End, Role, SeenCall, pattern};
use super::{Scene, Setting};
use crate::error::ConnectionClosed;
use crate::failure::Result;
use crate::time::Clock;
use crate::transport::{Producer, ProducerError, QueueLimit, Streaming, Transport};

pub(super) fn a_full_socket_goes_on_when_its_peer_reads(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let plenty = scene.setting.plenty();
    let body = pattern(plenty + 3 * MORE);
    let reader = Role::new().expects(body.clone(), &scene.witness);
    let (reader, writer) = scene.full(reader, Role::new(), plenty);
    let queued = writer.transport().queued_bytes();
    // Bytes written while the socket is full follow the queue.
    writer.transport().write(&body[plenty..plenty + MORE]);
    writer.transport().write_sequence(body[plenty + MORE..plenty + 2 * MORE].chunks(7));
    scene.moment();
    // TLS may seal them meanwhile, in two records.
    let all = queued + 2 * MORE;
    assert!((all..all + MORE).contains(&writer.transport().queued_bytes()), "it sent to a reader that does not read");
    assert_eq!(reader.count_received(), 0);
    reader.transport().resume_producing();
    scene.until(|| writer.transport().queued_bytes() == 0 && reader.count_received() == plenty + 2 * MORE);
    // The socket that was full takes more.
    writer.transport().write(&body[plenty + 2 * MORE..]);
    scene.until(|| reader.count_received() == body.len());
    assert_eq!(writer.transport().queued_bytes(), 0);
    scene.finish(&[&reader, &writer]);
}

/// A few bytes more.
const MORE: usize = 100;

pub(super) fn nothing_comes_while_paused(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let body = pattern(20);
    // Paused from the beginning, then inside `data_received`, then from outside.
    let reader = Role::new().expects(body.clone(), &scene.witness).does(SeenCall::Made, Transport::pause_producing);
    let end = reader.end();
    let inside = Rc::new(Cell::new(false));
    let pausing = Rc::clone(&inside);
    let reader = reader.does(SeenCall::Data, move |transport| {
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
    let before = reader.count(SeenCall::Data);
    scene.moment();
    assert_eq!((before, reader.count(SeenCall::Data)), (1, 1), "it was paused inside data_received");
    inside.set(false);
    reader.transport().resume_producing();
    scene.until(|| end.count_received() == 8);
    // Of a pause and a resume at once, in either order, the last request holds.
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
    let reader = Role::new().expects(Rc::clone(&body), &scene.witness).does(SeenCall::Data, move |transport| {
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

/// The calls that a producer of these cases has received.
pub(super) type Told = Rc<RefCell<Vec<&'static str>>>;

/// Records its calls, and writes a piece of `piece` bytes at each resume.
struct Noting {
    told: Told,
    piece: usize,
    pieces: usize,
}

impl Producer for Noting {
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
        self.told.borrow_mut().push("resume");
        match self.pieces.checked_sub(1) {
            Some(left) => self.pieces = left,
            None => {
                consumer.unregister_producer();
                return Ok(());
            }
        }
        consumer.write(&vec![0; self.piece]);
        Ok(())
    }

    fn pause_producing(&mut self, _consumer: &Transport) -> Result<()> {
        self.told.borrow_mut().push("pause");
        Ok(())
    }

    fn stop_producing(&mut self, _consumer: &Transport) {
        self.told.borrow_mut().push("stop");
    }
}

/// Registers a producer of `pieces` pieces.
#[track_caller]
pub(super) fn register(end: &End, streaming: Streaming, piece: usize, pieces: usize) -> Told {
    let told = Told::default();
    let producer = Noting { told: Rc::clone(&told), piece, pieces };
    end.transport().register_producer(producer, streaming).unwrap_or_else(|error| panic!("{error}"));
    told
}

pub(super) fn a_producer_is_paused_and_resumed_at_the_marks(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let plenty = scene.setting.plenty();
    let reader = Role::new().does(SeenCall::Made, Transport::pause_producing);
    let (reader, writer) = scene.pair(reader, Role::new());
    let transport = writer.transport();
    transport.set_write_marks(MORE, 2 * MORE);
    let told = register(&writer, Streaming::Push, 0, usize::MAX);
    scene.moment();
    assert!(told.borrow().is_empty(), "nothing was written, but it was told to {:?}", told.borrow());
    transport.write(&vec![0; plenty + 3 * MORE]);
    assert!(told.borrow().is_empty(), "it was told inside write");
    scene.until(|| !told.borrow().is_empty());
    assert_eq!(*told.borrow(), ["pause"]);
    scene.moment();
    assert_eq!(*told.borrow(), ["pause"], "nothing was taken since");
    assert!(transport.queued_bytes() > MORE, "the case needs a full socket");
    reader.transport().resume_producing();
    let (queued, seen) = (transport.clone(), Rc::clone(&told));
    scene.until(|| seen.borrow().len() > 1);
    assert_eq!(*told.borrow(), ["pause", "resume"]);
    assert!(queued.queued_bytes() <= MORE, "{} bytes are queued, but it was resumed", queued.queued_bytes());
    scene.until(|| reader.count_received() == plenty + 3 * MORE);
    transport.unregister_producer();
    assert!(!transport.has_producer());

    // A pull producer: three pieces, and a last call, at which it has none.
    let told = register(&writer, Streaming::Pull, 7, 3);
    scene.until(|| !transport.has_producer());
    scene.until(|| reader.count_received() == plenty + 3 * MORE + 21);
    assert_eq!(*told.borrow(), ["resume"; 4]);
    scene.finish(&[&reader, &writer]);
}

pub(super) fn a_queue_limit_tells_pauses_or_aborts(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    let plenty = scene.setting.plenty() + 3 * MORE;
    let (reader, writer) = scene.full(Role::new(), Role::new(), plenty);
    let transport = writer.transport();
    transport.set_queue_limit(Some(QueueLimit::tell(MORE as u32)));
    transport.write(&[0; MORE]);
    assert!(!writer.has(SeenCall::QueueLimit), "it was told inside write");
    scene.until(|| writer.has(SeenCall::QueueLimit));
    transport.write(&[0; MORE]);
    scene.moment();
    assert_eq!(writer.count(SeenCall::QueueLimit), 1, "the peer has taken nothing since");
    // A paused reader gets no bytes until its peer has read.
    transport.set_queue_limit(Some(QueueLimit::pause(MORE as u32)));
    scene.moment();
    reader.transport().write(b"hello");
    scene.moment();
    assert_eq!(writer.count_received(), 0, "{} bytes are queued, but it reads", transport.queued_bytes());
    reader.transport().resume_producing();
    scene.until(|| writer.count_received() == 5 && reader.count_received() == plenty + 2 * MORE);
    assert_eq!(writer.count(SeenCall::QueueLimit), 1);

    let open = [reader, writer];

    let (reader, writer) = scene.full(Role::new(), Role::new(), plenty);
    let transport = writer.transport();
    let limit = u32::try_from(transport.queued_bytes()).unwrap_or(u32::MAX);
    transport.set_queue_limit(Some(QueueLimit::abort(limit)));
    scene.moment();
    assert!(!writer.is_over(), "the limit is not passed");
    transport.write(&[0; MORE]);
    assert!(transport.queued_bytes() <= limit as usize && !writer.is_over());
    scene.until(|| writer.is_over());
    let reason = writer.reason();
    assert!(matches!(reason.check(), Some(ConnectionClosed::QueueLimit { .. })), "{reason}");
    scene.until_told_of_the_abort(&reader);
    scene.finish(&open.each_ref());
}

pub(super) fn a_close_waits_for_a_producer(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for streaming in [Streaming::Push, Streaming::Pull] {
        let plenty = scene.setting.plenty() + 3 * MORE;
        let (reader, writer) = scene.full(Role::new(), Role::new(), plenty);
        writer.transport().set_write_marks(0, MORE);
        let told = register(&writer, streaming, 10, 5);
        if streaming == Streaming::Push {
            scene.until(|| !told.borrow().is_empty());
        }
        writer.transport().lose_connection();
        scene.moment();
        assert!(!writer.is_over());
        reader.transport().resume_producing();
        scene.until(|| reader.is_over() && writer.is_over());
        // A push producer writes by itself. Here it does so once, for the only resume, and is not
        // paused again.
        let written = if streaming == Streaming::Push { 10 } else { 50 };
        assert_eq!(reader.count_received(), plenty + written, "{streaming:?}: {:?}", told.borrow());
        writer.assert_done();
    }
    scene.finish(&[]);
}

pub(super) fn a_producer_is_stopped_with_its_connection(setting: &mut dyn Setting) {
    let mut scene = Scene::new(setting);
    for by_peer in [false, true] {
        let (one, other) = scene.pair(Role::new(), Role::new());
        let told = register(&one, Streaming::Push, 0, 0);
        let second = Noting { told: Told::default(), piece: 0, pieces: 0 };
        let refused = one.transport().register_producer(second, Streaming::Pull);
        assert_eq!(refused, Err(ProducerError::AlreadyRegistered));
        let at_the_end = Rc::clone(&told);
        let ending = if by_peer { &other } else { &one };
        ending.transport().abort_connection();
        scene.until(|| one.is_over() && other.is_over());
        assert_eq!(*at_the_end.borrow(), ["stop"]);
        let late = Noting { told: Told::default(), piece: 0, pieces: 0 };
        assert_eq!(one.transport().register_producer(late, Streaming::Push), Err(ProducerError::Disconnected));
        assert!(!one.transport().has_producer());
    }
    scene.finish(&[]);
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

/// Sends a big transfer at once, and expects the same one.
fn talker(scene: &Scene<'_>) -> Role {
    let body: Rc<[u8]> = pattern(scene.setting.big()).into();
    Role::new()
        .expects(Rc::clone(&body), &scene.witness)
        .does(SeenCall::Made, move |transport| body.chunks(PIECE).for_each(|piece| transport.write(piece)))
}

/// Size of a write. Some are small enough to be gathered with the rest of the queue.
const PIECE: usize = 50_000;

fn talk(scene: &mut Scene<'_>, one: &End, other: &End) {
    let big = scene.setting.big();
    scene.until(|| one.count_received() == big && other.count_received() == big);
    // The result of the last send may be reported a turn after its bytes have arrived.
    scene.until(|| one.transport().queued_bytes() + other.transport().queued_bytes() == 0);
}
