//~ Clock
use std::time::Duration;

use ropewalk::Reactor;

fn main() {
    Reactor::new().unwrap().call_later(Duration::from_secs(1), || println!("a second later"));
}
