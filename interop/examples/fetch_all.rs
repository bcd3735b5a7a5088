//! Fetches the files that the command line names, all at once, and prints their sizes:
//! `cargo run -p ropewalk-interop --features curl --example fetch_all -- URL ..`

use std::process::ExitCode;

use ropewalk::Result;
use ropewalk::deferred::gather_results;
use ropewalk_interop::curl_multi::Transfers;

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let transfers = Transfers::new(reactor)?;
        let fetch = |url: String| {
            let fetched = transfers.fetch(&url)?;
            Ok(fetched.add_callback(move |bytes| {
                println!("{url}: {} bytes", bytes.len());
                Ok(())
            }))
        };
        let all = std::env::args().skip(1).map(fetch).collect::<Result<Vec<_>>>()?;
        Ok(gather_results(all).add_both(move |result| {
            // The transfers end with this object.
            drop(transfers);
            result.map(drop)
        }))
    })
}
