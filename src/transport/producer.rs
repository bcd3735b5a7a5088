//! Producers: sources of bytes that write to a transport for as long as they have bytes, and need
//! to know when the peer does not keep up (Twisted: `IPushProducer`, `IPullProducer`,
//! `IConsumer.registerProducer`).
//!
//! | producer | writes | is paused | is resumed |
//! |---|---|---|---|
//! | [`Push`](Streaming::Push) | at any time, until it is paused | above the high mark | when the queue is down to the low mark |
//! | [`Pull`](Streaming::Pull) | one piece for each `resume_producing` | never | when all written bytes have been sent |
//!
//! A pull producer is resumed for the first time when it is registered, as soon as the queue is
//! empty.
//!
//! Both get `stop_producing` when the connection is over, before the protocol gets
//! `connection_lost`, and no call after that. All calls are made at the end of a turn, never from
//! inside of a write.
//!
//! `lose_connection` waits for a pull producer, and for a push producer that is paused. The
//! connection closes when that producer is unregistered, or when a push producer was resumed and
//! has written nothing. It does not wait for a push producer that is not paused. The close timeout
//! bounds the wait, as long as no byte leaves.

use std::fmt;
use std::rc::{Rc, Weak};

use thiserror::Error;

use super::{Transport, TransportInner};
use crate::failure::Result;

/// A source of bytes for a transport, its consumer (Twisted: `IPushProducer`, `IPullProducer`).
///
/// An error, or a panic, ends the consumer's connection with that failure.
///
/// ```
/// use ropewalk::{Result, Transport};
/// use ropewalk::transport::{Producer, Streaming};
///
/// /// Counts down, a number at a time, as fast as the peer reads.
/// struct Countdown(u64);
///
/// impl Producer for Countdown {
///     fn resume_producing(&mut self, consumer: &Transport) -> Result<()> {
///         consumer.write(format!("{}\n", self.0).as_bytes());
///         match self.0.checked_sub(1) {
///             Some(next) => self.0 = next,
///             None => consumer.unregister_producer(),
///         }
///         Ok(())
///     }
///
///     fn stop_producing(&mut self, _consumer: &Transport) {}
/// }
///
/// fn count_down(transport: &Transport) -> Result<()> {
///     Ok(transport.register_producer(Countdown(1_000_000), Streaming::Pull)?)
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a producer",
    note = "to send bytes, write them: `transport.write(bytes)`",
    note = "to send a file, or any other reader: `FileSender::new(file).begin(transport)`",
    note = "to forward the bytes of another transport: `other.as_producer()`"
)]
pub trait Producer: 'static {
    /// Produces: a pull producer writes one piece, a push producer writes until it is paused
    /// (Twisted: `resumeProducing`).
    ///
    /// # Errors
    /// An error ends the consumer's connection.
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()>;

    /// Stops producing until the next `resume_producing` (Twisted: `pauseProducing`). It is never
    /// called for pull producers.
    ///
    /// # Errors
    /// An error ends the consumer's connection.
    fn pause_producing(&mut self, consumer: &Transport) -> Result<()> {
        let _ = consumer;
        Ok(())
    }

    /// Stops producing for good: the consumer's connection is over (Twisted: `stopProducing`).
    fn stop_producing(&mut self, consumer: &Transport);
}

/// Mode of a producer (Twisted: the argument `streaming`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streaming {
    /// The producer writes by itself, until it is paused.
    Push,
    /// The producer writes one piece for each call.
    Pull,
}

/// Reason why a producer was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// The transport has a producer (Twisted: a `RuntimeError`).
    #[error("another producer is registered")]
    AlreadyRegistered,
    /// The connection is over, or its write direction is shut (Twisted tells the producer to stop).
    #[error("nothing can be written to this connection any more")]
    Disconnected,
}

/// A transport as the producer for another one: the bytes that come in here go out there, no faster
/// than the other peer takes them (Twisted: a transport is an `IPushProducer`). It keeps neither
/// transport alive. From [`Transport::as_producer`].
///
/// ```
/// use ropewalk::transport::Streaming;
/// use ropewalk::{Result, Transport};
///
/// /// Reads each side no faster than the other side takes the bytes.
/// fn couple(one: &Transport, other: &Transport) -> Result<()> {
///     one.register_producer(other.as_producer(), Streaming::Push)?;
///     Ok(other.register_producer(one.as_producer(), Streaming::Push)?)
/// }
/// ```
#[derive(Clone)]
pub struct TransportProducer(pub(super) Weak<TransportInner>);

impl TransportProducer {
    /// Takes the transport's own producer out, if the transport still exists.
    pub(crate) fn unregister(&self) {
        self.ask(Transport::unregister_producer);
    }

