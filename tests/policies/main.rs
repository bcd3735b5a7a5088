//! Policies: limits of time, rates, limits of connections, logs of traffic, and ports that pause.

#[path = "../common/mod.rs"]
mod common;

mod composition;
mod descriptions;
mod groups;
mod limits;
mod rates;
mod sockets;
mod time_limits;
mod traffic;

use std::time::Duration;

use ropewalk::Failure;
use ropewalk::error::ConnectionClosed;
use ropewalk::policies::TimeLimit;

#[global_allocator]
static ALLOCATOR: common::allocator::Counting = common::allocator::Counting;

const SECOND: Duration = Duration::from_secs(1);

/// Returns the limit of time that ended a connection.
#[track_caller]
fn limit_of(reason: Option<Failure>) -> (TimeLimit, Duration) {
    let reason = reason.expect("the connection is over");
    match reason.check() {
        Some(ConnectionClosed::TimeLimit { limit, after }) => (*limit, *after),
        _ => panic!("{reason}"),
    }
}
