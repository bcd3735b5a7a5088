//! HAProxy itself as the peer: it sends headers of both versions to our ports, and reads those that
//! our clients send. Where the program is missing, the tests are skipped.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use crate::common::programs::has;
use crate::common::*;
use ropewalk::endpoints::{HaproxyClientEndpoint, TcpClientEndpoint, server_from_string};
use ropewalk::haproxy::{ProxyHeader, ProxyVersion};
use ropewalk::interfaces::*;
use ropewalk::{Address, Reactor, Transport};
use rustix::process::{Pid, Signal, kill_process};

/// HAProxy in front of one server. Dropped, it ends.
struct Proxy {
    child: Child,
    address: SocketAddr,
    /// The file of its configuration.
    file: std::path::PathBuf,
}

impl Proxy {
    /// Starts it with these options of its port and of its server. The port listens before HAProxy
    /// does anything: it is HAProxy's standard input.
    fn start(bind: &str, server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let file = std::env::temp_dir().join(format!("ropewalk-haproxy-{}-{}.cfg", std::process::id(), address.port()));
        let text = format!(
            "global\n    maxconn 100\ndefaults\n    mode tcp\n    timeout connect 10s\n    timeout client 20s\n    \
             timeout server 20s\nlisten through\n    unique-id-format unique-%ci\n    bind fd@0 {bind}\n    \
             server ours {server}\n"
        );
        std::fs::write(&file, text).expect("a file");
        let mut command = Command::new("timeout");
        command.args(["25", "haproxy", "-db", "-f"]).arg(&file).stdin(Stdio::from(OwnedFd::from(listener)));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a program");
        Self { child, address, file }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // `timeout` passes the signal on. It may have ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The connections of a server, as their protocols have seen them.
type Seen = Rc<RefCell<Vec<Transport>>>;

/// An echo server behind HAProxy.
fn serve(reactor: &Reactor, description: &str) -> (Address, Seen) {
    let seen = Seen::default();
    let made = Rc::clone(&seen);
    let factory = move |peer: Address| {
        let made = Rc::clone(&made);
        let script = Script::new(&Log::default()).made(move |transport| {
            assert_eq!(transport.peer(), peer);
            made.borrow_mut().push(transport.clone());
            Ok(())
        });
        script.data(|transport, data| {
            transport.write(data);
            Ok(())
        })
    };
    let endpoint = server_from_string(reactor, description).expect(description);
    (result_of(reactor, endpoint.listen(factory)).expect("a port").host(), seen)
}

/// Asks the echo server through HAProxy, as a client with a blocking socket. Returns its address.
fn ask(reactor: &Reactor, proxy: SocketAddr) -> SocketAddr {
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(proxy).expect("HAProxy's port listens");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.write_all(b"hello").expect("it takes five bytes");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"hello");
        stream.local_addr().expect("an address")
    });
    run_beside(reactor, client)
}

/// HAProxy's headers of each version name the client and the port that it connected to. Values and
/// a checksum are read, too.
#[test]
fn headers_of_haproxy_are_read() {
    own_process!();
    if !has("haproxy") {
        return;
    }
    for (options, version, values) in [
        ("send-proxy", ProxyVersion::V1, 0),
        ("send-proxy-v2", ProxyVersion::V2, 0),
        ("send-proxy-v2 proxy-v2-options crc32c", ProxyVersion::V2, 1),
        ("send-proxy-v2 proxy-v2-options unique-id,crc32c", ProxyVersion::V2, 2),
    ] {
        let reactor = reactor();
        let (port, seen) = serve(&reactor, "haproxy:tcp:0:interface=127.0.0.1");
        let proxy = Proxy::start("", &format!("{port} {options}"));
        let client = ask(&reactor, proxy.address);
        let seen = seen.borrow();
        assert_eq!((seen[0].peer(), seen[0].host()), (client.into(), proxy.address.into()), "{options}");
        let header = seen[0].proxy_header().expect("there was one");
        assert_eq!((header.protocol_version(), header.values().count()), (version, values), "{options}");
        if values == 2 {
            assert!(header.values().any(|(kind, value)| kind == 5 && value == b"unique-127.0.0.1"));
        }
    }
}

