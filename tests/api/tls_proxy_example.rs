//! The example `tls_proxy`, run as a user would: curl in front of it, and nginx or a socket of std
//! behind it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use crate::common::certificates::{Authority, Folder};
use crate::common::programs::{has, run_program, said};
use crate::common::*;
use crate::running::{Running, TERMINATED, executable};
use crate::twisted_programs::{has_twisted, twisted_program};
use ropewalk::haproxy::{ProxyHeaderReader, ProxyVersion};
use rustix::process::Signal;

/// A proxy in front of a server, its authority, and its files.
struct Proxy {
    running: Running,
    address: SocketAddr,
    authority: Authority,
    folder: Folder,
}

impl Proxy {
    fn start(server: SocketAddr, more: &[&str]) -> Self {
        let from = "tcp:0:interface=127.0.0.1:idleTimeout=60";
        Self::of(Command::new(executable("tls_proxy")), "live", &[&[from, &*format!("tcp:{server}")], more].concat())
    }

    /// Starts a program with the certificates at this place.
    fn of(mut command: Command, place: &str, arguments: &[&str]) -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        folder.put("ca/ca.pem", &authority.pem());
        Self::certify(&folder, &authority, "localhost");
        command.arg(folder.at(place)).args(arguments);
        let running = Running::of(command, Stdio::null());
        let line = running.line();
        let address = line.strip_prefix("listening on ").expect("it says where").parse().expect("an address");
        Self { running, address, authority, folder }
    }

    /// Writes a certificate for this name.
    fn certify(folder: &Folder, authority: &Authority, name: &str) {
        let issued = authority.issue(&[name]);
        folder.put("live/server.pem", &[issued.certificate, issued.key].concat());
    }

    /// Asks by curl, with these options, for this server's name.
    fn curl(&self, name: &str, more: &[&str]) -> std::process::Output {
        let (ca, port) = (self.folder.at("ca/ca.pem"), self.address.port());
        let resolve = format!("{name}:{port}:127.0.0.1");
        let url = format!("https://{name}:{port}/");
        let command = ["curl", "-sS", "--noproxy", "*", "--cacert", &ca, "--resolve", &resolve, "-w", "%{local_port}"];
        let command = [&command, more, &[&url]].concat();
        run_program(&command, b"").join().expect("curl ends")
    }
}

/// A server for a number of requests: it reads the header and a request of HTTP, and answers with
/// the client's port as the header has it. Returns the address of the server.
fn mirror(times: usize) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut served = 0;
        'next: while served < times {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let (mut reader, mut header, mut request) = (ProxyHeaderReader::new(), None, Vec::new());
            while header.is_none() || !request.ends_with(b"\r\n\r\n") {
                let mut chunk = [0; 4096];
                let count = stream.read(&mut chunk).unwrap();
                if count == 0 {
                    // curl checks the name of a server behind the handshake.
                    assert!(header.is_some() && request.is_empty(), "{}", String::from_utf8_lossy(&request));
                    continue 'next;
                }
                let mut taken = 0;
                if header.is_none() {
                    (taken, header) = reader.read(&chunk[..count]).unwrap();
                }
                request.extend_from_slice(&chunk[taken..count]);
            }
            let header = header.expect("it was read");
            assert_eq!(header.protocol_version(), ProxyVersion::V2);
            let source = header.source().expect("a client").socket_addr().expect("a TCP address");
            assert!(source.ip().is_loopback());
            let body = source.port().to_string();
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
            served += 1;
        }
    });
    (address, server)
}

/// The server behind the proxy gets the client's own address, and curl its answer.
#[track_caller]
fn answered(output: &std::process::Output) {
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let (front, back) = said.split_at(said.len() / 2);
    assert!(output.status.success() && !front.is_empty() && front == back, "{said}: {errors}");
}

