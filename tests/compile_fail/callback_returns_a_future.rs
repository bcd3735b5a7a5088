//~ of a future, `reactor.spawn(future)` makes a `Deferred`
use ropewalk::Deferred;

fn main() {
    Deferred::succeed(1_u32).add_callback(|n| async move { Ok(n + 1) }).or_log("counting");
}
