//! Standard input and output of this process as a source and a sink of bytes, with backpressure.
//!
//! The descriptors are shared with other processes (a shell, the other programs of a pipeline), so
//! their flags stay as they are. In particular, they block.
//!
//! | descriptor | input | output |
//! |---|---|---|
//! | pipe, socket | watched by the reactor | watched; written in pieces that do not block |
//! | terminal | watched | in a thread: it may be stopped by a key |
//! | regular file, other devices | in a thread if the system's poller refuses it | in a thread |
//!
//! Both are handles to one object, which calls a function for its events. No event comes after
//! `stop`, after an end or after a failure.

mod input;
mod output;

pub(crate) use self::input::{Input, InputEvent};
pub(crate) use self::output::{Output, OutputEvent};
