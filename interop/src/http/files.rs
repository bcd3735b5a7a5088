//! [`Files`]: answers requests for files, whole, in ranges, or not at all. Files are read in the
//! reactor's threads, a piece at a time, as fast as the client takes them.

use std::fs::File;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use hyper::{Method, Request, Response, StatusCode};
use ropewalk::{Deferred, Failure, Reactor};

/// Number of bytes that are read at a time. 64 KiB: what a stream queues.
const PIECE_BYTES: u64 = 64 * 1024;

/// The files below a folder.
pub(super) struct Files {
    reactor: Reactor,
    root: Arc<PathBuf>,
}

/// The body of an answer.
type Answer = Response<Either<Full<Bytes>, FileBody>>;

impl Files {
    pub(super) fn new(reactor: &Reactor, root: PathBuf) -> Self {
        Self { reactor: reactor.clone(), root: Arc::new(root) }
    }

    /// Answers a request. A failure of the disk is a 500, and is printed.
    pub(super) async fn answer(&self, request: &Request<Incoming>) -> io::Result<Answer> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = message(StatusCode::METHOD_NOT_ALLOWED);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(answer);
        }
        let Some(path) = relative(request.uri().path()) else { return Ok(message(StatusCode::NOT_FOUND)) };
        let root = Arc::clone(&self.root);
        let found = self.reactor.defer_to_thread(move || Ok(Found::open(&root, &path)));
        match found.await.map_err(as_error)? {
            Ok(found) => found.answer(request, &self.reactor).map_err(io::Error::other),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(message(StatusCode::NOT_FOUND))
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(message(StatusCode::FORBIDDEN)),
            Err(error) => {
                println!("{}: {error}", request.uri());
                Ok(message(StatusCode::INTERNAL_SERVER_ERROR))
            }
        }
    }
}

/// A file that is open.
struct Found {
    file: Arc<File>,
    len: u64,
    /// The validator of this version: its length and its time.
    tag: String,
    kind: &'static str,
}

impl Found {
    /// Opens a file, or the index of a folder. A symbolic link may not lead out of the root.
    fn open(root: &Path, path: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let mut path = root.join(path).canonicalize()?;
        if path.is_dir() {
            path = path.join("index.html").canonicalize()?;
        }
        if !path.starts_with(&root) {
            return Err(ErrorKind::PermissionDenied.into());
        }
        let file = File::open(&path)?;
        let facts = file.metadata()?;
        if !facts.is_file() {
            return Err(ErrorKind::NotFound.into());
        }
        let time = facts.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let tag = format!("\"{time:x}-{:x}\"", facts.len());
        Ok(Self { file: Arc::new(file), len: facts.len(), tag, kind: media_type(&path) })
    }

    fn answer(self, request: &Request<Incoming>, reactor: &Reactor) -> hyper::http::Result<Answer> {
        let asked = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let builder = Response::builder().header(ETAG, &self.tag).header(ACCEPT_RANGES, "bytes");
        if asked(IF_NONE_MATCH).is_some_and(|tags| tags == "*" || tags.split(',').any(|tag| tag.trim() == self.tag)) {
            return builder.status(StatusCode::NOT_MODIFIED).body(Either::Left(Full::default()));
        }
        let builder = builder.header(CONTENT_TYPE, self.kind);
        // A range of another version of the file would be of no use.
        let is_same = asked(IF_RANGE).is_none_or(|tag| tag == self.tag);
        let range = asked(RANGE).filter(|_| is_same && request.method() == Method::GET);
        let (builder, first, count) = match range.map_or(Range::Whole, |text| Range::read(text, self.len)) {
            Range::Whole => (builder, 0, self.len),
            Range::Part(first, last) => {
                let shown = format!("bytes {first}-{last}/{}", self.len);
                (builder.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, shown), first, last - first + 1)
            }
            Range::Outside => {
                let shown = format!("bytes */{}", self.len);
                let builder = builder.status(StatusCode::RANGE_NOT_SATISFIABLE).header(CONTENT_RANGE, shown);
                return builder.body(Either::Left(Full::default()));
            }
        };
        let reactor = reactor.clone();
        let body = FileBody { reactor, file: self.file, next: first, left: count, reading: None };
        builder.body(Either::Right(body))
    }
}

/// The part of a file that a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// From this byte to that one.
    Part(u64, u64),
    /// No byte of it is in the file.
    Outside,
}

