//~ a callback can't return `u32`
//~ a value is returned as `Ok(value)`, a failure as `Err(failure)`
use ropewalk::Deferred;

fn main() {
    Deferred::succeed(1_u32).add_callback(|n| n + 1).or_log("counting");
}
