//! `examples/static_http.rs` on tokio: the same program, so that their lines can be compared.
//!
//! Arguments: the folder, and where to listen (`0.0.0.0:8080`).

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::io::{self, ErrorKind, SeekFrom};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use httparse::{EMPTY_HEADER, Request, Status};
use httpdate::fmt_http_date;
use tokio::fs::{self, File};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWriteExt, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::codec::{Decoder, FramedRead};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const LONGEST_HEAD_BYTES: usize = 8192;
const MOST_FIELDS: usize = 64;
const MOST_CONNECTIONS: usize = 10_000;
const PIECE_BYTES: usize = 64 * 1024;
const IDLE_LIMIT: Duration = Duration::from_secs(60);
const HEAD_LIMIT: Duration = Duration::from_secs(10);
const STALL_LIMIT: Duration = Duration::from_secs(20);
/// Time for the peer to close behind the last answer.
const LINGER: Duration = Duration::from_secs(1);
const ACCEPT_RETRY: Duration = Duration::from_secs(1);

/// Time that the last answers have to end after SIGTERM.
const FAREWELL: Duration = Duration::from_secs(10);

/// Splits a stream into heads of requests.
struct HeadCodec;

enum HeadError {
    /// The status of the answer to a head that cannot be served.
    Refused(&'static str),
    /// The peer has left, or is silent for too long. That is no error of the server.
    Ended,
}

impl Decoder for HeadCodec {
    type Item = Bytes;
    type Error = HeadError;

    fn decode(&mut self, data: &mut BytesMut) -> Result<Option<Bytes>, HeadError> {
        match Request::new(&mut [EMPTY_HEADER; MOST_FIELDS]).parse(data) {
            Ok(Status::Complete(length)) if length <= LONGEST_HEAD_BYTES => Ok(Some(data.split_to(length).freeze())),
            Ok(Status::Partial) if data.len() <= LONGEST_HEAD_BYTES => Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                Err(HeadError::Refused("431 Request Header Fields Too Large"))
            }
            Err(_) => Err(HeadError::Refused("400 Bad Request")),
        }
    }
}

impl From<io::Error> for HeadError {
    fn from(_: io::Error) -> Self {
        Self::Ended
    }
}

/// An answer. `fields` are those that not every answer has. The length is that of the body, or of
/// the one that GET would get.
struct Answer {
    status: &'static str,
    fields: String,
    length: u64,
    body: Option<Box<dyn AsyncRead + Send + Unpin>>,
}

impl Answer {
    /// Makes an answer whose body is its status.
    fn text(status: &'static str, fields: &str) -> Self {
        let fields = format!("Content-Type: text/plain\r\n{fields}");
        Self { status, fields, length: status.len() as u64, body: Some(Box::new(status.as_bytes())) }
    }

    async fn to(request: &Request<'_, '_>, folder: &Path) -> Self {
        if request.version == Some(1) && values(request, "host").count() != 1 {
            return Self::text("400 Bad Request", "");
        }
        if !matches!(request.method, Some("GET" | "HEAD")) {
            return Self::text("405 Method Not Allowed", "Allow: GET, HEAD\r\n");
        }
        let target = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
        let Some((path, is_folder)) = find(folder, target).await else { return Self::text("404 Not Found", "") };
        if is_folder {
            // Two slashes at the front would be the name of another server.
            let location = format!("Location: /{}/\r\n", target.trim_start_matches('/'));
            return Self::text("301 Moved Permanently", &location);
        }
        Self::file(&path, request).await.unwrap_or_else(|_| Self::text("403 Forbidden", ""))
    }

