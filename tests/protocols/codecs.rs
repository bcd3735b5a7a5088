//! Codecs of tokio-util as receivers: the same items in each cut, limits, errors, and ends.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::{BufMut, BytesMut};
use ropewalk::protocols::{CodecProtocol, CodecReceiver, FrameTooLong};
use ropewalk::testing::{ChunkingCheck, StringTransport};
use ropewalk::{Failure, Protocol, Result, Transport};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec, LinesCodec};

use super::common::allocator;

/// A protocol that records the items of a codec, and pauses after each `pause`.
struct Items<C> {
    items: CodecReceiver<C>,
    record: Rc<RefCell<Vec<String>>>,
    is_lenient: bool,
}

impl<C> Items<C> {
    fn new(codec: C) -> (Self, Rc<RefCell<Vec<String>>>) {
        let record = Rc::<RefCell<Vec<String>>>::default();
        (Self { items: CodecReceiver::new(codec), record: Rc::clone(&record), is_lenient: false }, record)
    }

    fn max_length(mut self, bytes: usize) -> Self {
        self.items = self.items.max_length(bytes);
        self
    }

    fn lenient(mut self) -> Self {
        self.is_lenient = true;
        self
    }
}

impl<C> Protocol for Items<C>
where
    C: Decoder<Item: std::fmt::Debug, Error: std::error::Error + Send + Sync> + 'static,
{
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.receive_items(transport, data)
    }

    fn half_close(&self) -> bool {
        true
    }

    fn read_connection_lost(&mut self, transport: &Transport) -> Result<()> {
        self.receive_last_items(transport)
    }
}

impl<C> CodecProtocol for Items<C>
where
    C: Decoder<Item: std::fmt::Debug, Error: std::error::Error + Send + Sync> + 'static,
{
    type Codec = C;

    fn codec(&mut self) -> &mut CodecReceiver<C> {
        &mut self.items
    }

    fn item_received(&mut self, transport: &Transport, item: C::Item) -> Result<()> {
        let text = format!("{item:?}");
        if text.contains("blink") {
            transport.pause_producing();
            transport.resume_producing();
        }
        if text.contains("pause") {
            transport.pause_producing();
        }
        if text.contains("bye") {
            transport.lose_connection();
        }
        self.record.borrow_mut().push(text);
        Ok(())
    }

    fn codec_failed(&mut self, _transport: &Transport, failure: Failure) -> Result<()> {
        self.record.borrow_mut().push(failure.to_string());
        if self.is_lenient { Ok(()) } else { Err(failure) }
    }
}

fn length_delimited(items: &[&str]) -> Vec<u8> {
    let (mut codec, mut bytes) = (LengthDelimitedCodec::new(), BytesMut::new());
    for item in items {
        codec.encode(bytes::Bytes::copy_from_slice(item.as_bytes()), &mut bytes).unwrap();
    }
    bytes.to_vec()
}

/// F61: the same items for any cut of the input, with a close in the middle, and a last line that
/// the end completes.
#[test]
fn every_cut_gives_the_same_items() {
    for input in [&b"one\r\n\ntwo\nblink\nthree\nbye\nfour\n"[..], b"one\ntwo\nblink\nlast", b"\xff\n\xfe\nx\n"] {
        ChunkingCheck::new(input).then_end_of_stream().run_observed(|| {
            let (items, record) = Items::new(LinesCodec::new());
            (items.lenient(), move || record.take())
        });
    }
    let input = length_delimited(&["one", "", "blink", "three", "bye", "four"]);
    ChunkingCheck::new(input).then_end_of_stream().run_observed(|| {
        let (items, record) = Items::new(LengthDelimitedCodec::new());
        (items, move || record.take())
    });
}

/// A pause stops in the middle of a chunk. The rest comes on resuming, before later bytes.
#[test]
fn a_pause_in_the_middle_of_a_chunk() {
    let (items, record) = Items::new(LinesCodec::new());
    let connection = StringTransport::new().joined(items);
    connection.deliver(b"one\npause\ntwo\nthr");
    assert_eq!(record.borrow().len(), 2);
    connection.deliver(b"ee\n");
    assert_eq!(record.borrow().len(), 2);
    connection.transport().resume_producing();
    connection.turn();
    assert_eq!(*record.borrow(), ["\"one\"", "\"pause\"", "\"two\"", "\"three\""]);
}