/// curl reaches a server through the proxy, and the header has curl's own address. A renewed
/// certificate is shown after SIGHUP, and a faulty file changes nothing.
#[test]
fn the_clients_address_arrives() {
    own_process!();
    if !has("curl") {
        return;
    }
    let (server, serving) = mirror(3);
    let proxy = Proxy::start(server, &[]);
    answered(&proxy.curl("localhost", &[]));

    Proxy::certify(&proxy.folder, &proxy.authority, "renewed.example");
    proxy.running.signal(Signal::HUP);
    assert_eq!(proxy.running.line(), "the certificates were read again");
    answered(&proxy.curl("renewed.example", &[]));
    let old = proxy.curl("localhost", &[]);
    assert!(!old.status.success(), "{}", String::from_utf8_lossy(&old.stdout));

    proxy.folder.put("live/server.pem", "no certificate");
    proxy.running.signal(Signal::HUP);
    answered(&proxy.curl("renewed.example", &[]));
    serving.join().unwrap();
    proxy.running.signal(Signal::TERM);
    let (status, _, errors) = proxy.running.end();
    assert_eq!(status.code(), Some(TERMINATED), "{errors}");
    assert!(errors.contains("the old certificates stay: "), "{errors}");
}

/// The program on Twisted does the same.
#[test]
fn twisteds_program_passes_the_address_on_too() {
    own_process!();
    if !has_twisted("service_identity, twisted.internet.ssl") || !has("curl") {
        return;
    }
    // Its TLS fails for a client that offers protocols, as curl does by itself.
    let (server, serving) = mirror(2);
    let to = format!("tcp:127.0.0.1:{}", server.port());
    let proxy = Proxy::of(twisted_program("tls_proxy"), "live/server.pem", &["tcp:0:interface=127.0.0.1", &to]);
    answered(&proxy.curl("localhost", &["--no-alpn"]));
    Proxy::certify(&proxy.folder, &proxy.authority, "renewed.example");
    proxy.running.signal(Signal::HUP);
    assert_eq!(proxy.running.line(), "the certificates were read again");
    answered(&proxy.curl("renewed.example", &["--no-alpn"]));
    serving.join().unwrap();
    proxy.running.signal(Signal::TERM);
    assert_eq!(proxy.running.end().2, "");
}

/// nginx behind the proxy logs the client's address.
#[test]
fn nginx_reads_the_header() {
    own_process!();
    if !has("curl") || !has("nginx") {
        return;
    }
    let folder = Folder::new();
    let free = TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let configuration = format!(
        "daemon off; master_process off; pid {0}; error_log stderr;\nevents {{}}\nhttp {{ access_log off;\n\
         client_body_temp_path {1}; proxy_temp_path {1}; fastcgi_temp_path {1}; uwsgi_temp_path {1}; scgi_temp_path {1};\n\
         server {{ listen {free} proxy_protocol; location / {{ return 200 $proxy_protocol_port; }} }} }}\n",
        folder.at("pid"),
        folder.at("temp")
    );
    let mut command = Command::new("timeout");
    command.args(["25", "nginx", "-c", &folder.put("nginx.conf", &configuration)]);
    let nginx = Running::of(command, Stdio::null());
    let proxy = Proxy::start(free, &[]);
    // It listens as soon as it has read its configuration.
    let until = Instant::now() + LIMIT;
    while TcpStream::connect(free).is_err() {
        assert!(Instant::now() < until, "nginx does not listen: {}", nginx.end().2);
        thread::yield_now();
    }
    answered(&proxy.curl("localhost", &[]));
    nginx.signal(Signal::TERM);
}

/// A client above the limit is closed, and the proxy serves the next one when a place is free. A
/// client without a handshake has a place, and does not reach the server. SIGTERM ends both.
#[test]
fn the_number_of_clients_is_limited() {
    own_process!();
    if !has("curl") {
        return;
    }
    let (server, serving) = mirror(1);
    let proxy = Proxy::start(server, &["1"]);
    let first = dial(proxy.address);
    let mut second = dial(proxy.address);
    let end = second.read(&mut [0; 100]).map_err(|error| error.kind());
    assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    drop(first);
    let until = Instant::now() + LIMIT;
    loop {
        let output = proxy.curl("localhost", &[]);
        if output.status.success() {
            break answered(&output);
        }
        assert!(Instant::now() < until, "{}", said(&output));
    }
    serving.join().unwrap();
    let mut last = dial(proxy.address);
    proxy.running.signal(Signal::TERM);
    let (status, _, errors) = proxy.running.end();
    assert_eq!((status.code(), errors.as_str()), (Some(TERMINATED), ""));
    let end = last.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert!(matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    assert!(TcpStream::connect(proxy.address).is_err(), "the port no longer listens");
}
