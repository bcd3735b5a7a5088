//! Streams over TLS on real sockets, on each backend, with our own client and with the peers
//! OpenSSL, Python and rustls.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use futures::future::join;
use futures::io::{AsyncReadExt, AsyncWriteExt};
use ropewalk::endpoints::{TcpClientEndpoint, TcpServerEndpoint, wrap_client_tls, wrap_server_tls};
use ropewalk::streams::{connect_stream, listen_streams};
use ropewalk::tls::{ClientTls, ServerTls};
use ropewalk::{Deferred, Port, Reactor, Result};

use super::common::certificates::{Authority, Folder};
use super::common::programs::{Listening, has, run_program, said};
use super::common::tls::Library;
use super::common::{self, own_process};
use super::sockets::reactors;
use super::*;

/// More than the buffers of both sockets take, in each direction.
const BULK: usize = 8_000_000;

/// Listens over TLS, and serves each connection by a future. The Deferred is that of the first one.
fn serve<T: 'static>(
    reactor: &Reactor,
    tls: ServerTls,
    serve: impl AsyncFnOnce(ByteStream) -> Result<T> + 'static,
) -> (Port, SocketAddr, Deferred<T>) {
    let (promise, served) = ropewalk::deferred::Promise::new();
    let (spawner, first) = (reactor.spawner().clone(), Cell::new(Some((serve, promise))));
    let endpoint = wrap_server_tls(tls, TcpServerEndpoint::bind_to(reactor, common::loopback()));
    let listening = listen_streams(&endpoint, move |stream| {
        let (serve, promise) = first.take().expect("one connection");
        spawner.spawn(async move { serve(stream).await }).chain_deferred(promise);
    });
    let port = common::result_of(reactor, listening).expect("a port");
    let address = port.host().socket_addr().expect("a TCP port");
    (port, address, served)
}

fn connect(reactor: &Reactor, tls: ClientTls, to: SocketAddr) -> ByteStream {
    let endpoint = wrap_client_tls(tls, TcpClientEndpoint::new(reactor, to));
    common::result_of(reactor, connect_stream(&endpoint)).expect("it listens")
}

/// Bulk in both directions at once. The client closes its direction, and is sent more after that.
#[test]
fn bulk_goes_both_ways_over_tls() {
    let authority = Authority::new();
    for reactor in reactors() {
        let (_port, address, served) = serve(&reactor, authority.server(&["localhost"]), async |stream| {
            let (mut reader, mut writer) = stream.split();
            let (read, sent) = join(read_all(&mut reader), writer.write_all(&pattern(BULK))).await;
            sent?;
            let read = read?;
            // The peer has ended its direction; ours is open.
            writer.write_all(b"the end").await?;
            writer.close().await?;
            Ok(read == pattern(BULK))
        });
        let stream = connect(&reactor, authority.client("localhost"), address);
        let asked = reactor.spawn(async move {
            let (mut reader, mut writer) = stream.split();
            let sending = async {
                writer.write_all(&pattern(BULK)).await?;
                writer.close().await
            };
            let (read, sent) = join(read_all(&mut reader), sending).await;
            sent?;
            let late = writer.write(b"late").await.expect_err("it is closed").kind();
            Result::Ok((read?, late))
        });
        let (mut read, late) = common::result_of(&reactor, asked).unwrap();
        assert_eq!((&read.split_off(BULK)[..], late), (&b"the end"[..], ErrorKind::BrokenPipe));
        assert!(read == pattern(BULK));
        assert!(common::result_of(&reactor, served).unwrap());
    }
}

