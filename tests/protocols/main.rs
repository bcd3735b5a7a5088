//! Receivers of messages: lines, netstrings, strings with their length in front. All of it runs in
//! memory, on the joint that a reactor has.

#[path = "../common/mod.rs"]
mod common;

mod cuts;
mod lines;
mod netstrings;
mod pausing;
mod prefixed;
mod proxy_headers;
mod receivers;

use std::cell::RefCell;
use std::rc::Rc;

use ropewalk::protocols::{
    IntNStringProtocol, IntNStringReceiver, LineProtocol, LineReceiver, NetstringError, NetstringProtocol,
    NetstringReceiver,
};
use ropewalk::{Failure, Protocol, Result, Transport};

#[global_allocator]
static ALLOCATOR: common::allocator::Counting = common::allocator::Counting;

/// A protocol of any receiver, which records its callbacks and obeys the messages of [`obey`].
#[derive(Debug)]
struct Recorder<R> {
    receiver: R,
    events: Vec<Event>,
    /// Keeps the connection open after a message that is refused.
    is_lenient: bool,
    /// Only counts the messages, so that the test's own memory stays out of its figures.
    is_counting: bool,
    count: usize,
    /// Pauses after each message.
    is_pausing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Made,
    Message(Vec<u8>),
    Raw(Vec<u8>),
    TooLong(Vec<u8>),
    Announced(u32),
    Broken(NetstringError),
    ReadEnded,
    Lost(String),
}

fn message(text: &str) -> Event {
    Event::Message(text.as_bytes().to_vec())
}

impl<R> Recorder<R> {
    fn new(receiver: R) -> Self {
        Self { receiver, events: Vec::new(), is_lenient: false, is_counting: false, count: 0, is_pausing: false }
    }

    fn lenient(mut self) -> Self {
        self.is_lenient = true;
        self
    }

    fn counting(mut self) -> Self {
        self.is_counting = true;
        self
    }

    fn pausing(mut self) -> Self {
        self.is_pausing = true;
        self
    }

    fn note(&mut self, event: impl FnOnce() -> Event) {
        self.count += 1;
        if !self.is_counting {
            self.events.push(event());
        }
    }

    /// Records a message, and does what it says.
    fn obey(&mut self, transport: &Transport, text: &[u8]) -> Result<()> {
        self.note(|| Event::Message(text.to_vec()));
        if self.is_pausing {
            transport.pause_producing();
        }
        match text {
            b"pause" => transport.pause_producing(),
            b"blink" => {
                transport.pause_producing();
                transport.resume_producing();
            }
            b"bye" => transport.lose_connection(),
            b"gone" => transport.abort_connection(),
            b"fail" => return Err("as ordered".into()),
            _ => {}
        }
        Ok(())
    }

    fn refuse(&mut self, transport: &Transport, event: Event) {
        self.note(|| event);
        if !self.is_lenient {
            transport.lose_connection();
        }
    }
}

/// Writes the callbacks that are the same for each receiver.
macro_rules! recorded_protocol {
    ($receiver:ty, $receive:ident) => {
        impl Protocol for Recorder<$receiver> {
            fn connection_made(&mut self, _transport: &Transport) -> Result<()> {
                self.note(|| Event::Made);
                Ok(())
            }

            fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
                self.$receive(transport, data)
            }

            fn half_close(&self) -> bool {
                true
            }

            fn read_connection_lost(&mut self, _transport: &Transport) -> Result<()> {
                self.note(|| Event::ReadEnded);
                Ok(())
            }

            fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
                self.note(|| Event::Lost(reason.to_string()));
            }
        }
    };
}

recorded_protocol!(LineReceiver, receive_lines);
recorded_protocol!(NetstringReceiver, receive_netstrings);
recorded_protocol!(IntNStringReceiver, receive_strings);

impl LineProtocol for Recorder<LineReceiver> {
    fn lines(&mut self) -> &mut LineReceiver {
        &mut self.receiver
    }

    fn line_received(&mut self, transport: &Transport, line: &[u8]) -> Result<()> {
        match line {
            b"raw" => self.receiver.set_raw_mode(),
            b"dot" => self.receiver.set_delimiter(&b"."[..])?,
            b"short" => self.receiver.set_max_length(5),
            _ => {}
        }
        self.obey(transport, line)
    }

    /// Takes bytes up to a full stop, behind which lines follow.
    fn raw_data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<usize> {
        let end = data.iter().position(|byte| *byte == b'.').map(|place| place + 1);
        for byte in &data[..end.unwrap_or(data.len())] {
            self.note(|| Event::Raw(vec![*byte]));
        }
        if end.is_some() {
            self.receiver.set_line_mode();
        }
        if self.is_pausing {
            transport.pause_producing();
        }
        Ok(end.unwrap_or(data.len()))
    }

    fn line_length_exceeded(&mut self, transport: &Transport, start: &[u8]) -> Result<()> {
        self.refuse(transport, Event::TooLong(start.to_vec()));
        Ok(())
    }
}

impl NetstringProtocol for Recorder<NetstringReceiver> {
    fn netstrings(&mut self) -> &mut NetstringReceiver {
        &mut self.receiver
    }

    fn string_received(&mut self, transport: &Transport, string: &[u8]) -> Result<()> {
        self.obey(transport, string)
    }

    fn netstring_broken(&mut self, transport: &Transport, error: NetstringError) -> Result<()> {
        self.refuse(transport, Event::Broken(error));
        Ok(())
    }
}

impl IntNStringProtocol for Recorder<IntNStringReceiver> {
    fn strings(&mut self) -> &mut IntNStringReceiver {
        &mut self.receiver
    }

    fn string_received(&mut self, transport: &Transport, string: &[u8]) -> Result<()> {
        self.obey(transport, string)
    }

    fn length_limit_exceeded(&mut self, transport: &Transport, length: u32) -> Result<()> {
        self.refuse(transport, Event::Announced(length));
        Ok(())
    }
}

/// A protocol whose events outlive it.
struct Observed<R>(Recorder<R>, Rc<RefCell<Vec<Event>>>);

impl<R> Observed<R> {
    fn new(recorder: Recorder<R>) -> (Self, Rc<RefCell<Vec<Event>>>) {
        let record = Rc::default();
        (Self(recorder, Rc::clone(&record)), record)
    }
}

impl<R: 'static> Protocol for Observed<R>
where
    Recorder<R>: Protocol,
{
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        let result = self.0.data_received(transport, data);
        self.1.borrow_mut().append(&mut self.0.events);
        result
    }
}

/// Joins a protocol, delivers chunks, and returns the events after `connection_made`.
fn events<R>(protocol: Recorder<R>, chunks: &[&[u8]]) -> Vec<Event>
where
    Recorder<R>: Protocol,
{
    let connection = ropewalk::testing::StringTransport::new().joined(protocol);
    for chunk in chunks {
        connection.deliver(chunk);
    }
    connection.connection().with(|recorder, _| recorder.events.split_off(1)).expect("the connection is open")
}
