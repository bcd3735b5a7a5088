//! A server on real sockets, and programs of other projects as its clients. If one of them is
//! missing, its tests are skipped. If `CI` is set in the environment they fail.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::rc::Rc;
use std::sync::LazyLock;
use std::thread;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use ropewalk::endpoints::{quote_string_argument, server_from_string};
use ropewalk::{Port, Reactor};
use ropewalk_interop::http::{FileBody, Files, HttpLimits, HttpServer, TrackedBody};

pub(crate) use crate::backends::{LIMIT, on_each, run_until};
use crate::certificates::{Folder, self_signed};

/// Returns `true` if the program is there.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "{program} is missing");
    if !found {
        println!("skipped: there is no {program}");
    }
    found
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 31 + index / 251) as u8).collect()
}

/// The folder `served` with files, and beside it a secret, all of which go with the value.
pub(crate) struct Site(Folder);

/// Number of bytes of the file `large`: more than the buffers of sockets take.
pub(crate) const LARGE: usize = 12_345_678;

/// The bytes of that file.
pub(crate) fn large() -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(LARGE));
    &BYTES
}

impl Site {
    pub(crate) fn new() -> Self {
        let site = Self(Folder::new());
        std::fs::create_dir_all(site.at("served/below")).unwrap();
        std::fs::create_dir_all(site.at("served/bare")).unwrap();
        site.put("served/index.html", b"<p>an index");
        site.put("served/below/small.txt", b"a rope of yarn");
        site.put("served/empty.css", b"");
        site.put("served/large", large());
        site.put("secret", b"not to be served");
        for (to, link) in [("../secret", "out"), ("below/small.txt", "in"), ("..", "up"), ("loop", "loop")] {
            std::os::unix::fs::symlink(to, site.at("served").join(link)).unwrap();
        }
        std::os::unix::fs::symlink(site.at("secret"), site.at("served/absolute")).unwrap();
        site
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.at(name).into()
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.at(name), bytes).unwrap();
    }

    /// A path as a description has it.
    pub(crate) fn quoted(&self, name: &str) -> String {
        quote_string_argument(self.at(name).to_str().unwrap()).into_owned()
    }
}

/// A server of the files of a site, plain and over TLS. `POST /echo` is answered by the body of the
/// request.
pub(crate) struct Server<'r> {
    reactor: &'r Reactor,
    pub(crate) site: Site,
    pub(crate) http: HttpServer,
    pub(crate) plain: Port,
    pub(crate) secure: Port,
    /// The lines about failures.
    pub(crate) failures: Rc<RefCell<Vec<String>>>,
}

impl<'r> Server<'r> {
    pub(crate) fn new(reactor: &'r Reactor) -> Self {
        Self::with_limits(reactor, HttpLimits::default())
    }

    pub(crate) fn with_limits(reactor: &'r Reactor, limits: HttpLimits) -> Self {
        let (site, failures) = (Site::new(), Rc::new(RefCell::new(Vec::new())));
        let identity = self_signed(&["127.0.0.1"]);
        std::fs::create_dir(site.at("tls")).unwrap();
        site.put("tls/server.pem", format!("{}{}", identity.key, identity.certificate).as_bytes());
        let report = {
            let failures = Rc::clone(&failures);
            move |line: &dyn std::fmt::Display| failures.borrow_mut().push(line.to_string())
        };
        let http = HttpServer::new(reactor, limits, report.clone());
        let files = Files::new(reactor, site.at("served"), report).expect("the folder is there");
        let listen = |description: &str| {
            let files = files.clone();
            let endpoint = server_from_string(reactor, description).expect(description);
            let mut listening = http.listen(&endpoint, move |request| answer(files.clone(), request));
            listening.take_result().expect("it listens at once").expect("a port")
        };
        let plain = listen("tcp:0:interface=127.0.0.1");
        let secure = listen(&format!("tls:{}:0:interface=127.0.0.1:protocols=h2,http/1.1", site.quoted("tls")));
        Self { reactor, site, plain, secure, http, failures }
    }

    #[track_caller]
    pub(crate) fn run_until(&self, done: impl FnMut() -> bool) {
        run_until(self.reactor, done);
    }

    /// Waits until no connection is open, and checks that none has failed.
    #[track_caller]
    pub(crate) fn end_well(&self) {
        self.run_until(|| self.http.open_connections() == 0);
        let failures = self.failures.borrow();
        assert!(failures.is_empty(), "{failures:?}");
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.plain.host().port().unwrap())
    }

    pub(crate) fn secure_url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.secure.host().port().unwrap())
    }

    /// Runs a program beside the reactor.
    #[track_caller]
    pub(crate) fn run(&self, command: &mut Command) -> Output {
        let child = spawn(command);
        let child = thread::spawn(move || child.wait_with_output().expect("it ends"));
        self.run_until(|| child.is_finished());
        child.join().expect("no panic")
    }

    /// Asks with curl. Returns the status with the version, the header and the body of the answer.
    #[track_caller]
    pub(crate) fn get(&self, arguments: &[&str]) -> Answer {
        let (head, body) = (self.site.at("head"), self.site.at("body"));
        for file in [&head, &body] {
            // A file of the last answer is none of this one's.
            let _ = std::fs::remove_file(file);
        }
        let mut command = curl();
        command.args(["--write-out", "%{http_code} %{http_version}"]).arg("--output").arg(&body);
        let output = self.run(command.arg("--dump-header").arg(&head).args(arguments));
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = |bytes| String::from_utf8(bytes).expect("text");
        let head = text(std::fs::read(head).unwrap());
        Answer { status: text(output.stdout), head, body: std::fs::read(body).unwrap_or_default() }
    }
}

/// An answer as curl has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Such as `200 1.1`.
    pub(crate) status: String,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|line| line.0.eq_ignore_ascii_case(name)).map(|line| line.1).next()
    }
}

async fn answer(files: Files, request: Request<TrackedBody<Incoming>>) -> Response<TestBody> {
    if request.uri().path() == "/echo" {
        return Response::new(Either::Right(request.into_body()));
    }
    files.answer(request).await.map(Either::Left)
}

type TestBody = Either<Either<Full<Bytes>, FileBody>, TrackedBody<Incoming>>;

/// Returns curl, to which arguments are added.
pub(crate) fn curl() -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--insecure", "--path-as-is", "--max-time", "50"]);
    command
}

/// The versions of HTTP: an option of curl, the version in its report, and whether TLS is used.
pub(crate) const VERSIONS: [(&str, &str, bool); 5] = [
    ("--http1.0", "1", false),
    ("--http1.1", "1.1", false),
    ("--http2-prior-knowledge", "2", false),
    ("--http1.1", "1.1", true),
    ("--http2", "2", true),
];

/// The same for many bytes, which take long in a debug build's TLS.
pub(crate) const BULK_VERSIONS: [(&str, &str, bool); 3] =
    [("--http1.1", "1.1", false), ("--http2-prior-knowledge", "2", false), ("--http2", "2", true)];

/// Starts a program whose output is kept.
pub(crate) fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a program")
}

/// Returns the SHA-256 of a file, as sha256sum prints it.
pub(crate) fn sha256(file: &Path) -> String {
    let output = spawn(Command::new("sha256sum").stdin(Stdio::null()).arg(file)).wait_with_output().expect("it ends");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split(' ').next().expect("a word").to_owned()
}
