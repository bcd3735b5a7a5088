//! Error events: to the subscriber of [`tracing`], or to standard error.
//!
//! In a program without a subscriber these events would be lost, and with them every failure that
//! the program does not handle. So an event of level ERROR without a subscriber is written to
//! standard error, as one line. Events of other levels are for programs that collect them.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{NoSubscriber, with_default};
use tracing::{Event, Level, Metadata, Subscriber, dispatcher};

use crate::failure::guarded;

/// Emits an event of level ERROR, as `tracing::error!` does.
macro_rules! error {
    ($($event:tt)*) => {
        $crate::log::emit(&|| tracing::error!($($event)*))
    };
}
pub(crate) use error;

/// Emits an event to the subscriber of this thread, or to standard error if there is none. It is
/// compiled once, and not for each event.
#[cold]
pub(crate) fn emit(event: &dyn Fn()) {
    if dispatcher::get_default(|subscriber| subscriber.is::<NoSubscriber>()) {
        with_default(StandardError, event);
    } else {
        event();
    }
}

/// Writes error events to standard error.
struct StandardError;

impl Subscriber for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        // Standard error may be closed. That is no reason to end a connection.
        let _ = guarded(|| eprintln!("{}: error: {line}", event.metadata().target()));
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

/// The message of an event, followed by its fields in parentheses.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name if self.fields.is_empty() => write!(self.fields, "{name}: {value:?}"),
            name => write!(self.fields, "; {name}: {value:?}"),
        };
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.fields.is_empty() { Ok(()) } else { write!(f, " ({})", self.fields) }
    }
}
