//! `examples/files.rs` on tokio: the same program, so that their lines can be compared. It has no
//! limit of the errors that are queued, because it reads no request before its answer is written.
//!
//! Arguments: the folder, where to listen (`127.0.0.1:7000`), and the seconds after which a peer
//! that takes nothing of a file is cut off.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::future::Future;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{Either, select};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};
use tokio_util::codec::{FramedRead, LinesCodec};

const LONGEST_LINE_BYTES: usize = 4096;
const PIECE_BYTES: usize = 64 * 1024;
const MOST_CONNECTIONS: usize = 1000;
const IDLE_LIMIT: Duration = Duration::from_secs(60);
const FAREWELL: Duration = Duration::from_secs(10);
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Opens the file of a request. Returns its bytes from the offset on, and their number.
fn open(folder: &Path, line: &str) -> Result<(impl Read + use<>, u64)> {
    let words: Vec<&str> = line.trim_end().splitn(3, ' ').collect();
    let ["GET", offset, name] = words[..] else { return Err("a request is: GET OFFSET NAME".into()) };
    let offset = offset.parse().map_err(|error| format!("the offset: {error}"))?;
    let path = fs::canonicalize(folder.join(name)).ok();
    let path = path.filter(|path| path.starts_with(folder) && path.is_file()).ok_or("no such file")?;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len().checked_sub(offset).ok_or("the offset is behind the end")?;
    file.seek(SeekFrom::Start(offset))?;
    Ok((file.take(length), length))
}

/// Waits for a future, but no longer than until the server stops.
async fn unless_stopped<T>(stop: &mut watch::Receiver<bool>, future: impl Future<Output = T>) -> Option<T> {
    match select(pin!(stop.wait_for(|stops| *stops)), pin!(future)).await {
        Either::Left(_) => None,
        Either::Right((value, _)) => Some(value),
    }
}

/// Sends so many bytes. Fails if the peer takes nothing for the limit: the close is a reset then.
async fn send(stream: &mut TcpStream, mut bytes: impl Read, length: u64, stall_limit: Duration) -> io::Result<()> {
    let (mut piece, mut left) = (vec![0; PIECE_BYTES], length);
    while left > 0 {
        let count = bytes.read(&mut piece)?;
        if count == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        let mut rest = &piece[..count];
        while !rest.is_empty() {
            let Ok(taken) = timeout(stall_limit, stream.write(rest)).await else {
                stream.set_zero_linger()?;
                return Err(io::Error::new(ErrorKind::TimedOut, "the peer took nothing of the file"));
            };
            rest = &rest[taken?..];
        }
        left -= count as u64;
    }
    Ok(())
}

async fn serve(
    stream: TcpStream,
    folder: Rc<Path>,
    stall_limit: Duration,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let mut lines = FramedRead::new(stream, LinesCodec::new_with_max_length(LONGEST_LINE_BYTES));
    while let Some(line) = unless_stopped(&mut stop, timeout(IDLE_LIMIT, lines.next())).await {
        let Some(line) = line? else { break };
        let opened = open(&folder, &line?);
        let answer = match &opened {
            Ok((_, length)) => format!("OK {length}\n"),
            Err(error) => format!("ERROR {error}\n"),
        };
        timeout(stall_limit, lines.get_mut().write_all(answer.as_bytes())).await??;
        if let Ok((bytes, length)) = opened {
            send(lines.get_mut(), bytes, length, stall_limit).await?;
        }
    }
    Ok(())
}

async fn run() -> Result<()> {
    let argument = |place: usize, default: &str| env::args().nth(place).unwrap_or_else(|| default.to_owned());
    let folder: Rc<Path> = fs::canonicalize(argument(1, "."))?.into();
    let listener = TcpListener::bind(argument(2, "127.0.0.1:7000")).await?;
    let stall_limit = Duration::from_secs(argument(3, "20").parse()?);
    println!("listening on {}", listener.local_addr()?);
    let (stopping, stop) = watch::channel(false);
    let (places, mut terminated) = (Arc::new(Semaphore::new(MOST_CONNECTIONS)), signal(SignalKind::terminate())?);
    let mut downloads = JoinSet::new();
    loop {
        let next = async { io::Result::Ok((Arc::clone(&places).acquire_owned().await, listener.accept().await?.0)) };
        let Either::Left((next, _)) = select(pin!(next), pin!(terminated.recv())).await else { break };
        let Ok((place, stream)) = next.inspect_err(|error| eprintln!("cannot accept: {error}")) else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        let (folder, stop) = (Rc::clone(&folder), stop.clone());
        downloads.spawn_local(async move {
            if let Err(error) = serve(stream, folder, stall_limit, stop).await {
                eprintln!("a download failed: {error}");
            }
            drop(place);
        });
        while downloads.try_join_next().is_some() {}
    }
    drop(listener);
    stopping.send(true)?;
    let _ = timeout(FAREWELL, async { while downloads.join_next().await.is_some() {} }).await;
    Ok(())
}

fn main() -> Result<()> {
    LocalSet::new().block_on(&Builder::new_current_thread().enable_all().build()?, run())
}
