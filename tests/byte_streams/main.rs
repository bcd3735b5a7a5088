//! Byte streams for async libraries: in memory, on simulated networks, over sockets and over TLS.

#[path = "../common/mod.rs"]
mod common;

mod ends;
mod memory;
mod opening;
mod simulated;
mod sockets;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_sockets;
mod traits;

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use ropewalk::streams::{ByteStream, StreamProtocol};
use ropewalk::testing::{Pump, PumpOptions, StringConnection, StringTransport};

#[global_allocator]
static ALLOCATOR: common::allocator::Counting = common::allocator::Counting;

/// A task that counts its wake-ups.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Number of wake-ups since the last call.
    fn woken(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }

    fn waker(self: &Arc<Self>) -> Waker {
        Arc::clone(self).into()
    }

    /// Reads at most `room` bytes.
    fn read(self: &Arc<Self>, stream: &mut ByteStream, room: usize) -> Poll<std::io::Result<Vec<u8>>> {
        let mut buffer = vec![0; room];
        let polled = Pin::new(stream).poll_read(&mut Context::from_waker(&self.waker()), &mut buffer);
        polled.map_ok(|count| {
            buffer.truncate(count);
            buffer
        })
    }

    fn write(self: &Arc<Self>, stream: &mut ByteStream, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(stream).poll_write(&mut Context::from_waker(&self.waker()), data)
    }

    fn flush(self: &Arc<Self>, stream: &mut ByteStream) -> Poll<std::io::Result<()>> {
        Pin::new(stream).poll_flush(&mut Context::from_waker(&self.waker()))
    }

    fn close(self: &Arc<Self>, stream: &mut ByteStream) -> Poll<std::io::Result<()>> {
        Pin::new(stream).poll_close(&mut Context::from_waker(&self.waker()))
    }
}

/// A protocol, and the place where its stream will be.
fn protocol() -> (StreamProtocol, Rc<Cell<Option<ByteStream>>>) {
    let place = Rc::new(Cell::new(None));
    let filled = Rc::clone(&place);
    (StreamProtocol::new(move |stream| filled.set(Some(stream))), place)
}

/// Two streams that are connected to each other, by buffers of this size.
fn pair(room: usize) -> (Pump<StreamProtocol, StreamProtocol>, ByteStream, ByteStream) {
    let ((client, ours), (server, theirs)) = (protocol(), protocol());
    let pump = PumpOptions::new().room(room).connect(client, server);
    (pump, ours.take().expect("a connection"), theirs.take().expect("a connection"))
}

/// A stream over a string transport.
fn joined() -> (StringConnection<StreamProtocol>, ByteStream) {
    let (protocol, place) = protocol();
    let connection = StringTransport::new().joined(protocol);
    (connection, place.take().expect("a connection"))
}

/// Bytes that differ from place to place.
fn pattern(count: usize) -> Vec<u8> {
    common::repeated((0..251 * 256).map(|index| (index * 31 + index / 251) as u8), count)
}

/// Reads to the end of file, through one buffer. The helper of the futures crate clears all that it
/// has reserved at each poll, which takes minutes where bytes come one by one.
async fn read_all(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match AsyncReadExt::read(reader, &mut buffer).await? {
            0 => return Ok(all),
            count => all.extend_from_slice(&buffer[..count]),
        }
    }
}

#[track_caller]
fn ready<T>(polled: Poll<std::io::Result<T>>) -> T {
    match polled {
        Poll::Ready(Ok(value)) => value,
        Poll::Ready(Err(error)) => panic!("{error}"),
        Poll::Pending => panic!("it waits"),
    }
}

#[track_caller]
fn error<T: std::fmt::Debug>(polled: Poll<std::io::Result<T>>) -> std::io::Error {
    match polled {
        Poll::Ready(result) => result.expect_err("an error is expected"),
        Poll::Pending => panic!("it waits"),
    }
}