    fn ask(&self, request: impl FnOnce(&Transport)) {
        if let Some(inner) = self.0.upgrade() {
            request(&Transport(inner));
        }
    }
}

impl Producer for TransportProducer {
    fn resume_producing(&mut self, _consumer: &Transport) -> Result<()> {
        self.ask(Transport::resume_producing);
        Ok(())
    }

    fn pause_producing(&mut self, _consumer: &Transport) -> Result<()> {
        self.ask(Transport::pause_producing);
        Ok(())
    }

    /// Closes this side, whose bytes have no consumer any more.
    fn stop_producing(&mut self, _consumer: &Transport) {
        self.ask(Transport::lose_connection);
    }
}

impl fmt::Debug for TransportProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportProducer").field("gone", &(self.0.strong_count() == 0)).finish_non_exhaustive()
    }
}

impl Transport {
    /// Registers the producer of this transport, which is paused and resumed as the peer keeps up
    /// (Twisted: `registerProducer`). A pull producer is resumed in this turn, or as soon as the
    /// bytes that were written before have been sent. [`Producer`] has an example.
    ///
    /// # Errors
    /// [`ProducerError`]; the producer is dropped.
    pub fn register_producer(&self, producer: impl Producer, streaming: Streaming) -> Result<(), ProducerError> {
        let mut stream = self.stream();
        if !stream.accepts_writes() {
            return Err(ProducerError::Disconnected);
        }
        let refused = stream.register(Box::new(producer), streaming);
        self.mark_stream_dirty(&mut stream);
        drop(stream);
        // Dropped here, where nothing is borrowed: its `Drop` may use this transport.
        refused.map_or(Ok(()), |producer| {
            drop(producer);
            Err(ProducerError::AlreadyRegistered)
        })
    }

    /// Unregisters the producer: it is done, or another one is to follow (Twisted:
    /// `unregisterProducer`). Does nothing if there is none.
    pub fn unregister_producer(&self) {
        let producer = {
            let mut stream = self.stream();
            let producer = stream.unregister();
            self.mark_stream_dirty(&mut stream);
            producer
        };
        drop(producer);
    }

    /// Returns `true` if a producer is registered.
    pub fn has_producer(&self) -> bool {
        self.stream().has_producer()
    }

    /// Sets the numbers of queued bytes at which a push producer is resumed and paused: it is
    /// paused above `high`, and resumed when the queue is down to `low` (Twisted: `bufferSize`, and
    /// zero). The default is 64 KiB and zero.
    ///
    /// ```
    /// # fn set(transport: &ropewalk::Transport) {
    /// // A fast producer of video: a quarter of a second of it may wait, and half of that at least.
    /// transport.set_write_marks(64 * 1024, 128 * 1024);
    /// # }
    /// ```
    pub fn set_write_marks(&self, low: usize, high: usize) {
        self.update(|stream| stream.set_marks(low.min(high), high));
    }

    /// Returns this transport as the producer for another one.
    ///
    /// ```
    /// use ropewalk::{Result, Transport};
    /// use ropewalk::transport::Streaming;
    ///
    /// /// Reads no faster from either end than the other one takes the bytes.
    /// fn join(one: &Transport, other: &Transport) -> Result<()> {
    ///     one.register_producer(other.as_producer(), Streaming::Push)?;
    ///     Ok(other.register_producer(one.as_producer(), Streaming::Push)?)
    /// }
    /// ```
    pub fn as_producer(&self) -> TransportProducer {
        TransportProducer(Rc::downgrade(&self.0))
    }
}

/// State of a stream's producer.
pub(super) struct Production {
    low: usize,
    high: usize,
    registered: Option<Registered>,
}

struct Registered {
    /// `None` while the producer is called.
    producer: Option<Box<dyn Producer>>,
    streaming: Streaming,
    stage: ProducerStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProducerStage {
    /// A push producer that may write; a pull producer whose piece has not been sent yet.
    Running,
    /// A push producer that was paused; a pull producer that is resumed when the queue is empty.
    Waiting,
    /// A notice is due, and not delivered yet.
    Told(Notice),
}

/// A call that a producer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    Pause,
    Resume,
}

impl Production {
    pub(super) fn new() -> Self {
        Self { low: 0, high: HIGH, registered: None }
    }

    pub(super) fn set_marks(&mut self, low: usize, high: usize) {
        (self.low, self.high) = (low, high);
    }

    /// Registers a producer. Gives it back if there is one already.
    pub(super) fn register(&mut self, producer: Box<dyn Producer>, streaming: Streaming) -> Option<Box<dyn Producer>> {
        if self.registered.is_some() {
            return Some(producer);
        }
        let stage = match streaming {
            Streaming::Push => ProducerStage::Running,
            Streaming::Pull => ProducerStage::Waiting,
        };
        self.registered = Some(Registered { producer: Some(producer), streaming, stage });
        None
    }