/// A1: an item of the limit is received, in pieces too, and a longer one is not, even if it comes
/// whole. The kept bytes stay within the limit, however much is sent.
#[test]
fn limits_hold() {
    const LIMIT: usize = 1000;
    let good = [vec![b'x'; LIMIT - 1], b"\n".to_vec()].concat();
    let long = [vec![b'x'; LIMIT], b"\n".to_vec()].concat();
    for cut in [1, 7, 999, 1000, 5000] {
        let (items, record) = Items::new(LinesCodec::new());
        let connection = StringTransport::new().joined(items.max_length(LIMIT));
        good.chunks(cut).for_each(|chunk| connection.deliver(chunk));
        assert_eq!((record.borrow().len(), connection.lost().is_some()), (1, false), "cut every {cut}");
        long.chunks(cut).for_each(|chunk| connection.deliver(chunk));
        let reason = connection.lost().expect("it is too long");
        assert!(reason.check::<FrameTooLong>().is_some_and(|error| error.limit == LIMIT), "cut every {cut}: {reason}");
    }
    let (items, record) = Items::new(LinesCodec::new());
    let connection = StringTransport::new().joined(items.max_length(LIMIT).lenient());
    let junk = [b'x'; 64 * 1024];
    connection.deliver(&junk);
    let before = allocator::live();
    allocator::begin_peak();
    for _ in 0..100 {
        connection.deliver(&junk);
        record.borrow_mut().clear();
    }
    let grown = allocator::peak().saturating_sub(before);
    assert!(grown <= 4 * 64 * 1024, "{grown} bytes");
}

/// The error of a codec closes the connection. If it is kept open, the codec goes on behind it, and
/// one that takes nothing is not asked again and again.
#[test]
fn errors_of_a_codec() {
    let (items, record) = Items::new(LinesCodec::new_with_max_length(4));
    let connection = StringTransport::new().joined(items);
    connection.deliver(b"12345678\nnext\n");
    assert!(connection.lost().is_some() && record.borrow().len() == 1);

    let (items, record) = Items::new(LinesCodec::new_with_max_length(4));
    let connection = StringTransport::new().joined(items.lenient());
    connection.deliver(b"12345678\nnext\n");
    connection.deliver(b"last\n");
    assert_eq!(record.borrow().iter().filter(|item| item.starts_with('"')).count(), 2, "{:?}", record.borrow());

    /// Fails for ever.
    struct Stuck;
    impl Decoder for Stuck {
        type Item = ();
        type Error = std::io::Error;
        fn decode(&mut self, _data: &mut BytesMut) -> std::io::Result<Option<()>> {
            Err(std::io::ErrorKind::InvalidData.into())
        }
    }
    let (items, record) = Items::new(Stuck);
    let connection = StringTransport::new().joined(items.max_length(100).lenient());
    (0..3).for_each(|_| connection.deliver(b"x"));
    assert_eq!(record.borrow().len(), 3);
}

/// A codec that looks ahead leaves bytes of earlier chunks. They are neither lost nor repeated when
/// a pause gives the rest back.
#[test]
fn a_codec_that_looks_ahead() {
    /// A digit, of which the next three bytes must have come.
    struct Ahead;
    impl Decoder for Ahead {
        type Item = char;
        type Error = std::io::Error;
        fn decode(&mut self, data: &mut BytesMut) -> std::io::Result<Option<char>> {
            Ok((data.len() > 3).then(|| char::from(data.split_to(1)[0])))
        }
        fn decode_eof(&mut self, data: &mut BytesMut) -> std::io::Result<Option<char>> {
            Ok((!data.is_empty()).then(|| char::from(data.split_to(1)[0])))
        }
    }
    /// Pauses after each item.
    struct Slow(CodecReceiver<Ahead>, Rc<RefCell<String>>);
    impl Protocol for Slow {
        fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
            self.receive_items(transport, data)
        }
    }
    impl CodecProtocol for Slow {
        type Codec = Ahead;
        fn codec(&mut self) -> &mut CodecReceiver<Ahead> {
            &mut self.0
        }
        fn item_received(&mut self, transport: &Transport, item: char) -> Result<()> {
            self.1.borrow_mut().push(item);
            transport.pause_producing();
            Ok(())
        }
    }
    for cut in 1..12 {
        let text = Rc::<RefCell<String>>::default();
        let slow = Slow(CodecReceiver::new(Ahead), Rc::clone(&text));
        let connection = StringTransport::new().joined(slow);
        for chunk in b"0123456789abc".chunks(cut) {
            connection.deliver(chunk);
            for _ in 0..20 {
                connection.transport().resume_producing();
                connection.turn();
            }
        }
        assert_eq!(*text.borrow(), "0123456789", "cut every {cut}");
    }
}

/// An item that can't be encoded is an error, and nothing is written.
#[test]
fn an_item_that_cannot_be_sent() {
    struct Picky;
    impl Encoder<u8> for Picky {
        type Error = std::io::Error;
        fn encode(&mut self, item: u8, to: &mut BytesMut) -> std::io::Result<()> {
            to.put_u8(item);
            if item == 0 { Err(std::io::ErrorKind::InvalidData.into()) } else { Ok(()) }
        }
    }
    let (string, mut receiver) = (StringTransport::new(), CodecReceiver::new(Picky));
    receiver.send(string.transport(), b'a').unwrap();
    assert!(receiver.send(string.transport(), 0).is_err());
    receiver.send(string.transport(), b'b').unwrap();
    assert_eq!(string.value(), b"ab");
}
