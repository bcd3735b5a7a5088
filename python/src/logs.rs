//! Log events of the engine, for Twisted's log.
//!
//! The engine logs with the crate `tracing`. A log event may come while the loop waits without the
//! GIL, so it is kept as text, and handed to `ropewalk._logs.emit` at the end of the turn.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber, span};

/// The most events that are kept between two turns. A loop that fails at every turn logs one each;
/// so this is far more than a turn makes.
const KEPT_EVENTS: usize = 1000;

static KEPT: Mutex<VecDeque<(Level, String)>> = Mutex::new(VecDeque::new());
static HAS_KEPT: AtomicBool = AtomicBool::new(false);

/// Begins to keep log events, once for the process.
pub(crate) fn subscribe() {
    // A second interpreter of this process finds the subscriber of the first.
    let _ = tracing::subscriber::set_global_default(Keeper);
}

/// Hands the kept events to Twisted's log.
pub(crate) fn forward(py: Python<'_>) {
    if !HAS_KEPT.load(Ordering::Relaxed) {
        return;
    }
    HAS_KEPT.store(false, Ordering::Relaxed);
    let events = std::mem::take(&mut *KEPT.lock().unwrap_or_else(PoisonError::into_inner));
    let told = py.import(intern!(py, "ropewalk._logs")).and_then(|module| {
        let emit = module.getattr(intern!(py, "emit"))?;
        events.iter().try_for_each(|(level, text)| emit.call1((level.as_str().to_lowercase(), text)).map(drop))
    });
    if let Err(error) = told {
        // The log itself is broken, so there is no better place.
        error.write_unraisable(py, None);
    }
}

/// Keeps the events of the crate.
struct Keeper;

impl Subscriber for Keeper {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT_EVENTS {
            kept.pop_front();
        }
        kept.push_back((*event.metadata().level(), line.message + &line.fields));
        HAS_KEPT.store(true, Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The text of an event.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        // A string takes all that is written to it.
        let _ = written;
    }
}