/// A peer that ends TLS ends its direction only: our answer still reaches it, and the end behind
/// it.
#[test]
fn a_peer_that_ends_tls_gets_its_answer() {
    let authority = Authority::new();
    for reactor in reactors() {
        let (_port, address, served) = serve(&reactor, authority.server(&["localhost"]), async |mut stream| {
            let mut question = String::new();
            stream.read_to_string(&mut question).await?;
            stream.write_all(format!("{question}?").as_bytes()).await?;
            stream.close().await?;
            Ok(question)
        });
        let mut client = client_connection(&authority);
        let peer = common::peer(address, move |mut socket| {
            let mut stream = rustls::Stream::new(&mut client, &mut socket);
            stream.write_all(b"why").unwrap();
            stream.conn.send_close_notify();
            stream.flush().unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        assert_eq!(common::run_beside(&reactor, peer), "why?");
        assert_eq!(common::result_of(&reactor, served).unwrap(), "why");
    }
}

/// A connection that ends without the end of TLS is `UnexpectedEof`, behind the bytes before it,
/// for reads and for writes, on both sides.
#[test]
fn a_truncated_stream_is_an_unexpected_end() {
    async fn read_to_the_cut(mut stream: ByteStream) -> Result<(Vec<u8>, ErrorKind, ErrorKind)> {
        stream.write_all(b"!").await?;
        let mut all = Vec::new();
        let read = stream.read_to_end(&mut all).await.expect_err("it is cut").kind();
        let written = stream.write(b"!").await.expect_err("it is over").kind();
        Ok((all, read, written))
    }
    let cut = (b"the last words".to_vec(), ErrorKind::UnexpectedEof, ErrorKind::UnexpectedEof);
    let authority = Authority::new();
    for reactor in reactors() {
        let (_port, address, served) = serve(&reactor, authority.server(&["localhost"]), read_to_the_cut);
        let client = client_connection(&authority);
        let peer = common::peer(address, move |socket| write_and_cut(client, socket));
        common::run_beside(&reactor, peer);
        assert_eq!(common::result_of(&reactor, served).unwrap(), cut);

        let server = Library::server_connection(&authority, "localhost");
        let (address, peer) = common::listening_peer(move |socket| write_and_cut(server, socket));
        let stream = connect(&reactor, authority.client("localhost"), address);
        let asked = reactor.spawn(read_to_the_cut(stream));
        common::run_beside(&reactor, peer);
        assert_eq!(common::result_of(&reactor, asked).unwrap(), cut);
    }
}

/// rustls as a client without an event loop.
fn client_connection(authority: &Authority) -> rustls::ClientConnection {
    match Library::client(authority, "localhost").connection {
        rustls::Connection::Client(client) => client,
        rustls::Connection::Server(_) => unreachable!("a client was asked for"),
    }
}

/// Takes a byte, writes, and ends the connection of TCP without the end of TLS.
fn write_and_cut<C, S>(mut connection: C, mut socket: TcpStream)
where
    C: std::ops::DerefMut<Target = rustls::ConnectionCommon<S>>,
    S: rustls::SideData,
{
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    stream.read_exact(&mut [0]).unwrap();
    stream.write_all(b"the last words").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    // To the other side's end, so that no byte of it meets a closed socket.
    std::io::copy(&mut socket, &mut std::io::sink()).unwrap();
}

/// An authority, and files for programs.
fn files() -> (Authority, Folder) {
    let (authority, folder) = (Authority::new(), Folder::new());
    let issued = authority.issue(&["localhost"]);
    folder.put("ca.pem", &authority.pem());
    folder.put("server.pem", &issued.certificate);
    folder.put("server.key", &issued.key);
    (authority, folder)
}

const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

/// Both sides choose the protocol by ALPN, known once the handshake is done, with OpenSSL as the
/// client and as the server.
#[test]
fn openssl_chooses_by_alpn() {
    own_process!();
    if !has("openssl") {
        return;
    }
    let (authority, folder) = files();
    for (reactor, version) in reactors().flat_map(|reactor| VERSIONS.map(|version| (reactor.clone(), version))) {
        let tls = ServerTls::builder().identity(authority.issue(&["localhost"]).identity());
        let tls = tls.protocols(["h2", "http/1.1"]).build().expect("a configuration");
        let (_port, address, served) = serve(&reactor, tls, async |mut stream| {
            stream.handshake().await?;
            let chosen = stream.transport().tls_session().expect("it is done").negotiated_protocol;
            let mut line = [0; 7];
            stream.read_exact(&mut line).await?;
            stream.write_all(&line).await?;
            stream.close().await?;
            Ok(chosen)
        });
        let (to, ca) = (address.to_string(), folder.at("ca.pem"));
        let command = ["openssl", "s_client", "-connect", &to, "-CAfile", &ca, "-servername", "localhost", "-ign_eof"];
        let more = ["-verify_return_error", "-alpn", "http/1.1,spdy", version];
        let client = run_program(&[&command[..], &more].concat(), b"a line\n");
        let output = common::run_beside(&reactor, client);
        assert!(said(&output).contains("ALPN protocol: http/1.1"), "{}", said(&output));
        assert!(said(&output).contains("\na line\n"), "{}", said(&output));
        assert_eq!(common::result_of(&reactor, served).unwrap().as_deref(), Some(&b"http/1.1"[..]));

        let (certificate, key) = (folder.at("server.pem"), folder.at("server.key"));
        let command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-rev", "-cert", &certificate, "-key", &key];
        let server = Listening::start(&[&command[..], &["-alpn", "h2", version]].concat(), "ACCEPT");
        let tls = authority.client_builder().protocols(["http/1.1", "h2"]).for_server("localhost").unwrap();
        let mut stream = connect(&reactor, tls, server.address);
        let asked = reactor.spawn(async move {
            // Written ahead of the handshake.
            stream.write_all(b"a line\n").await?;
            let mut line = [0; 7];
            stream.read_exact(&mut line).await?;
            let chosen = stream.transport().tls_session().expect("it is done").negotiated_protocol;
            Result::Ok((line, chosen))
        });
        let (line, chosen) = common::result_of(&reactor, asked).unwrap();
        assert_eq!((&line, chosen.as_deref()), (b"enil a\n", Some(&b"h2"[..])));
    }
}

/// A peer in Python that reads and writes at once, so many bytes, and closes: as a client of a
/// server with this port, or as a server that takes one connection.
const PYTHON: &str = "
import asyncio, ssl, sys
count, folder, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
period = bytes((index * 31 + index // 251) % 256 for index in range(251 * 256))
sent = (period * (count // len(period) + 1))[:count]

async def talk(reader, writer):
    async def write():
        writer.write(sent)
        await writer.drain()
    received, _ = await asyncio.gather(reader.readexactly(count), write())
    writer.close()
    assert received == sent, 'other bytes came'
    print('whole', flush=True)

async def client():
    context = ssl.create_default_context(cafile=folder + '/ca.pem')
    await talk(*await asyncio.open_connection('localhost', port, ssl=context))

async def server():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder + '/server.pem', folder + '/server.key')
    talked = asyncio.Event()
    async def accept(reader, writer):
        await talk(reader, writer)
        talked.set()
    listening = await asyncio.start_server(accept, '127.0.0.1', 0, ssl=context)
    print('listening at 127.0.0.1:%d' % listening.sockets[0].getsockname()[1], flush=True)
    await talked.wait()

asyncio.run(client() if port else server())
";

/// Bulk in both directions at once, with Python's `ssl` as the client and as the server.
#[test]
fn bulk_goes_both_ways_with_python() {
    own_process!();
    if !has("python3") {
        return;
    }
    async fn talk(stream: ByteStream) -> Result<bool> {
        let (mut reader, mut writer) = stream.split();
        let data = pattern(BULK);
        let (read, sent) = join(read_all(&mut reader), writer.write_all(&data)).await;
        sent?;
        Ok(read? == data)
    }
    let (authority, folder) = files();
    let (count, path) = (BULK.to_string(), folder.at(""));
    for reactor in reactors() {
        let (_port, address, served) = serve(&reactor, authority.server(&["localhost"]), talk);
        let port = address.port().to_string();
        let output = common::run_beside(&reactor, run_program(&["python3", "-c", PYTHON, &count, &path, &port], b""));
        assert_eq!(output.stdout, b"whole\n", "{}", said(&output));
        assert!(common::result_of(&reactor, served).unwrap());

        let server = Listening::start(&["python3", "-c", PYTHON, &count, &path, "0"], "listening at");
        let stream = connect(&reactor, authority.client("localhost"), server.address);
        let asked = reactor.spawn(talk(stream));
        assert!(common::result_of(&reactor, asked).unwrap());
    }
}
