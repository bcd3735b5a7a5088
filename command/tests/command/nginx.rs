//! nginx behind `forward`: files in both directions, many connections at a time, TLS in front of
//! it, and the addresses of clients from the PROXY header. The clients are curl and h2load. Without
//! one of the programs, its tests are skipped.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, getuid, kill_process};

use crate::common::certificates::{Authority, Folder};
use crate::common::programs::has;
use crate::common::{ANY_PORT, LIMIT_SECONDS, Server, assert_code, dial, text};

/// The file `file` of the server.
const FILE_BYTES: u32 = 100_000;

/// nginx with a folder of files. Dropped, it ends.
struct Nginx {
    child: Child,
    folder: Folder,
    /// The client description of its port.
    plain: String,
    /// The client description of its UNIX socket, where it expects PROXY headers.
    proxied: String,
}

impl Nginx {
    /// Starts nginx in a folder of its own, and waits until it answers. `None` if it is missing.
    fn start() -> Option<Self> {
        if !has("nginx") {
            return None;
        }
        // The port listens before nginx does anything: it is nginx's standard input. nginx takes
        // over the sockets that `NGINX` names, as it does from the process before on an upgrade.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let folder = Folder::new();
        let socket = folder.at("proxied");
        folder.put("nginx.conf", &configuration(address, &socket));
        folder.put("files/uploaded/.keep", "");
        fs::write(folder.at("files/file"), file()).unwrap();
        let mut command = Command::new("timeout");
        command.args([
            &LIMIT_SECONDS.to_string(),
            "nginx",
            "-e",
            "error.log",
            "-c",
            "nginx.conf",
            "-p",
            &folder.at(""),
        ]);
        command.env("NGINX", "0;").stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null());
        let child = command.spawn().unwrap();
        let started = Self { child, folder, plain: format!("tcp:{address}"), proxied: format!("unix:{socket}") };
        let mut stream = dial(address);
        stream.write_all(b"GET /file HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n") && answer.ends_with(&file()), "nginx does not answer");
        Some(started)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // `timeout` passes the signal on. It may have ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// The configuration of nginx. Its paths are relative to the folder. The files belong to the user
/// of the test, and nginx started by root would change its user.
fn configuration(address: SocketAddr, socket: &str) -> String {
    let user = if getuid().is_root() { "user root;" } else { "" };
    format!(
        r#"
daemon off;
worker_processes 1;
{user}
pid nginx.pid;
events {{ worker_connections 1000; }}
http {{
    access_log off;
    client_body_temp_path temporary;
    fastcgi_temp_path temporary;
    proxy_temp_path temporary;
    scgi_temp_path temporary;
    uwsgi_temp_path temporary;
    root files;
    server {{
        listen {address};
        listen unix:{socket} proxy_protocol;
        location /uploaded/ {{ dav_methods PUT; }}
        location = /client {{ return 200 "$proxy_protocol_addr $proxy_protocol_port\n"; }}
    }}
}}
"#
    )
}