impl Range {
    /// Reads a header. Several ranges, and any that is malformed, are answered by the whole file.
    fn read(text: &str, len: u64) -> Self {
        let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-')) else {
            return Self::Whole;
        };
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first > last => Self::Whole,
            (Some(first), _) if first >= len && is_open_or_number(last) => Self::Outside,
            (Some(first), Some(last)) => Self::Part(first, last.min(len - 1)),
            (Some(first), None) if last.is_empty() => Self::Part(first, len - 1),
            (None, Some(0)) if first.is_empty() => Self::Outside,
            (None, Some(_)) if first.is_empty() && len == 0 => Self::Outside,
            (None, Some(count)) if first.is_empty() => Self::Part(len.saturating_sub(count), len - 1),
            _ => Self::Whole,
        }
    }
}

fn is_open_or_number(text: &str) -> bool {
    text.is_empty() || number(text).is_some()
}

/// Reads decimal digits, and nothing else: a sign is none.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Bytes of a file, read when the client has room for them.
pub(super) struct FileBody {
    reactor: Reactor,
    file: Arc<File>,
    next: u64,
    left: u64,
    reading: Option<Deferred<Vec<u8>>>,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if self.reading.is_none() {
            let (file, from, count) = (Arc::clone(&self.file), self.next, self.left.min(PIECE_BYTES));
            let read = move || {
                let mut piece = vec![0; count as usize];
                // A file that has become shorter ends the connection: the length was announced.
                file.read_exact_at(&mut piece, from)?;
                Ok(piece)
            };
            self.reading = Some(self.reactor.defer_to_thread(read));
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let piece = ready!(Pin::new(reading).poll(cx)).map_err(as_error)?;
        self.reading = None;
        self.next += piece.len() as u64;
        self.left -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// Returns a failure as an error for hyper, which knows no failures.
fn as_error(failure: Failure) -> io::Error {
    io::Error::other(failure.to_string())
}

/// An answer of one line.
fn message(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(format!("{status}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// Returns the path of a file below the root, or `None` for one that is not below it.
fn relative(uri: &str) -> Option<PathBuf> {
    let path = PathBuf::from(decode(uri.strip_prefix('/')?)?);
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

/// Decodes `%41` and its like. `None` for malformed ones, and for text that is not UTF-8 or has
/// NUL.
fn decode(text: &str) -> Option<String> {
    let (mut bytes, mut decoded) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(bytes.next()?)? * 16 + digit(bytes.next()?)?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok().filter(|path| !path.contains('\0'))
}

fn media_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("txt" | "md") => "text/plain; charset=utf-8",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        for (text, range) in [
            ("bytes=0-0", Range::Part(0, 0)),
            ("bytes=2-5", Range::Part(2, 5)),
            ("bytes=2-500", Range::Part(2, 9)),
            ("bytes=2-99999999999999999999999", Range::Part(2, 9)),
            ("bytes=9-", Range::Part(9, 9)),
            ("bytes=10-", Range::Outside),
            ("bytes=10-20", Range::Outside),
            ("bytes=-3", Range::Part(7, 9)),
            ("bytes=-30", Range::Part(0, 9)),
            ("bytes=-0", Range::Outside),
            ("bytes=5-2", Range::Whole),
            ("bytes=+1-2", Range::Whole),
            ("bytes=1-x", Range::Whole),
            ("bytes=10-x", Range::Whole),
            ("bytes=0-1,3-4", Range::Whole),
            ("bytes=-", Range::Whole),
            ("lines=1-2", Range::Whole),
        ] {
            assert_eq!(Range::read(text, 10), range, "{text}");
        }
        for text in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(Range::read(text, 0), Range::Outside, "{text} of an empty file");
        }
    }

    #[test]
    fn no_path_leads_out_of_the_root() {
        for (uri, path) in [("/", ""), ("/a/b.txt", "a/b.txt"), ("/a%20b", "a b"), ("/.../a", ".../a")] {
            assert_eq!(relative(uri), Some(path.into()), "{uri}");
        }
        for uri in ["/../a", "/a/%2e%2e/b", "/%2Fetc/passwd", "//etc/passwd", "/a%00", "/%4", "/%xx", "/%ff", "*"] {
            assert_eq!(relative(uri), None, "{uri}");
        }
    }
}
