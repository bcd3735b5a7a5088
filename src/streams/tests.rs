//! The memory of an idle stream.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use futures_io::AsyncRead;

use super::{ByteStream, StreamProtocol};
use crate::testing::StringTransport;

/// A stream holds a buffer only while bytes are unread, and gets it from the pool of its reactor.
#[test]
fn an_idle_stream_holds_no_buffer() {
    let place = Rc::new(Cell::new(None));
    let filled = Rc::clone(&place);
    let connection = StringTransport::new().joined(StreamProtocol::new(move |stream| filled.set(Some(stream))));
    let mut stream: ByteStream = place.take().expect("a connection");
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert_eq!(stream.buffer_capacity(), 0);
        connection.deliver(&[7; 3000]);
        assert!(stream.buffer_capacity() >= 3000);
        assert!(Pin::new(&mut stream).poll_read(&mut cx, &mut [0; 2000]).is_ready());
        assert!(stream.buffer_capacity() > 0);
        assert!(Pin::new(&mut stream).poll_read(&mut cx, &mut [0; 2000]).is_ready());
    }
    assert_eq!(stream.buffer_capacity(), 0);
    assert!(stream.transport().take_buffer().capacity() >= 3000, "it went back to the pool");
}
