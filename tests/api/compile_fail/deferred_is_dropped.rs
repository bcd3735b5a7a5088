//~ a Deferred that is dropped goes on without you
//~ end with `or_log("what it does")`
#![deny(unused_must_use)]
use ropewalk::Deferred;

fn main() {
    Deferred::succeed(1_u32).add_callback(|n| Ok(n + 1));
}
