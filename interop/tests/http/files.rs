//! Files over each version of HTTP, asked by curl.

use std::process::Command;

use super::clients::*;

/// A server, and curl with an option for one version of HTTP.
struct Versioned<'a> {
    server: &'a Server<'a>,
    option: &'a str,
    version: &'a str,
    is_secure: bool,
}

impl Versioned<'_> {
    fn url(&self, path: &str) -> String {
        if self.is_secure { self.server.secure_url(path) } else { self.server.url(path) }
    }

    /// Asks for a path, and checks the status and the version of the answer.
    #[track_caller]
    fn expect(&self, path: &str, options: &[&str], status: &str) -> Answer {
        let answer = self.server.get(&[options, &[self.option, &self.url(path)]].concat());
        assert_eq!(answer.status, format!("{status} {}", self.version), "{path} {options:?}");
        answer
    }

    /// The same, with the body.
    #[track_caller]
    fn expect_body(&self, path: &str, options: &[&str], status: &str, body: &[u8]) -> Answer {
        let answer = self.expect(path, options, status);
        assert!(answer.body == body, "{path} {options:?}: {} bytes", answer.body.len());
        answer
    }
}

/// Runs a test over these versions of HTTP, on each backend. Does nothing without curl.
fn on_each_version(versions: &[(&str, &str, bool)], test: impl Fn(&Versioned)) {
    if !has("curl") {
        return;
    }
    on_each(|reactor| {
        let server = Server::new(reactor);
        for &(option, version, is_secure) in versions {
            test(&Versioned { server: &server, option, version, is_secure });
        }
        server.end_well();
    });
}

