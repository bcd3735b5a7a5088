//! An HTTP/1.1 server of the files in a folder, by callbacks.
//!
//! ```sh
//! cargo run --example static_http -- /usr/share/doc &
//! curl --range 0-99 http://localhost:8080/bash/copyright
//! ```
//!
//! | it answers | with |
//! |---|---|
//! | GET and HEAD of a file | 200, its type by its extension, and an `ETag` |
//! | `If-None-Match` with that tag | 304 |
//! | one range of bytes, also with `If-Range` | 206 or 416; several ranges get the whole file |
//! | a folder | its `index.html`; without a slash at the end 301 |
//! | names outside of the folder, also by symbolic links | 404 |
//! | another method | 405 |
//! | a head that is no HTTP, or longer than 8 KiB | 400, 431 |
//!
//! Requests can be pipelined. `httparse` parses a head, and finds its end for a `FrameReceiver`. A
//! request with a body is answered, and its connection is closed.
//!
//! The arguments are the folder (default: the present one), and where to listen (default
//! `tcp:8080:maxConnections=10000:receiveTimeout=60`). So an idle connection is closed after a
//! minute. A head has ten seconds from its first byte on. A peer that takes nothing of a file for
//! twenty seconds is cut off. On SIGTERM the server stops listening, closes idle connections, and
//! gives the others ten seconds to end.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httparse::{EMPTY_HEADER, Request, Status};
use httpdate::fmt_http_date;
use ropewalk::application::{StreamServerEndpointService, run_service};
use ropewalk::endpoints::server_from_string;
use ropewalk::interfaces::*;
use ropewalk::policies::Timeout;
use ropewalk::protocols::{FileSender, FrameReceiver, FrameTooLong};
use ropewalk::{Failure, Result, Transport, for_protocol};

pub(crate) const DEFAULT_ENDPOINT: &str = "tcp:8080:maxConnections=10000:receiveTimeout=60";
const LONGEST_HEAD_BYTES: usize = 8192;
const MOST_FIELDS: usize = 64;
const HEAD_LIMIT: Duration = Duration::from_secs(10);
const STALL_LIMIT: Duration = Duration::from_secs(20);

/// Time that the last answers have to end after SIGTERM.
const FAREWELL: Duration = Duration::from_secs(10);

pub(crate) struct StaticHttp {
    folder: Rc<Path>,
    heads: FrameReceiver,
    head: Timeout,
}

impl StaticHttp {
    /// Serves the files of a folder, whose path is canonical.
    pub(crate) fn new(folder: Rc<Path>) -> Self {
        let heads = FrameReceiver::new(head_length).max_length(LONGEST_HEAD_BYTES);
        Self { folder, heads, head: Timeout::new() }
    }

    fn answer(&self, request: &Request<'_, '_>) -> Answer {
        if request.version == Some(1) && values(request, "host").count() != 1 {
            return Answer::text("400 Bad Request", "");
        }
        if !matches!(request.method, Some("GET" | "HEAD")) {
            return Answer::text("405 Method Not Allowed", "Allow: GET, HEAD\r\n");
        }
        let target = request.path.unwrap_or_default().split('?').next().unwrap_or_default();
        let Some(path) = self.find(target) else { return Answer::text("404 Not Found", "") };
        if path.is_dir() {
            // Two slashes at the front would be the name of another server.
            let location = format!("Location: /{}/\r\n", target.trim_start_matches('/'));
            return Answer::text("301 Moved Permanently", &location);
        }
        Answer::file(&path, request).unwrap_or_else(|_| Answer::text("403 Forbidden", ""))
    }

    /// Returns the file or folder of a target. `None` if there is none within the folder.
    fn find(&self, target: &str) -> Option<PathBuf> {
        let mut name = decoded(target)?;
        if name.ends_with(b"/") {
            name.extend_from_slice(b"index.html");
        }
        let name = Path::new(OsStr::from_bytes(&name)).strip_prefix("/").ok()?;
        let path = fs::canonicalize(self.folder.join(name)).ok()?;
        (path.starts_with(&self.folder) && (path.is_file() || path.is_dir())).then_some(path)
    }

