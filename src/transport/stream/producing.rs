//! A stream's calls of its producer's state machine (`producer.rs`).

use super::{Closing, Stream};
use crate::transport::producer::{Notice, Producer, Production, Streaming};

impl Stream {
    /// Registers a producer. Gives it back if another one is registered.
    pub(crate) fn register(&mut self, producer: Box<dyn Producer>, streaming: Streaming) -> Option<Box<dyn Producer>> {
        self.new_production().register(producer, streaming)
    }

    /// Takes the producer out for good. Its state goes with it, unless the marks were set, so that
    /// the stream is on the fast path again.
    pub(crate) fn unregister(&mut self) -> Option<Box<dyn Producer>> {
        let producer = self.production()?.unregister();
        self.drop_idle_production();
        producer
    }

    /// Returns `true` if a producer is registered.
    pub(crate) fn has_producer(&self) -> bool {
        self.extras.as_ref().and_then(|extras| extras.production.as_ref()).is_some_and(Production::is_registered)
    }

    /// Sets the marks at which a push producer is resumed and paused.
    pub(crate) fn set_marks(&mut self, low: usize, high: usize) {
        self.new_production().set_marks(low, high);
        self.drop_idle_production();
    }

    /// Takes the producer out, with the notice that is due. `None` if it was unregistered
    /// meanwhile, or if the stream is past `Draining`.
    pub(crate) fn take_producer(&mut self) -> Option<(Box<dyn Producer>, Notice)> {
        if self.states.closing > Closing::Draining {
            return None;
        }
        self.production()?.take()
    }

    /// Puts a producer back after its notice. Gives it back if it was unregistered meanwhile.
    pub(crate) fn put_back(&mut self, producer: Box<dyn Producer>) -> Option<Box<dyn Producer>> {
        match self.production() {
            Some(production) => production.put_back(producer),
            None => Some(producer),
        }
    }

    /// Returns `true` if a close waits for a producer.
    pub(super) fn holds_close(&self) -> bool {
        self.extras.as_ref().and_then(|extras| extras.production.as_ref()).is_some_and(Production::holds_close)
    }

    pub(super) fn production(&mut self) -> Option<&mut Production> {
        self.extras.as_mut()?.production.as_mut()
    }

    /// Drops a production without a producer whose marks are the default ones.
    fn drop_idle_production(&mut self) {
        if let Some(extras) = &mut self.extras {
            extras.production.take_if(|production| production.is_idle());
            self.drop_empty_extras();
        }
    }

    fn new_production(&mut self) -> &mut Production {
        self.extras.get_or_insert_default().production.get_or_insert_with(Production::new)
    }
}
