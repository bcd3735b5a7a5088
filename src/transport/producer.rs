//! Producers: whatever writes to a transport for as long as there is something to write, and has to
//! hear when the peer does not keep up (Twisted: `IPushProducer`, `IPullProducer`,
//! `IConsumer.registerProducer`).
//!
//! | a producer is | it writes | it is told |
//! |---|---|---|
//! | [`Push`](Streaming::Push) | when it likes, until told to pause | to pause when more than the high mark is queued; to resume when no more than the low mark is |
//! | [`Pull`](Streaming::Pull) | one piece each time it is told to resume | to resume when it is registered, as soon as nothing is queued; then each time everything written has been sent |
//!
//! Both are told to stop when the connection is over, before the protocol hears of it, and never
//! again after that. They are told at the end of a turn, never from inside of a write.
//!
//! `lose_connection` waits for a pull producer, and for a push producer that is paused: the
//! connection closes when it is unregistered, or, a push producer, when it was told to resume and
//! has written nothing. A push producer that is not paused is not waited for. The wait is bounded
//! by the close timeout, as long as no byte leaves.

use std::fmt;
use std::rc::{Rc, Weak};

use thiserror::Error;

use super::{Transport, TransportInner};
use crate::failure::Result;

/// Something that produces bytes for a transport, its consumer (Twisted: `IPushProducer`,
/// `IPullProducer`).
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
    note = "bytes that are there are written: `transport.write(bytes)`",
    note = "a file, or anything that can be read, is sent by `FileSender::new(file).begin(transport)`",
    note = "what comes from another transport: `other.as_producer()`"
)]
pub trait Producer: 'static {
    /// Produce: a pull producer a piece, a push producer until it is told to pause (Twisted:
    /// `resumeProducing`).
    ///
    /// # Errors
    /// End the consumer's connection.
    fn resume_producing(&mut self, consumer: &Transport) -> Result<()>;

    /// Produce nothing until told to resume (Twisted: `pauseProducing`). Pull producers are never
    /// told.
    ///
    /// # Errors
    /// End the consumer's connection.
    fn pause_producing(&mut self, consumer: &Transport) -> Result<()> {
        let _ = consumer;
        Ok(())
    }

    /// The consumer's connection is over (Twisted: `stopProducing`).
    fn stop_producing(&mut self, consumer: &Transport);
}

/// How a producer produces (Twisted: the argument `streaming`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streaming {
    /// By itself, until it is paused.
    Push,
    /// A piece each time it is asked.
    Pull,
}

/// Why a producer was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// The transport has one (Twisted: a `RuntimeError`).
    #[error("another producer is registered")]
    AlreadyRegistered,
    /// The connection is over, or nothing can be written to it any more (Twisted tells the producer
    /// to stop).
    #[error("nothing can be written to this connection any more")]
    Disconnected,
}

/// A transport as the producer for another: what comes in here goes out there, no faster than it
/// can (Twisted: a transport is an `IPushProducer`). It keeps neither alive. From
/// [`Transport::as_producer`].
///
/// ```
/// use ropewalk::transport::Streaming;
/// use ropewalk::{Result, Transport};
///
/// /// Whatever one side sends is read no faster than the other side takes it.
/// fn couple(one: &Transport, other: &Transport) -> Result<()> {
///     one.register_producer(other.as_producer(), Streaming::Push)?;
///     Ok(other.register_producer(one.as_producer(), Streaming::Push)?)
/// }
/// ```
#[derive(Clone)]
pub struct TransportProducer(pub(super) Weak<TransportInner>);

impl TransportProducer {
    /// Takes the transport's own producer out, if the transport is still there.
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

    /// Nobody takes what this side would bring: it is closed.
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
    /// Registers what produces bytes for this transport, so that it is paused and resumed as the
    /// peer keeps up (Twisted: `registerProducer`). A pull producer is told to resume in this turn,
    /// or as soon as what was written before has been sent.
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

    /// The producer is done, or somebody else's turn has come (Twisted: `unregisterProducer`).
    /// Without one nothing happens.
    pub fn unregister_producer(&self) {
        let producer = {
            let mut stream = self.stream();
            let producer = stream.unregister();
            self.mark_stream_dirty(&mut stream);
            producer
        };
        drop(producer);
    }

    /// Whether a producer is registered.
    pub fn has_producer(&self) -> bool {
        self.stream().has_producer()
    }

    /// From how many queued bytes on a push producer is paused, and from how many down it is
    /// resumed (Twisted: `bufferSize`, and zero). 64 KiB and zero unless set.
    pub fn set_write_marks(&self, low: usize, high: usize) {
        self.update(|stream| stream.set_marks(low.min(high), high));
    }

    /// This transport as the producer for another.
    pub fn as_producer(&self) -> TransportProducer {
        TransportProducer(Rc::downgrade(&self.0))
    }
}

/// What a stream knows of its producer.
pub(super) struct Production {
    low: usize,
    high: usize,
    registered: Option<Registered>,
}

struct Registered {
    /// Out while it is told something.
    producer: Option<Box<dyn Producer>>,
    streaming: Streaming,
    stage: ProducerStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProducerStage {
    /// A push producer that may write; a pull producer that was asked for a piece which has not
    /// been sent.
    Running,
    /// A push producer that was told to pause; a pull producer whose turn it is when the queue is
    /// empty.
    Waiting,
    /// It is to be told something, and has not been yet.
    Told(Notice),
}

/// What a producer is told.
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

    /// Gives the producer back if there is one already.
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

    /// Bytes left the queue.
    pub(super) fn sent(&mut self) {
        if let Some(Registered { streaming: Streaming::Pull, stage: stage @ ProducerStage::Running, .. }) =
            &mut self.registered
        {
            *stage = ProducerStage::Waiting;
        }
    }

    /// What the producer is to be told now, with so much queued.
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

    /// Whether a close waits for the producer.
    pub(super) fn holds_close(&self) -> bool {
        self.registered.as_ref().is_some_and(|it| it.streaming == Streaming::Pull || it.stage != ProducerStage::Running)
    }

    /// Takes the producer out, to be told what it is to be told.
    pub(super) fn take(&mut self) -> Option<(Box<dyn Producer>, Notice)> {
        let Registered { producer, stage, .. } = self.registered.as_mut()?;
        let ProducerStage::Told(notice) = *stage else { return None };
        *stage = match notice {
            Notice::Pause => ProducerStage::Waiting,
            Notice::Resume => ProducerStage::Running,
        };
        producer.take().map(|producer| (producer, notice))
    }

    /// Puts it back, unless it was unregistered meanwhile: then it is given back.
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

/// From how many queued bytes on a push producer is paused. 64 KiB, as Twisted.
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

    /// A production with one producer, and what that is told with so much queued.
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

    /// A pull producer is asked for a piece when nothing is queued, whatever the marks, and for no
    /// second one before that was sent.
    #[test]
    fn a_pull_producer_is_asked_when_nothing_is_queued() {
        let mut told = produced(Streaming::Pull, 10, 20);
        assert_eq!((told(21), told(10), told(1)), (None, None, None));
        assert_eq!((told(0), told(0)), (Some(Notice::Resume), None));
    }
}
