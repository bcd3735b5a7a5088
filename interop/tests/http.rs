//! The HTTP server, asked by curl: HTTP/1 and HTTP/2, plain and over TLS, ranges, and a drain.
//! Without curl a test has nothing to show, and says so.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ropewalk::endpoints::{ServerEndpoint, server_from_string, wrap_server_tls};
use ropewalk::tls::{Identity, ServerTls};
use ropewalk::{BackendKind, Deferred, Port, Reactor};
use ropewalk_interop::http::{Drain, serve};

/// After this, a test has failed.
const LIMIT: Duration = Duration::from_secs(60);

/// More than the buffers of sockets take.
const LARGE: usize = 12_345_678;

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index * 31 + index / 251) as u8).collect()
}

/// A folder with files, which goes with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ropewalk-http-{}-{number}", std::process::id()));
        std::fs::create_dir_all(folder.join("served/below")).unwrap();
        std::fs::write(folder.join("served/index.html"), "<p>an index").unwrap();
        std::fs::write(folder.join("served/below/small.txt"), "a rope of yarn").unwrap();
        std::fs::write(folder.join("served/large"), pattern(LARGE)).unwrap();
        std::fs::write(folder.join("secret"), "not to be served").unwrap();
        std::os::unix::fs::symlink(folder.join("secret"), folder.join("served/link")).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Server {
    reactor: Reactor,
    folder: Folder,
    drain: Drain,
    port: Port,
}

impl Server {
    fn new(reactor: Reactor, wrap: impl FnOnce(Box<dyn ServerEndpoint>) -> Box<dyn ServerEndpoint>) -> Self {
        let (folder, drain) = (Folder::new(), Drain::new());
        let endpoint = wrap(server_from_string(&reactor, "tcp:0:interface=127.0.0.1").unwrap());
        let mut listening = serve(&reactor, &endpoint, folder.0.join("served"), &drain);
        let port = listening.take_result().expect("a port").unwrap();
        Self { reactor, folder, drain, port }
    }

    fn plain(reactor: Reactor) -> Self {
        Self::new(reactor, |tcp| tcp)
    }

    fn run_until(&self, mut done: impl FnMut() -> bool) {
        let until = Instant::now() + LIMIT;
        while !done() {
            assert!(Instant::now() < until, "it did not happen within {LIMIT:?}");
            self.reactor.iterate(Duration::from_millis(5)).unwrap();
        }
    }

    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://127.0.0.1:{}{path}", self.port.host().port().unwrap())
    }

    /// Runs curl beside the reactor.
    fn curl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--path-as-is", "--max-time", "50"]).args(arguments);
        let child = std::thread::spawn(move || command.stdin(Stdio::null()).output().unwrap());
        self.run_until(|| child.is_finished());
        child.join().unwrap()
    }

    /// Returns the status, the version and the body of an answer.
    fn get(&self, arguments: &[&str]) -> (String, Vec<u8>) {
        let place = self.folder.0.join("answer");
        // A file from the last answer is none of this one's.
        let _ = std::fs::remove_file(&place);
        let shown = ["--write-out", "%{http_code} %{http_version}", "--output", place.to_str().unwrap()];
        let output = self.curl(&[&shown, arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), std::fs::read(&place).unwrap_or_default())
    }
}

fn has_curl() -> bool {
    let there = Command::new("curl").arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        println!("skipped: there is no curl");
    }
    there
}

fn reactors() -> impl Iterator<Item = Reactor> {
    [BackendKind::Mio, BackendKind::IoUring].into_iter().filter_map(|kind| {
        let reactor = Reactor::builder().signals(false).backend(kind).build().unwrap();
        (reactor.backend() == kind).then_some(reactor)
    })
}

/// Files come whole and in ranges, over HTTP/1 and HTTP/2, on each backend.
#[test]
fn files_are_served() {
    if !has_curl() {
        return;
    }
    for reactor in reactors() {
        let server = Server::plain(reactor);
        let url = |path| server.url("http", path);
        for (option, version) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2"), ("--http1.0", "1.0")] {
            let got = |status: &str, body: &[u8]| (format!("{status} {version}"), body.to_vec());
            assert_eq!(server.get(&[option, &url("/")]), got("200", b"<p>an index"));
            assert_eq!(server.get(&[option, &url("/below/small%2etxt")]), got("200", b"a rope of yarn"));
            assert!(server.get(&[option, &url("/large")]) == got("200", &pattern(LARGE)));
            assert_eq!(server.get(&[option, "-r", "2-5", &url("/below/small.txt")]), got("206", b"rope"));
            assert_eq!(server.get(&[option, "-r", "-4", &url("/below/small.txt")]), got("206", b"yarn"));
            assert!(
                server.get(&[option, "-r", "12345000-", &url("/large")]) == got("206", &pattern(LARGE)[12345000..])
            );
            assert_eq!(server.get(&[option, "-r", "20-", &url("/below/small.txt")]), got("416", b""));
            assert_eq!(server.get(&[option, "--head", &url("/large")]).0, format!("200 {version}"));
            assert_eq!(server.get(&[option, &url("/nothing")]).0, format!("404 {version}"));
            assert_eq!(server.get(&[option, "-d", "x", &url("/")]).0, format!("405 {version}"));
            for path in ["/link", "/../secret", "/below/%2e%2e/%2e%2e/secret"] {
                let (status, body) = server.get(&[option, &url(path)]);
                assert!(!status.starts_with("200") && body != b"not to be served", "{path}: {status}");
            }
        }
        server.run_until(|| server.drain.open() == 0);
    }
}

/// Over TLS, ALPN chooses HTTP/2 or HTTP/1.
#[test]
fn alpn_chooses_the_version() {
    if !has_curl() {
        return;
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    for reactor in reactors() {
        let identity = Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let tls = ServerTls::builder().identity(identity).protocols(["h2", "http/1.1"]).build().unwrap();
        let server = Server::new(reactor, |tcp| Box::new(wrap_server_tls(tls, tcp)));
        for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let (status, body) = server.get(&["--insecure", option, &server.url("https", "/large")]);
            assert_eq!(status, format!("200 {version}"));
            assert!(body == pattern(LARGE));
        }
    }
}

/// A drain lets a slow download finish, and ends connections without a request at once.
#[test]
fn a_drain_finishes_requests() {
    if !has_curl() {
        return;
    }
    for reactor in reactors() {
        for option in ["--http1.1", "--http2-prior-knowledge"] {
            let server = Server::plain(reactor.clone());
            let idle = std::net::TcpStream::connect(("127.0.0.1", server.port.host().port().unwrap())).unwrap();
            let place = server.folder.0.join("slow");
            let mut command = Command::new("curl");
            command.args([option, "--silent", "--limit-rate", "6M", "--output"]).arg(&place);
            let mut child = command.arg(server.url("http", "/large")).spawn().unwrap();
            let has_begun = || std::fs::metadata(&place).is_ok_and(|facts| facts.len() > 0);
            server.run_until(|| server.drain.open() == 2 && has_begun());
            let stopped: Deferred<()> = server.port.stop_listening();
            let drained = server.drain.begin();
            server.run_until(|| drained.is_called() && child.try_wait().unwrap().is_some());
            assert!(child.wait().unwrap().success(), "{option}");
            assert!(std::fs::read(&place).unwrap() == pattern(LARGE), "{option}");
            drop((stopped, idle));
        }
    }
}
