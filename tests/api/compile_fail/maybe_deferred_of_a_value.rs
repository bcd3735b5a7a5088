//~ a callback can't return `String`
//~ a value is returned as `Ok(value)`, a failure as `Err(failure)`
use ropewalk::deferred::maybe_deferred;

fn main() {
    maybe_deferred(|| String::from("text")).or_log("reading");
}