/// A health check of HAProxy is a local connection, which has its own addresses.
#[test]
fn health_checks_of_haproxy() {
    own_process!();
    if !has("haproxy") {
        return;
    }
    let reactor = reactor();
    let (port, seen) = serve(&reactor, "haproxy:tcp:0:interface=127.0.0.1");
    let _proxy = Proxy::start("", &format!("{port} send-proxy-v2 check check-send-proxy inter 50ms"));
    run_until(&reactor, || !seen.borrow().is_empty());
    let check = seen.borrow()[0].clone();
    assert!(check.proxy_header().is_some_and(ProxyHeader::is_local));
    assert_eq!(check.host(), port);
}

/// Over a UNIX socket, HAProxy's header has the addresses of its client as well.
#[test]
fn haproxy_over_a_unix_socket() {
    own_process!();
    if !has("haproxy") {
        return;
    }
    let reactor = reactor();
    let path = std::env::temp_dir().join(format!("ropewalk-haproxy-{}.sock", std::process::id()));
    let (_, seen) = serve(&reactor, &format!("haproxy:unix:{}", path.display()));
    let proxy = Proxy::start("", &format!("unix@{} send-proxy-v2", path.display()));
    let client = ask(&reactor, proxy.address);
    assert_eq!(seen.borrow()[0].peer(), client.into());
    let _ = std::fs::remove_file(&path);
}

/// HAProxy reads the headers that our clients send, of each version, and passes their addresses on
/// in its own.
#[test]
fn haproxy_reads_our_headers() {
    own_process!();
    if !has("haproxy") {
        return;
    }
    let reactor = reactor();
    let (port, seen) = serve(&reactor, "haproxy:tcp:0:interface=127.0.0.1");
    let proxy = Proxy::start("accept-proxy", &format!("{port} send-proxy-v2"));
    for (source, destination) in [("198.51.100.7:1", "203.0.113.1:2"), ("[2001:db8::1]:3", "[2001:db8::2]:4")] {
        let ends = [source, destination].map(|text| Address::from(text.parse::<SocketAddr>().expect("an address")));
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            let header = ProxyHeader::proxied(ends[0].clone(), ends[1].clone()).version(version);
            let endpoint = HaproxyClientEndpoint::new(TcpClientEndpoint::new(&reactor, proxy.address)).header(header);
            let received = Rc::<RefCell<Vec<u8>>>::default();
            let script = Script::new(&Log::default()).into_buffer(&received).made(|transport| {
                transport.write(b"hello");
                Ok(())
            });
            result_of(&reactor, endpoint.connect(once(script))).expect("a connection");
            run_until(&reactor, || *received.borrow() == b"hello");
            let last = seen.borrow_mut().pop().expect("a connection");
            assert_eq!([last.peer(), last.host()], ends, "{version:?}");
        }
    }
}

/// HAProxy sends its header in clear in front of TLS.
#[cfg(feature = "tls")]
#[test]
fn haproxy_in_front_of_tls() {
    use crate::common::certificates::{Authority, Folder};
    own_process!();
    if !has("haproxy") {
        return;
    }
    let (folder, issued) = (Folder::new(), Authority::new().issue(&["localhost"]));
    let key = folder.put("key.pem", &issued.key);
    let chain = folder.put("chain.pem", &issued.certificate);
    let reactor = reactor();
    let description = format!("haproxy:ssl:0:interface=127.0.0.1:privateKey={key}:certKey={chain}");
    let (port, seen) = serve(&reactor, &description);
    let proxy = Proxy::start("", &format!("{port} ssl verify none send-proxy-v2"));
    let client = ask(&reactor, proxy.address);
    assert_eq!(seen.borrow()[0].peer(), client.into());
    assert!(seen.borrow()[0].tls_session().is_some());
}
