//! calloop: a level-triggered event source for each connection, and one shared buffer.
//!
//! The source is a `Generic` with the unsent bytes. While there are any, it waits for writability
//! and reads nothing.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use calloop::generic::Generic;
use calloop::{EventLoop, EventSource, Interest, Mode, Poll, PostAction, Readiness, Token, TokenFactory};

use super::{CHUNK_BYTES, listener, print_ready};
use crate::Result;

type Buffer = Rc<RefCell<Box<[u8]>>>;

struct Connection {
    stream: Generic<TcpStream>,
    unsent: Vec<u8>,
    buffer: Buffer,
}

pub(super) fn serve(address: SocketAddr) -> Result<Infallible> {
    let listener = listener(address)?;
    print_ready(listener.local_addr()?, "")?;
    let mut event_loop = EventLoop::<()>::try_new()?;
    let (handle, buffer) = (event_loop.handle(), Rc::new(RefCell::new(vec![0; CHUNK_BYTES].into_boxed_slice())));
    let accepting = Generic::new(listener, Interest::READ, Mode::Level);
    event_loop.handle().insert_source(accepting, move |_, listener, ()| {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(PostAction::Continue),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let stream = Generic::new(stream, Interest::READ, Mode::Level);
            let connection = Connection { stream, unsent: Vec::new(), buffer: Rc::clone(&buffer) };
            handle.insert_source(connection, |(), (), ()| {}).map_err(|refused| Error::other(refused.error))?;
        }
    })?;
    event_loop.run(None, &mut (), |()| {})?;
    Err("the event loop ended".into())
}

impl EventSource for Connection {
    type Event = ();
    type Metadata = ();
    type Ret = ();
    type Error = Error;

    fn process_events<C: FnMut((), &mut ())>(
        &mut self,
        readiness: Readiness,
        token: Token,
        _: C,
    ) -> Result<PostAction, Error> {
        let had_unsent = !self.unsent.is_empty();
        let (unsent, buffer) = (&mut self.unsent, &self.buffer);
        let done = self
            .stream
            .process_events(readiness, token, |_, stream| on_ready(stream, unsent, &mut buffer.borrow_mut()))?;
        let has_unsent = !self.unsent.is_empty();
        if had_unsent != has_unsent && done == PostAction::Continue {
            self.stream.interest = if has_unsent { Interest::WRITE } else { Interest::READ };
            return Ok(PostAction::Reregister);
        }
        Ok(done)
    }

    fn register(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.stream.register(poll, tokens)
    }

    fn reregister(&mut self, poll: &mut Poll, tokens: &mut TokenFactory) -> calloop::Result<()> {
        self.stream.reregister(poll, tokens)
    }

    fn unregister(&mut self, poll: &mut Poll) -> calloop::Result<()> {
        self.stream.unregister(poll)
    }
}

/// Sends the unsent bytes if there are any. Otherwise receives and echoes.
fn on_ready(mut stream: &TcpStream, unsent: &mut Vec<u8>, buffer: &mut [u8]) -> Result<PostAction, Error> {
    if !unsent.is_empty() {
        return Ok(match stream.write(unsent) {
            Ok(count) => {
                unsent.drain(..count);
                PostAction::Continue
            }
            Err(error) => unless_blocked(&error),
        });
    }
    let count = match stream.read(buffer) {
        Ok(0) => return Ok(PostAction::Remove),
        Ok(count) => count,
        Err(error) => return Ok(unless_blocked(&error)),
    };
    match stream.write(&buffer[..count]) {
        Ok(sent) => unsent.extend_from_slice(&buffer[sent..count]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => unsent.extend_from_slice(&buffer[..count]),
        Err(_) => return Ok(PostAction::Remove),
    }
    Ok(PostAction::Continue)
}

fn unless_blocked(error: &Error) -> PostAction {
    if error.kind() == ErrorKind::WouldBlock { PostAction::Continue } else { PostAction::Remove }
}
