//~ an errback of a `Deferred<u32>` can't return
use ropewalk::{Deferred, Result};

fn main() {
    Deferred::succeed(1_u32).add_errback(|failure| -> Result<String> { Ok(failure.to_string()) }).or_log("counting");
}
