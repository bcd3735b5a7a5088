//~ a future becomes a `Deferred` with `reactor.spawn(future)`
use ropewalk::Deferred;

fn main() {
    Deferred::succeed(1_u32).add_callback(|n| async move { Ok(n + 1) }).or_log("counting");
}
