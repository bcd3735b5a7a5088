//! The example `static_http`: its answers to curl over real sockets, beside those of the same
//! program on Twisted; and its heads, limits and order in memory.

#[path = "../../examples/static_http.rs"]
#[allow(dead_code, reason = "its main is for real sockets")]
mod static_http;

use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use ropewalk::endpoints::server_from_string;
use ropewalk::for_protocol;
use ropewalk::interfaces::*;
use ropewalk::testing::{AccumulatingProtocol, MemoryReactor, PumpOptions, StringConnection, StringTransport};
use static_http::StaticHttp;

use super::file_servers::{ENDPOINT, Folder};
use crate::common::programs::has;
use crate::common::*;

/// Runs curl. Returns its standard output.
#[track_caller]
fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "--max-time", "20"]).args(arguments).output().expect("curl");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Files, folders and names that are refused: the status and the type of each.
#[test]
fn curl_gets_files() {
    own_process!();
    if !has("curl") {
        return;
    }
    let folder = Folder::new("get");
    for server in folder.servers("static_http", &[ENDPOINT]) {
        let at = format!("http://{}", server.address);
        for (path, expected) in [
            ("/small", "200 small"),
            ("/", "200 <p>front"),
            ("/?query=1", "200 <p>front"),
            ("/index.html", "200 <p>front"),
            ("/sub/", "200 <p>sub"),
            ("/inside", "200 page"),
            ("/empty", "200 "),
            ("/a%20file.txt", "200 spaces"),
            ("/sub/../small", "200 small"),
            ("/sub", "301 301 Moved Permanently"),
            ("/absent", "404 404 Not Found"),
            ("/small/", "404 404 Not Found"),
            ("/outside", "404 404 Not Found"),
            ("/../secret", "404 404 Not Found"),
            ("/%2e%2e/secret", "404 404 Not Found"),
            ("/sub/..%2f..%2fsecret", "404 404 Not Found"),
            ("//etc/passwd", "404 404 Not Found"),
            ("/a%00b", "404 404 Not Found"),
            ("/%4", "404 404 Not Found"),
            ("/fifo", "404 404 Not Found"),
        ] {
            let answer = curl(&["--path-as-is", "-w", "\n%{http_code}", &format!("{at}{path}")]);
            let (body, status) = answer.rsplit_once('\n').unwrap();
            assert_eq!(format!("{status} {}", body.trim_end()), expected, "{path}");
        }
        let kind = |path: &str| curl(&["-o", "/dev/null", "-w", "%{content_type}", &format!("{at}/{path}")]);
        assert!(kind("index.html").starts_with("text/html"));
        assert_eq!(kind("small"), "application/octet-stream");
        let location = curl(&["-o", "/dev/null", "--path-as-is", "-w", "%{redirect_url}", &format!("{at}//sub?query")]);
        assert_eq!(location, format!("{at}/sub/"));
        assert_eq!(server.end(), "");
    }
}

/// Parts of a file: a range, a download that is continued, HEAD, a tag, and conditions on it.
#[test]
fn curl_gets_parts() {
    own_process!();
    if !has("curl") {
        return;
    }
    let folder = Folder::new("parts");
    folder.add_large("large", 20_000_003);
    for server in folder.servers("static_http", &[ENDPOINT]) {
        let url = format!("http://{}/small", server.address);
        let large = format!("http://{}/large", server.address);
        let get = |arguments: &[&str]| {
            let answer = curl(&[&["-w", "\n%{http_code}", &*url], arguments].concat());
            let (body, status) = answer.rsplit_once('\n').unwrap();
            format!("{status} {}", body.trim_end())
        };
        assert_eq!(get(&["-r", "1-3"]), "206 mal");
        assert_eq!(get(&["-r", "3-"]), "206 ll");
        assert_eq!(get(&["-r", "-3"]), "206 ll");
        assert_eq!(get(&["-r", "1-99"]), "206 mall");
        assert_eq!(get(&["-r", "-99"]), "206 small");
        assert_eq!(get(&["-r", "6-"]), "416 416 Range Not Satisfiable");
        assert_eq!(get(&["-r", "0-0,2-3"]), "200 small");
        assert_eq!(get(&["-H", "Range: bytes=3-1"]), "200 small");
        assert_eq!(get(&["-H", "Range: lines=1-2"]), "200 small");
        let head = curl(&["-I", &url]);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("\r\nContent-Length: 6\r\n"), "{head}");
        let tag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).expect("a tag");
        assert_eq!(get(&["-H", &format!("If-None-Match: \"other\", W/{tag}")]), "304 ");
        assert_eq!(get(&["-H", "If-None-Match: \"other\""]), "200 small");
        assert_eq!(get(&["-r", "1-3", "-H", &format!("If-Range: {tag}")]), "206 mal");
        assert_eq!(get(&["-r", "1-3", "-H", "If-Range: \"other\""]), "200 small");

        // The first 5,000,000 bytes are there already.
        let (file, part) = (fs::read(folder.served().join("large")).unwrap(), folder.path("part"));
        fs::write(&part, &file[..5_000_000]).unwrap();
        assert_eq!(curl(&["-C", "-", "-o", &part, "-w", "%{size_download}", &large]), "15000003");
        assert!(fs::read(&part).unwrap() == file, "other bytes were fetched");
        assert_eq!(server.end(), "");
    }
}

