//~ `Duration` is not a clock
//~ a clock is a reactor, `transport.timers()`, or in a test a `testing::VirtualClock`
use std::time::Duration;

use ropewalk::Deferred;

fn main() {
    Deferred::succeed(1).add_timeout(Duration::from_secs(1), &Duration::from_secs(1)).or_log("counting");
}