/// Files come whole, in ranges, and not at all, over each version of HTTP and on each backend.
#[test]
fn files_are_served() {
    on_each_version(&VERSIONS, |curl| {
        let index = curl.expect_body("/", &[], "200", b"<p>an index");
        assert_eq!(index.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(index.header("accept-ranges"), Some("bytes"));
        curl.expect_body("/below/small%2etxt?a=query", &[], "200", b"a rope of yarn");
        curl.expect_body("/in", &[], "200", b"a rope of yarn");
        let whole = curl.expect_body("/large", &[], "200", large());
        assert_eq!(whole.header("content-length"), Some(&*LARGE.to_string()));
        let empty = curl.expect_body("/empty.css", &[], "200", b"");
        assert_eq!(empty.header("content-length"), Some("0"));

        let part = curl.expect_body("/below/small.txt", &["-r", "2-5"], "206", b"rope");
        assert_eq!(part.header("content-range"), Some("bytes 2-5/14"));
        curl.expect_body("/below/small.txt", &["-r", "-4"], "206", b"yarn");
        curl.expect_body("/large", &["-r", "12340000-"], "206", &large()[12_340_000..]);
        let outside = curl.expect_body("/below/small.txt", &["-r", "20-"], "416", b"");
        assert_eq!(outside.header("content-range"), Some("bytes */14"));

        for path in ["/nothing", "/large/", "/below/small.txt/index.html", "/bare/", "/loop"] {
            curl.expect_body(path, &[], "404", b"404 Not Found\n");
        }
        let folder = curl.expect_body("/below?a=query", &[], "301", b"301 Moved Permanently\n");
        assert_eq!(folder.header("location"), Some("/below/?a=query"));
    });
}

/// HEAD has the header of GET, its length too, and no byte of a body.
#[test]
fn head_has_the_header_alone() {
    on_each_version(&VERSIONS, |curl| {
        for (path, status, len) in
            [("/large", "200", "12345678"), ("/nothing", "404", "14"), ("/empty.css", "200", "0")]
        {
            let answer = curl.expect(path, &["--head", "-r", "2-5"], status);
            assert_eq!(answer.header("content-length"), Some(len), "{path}");
        }
    });
}

/// A body behind the answer to HEAD breaks the rules of HTTP/2. curl does not look; nghttp does.
#[test]
fn head_over_http2_ends_its_stream() {
    if !has("nghttp") {
        return;
    }
    on_each(|reactor| {
        let server = Server::new(reactor);
        for path in ["/large", "/nothing"] {
            let output = server.run(Command::new("nghttp").args(["-v", "-H", ":method: HEAD", &server.url(path)]));
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(text.contains("recv HEADERS frame") && text.contains("; END_STREAM | END_HEADERS"), "{text}");
            assert!(!text.contains("RST_STREAM"), "{text}");
        }
        server.end_well();
    });
}

/// A client that has a version of a file gets no second one.
#[test]
fn a_known_version_is_not_sent_again() {
    const PATH: &str = "/below/small.txt";
    on_each_version(&VERSIONS, |curl| {
        let first = curl.expect(PATH, &[], "200");
        let [tag, date] = ["etag", "last-modified"].map(|name| first.header(name).expect(name).to_owned());
        for (header, status) in [
            (format!("If-None-Match: \"x\", W/{tag}"), "304"),
            (format!("If-Modified-Since: {date}"), "304"),
            ("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT".to_owned(), "200"),
            ("If-None-Match: \"x\"".to_owned(), "200"),
            ("If-Match: \"x\"".to_owned(), "412"),
        ] {
            let answer = curl.expect(PATH, &["-H", &header], status);
            assert_eq!(answer.body.is_empty(), status != "200", "{header}");
            assert_eq!(answer.header("etag"), Some(&*tag), "{header}");
        }
        for (validator, status) in [(&*tag, "206"), ("\"x\"", "200")] {
            curl.expect(PATH, &["-r", "2-5", "-H", &format!("If-Range: {validator}")], status);
        }
    });
}

/// No path and no link leads out of the folder.
#[test]
fn nothing_outside_is_served() {
    on_each_version(&VERSIONS, |curl| {
        for (path, status) in [
            ("/../secret", "400"),
            ("/below/../../secret", "400"),
            ("/below/%2e%2e/%2E%2E/secret", "400"),
            ("/..%2fsecret", "400"),
            ("//etc/passwd", "400"),
            ("/%2fetc/passwd", "400"),
            ("/%00", "400"),
            ("/%zz", "400"),
            ("/out", "404"),
            ("/up/secret", "404"),
            ("/absolute", "404"),
        ] {
            let answer = curl.expect(path, &[], status);
            assert!(!answer.body.starts_with(b"not to be"), "{path}");
        }
    });
}

/// Another method is refused behind the body of its request. An answer that overtakes the body is
/// followed by RST_STREAM over HTTP/2, and curl 7.88 reports that as "Stream error in the HTTP/2
/// framing layer" if it is still sending. `Expect` of HTTP/1.1 is answered at once.
#[test]
fn other_methods_are_refused() {
    if !has("curl") {
        return;
    }
    on_each(|reactor| {
        let server = Server::new(reactor);
        for (option, version, is_secure) in VERSIONS {
            let curl = Versioned { server: &server, option, version, is_secure };
            for _ in 0..10 {
                let answer = curl.expect("/", &["-d", "x"], "405");
                assert_eq!(answer.header("allow"), Some("GET, HEAD"));
            }
            if version == "1.1" {
                let late = ["-d", "x", "-H", "Expect: 100-continue", "--expect100-timeout", "40"];
                curl.expect("/", &late, "405");
            }
        }
        server.run_until(|| server.http.open_connections() == 0);
    });
}

/// 256 MiB come whole, by their hash.
#[test]
fn a_large_file_comes_whole() {
    const LEN: u64 = 256 << 20;
    if !has("curl") {
        return;
    }
    on_each(|reactor| {
        let server = Server::new(reactor);
        // Sparse, with a mark every 4 MiB and some.
        let file = server.site.at("served/huge");
        let huge = std::fs::File::create(&file).unwrap();
        huge.set_len(LEN).unwrap();
        for (number, place) in (0..LEN - 8).step_by(4_200_001).enumerate() {
            std::os::unix::fs::FileExt::write_all_at(&huge, &(number as u64 + 1).to_be_bytes(), place).unwrap();
        }
        let expected = sha256(&file);
        for (option, _, is_secure) in BULK_VERSIONS {
            let url = if is_secure { server.secure_url("/huge") } else { server.url("/huge") };
            let script = format!("curl -sS --insecure {option} --max-time 50 {url} | sha256sum");
            let output = server.run(Command::new("sh").args(["-c", &script]));
            assert!(String::from_utf8_lossy(&output.stdout).starts_with(&expected), "{option} {output:?}");
        }
        server.end_well();
    });
}

/// 50 MB go up and come back at the same time.
#[test]
fn an_upload_comes_back() {
    if !has("curl") {
        return;
    }
    on_each(|reactor| {
        let server = Server::new(reactor);
        let upload = server.site.at("upload");
        std::fs::write(&upload, pattern(50_000_000)).unwrap();
        let (body, expected) = (server.site.at("body"), sha256(&upload));
        for (option, version, is_secure) in BULK_VERSIONS {
            let url = if is_secure { server.secure_url("/echo") } else { server.url("/echo") };
            let mut command = curl();
            command.args([option, "--write-out", "%{http_code} %{http_version}", "--upload-file"]).arg(&upload);
            let output = server.run(command.arg("--output").arg(&body).arg(url));
            assert_eq!(String::from_utf8_lossy(&output.stdout), format!("200 {version}"), "{output:?}");
            assert_eq!(sha256(&body), expected, "{option}");
        }
        server.end_well();
    });
}