/// Several requests share a connection. A body, HTTP/1.0 and other methods are answered, and end
/// it.
#[test]
fn curl_keeps_a_connection() {
    own_process!();
    if !has("curl") {
        return;
    }
    let folder = Folder::new("kept");
    for server in folder.servers("static_http", &[ENDPOINT]) {
        let url = format!("http://{}/small", server.address);
        let absent = format!("http://{}/absent", server.address);
        let connects = |arguments: &[&str]| {
            curl(&[&["-o", "/dev/null", "-w", "%{http_code} %{num_connects} ", &*url], arguments].concat())
        };
        let more = ["-o", "/dev/null", &*absent, "-o", "/dev/null", &*url];
        assert_eq!(connects(&more), "200 1 404 0 200 0 ");
        assert_eq!(connects(&[&["--http1.0"], &more[..]].concat()), "200 1 404 1 200 1 ");
        assert_eq!(connects(&[&["-H", "Connection: close"], &more[..]].concat()), "200 1 404 1 200 1 ");
        assert_eq!(connects(&[&["-d", "a body"], &more[..]].concat()), "405 1 405 1 405 1 ");
        assert_eq!(connects(&["-X", "DELETE"]), "405 1 ");
        assert_eq!(server.end(), "");
    }
}

/// A server of this folder, in memory.
fn connection(folder: &Folder) -> StringConnection<StaticHttp> {
    StringTransport::new().joined(server(folder))
}

fn server(folder: &Folder) -> StaticHttp {
    StaticHttp::new(fs::canonicalize(folder.served()).unwrap().into())
}

/// The statuses of the answers so far.
fn statuses(connection: &StringConnection<StaticHttp>) -> Vec<String> {
    let written = String::from_utf8(connection.string().value()).expect("text");
    let heads = written.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head.split(' ').next().unwrap().to_owned()).collect()
}

/// Pipelined requests are answered in order, however their bytes are cut. The connection ends
/// behind the last answer, and later requests are dropped.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let folder = Folder::new("pipelined");
    let mut requests = Vec::new();
    for (line, field) in [
        ("GET /small", ""),
        ("GET /absent", ""),
        ("\r\nHEAD /small", ""),
        ("PUT /", ""),
        ("GET /sub/", "connection: TE, Close\r\n"),
        ("GET /", ""),
    ] {
        requests.extend_from_slice(format!("{line} HTTP/1.1\r\nHost: a\r\n{field}\r\n").as_bytes());
    }
    for size in [1, 7, requests.len()] {
        let connection = connection(&folder);
        requests.chunks(size).for_each(|piece| connection.deliver(piece));
        connection.turn();
        assert_eq!(statuses(&connection), ["200", "404", "200", "405", "200"], "chunks of {size} bytes");
        assert!(connection.string().value().ends_with(b"\r\n\r\n<p>sub\n"));
        assert_eq!(connection.lost().expect("it is over").to_string(), "the connection was closed cleanly");
    }
}

