//! A server of static files over HTTP/1 and HTTP/2, by hyper, on a reactor.
//!
//! ```sh
//! cargo run --release -p ropewalk-interop --features http --example http -- \
//!     FOLDER tcp:8080 'tls:/etc/certificates:8443:protocols=h2,http/1.1'
//! curl http://localhost:8080/file.txt
//! curl --http2-prior-knowledge http://localhost:8080/file.txt
//! ```
//!
//! The folder of the certificates has a file `NAME.pem` for each name, with its key and its chain.
//! On SIGTERM or SIGINT the server stops listening, lets every connection finish its requests, for
//! at most 30 s, and ends.

use std::process::ExitCode;

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        ropewalk_interop::http::start(reactor, &arguments)
    })
}
