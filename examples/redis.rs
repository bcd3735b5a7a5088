//! A client of Redis: each command returns a Deferred for its reply.
//!
//! ```sh
//! cargo run --example redis -- tcp:localhost:6379
//! ```
//!
//! Four commands are pipelined: all are sent before the first reply comes. A chain follows: the
//! callback with a reply sends the next command, while the protocol is still in its
//! `data_received`. `Connection::later` waits until that call has returned.

use std::collections::VecDeque;
use std::process::ExitCode;

use ropewalk::deferred::{Promise, gather_results};
use ropewalk::endpoints::client_from_string;
use ropewalk::interfaces::*;
use ropewalk::{Connection, Deferred, Failure, Result, Transport, bail, for_protocol};

/// A reply that is not an error. A status is returned as bytes. `None` is the null reply.
#[derive(Debug, PartialEq)]
pub(crate) enum Reply {
    Number(i64),
    Bytes(Option<Vec<u8>>),
}

/// The protocol. Replies come in the order of the commands.
#[derive(Default)]
pub(crate) struct Redis {
    unread: Vec<u8>,
    waiting: VecDeque<Promise<Reply>>,
}

impl Protocol for Redis {
    fn data_received(&mut self, _transport: &Transport, data: &[u8]) -> Result<()> {
        self.unread.extend_from_slice(data);
        let mut taken = 0;
        while let Some((reply, length)) = first_reply(&self.unread[taken..])? {
            // The reply to a cancelled Deferred is dropped.
            let _ = self.waiting.pop_front().ok_or("a reply without a command")?.complete(reply);
            taken += length;
        }
        self.unread.drain(..taken);
        Ok(())
    }

    fn connection_lost(&mut self, _transport: &Transport, reason: &Failure) {
        self.waiting.drain(..).for_each(|promise| drop(promise.errback(reason.clone())));
    }
}

/// Returns the first reply and its length, once all of it has arrived.
fn first_reply(bytes: &[u8]) -> Result<Option<(Result<Reply>, usize)>> {
    let Some(start) = bytes.windows(2).position(|two| two == b"\r\n").map(|end| end + 2) else { return Ok(None) };
    Ok(match str::from_utf8(&bytes[..start - 2])?.split_at_checked(1) {
        Some(("+", status)) => Some((Ok(Reply::Bytes(Some(status.into()))), start)),
        Some(("-", error)) => Some((Err(error.into()), start)),
        Some((":", number)) => Some((Ok(Reply::Number(number.parse()?)), start)),
        Some(("$", "-1")) => Some((Ok(Reply::Bytes(None)), start)),
        Some(("$", length)) => {
            let end = start + length.parse::<u32>()? as usize;
            (bytes.len() >= end + 2).then(|| (Ok(Reply::Bytes(Some(bytes[start..end].to_vec()))), end + 2))
        }
        _ => bail!("a reply of an unknown kind: {}", String::from_utf8_lossy(&bytes[..start - 2])),
    })
}

/// Sends a command.
pub(crate) fn ask(redis: &Connection<Redis>, command: &[&str]) -> Deferred<Reply> {
    let words: String = command.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
    let request = format!("*{}\r\n{words}", command.len());
    redis.later(move |redis, transport| {
        transport.write(request.as_bytes());
        let (promise, reply) = Promise::new();
        redis.waiting.push_back(promise);
        reply
    })
}

/// Adds the sum to itself until it is more than a thousand.
fn double(redis: Connection<Redis>, sum: i64) -> Deferred<Reply> {
    ask(&redis, &["INCRBY", "sum", &sum.to_string()]).add_callback(move |reply| match reply {
        Reply::Number(sum) if sum <= 1000 => double(redis, sum),
        reply => Deferred::succeed(reply),
    })
}

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let description = std::env::args().nth(1).unwrap_or_else(|| "tcp:localhost:6379".to_owned());
        let connecting = client_from_string(reactor, &description)?.connect(for_protocol(|_| Redis::default()));
        Ok(connecting
            .add_callback(|redis| {
                let commands: [&[&str]; 4] = [&["PING"], &["SET", "sum", "1"], &["GET", "sum"], &["INCR", "visits"]];
                gather_results(commands.map(|command| ask(&redis, command))).add_callback(move |replies| {
                    println!("pipelined: {replies:?}");
                    double(redis, 1)
                })
            })
            .add_callback(|sum| println!("chained: {sum:?}")))
    })
}