    /// Sends an answer. The next request is delivered when its last byte is written.
    fn send(transport: &Transport, answer: Answer, keeps: bool) {
        let Answer { status, fields, length, body } = answer;
        let (date, connection) = (fmt_http_date(SystemTime::now()), if keeps { "keep-alive" } else { "close" });
        let common = format!("Date: {date}\r\nConnection: {connection}\r\nContent-Length: {length}\r\n");
        transport.write(format!("HTTP/1.1 {status}\r\n{common}{fields}\r\n").as_bytes());
        transport.pause_producing();
        let (body, length) = body.map_or((Box::new(io::empty()) as _, 0), |body| (body, length));
        let client = transport.clone();
        let sending = FileSender::new(body.take(length)).stall_limit(STALL_LIMIT).begin(transport);
        let sent = sending.add_callback(move |sent| match keeps && sent == length {
            true => client.resume_producing(),
            false => client.lose_connection(),
        });
        sent.or_log("an answer");
    }
}

impl FramedProtocol for StaticHttp {
    fn frames(&mut self) -> &mut FrameReceiver {
        &mut self.heads
    }

    fn message_received(&mut self, transport: &Transport, head: &[u8]) -> Result<()> {
        self.head.clear();
        let mut fields = [EMPTY_HEADER; MOST_FIELDS];
        let mut request = Request::new(&mut fields);
        request.parse(head)?;
        let mut answer = self.answer(&request);
        if request.method == Some("HEAD") {
            answer.body = None;
        }
        let has_body = values(&request, "content-length").any(|length| length != "0")
            || values(&request, "transfer-encoding").next().is_some();
        let mut wishes = values(&request, "connection").flat_map(|value| value.split(','));
        let is_last = wishes.any(|wish| wish.trim().eq_ignore_ascii_case("close"));
        Self::send(transport, answer, request.version == Some(1) && !has_body && !is_last);
        Ok(())
    }

    fn frame_broken(&mut self, transport: &Transport, failure: Failure) -> Result<()> {
        let is_long =
            failure.check::<FrameTooLong>().is_some() || failure.check() == Some(&httparse::Error::TooManyHeaders);
        let status = if is_long { "431 Request Header Fields Too Large" } else { "400 Bad Request" };
        Self::send(transport, Answer::text(status, ""), false);
        Ok(())
    }
}

impl Protocol for StaticHttp {
    fn data_received(&mut self, transport: &Transport, data: &[u8]) -> Result<()> {
        if self.head.left().is_none() {
            self.head.set(transport, HEAD_LIMIT);
        }
        self.receive_frames(transport, data)
    }
}

/// An answer. `fields` are those that not every answer has. The length is that of the body, or of
/// the one that GET would get.
struct Answer {
    status: &'static str,
    fields: String,
    length: u64,
    body: Option<Box<dyn Read>>,
}

impl Answer {
    /// Makes an answer whose body is its status.
    fn text(status: &'static str, fields: &str) -> Self {
        let fields = format!("Content-Type: text/plain\r\n{fields}");
        Self { status, fields, length: status.len() as u64, body: Some(Box::new(Cursor::new(status))) }
    }

    fn file(path: &Path, request: &Request<'_, '_>) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let (total, modified) = (file.metadata()?.len(), file.metadata()?.modified()?);
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
        file.seek(SeekFrom::Start(range.start))?;
        let fields = format!("{fields}Content-Range: bytes {}-{}/{total}\r\n", range.start, range.end - 1);
        let length = range.end - range.start;
        Ok(Self { status: "206 Partial Content", fields, length, body: Some(Box::new(file)) })
    }
}

/// Returns the length of the first head, if it is there.
fn head_length(data: &[u8]) -> Result<Option<usize>> {
    match Request::new(&mut [EMPTY_HEADER; MOST_FIELDS]).parse(data)? {
        Status::Complete(length) => Ok(Some(length)),
        Status::Partial => Ok(None),
    }
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

fn main() -> ExitCode {
    ropewalk::run(|reactor| {
        let argument = |place: usize, default: &str| env::args().nth(place).unwrap_or_else(|| default.to_owned());
        let folder: Rc<Path> = fs::canonicalize(argument(1, ".")).context("the folder")?.into();
        let endpoint = server_from_string(reactor, &argument(2, DEFAULT_ENDPOINT))?;
        let factory = for_protocol(move |_| StaticHttp::new(folder.clone()));
        let service = StreamServerEndpointService::new(endpoint, factory).drain(reactor, FAREWELL);
        let stopped = run_service(reactor, service.clone());
        service.host().inspect(|host| println!("listening on {host}"));
        Ok(stopped)
    })
}