    pub(super) fn unregister(&mut self) -> Option<Box<dyn Producer>> {
        self.registered.take()?.producer
    }

    pub(super) fn is_registered(&self) -> bool {
        self.registered.is_some()
    }

    /// Returns `true` if there is nothing to remember: no producer, and the default marks.
    pub(super) fn is_idle(&self) -> bool {
        self.registered.is_none() && (self.low, self.high) == (0, HIGH)
    }

    /// Records that bytes left the queue.
    pub(super) fn sent(&mut self) {
        if let Some(Registered { streaming: Streaming::Pull, stage: stage @ ProducerStage::Running, .. }) =
            &mut self.registered
        {
            *stage = ProducerStage::Waiting;
        }
    }

    /// Returns the notice that is due with `queued` bytes in the queue.
    pub(super) fn notice(&mut self, queued: usize) -> Option<Notice> {
        let Registered { streaming, stage, .. } = self.registered.as_mut()?;
        let notice = match (streaming, &stage) {
            (Streaming::Push, ProducerStage::Running) if queued > self.high => Notice::Pause,
            (Streaming::Push, ProducerStage::Waiting) if queued <= self.low => Notice::Resume,
            (Streaming::Pull, ProducerStage::Waiting) if queued == 0 => Notice::Resume,
            _ => return None,
        };
        *stage = ProducerStage::Told(notice);
        Some(notice)
    }

    /// Returns `true` if a close waits for the producer.
    pub(super) fn holds_close(&self) -> bool {
        self.registered.as_ref().is_some_and(|it| it.streaming == Streaming::Pull || it.stage != ProducerStage::Running)
    }

    /// Takes the producer out, with the notice that is due.
    pub(super) fn take(&mut self) -> Option<(Box<dyn Producer>, Notice)> {
        let Registered { producer, stage, .. } = self.registered.as_mut()?;
        let ProducerStage::Told(notice) = *stage else { return None };
        *stage = match notice {
            Notice::Pause => ProducerStage::Waiting,
            Notice::Resume => ProducerStage::Running,
        };
        producer.take().map(|producer| (producer, notice))
    }

    /// Puts the producer back. Gives it back if it was unregistered meanwhile.
    pub(super) fn put_back(&mut self, told: Box<dyn Producer>) -> Option<Box<dyn Producer>> {
        match &mut self.registered {
            Some(Registered { producer: place @ None, .. }) => {
                *place = Some(told);
                None
            }
            _ => Some(told),
        }
    }
}

impl fmt::Debug for Production {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stage = self.registered.as_ref().map(|registered| (registered.streaming, registered.stage));
        f.debug_struct("Production")
            .field("low", &self.low)
            .field("high", &self.high)
            .field("producer", &stage)
            .finish()
    }
}

/// High mark by default: the number of queued bytes above which a push producer is paused. 64 KiB,
/// as Twisted.
const HIGH: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    impl Producer for Silent {
        fn resume_producing(&mut self, _consumer: &Transport) -> Result<()> {
            Ok(())
        }

        fn stop_producing(&mut self, _consumer: &Transport) {}
    }

    /// A production with one producer. The closure returns the notice for a number of queued bytes.
    fn produced(streaming: Streaming, low: usize, high: usize) -> impl FnMut(usize) -> Option<Notice> {
        let mut production = Production::new();
        production.set_marks(low, high);
        assert!(production.register(Box::new(Silent), streaming).is_none());
        move |queued| {
            production.notice(queued)?;
            let (producer, notice) = production.take()?;
            assert!(production.put_back(producer).is_none());
            Some(notice)
        }
    }

    /// A push producer is paused by one byte more than the high mark, and resumed when exactly the
    /// low mark is queued.
    #[test]
    fn the_marks_are_exact() {
        for (low, high) in [(0, 0), (0, 64), (10, 20), (20, 20)] {
            let mut told = produced(Streaming::Push, low, high);
            for _ in 0..2 {
                assert_eq!((told(low), told(high)), (None, None), "{low} and {high}: running");
                assert_eq!((told(high + 1), told(high + 1)), (Some(Notice::Pause), None), "{low} and {high}");
                assert_eq!((told(low + 1), told(low)), (None, Some(Notice::Resume)), "{low} and {high}");
            }
        }
    }

    /// A pull producer is asked for a piece when nothing is queued, for all marks, and for no
    /// second one before that was sent.
    #[test]
    fn a_pull_producer_is_asked_when_nothing_is_queued() {
        let mut told = produced(Streaming::Pull, 10, 20);
        assert_eq!((told(21), told(10), told(1)), (None, None, None));
        assert_eq!((told(0), told(0)), (Some(Notice::Resume), None));
    }
}
