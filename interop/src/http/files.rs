//! [`Files`]: answers requests for files below a folder.
//!
//! | request | answer |
//! |---|---|
//! | GET, HEAD of a file | 200, 206, 304, 412, 416: see `conditions.rs` |
//! | a folder, with a slash at the end | its `index.html` |
//! | a folder, without one | 301 to the same with one, so that relative links work |
//! | a path that is malformed or has `..` | 400 |
//! | a file that is not there, or is not below the root | 404 |
//! | a file that may not be read | 403 |
//! | another method | 405 |
//! | a failure of the disk | 500, and a report |

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt, Either, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{
    ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, EXPECT, HeaderValue, LAST_MODIFIED,
    LOCATION,
};
use hyper::http::response::Builder;
use hyper::{Method, Request, Response, StatusCode, Version};
use ropewalk::{Failure, Reactor, Result};
use rustix::io::Errno;

use super::body::FileBody;
use super::conditions::{FileVersion, Verdict, judge};
use super::connections::TrackedBody;
use super::opened::{Opened, OpenedFile, open_root, relative_path};
use super::server::FailureReport;

/// Number of bytes of a request's body that are read and dropped ahead of its answer. Requests for
/// files need no body. An answer that overtakes one is allowed, but clients take it badly: over
/// HTTP/2 it is followed by RST_STREAM, which curl 7.88 reports as a framing error if it is still
/// sending. 64 KiB: a form, and no upload.
const DROPPED_BYTES: usize = 64 * 1024;

/// An answer of [`Files`]: a line of text, or a part of a file.
pub type FileAnswer = Response<Either<Full<Bytes>, FileBody>>;

/// The files below a folder. A cheap handle.
#[derive(Clone)]
pub struct Files(Rc<FilesInner>);

struct FilesInner {
    reactor: Reactor,
    root: Arc<OwnedFd>,
    on_failure: FailureReport,
}

impl Files {
    /// Opens the folder, on this thread. `on_failure` is called with a line for each failure of the
    /// disk.
    ///
    /// # Errors
    /// An error of the system: no such folder, or a kernel before Linux 5.6.
    pub fn new(
        reactor: &Reactor,
        root: impl AsRef<Path>,
        on_failure: impl Fn(&dyn fmt::Display) + 'static,
    ) -> io::Result<Self> {
        let root = Arc::new(open_root(root.as_ref())?);
        Ok(Self(Rc::new(FilesInner { reactor: reactor.clone(), root, on_failure: Box::new(on_failure) })))
    }

    /// Answers a request.
    pub async fn answer(&self, request: Request<TrackedBody<Incoming>>) -> FileAnswer {
        let (request, body) = request.into_parts();
        // A client of HTTP/1 that waits for `100 Continue` is better told the answer.
        if request.version == Version::HTTP_2 || !request.headers.contains_key(EXPECT) {
            drop_body(body).await;
        }
        let request = Request::from_parts(request, ());
        let answer = self.answer_head(&request).await.unwrap_or_else(|failure| {
            (self.0.on_failure)(&format_args!("{}: {failure}", request.uri()));
            message(StatusCode::INTERNAL_SERVER_ERROR)
        });
        match *request.method() {
            Method::HEAD => without_body(answer),
            _ => answer,
        }
    }

