//! `examples/redis.rs` on tokio: the same program, so that their lines can be compared.
//!
//! A task writes the commands of all clones of the client, and reads their replies.
//!
//! Argument: where to connect (`localhost:6379`).

use std::env;
use std::error::Error;
use std::pin::pin;

use bytes::BytesMut;
use futures::StreamExt;
use futures::future::{select, try_join_all};
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio_util::codec::{Decoder, FramedRead};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;
type Promise = oneshot::Sender<Result<Reply>>;

/// A reply that is not an error. A status is returned as bytes. `None` is the null reply.
#[derive(Debug, PartialEq)]
enum Reply {
    Number(i64),
    Bytes(Option<Vec<u8>>),
}

struct ReplyCodec;

impl Decoder for ReplyCodec {
    type Item = Result<Reply>;
    type Error = Box<dyn Error + Send + Sync>;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Result<Reply>>> {
        let Some(start) = bytes.windows(2).position(|two| two == b"\r\n").map(|end| end + 2) else { return Ok(None) };
        let (reply, length) = match str::from_utf8(&bytes[..start - 2])?.split_at_checked(1) {
            Some(("+", status)) => (Ok(Reply::Bytes(Some(status.into()))), start),
            Some(("-", error)) => (Err(error.into()), start),
            Some((":", number)) => (Ok(Reply::Number(number.parse()?)), start),
            Some(("$", "-1")) => (Ok(Reply::Bytes(None)), start),
            Some(("$", length)) => {
                let end = start + length.parse::<u32>()? as usize;
                if bytes.len() < end + 2 {
                    return Ok(None);
                }
                (Ok(Reply::Bytes(Some(bytes[start..end].to_vec()))), end + 2)
            }
            _ => return Err(format!("a reply of an unknown kind: {}", bytes[..start - 2].escape_ascii()).into()),
        };
        drop(bytes.split_to(length));
        Ok(Some(reply))
    }
}

/// A client. Its clones share the connection, which ends with the last of them.
#[derive(Clone)]
struct Redis {
    commands: UnboundedSender<(String, Promise)>,
}

impl Redis {
    async fn connect(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let (commands, queue) = unbounded_channel();
        tokio::spawn(drive(stream, queue));
        Ok(Self { commands })
    }

    async fn ask(&self, command: &[&str]) -> Result<Reply> {
        let words: String = command.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect();
        let (promise, reply) = oneshot::channel();
        // Without a connection the promise is dropped.
        drop(self.commands.send((format!("*{}\r\n{words}", command.len()), promise)));
        reply.await.unwrap_or_else(|_| Err("the connection is over".into()))
    }
}

/// Writes commands and reads their replies, until one of both ends.
async fn drive(mut stream: TcpStream, mut queue: UnboundedReceiver<(String, Promise)>) {
    let (reader, writer) = stream.split();
    let mut writer = BufWriter::new(writer);
    let (sent, mut waiting) = unbounded_channel::<Promise>();
    let writing = async {
        while let Some((command, promise)) = queue.recv().await {
            sent.send(promise)?;
            writer.write_all(command.as_bytes()).await?;
            if queue.is_empty() {
                writer.flush().await?;
            }
        }
        Ok(())
    };
    let reading = async {
        let mut replies = FramedRead::new(reader, ReplyCodec);
        while let Some(reply) = replies.next().await.transpose()? {
            // The caller may have dropped its future.
            drop(waiting.try_recv().map_err(|_| "a reply without a command")?.send(reply));
        }
        Err("the connection was closed".into())
    };
    let ended: Result<()> = select(pin!(reading), pin!(writing)).await.factor_first().0;
    if let Err(error) = ended {
        while let Ok(promise) = waiting.try_recv() {
            drop(promise.send(Err(error.to_string().into())));
        }
    }
}

/// Adds the sum to itself until it is more than a thousand.
async fn double(redis: &Redis, mut sum: i64) -> Result<Reply> {
    loop {
        match redis.ask(&["INCRBY", "sum", &sum.to_string()]).await? {
            Reply::Number(doubled) if doubled <= 1000 => sum = doubled,
            reply => return Ok(reply),
        }
    }
}

async fn run() -> Result<()> {
    let address = env::args().nth(1).unwrap_or_else(|| "localhost:6379".to_owned());
    let redis = Redis::connect(&address).await?;
    let commands: [&[&str]; 4] = [&["PING"], &["SET", "sum", "1"], &["GET", "sum"], &["INCR", "visits"]];
    let replies = try_join_all(commands.map(|command| redis.ask(command))).await?;
    println!("pipelined: {replies:?}");
    println!("chained: {:?}", double(&redis, 1).await?);
    Ok(())
}

fn main() -> Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(run())
}
