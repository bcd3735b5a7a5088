//~ an errback of a `Deferred<u32>` can't return `()`
//~ a value in place of the failure, `Ok(value)`, or passes it on, `Err(failure)`
//~ if the result is no longer needed: `add_both(|result| ..)`, or `or_log("what it does")`
use ropewalk::Deferred;

fn main() {
    Deferred::succeed(1_u32).add_errback(|failure| println!("{failure}")).or_log("counting");
}
