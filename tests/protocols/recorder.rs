//! A protocol of any receiver, for the tests and for the fuzz targets.

use std::cell::RefCell;
use std::rc::Rc;

use ropewalk::protocols::{
    Cut, FrameReceiver, FramedProtocol, IntNStringProtocol, IntNStringReceiver, LineProtocol, LineReceiver,
    NetstringError, NetstringProtocol, NetstringReceiver,
};
use ropewalk::{Failure, Protocol, Result, Transport};

/// A protocol of any receiver, which records its callbacks and obeys the messages of [`obey`].
#[derive(Debug)]
pub(crate) struct Recorder<R> {
    pub(crate) receiver: R,
    pub(crate) events: Vec<Event>,
    /// Keeps the connection open after a message that is refused.
    pub(crate) is_lenient: bool,
    /// Only counts the messages, so that the test's own memory stays out of its figures.
    pub(crate) is_counting: bool,
    pub(crate) count: usize,
    /// Pauses after each message.
    pub(crate) is_pausing: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Made,
    Message(Vec<u8>),
    Raw(Vec<u8>),
    TooLong(Vec<u8>),
    Announced(u32),
    Broken(NetstringError),
    Unframed(String),
    ReadEnded,
    Lost(String),
}

pub(crate) fn message(text: &str) -> Event {
    Event::Message(text.as_bytes().to_vec())
}

impl<R> Recorder<R> {
    pub(crate) fn new(receiver: R) -> Self {
        Self { receiver, events: Vec::new(), is_lenient: false, is_counting: false, count: 0, is_pausing: false }
    }

    pub(crate) fn lenient(mut self) -> Self {
        self.is_lenient = true;
        self
    }

    pub(crate) fn counting(mut self) -> Self {
        self.is_counting = true;
        self
    }

    pub(crate) fn pausing(mut self) -> Self {
        self.is_pausing = true;
        self
    }

    pub(crate) fn note(&mut self, event: impl FnOnce() -> Event) {
        self.count += 1;
        if !self.is_counting {
            self.events.push(event());
        }
    }

    /// Records a message, and does what it says.
    pub(crate) fn obey(&mut self, transport: &Transport, text: &[u8]) -> Result<()> {
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

    pub(crate) fn refuse(&mut self, transport: &Transport, event: Event) {
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
recorded_protocol!(FrameReceiver, receive_frames);

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

impl FramedProtocol for Recorder<FrameReceiver> {
    fn frames(&mut self) -> &mut FrameReceiver {
        &mut self.receiver
    }

    /// Obeys the message between its length and its end.
    fn message_received(&mut self, transport: &Transport, message: &[u8]) -> Result<()> {
        self.obey(transport, message.get(4..).unwrap_or_default())
    }

    fn frame_broken(&mut self, transport: &Transport, failure: Failure) -> Result<()> {
        self.refuse(transport, Event::Unframed(failure.to_string()));
        Ok(())
    }
}

/// Makes a receiver of messages with their length in front, in 32 bits.
pub(crate) fn length_frames() -> FrameReceiver {
    FrameReceiver::new(|data| {
        let Some(length) = data.first_chunk() else { return Ok(Cut::Needs(4)) };
        let length = 4 + u32::from_be_bytes(*length) as usize;
        Ok(if data.len() < length { Cut::Needs(length) } else { Cut::Message(length) })
    })
}

/// Makes a receiver of messages that end with a full stop, and hold no exclamation mark.
pub(crate) fn stop_frames() -> FrameReceiver {
    FrameReceiver::new(|data| match data.iter().position(|byte| b".!".contains(byte)) {
        Some(end) if data[end] == b'!' => Err("not so loud".into()),
        end => Ok(end.map(|end| end + 1)),
    })
}

/// A protocol whose events outlive it.
pub(crate) struct Observed<R>(Recorder<R>, Rc<RefCell<Vec<Event>>>);

impl<R> Observed<R> {
    pub(crate) fn new(recorder: Recorder<R>) -> (Self, Rc<RefCell<Vec<Event>>>) {
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