    async fn answer_head(&self, request: &Request<()>) -> Result<FileAnswer> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = message(StatusCode::METHOD_NOT_ALLOWED);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Ok(answer);
        }
        let Some(path) = relative_path(request.uri().path()) else { return Ok(message(StatusCode::BAD_REQUEST)) };
        let root = Arc::clone(&self.0.root);
        let opening = self.0.reactor.defer_to_thread(move || Ok(Opened::open(&root, &path)));
        match opening.await? {
            Ok(Opened::File(file)) => self.answer_file(request, file),
            Ok(Opened::Folder) => redirect(request),
            Err(error) => Ok(message(status(error)?)),
        }
    }

    fn answer_file(&self, request: &Request<()>, opened: OpenedFile) -> Result<FileAnswer> {
        let version = FileVersion::new(opened.len, opened.modified, SystemTime::now());
        let builder = Response::builder().header(ETAG, &version.tag).header(ACCEPT_RANGES, "bytes");
        let builder =
            version.last_modified().into_iter().fold(builder, |builder, date| builder.header(LAST_MODIFIED, date));
        let body = |builder: Builder, first, count| {
            let body = FileBody::new(&self.0.reactor, opened.file, first, count);
            // hyper would leave out the length of an empty file over HTTP/2.
            let builder = builder.header(CONTENT_TYPE, opened.media_type).header(CONTENT_LENGTH, count);
            Ok(builder.body(Either::Right(body))?)
        };
        let nothing = |builder: Builder, status| Ok(builder.status(status).body(Either::Left(Full::default()))?);
        match judge(request.method(), request.headers(), &version) {
            Verdict::Whole => body(builder, 0, version.len),
            Verdict::Part(first, last) => {
                let shown = format!("bytes {first}-{last}/{}", version.len);
                let builder = builder.status(StatusCode::PARTIAL_CONTENT).header(CONTENT_RANGE, shown);
                body(builder, first, last - first + 1)
            }
            Verdict::OutOfRange => {
                let shown = format!("bytes */{}", version.len);
                nothing(builder.header(CONTENT_RANGE, shown), StatusCode::RANGE_NOT_SATISFIABLE)
            }
            Verdict::NotModified => nothing(builder, StatusCode::NOT_MODIFIED),
            Verdict::PreconditionFailed => nothing(builder, StatusCode::PRECONDITION_FAILED),
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").field("root", &self.0.root).finish_non_exhaustive()
    }
}

/// Reads a body and drops it, up to the limit.
async fn drop_body(mut body: TrackedBody<Incoming>) {
    let mut left = DROPPED_BYTES as u64;
    while body.size_hint().lower() <= left {
        // The body ends, or breaks, and the connection with it.
        let Some(Ok(frame)) = body.frame().await else { return };
        let count = frame.data_ref().map_or(0, Bytes::len) as u64;
        if count > left {
            return;
        }
        left -= count;
    }
}

/// Returns the answer to HEAD in the place of that to GET: its header with the length of the body.
/// hyper drops the body itself over HTTP/1, and would send it over HTTP/2.
fn without_body(answer: FileAnswer) -> FileAnswer {
    let (mut head, body) = answer.into_parts();
    if head.status != StatusCode::NOT_MODIFIED
        && let Some(count) = body.size_hint().exact()
    {
        head.headers.insert(CONTENT_LENGTH, count.into());
    }
    Response::from_parts(head, Either::Left(Full::default()))
}

/// Redirects to the same path with a slash at the end.
fn redirect(request: &Request<()>) -> Result<FileAnswer> {
    let query = request.uri().query().map_or_else(String::new, |query| format!("?{query}"));
    let mut answer = message(StatusCode::MOVED_PERMANENTLY);
    let place = HeaderValue::try_from(format!("{}/{query}", request.uri().path()))?;
    answer.headers_mut().insert(LOCATION, place);
    Ok(answer)
}

/// Returns the status of a file that can't be opened, or the error if it is the server's.
fn status(error: io::Error) -> Result<StatusCode> {
    match Errno::from_io_error(&error) {
        // A symbolic link that leaves the root is as good as none.
        Some(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NXIO | Errno::NAMETOOLONG) => {
            Ok(StatusCode::NOT_FOUND)
        }
        Some(Errno::ACCESS | Errno::PERM) => Ok(StatusCode::FORBIDDEN),
        _ => Err(Failure::from(error)),
    }
}

/// Returns an answer of one line.
fn message(status: StatusCode) -> FileAnswer {
    let mut answer = Response::new(Either::Left(Full::from(format!("{status}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