/// Heads that are no HTTP, or too long, are answered, and end the connection. A head at its limit
/// is served.
#[test]
fn bad_heads_are_answered() {
    let folder = Folder::new("heads");
    // 40 bytes are around the value.
    let long = |bytes: usize| format!("GET /small HTTP/1.1\r\nHost: a\r\nLong: {}\r\n\r\n", "x".repeat(bytes - 40));
    let many = |fields: usize| format!("GET /small HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(fields - 1));
    assert_eq!(long(8192).len(), 8192);
    for (head, status, ends) in [
        ("GET /small HTTP/1.1\r\n\r\n", "400", false),
        ("GET /small HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400", false),
        ("GET /small HTTP/2.0\r\n\r\n", "400", true),
        ("GET\r\n\r\n", "400", true),
        ("\0\0\0\0", "400", true),
        ("GET /small HTTP/1.1\r\nno field\r\n\r\n", "400", true),
        ("GET small HTTP/1.1\r\nHost: a\r\n\r\n", "404", false),
        ("GET /small HTTP/1.0\r\n\r\n", "200", true),
        ("GET /small HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "200", false),
        ("GET /small HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", "200", true),
        ("GET /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200", true),
        (&long(8192), "200", false),
        (&long(8193), "431", true),
        (&"x".repeat(9000), "431", true),
        (&many(64), "200", false),
        (&many(65), "431", true),
    ] {
        let connection = connection(&folder);
        connection.deliver(head.as_bytes());
        connection.turn();
        let excerpt = &head[..head.len().min(80)];
        assert_eq!((statuses(&connection), connection.lost().is_some()), (vec![status.to_owned()], ends), "{excerpt}");
    }
}

/// A head has ten seconds from its first byte on, however its bytes trickle. An idle connection has
/// no such limit, nor has one that was answered.
#[test]
fn a_slow_head_is_cut_off() {
    let folder = Folder::new("slow");
    let connection = connection(&folder);
    connection.advance(Duration::from_secs(60));
    connection.deliver(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\nGE");
    connection.turn();
    for _ in 0..9 {
        connection.advance(Duration::from_secs(1));
        connection.deliver(b"T");
    }
    assert_eq!((statuses(&connection), connection.lost().is_none()), (vec!["200".to_owned()], true));
    connection.advance(Duration::from_secs(1));
    assert!(connection.lost().is_some());
}

/// A peer that takes nothing of a file is cut off after twenty seconds, up to a quarter later. One
/// that takes a little every ten seconds is not.
#[test]
fn a_stalled_peer_is_cut_off() {
    let folder = Folder::new("stall");
    folder.add_large("large", 1 << 20);
    let client = AccumulatingProtocol::new();
    let pump = PumpOptions::new().room(4096).connect(client, server(&folder));
    pump.client().transport().write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    pump.client().transport().pause_producing();
    pump.flush();
    let pass = |seconds: u64| {
        (0..seconds).for_each(|_| pump.advance(Duration::from_secs(1)));
        pump.flush();
    };
    for _ in 0..5 {
        pass(10);
        pump.client().transport().resume_producing();
        pump.pump();
        pump.client().transport().pause_producing();
        pump.flush();
    }
    pass(19);
    assert!(pump.server().lost().is_none());
    pass(6);
    assert!(pump.server().lost().is_some(), "{}", pump.transcript());
}

/// A file that becomes shorter while it is sent ends the connection: the client can tell by the
/// length that was announced.
#[test]
fn a_file_that_shrinks_ends_the_connection() {
    let folder = Folder::new("shrinks");
    folder.add_large("large", 1 << 20);
    let client = AccumulatingProtocol::new();
    let received = client.record();
    let pump = PumpOptions::new().room(4096).connect(client, server(&folder));
    pump.client().transport().write(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /small HTTP/1.1\r\nHost: a\r\n\r\n");
    pump.client().transport().pause_producing();
    pump.flush();
    File::options().write(true).open(folder.served().join("large")).unwrap().set_len(100_000).unwrap();
    pump.client().transport().resume_producing();
    pump.flush();
    assert!(received.is_lost(), "{}", pump.transcript());
    let received = received.data();
    let head = received.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert!(String::from_utf8_lossy(&received[..head]).contains("Content-Length: 1048576\r\n"));
    assert_eq!(received.len() - head, 100_000);
}

/// The default description is one that the endpoints understand.
#[test]
fn the_default_endpoint_listens() {
    let memory = MemoryReactor::new();
    let endpoint = server_from_string(memory.reactor(), static_http::DEFAULT_ENDPOINT).unwrap();
    endpoint.listen(for_protocol(|_| Echo)).or_log("listening");
    assert_eq!(memory.ports().iter().map(|port| port.port()).collect::<Vec<_>>(), [Some(8080)]);
}
