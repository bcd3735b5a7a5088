//~ Deferred
use ropewalk::Result;
use ropewalk::deferred::gather_results;

fn main() {
    let parsed: Vec<Result<u32>> = vec![Ok(1), Ok(2)];
    gather_results(parsed).or_log("gathering");
}