    async fn file(path: &Path, request: &Request<'_, '_>) -> io::Result<Self> {
        let mut file = File::open(path).await?;
        let metadata = file.metadata().await?;
        let (total, modified) = (metadata.len(), metadata.modified()?);
        let tag = format!("\"{:x}-{total:x}\"", modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos());
        let fields = format!("ETag: {tag}\r\nAccept-Ranges: bytes\r\nContent-Type: {}\r\n", content_type(path));
        let is_tag = |other: &str| [&*tag, "*"].contains(&other.trim().trim_start_matches("W/"));
        if values(request, "if-none-match").flat_map(|tags| tags.split(',')).any(is_tag) {
            return Ok(Self { status: "304 Not Modified", fields, length: total, body: None });
        }
        let wants_range = request.method == Some("GET") && values(request, "if-range").all(|other| other == tag);
        let range = values(request, "range").next().filter(|_| wants_range).and_then(|range| part(range, total));
        let Some(range) = range else {
            return Ok(Self { status: "200 OK", fields, length: total, body: Some(Box::new(file)) });
        };
        if range.is_empty() {
            return Ok(Self::text("416 Range Not Satisfiable", &format!("Content-Range: bytes */{total}\r\n")));
        }
        file.seek(SeekFrom::Start(range.start)).await?;
        let fields = format!("{fields}Content-Range: bytes {}-{}/{total}\r\n", range.start, range.end - 1);
        let length = range.end - range.start;
        Ok(Self { status: "206 Partial Content", fields, length, body: Some(Box::new(file)) })
    }

    /// Sends the answer. A peer that takes nothing for the limit is an error.
    async fn send(self, stream: &mut TcpStream, keeps: bool) -> io::Result<()> {
        let Self { status, fields, length, body } = self;
        let (date, connection) = (fmt_http_date(SystemTime::now()), if keeps { "keep-alive" } else { "close" });
        let common = format!("Date: {date}\r\nConnection: {connection}\r\nContent-Length: {length}\r\n");
        write(stream, format!("HTTP/1.1 {status}\r\n{common}{fields}\r\n").as_bytes()).await?;
        let Some(mut body) = body.map(|body| body.take(length)) else { return Ok(()) };
        let mut piece = vec![0; PIECE_BYTES];
        while body.limit() > 0 {
            let count = body.read(&mut piece).await?;
            if count == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file became shorter"));
            }
            write(stream, &piece[..count]).await?;
        }
        Ok(())
    }
}

/// Writes bytes. Fails if the peer takes nothing for the limit: the close is a reset then.
async fn write(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let Ok(taken) = timeout(STALL_LIMIT, stream.write(bytes)).await else {
            stream.set_zero_linger()?;
            return Err(io::Error::new(ErrorKind::TimedOut, "the peer took nothing of the answer"));
        };
        bytes = &bytes[taken?..];
    }
    Ok(())
}

/// Returns the file or folder of a target, and if it is a folder. `None` if there is none within
/// the folder that is served.
async fn find(folder: &Path, target: &str) -> Option<(PathBuf, bool)> {
    let mut name = decoded(target)?;
    if name.ends_with(b"/") {
        name.extend_from_slice(b"index.html");
    }
    let name = Path::new(OsStr::from_bytes(&name)).strip_prefix("/").ok()?;
    let path = fs::canonicalize(folder.join(name)).await.ok().filter(|path| path.starts_with(folder))?;
    let metadata = fs::metadata(&path).await.ok()?;
    (metadata.is_file() || metadata.is_dir()).then_some((path, metadata.is_dir()))
}

/// Returns the values of a field of a request. One that is no text is empty.
fn values<'a>(request: &'a Request<'_, '_>, name: &'a str) -> impl Iterator<Item = &'a str> {
    let named = request.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    named.map(|field| str::from_utf8(field.value).unwrap_or_default())
}

/// Returns the bytes of a file that a `Range` is for, or an empty part if there are none. `None` if
/// the whole file is to be sent.
fn part(range: &str, total: u64) -> Option<Range<u64>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => Some(first..total.min(last.saturating_add(1))),
        (Ok(first), Err(_)) if last.is_empty() => Some(first..total),
        (Err(_), Ok(count)) if first.is_empty() => Some(total.saturating_sub(count)..total),
        _ => None,
    }
}

