//! Receivers of messages: lines, netstrings, strings with their length in front. All of it runs in
//! memory, on the joint that a reactor has.

#[path = "../common/mod.rs"]
mod common;

mod codecs;
mod cuts;
mod forward;
mod frames;
mod fuzzed;
mod lines;
mod netstrings;
mod pausing;
mod prefixed;
mod proxy_headers;
mod receivers;
mod recorder;
mod targets;

use ropewalk::protocols::{
    FrameReceiver, IntNStringReceiver, LineProtocol, LineReceiver, NetstringError, NetstringReceiver,
};
use ropewalk::{Protocol, Result, Transport};

use self::recorder::{Event, Observed, Recorder, message};

#[global_allocator]
static ALLOCATOR: common::allocator::Counting = common::allocator::Counting;

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