fn file() -> Vec<u8> {
    (0..FILE_BYTES).map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Starts a forwarder, and returns it with its port.
fn forward(server: &str, client: &str, options: &[&str]) -> (Server, u16) {
    let mut server = Server::start(&[&["forward", server, client], options].concat());
    let address: SocketAddr = server.listens_on().parse().unwrap();
    (server, address.port())
}

/// Ends a forwarder. It has nothing to complain about.
fn end(server: Server) {
    server.signal(Signal::TERM);
    assert_eq!(server.end(), (Some(0), String::new()));
}

/// Runs curl, and returns its standard output.
fn curl(arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", &LIMIT_SECONDS.to_string(), "curl", "-4", "--fail", "--silent", "--show-error"]);
    command.args(["--noproxy", "*"]).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_code(&output, 0);
    text(&output.stdout)
}

/// A `tls:` description of a server with a certificate for `localhost`, and the authority's file.
fn certificates(folder: &Folder) -> (String, String) {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    folder.put("certificates/localhost.pem", &(issued.certificate + &issued.key));
    (format!("tls:{}:0:interface=127.0.0.1", folder.at("certificates")), folder.put("authority.pem", &authority.pem()))
}

/// Files come and go in both directions, fifty connections at a time. Half of the requests end
/// their connection, which nginx then closes. In clear, and over TLS on the outside.
#[test]
fn files_go_both_ways() {
    if !has("curl") {
        return;
    }
    let Some(nginx) = Nginx::start() else { return };
    let (tls, authority) = certificates(&nginx.folder);
    for (scheme, server) in [("http", ANY_PORT), ("https", &tls)] {
        let (forwarder, port) = forward(server, &nginx.plain, &[]);
        let to = format!("{scheme}://localhost:{port}");
        let parallel = ["--cacert", &authority, "--parallel", "--parallel-max", "50"];
        for (header, name) in [("Connection: keep-alive", "kept"), ("Connection: close", "closed")] {
            let arrived = nginx.folder.at(&format!("{scheme}-{name}-#1"));
            curl(&[&parallel[..], &["-H", header, "-o", &arrived, &format!("{to}/file?[1-100]")]].concat());
            let uploads = format!("{to}/uploaded/{scheme}-{name}-[1-100]");
            curl(&[&parallel[..], &["-H", header, "-T", &nginx.folder.at("files/file"), &uploads]].concat());
            for number in 1..=100 {
                let [got, put] = ["", "files/uploaded/"].map(|place| {
                    fs::read(nginx.folder.at(&format!("{place}{scheme}-{name}-{number}"))).expect("it arrived")
                });
                assert!(got == file() && put == file(), "{scheme}, {header}, file {number}");
            }
        }
        end(forwarder);
    }
}

/// Ten thousand requests over a hundred connections: each is answered with all bytes of the body.
#[test]
fn requests_by_the_thousand_are_answered() {
    if !has("h2load") {
        return;
    }
    let Some(nginx) = Nginx::start() else { return };
    fs::write(nginx.folder.at("files/small"), [b'x'; 1_000]).unwrap();
    let (forwarder, port) = forward(ANY_PORT, &nginx.plain, &[]);
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", &LIMIT_SECONDS.to_string(), "h2load", "--h1", "-n", "10000", "-c", "100"]);
    let output = command.arg(format!("http://127.0.0.1:{port}/small")).stdin(Stdio::null()).output().unwrap();
    assert_code(&output, 0);
    let said = text(&output.stdout);
    assert!(said.contains("10000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
    assert!(said.contains("(10000000) data"), "{said}");
    end(forwarder);
}

/// nginx learns the address and the port of each client from a header of either version. The
/// forwarder has another address than its clients.
#[test]
fn nginx_sees_the_clients_address() {
    if !has("curl") {
        return;
    }
    let Some(nginx) = Nginx::start() else { return };
    let (tls, authority) = certificates(&nginx.folder);
    for (scheme, server) in [("http", ANY_PORT), ("https", &tls)] {
        for version in ["1", "2"] {
            let (forwarder, port) = forward(server, &nginx.proxied, &["--proxy-header", version]);
            let said = curl(
                &[
                    &["--cacert", &authority, "--interface", "127.0.0.2", "-H", "Connection: close"][..],
                    &["-w", "%{local_ip} %{local_port}\n", &format!("{scheme}://localhost:{port}/client?[1-50]")],
                ]
                .concat(),
            );
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(lines.len(), 100, "{said}");
            for pair in lines.chunks(2) {
                assert!(pair[0].starts_with("127.0.0.2 "), "{}", pair[0]);
                assert_eq!(pair[0], pair[1], "{scheme}, version {version}");
            }
            end(forwarder);
        }
    }
}

/// A header that comes in goes on to nginx, with the client that it names.
#[test]
fn nginx_sees_the_address_of_an_incoming_header() {
    let Some(nginx) = Nginx::start() else { return };
    let (forwarder, port) = forward(&format!("haproxy:{ANY_PORT}"), &nginx.proxied, &["--proxy-header", "2"]);
    let mut stream = dial(([127, 0, 0, 1], port).into());
    stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 4711 80\r\nGET /client HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\n192.0.2.7 4711\n"), "{answer}");
    end(forwarder);
}