/// Decodes a target's `%20` and the like. `None` if one of them is incomplete.
fn decoded(target: &str) -> Option<Vec<u8>> {
    let mut pieces = target.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (code, rest) = piece.split_at_checked(2).filter(|(code, _)| !code.starts_with('+'))?;
        bytes.push(u8::from_str_radix(code, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(OsStr::to_str) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        Some("pdf") => "application/pdf",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        _ => "application/octet-stream",
    }
}

/// Waits for the next head. `None` at the end of the stream.
async fn next_head(heads: &mut FramedRead<TcpStream, HeadCodec>) -> Result<Option<Bytes>, HeadError> {
    if heads.read_buffer().is_empty() {
        timeout(IDLE_LIMIT, heads.get_ref().peek(&mut [0])).await.map_err(|_| HeadError::Ended)??;
    }
    timeout(HEAD_LIMIT, heads.next()).await.map_err(|_| HeadError::Ended)?.transpose()
}

/// Makes the answer to a head. The connection is kept behind it, or not.
async fn answer_to(head: &[u8], folder: &Path) -> (Answer, bool) {
    let mut fields = [EMPTY_HEADER; MOST_FIELDS];
    let mut request = Request::new(&mut fields);
    if request.parse(head).is_err() {
        return (Answer::text("400 Bad Request", ""), false);
    }
    let mut answer = Answer::to(&request, folder).await;
    if request.method == Some("HEAD") {
        answer.body = None;
    }
    let has_body = values(&request, "content-length").any(|length| length != "0")
        || values(&request, "transfer-encoding").next().is_some();
    let mut wishes = values(&request, "connection").flat_map(|value| value.split(','));
    let is_last = wishes.any(|wish| wish.trim().eq_ignore_ascii_case("close"));
    (answer, request.version == Some(1) && !has_body && !is_last)
}

async fn serve(stream: TcpStream, folder: Arc<Path>, stop: CancellationToken) -> io::Result<()> {
    let mut heads = FramedRead::new(stream, HeadCodec);
    while let Some(head) = stop.run_until_cancelled(next_head(&mut heads)).await {
        let (answer, keeps) = match head {
            Ok(Some(head)) => answer_to(&head, &folder).await,
            Err(HeadError::Refused(status)) => (Answer::text(status, ""), false),
            Ok(None) | Err(HeadError::Ended) => break,
        };
        answer.send(heads.get_mut(), keeps).await?;
        if !keeps {
            // A close with unread bytes would be a reset, and could destroy the answer.
            heads.get_mut().shutdown().await?;
            drop(timeout(LINGER, copy(heads.get_mut(), &mut sink())).await);
            break;
        }
    }
    Ok(())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let argument = |place: usize, default: &str| env::args().nth(place).unwrap_or_else(|| default.to_owned());
    let folder: Arc<Path> = fs::canonicalize(argument(1, ".")).await?.into();
    let listener = TcpListener::bind(argument(2, "0.0.0.0:8080")).await?;
    println!("listening on {}", listener.local_addr()?);
    let (stop, connections) = (CancellationToken::new(), TaskTracker::new());
    let (mut terminated, stopping) = (signal(SignalKind::terminate())?, stop.clone());
    tokio::spawn(async move {
        terminated.recv().await;
        stopping.cancel();
    });
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let next = async || io::Result::Ok((Arc::clone(&places).acquire_owned().await, listener.accept().await?.0));
    while let Some(accepted) = stop.run_until_cancelled(next()).await {
        let Ok((place, stream)) = accepted.inspect_err(|error| eprintln!("cannot accept: {error}")) else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        let serving = serve(stream, Arc::clone(&folder), stop.clone());
        connections.spawn(async move {
            if let Err(error) = serving.await {
                eprintln!("an answer failed: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    // Connections that are left at the end of the time are cut off.
    drop(timeout(FAREWELL, connections.wait()).await);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    Builder::new_current_thread().enable_all().build()?.block_on(run())
}
