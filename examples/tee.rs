//! Standard input and output as a connection: copies its input to its output, and counts the bytes
//! on standard error. It has a place in any pipeline.
//!
//! ```sh
//! seq 100000 | cargo run --example tee | tail -n 1
//! cargo run --example tee < Cargo.toml > /tmp/copy
//! ```

use std::process::ExitCode;

use ropewalk::deferred::Promise;
use ropewalk::endpoints::server_from_string;
use ropewalk::error::ConnectionClosed;
use ropewalk::for_protocol;
use ropewalk::interfaces::*;
use ropewalk::transport::QueueLimit;
use ropewalk::{Failure, Result, Transport};

/// Bytes that may wait for a slow reader. Above them, the input waits.
const QUEUE_BYTES: u32 = 1 << 20;

/// Copies its input. The promise is for the number of bytes.
struct Tee {
    count: usize,
    ended: Option<Promise<usize>>,
}

impl Protocol for Tee {
    fn connection_made(&mut self, transport: &Transport) -> Result<()> {
        transport.set_queue_limit(Some(QueueLimit::pause(QUEUE_BYTES)));
        Ok(())
    }

    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        self.count += data.len();
        transport.write(data);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        // A reader that has enough ends a pipeline well.
        let is_well = matches!(reason.check(), Some(ConnectionClosed::Done | ConnectionClosed::Reset { .. }));
        if let Some(ended) = self.ended.take() {
            let result = if is_well { Ok(self.count) } else { Err(reason.clone()) };
            // The program may have stopped waiting.
            let _ = ended.complete(result);
        }
    }
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let (promise, ended) = Promise::new();
        let mut promise = Some(promise);
        let factory = for_protocol(move |_| Tee { count: 0, ended: promise.take() });
        let listening = server_from_string(reactor, "stdio:")?.listen(factory);
        Ok(listening.add_callback(|_port| {
            ended.add_callback(|count| {
                eprintln!("{count} bytes");
                Ok(())
            })
        }))
    })
}
