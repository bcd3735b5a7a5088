//! `examples/tls_proxy.rs` on tokio: the same program, so that their lines can be compared. It has
//! no limit for idle clients, and one certificate, which it reads again on SIGHUP alone.
//!
//! Arguments: the PEM file with the certificates and the key, where to listen, where the server is,
//! and the most clients at a time (1,000).

use std::env;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const DRAIN: Duration = Duration::from_secs(10);
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// Size of a buffer. Each direction of a connection has one.
const PIECE_BYTES: usize = 64 * 1024;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

fn load_tls(path: &Path) -> Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(path)?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key)?;
    Ok(Arc::new(config).into())
}

/// Reads the certificates again on each SIGHUP. Connections keep theirs.
async fn renew_tls(path: PathBuf, tls: watch::Sender<TlsAcceptor>, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        match load_tls(&path) {
            Ok(renewed) => {
                tls.send_replace(renewed);
                println!("the certificates were read again");
            }
            Err(error) => eprintln!("the old certificates stay: {error}"),
        }
    }
}

/// Makes a PROXY header of version 2 with a client's address.
fn proxy_header(client: SocketAddr, host: SocketAddr) -> Vec<u8> {
    let (family, addresses) = match (client.ip(), host.ip()) {
        (IpAddr::V4(client), IpAddr::V4(host)) => (0x11, [client.octets(), host.octets()].concat()),
        (client, host) => (0x21, [client, host].map(ipv6_octets).concat()),
    };
    let ports = [client.port().to_be_bytes(), host.port().to_be_bytes()].concat();
    let length = (addresses.len() + ports.len()) as u16;
    [b"\r\n\r\n\0\r\nQUIT\n\x21", &[family][..], &length.to_be_bytes(), &addresses, &ports].concat()
}

fn ipv6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Passes bytes on to their end or the stop, and then ends the other side.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    stop: &CancellationToken,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    while let Some(count) = stop.run_until_cancelled(from.read(&mut piece)).await.transpose()?
        && count > 0
    {
        to.write_all(&piece[..count]).await?;
        to.flush().await?;
    }
    to.shutdown().await
}

async fn connect(server: &str) -> io::Result<TcpStream> {
    timeout(CONNECT_LIMIT, TcpStream::connect(server)).await?
}

async fn forward(client: TcpStream, tls: TlsAcceptor, to: Arc<str>, stop: CancellationToken) -> io::Result<()> {
    let header = proxy_header(client.peer_addr()?, client.local_addr()?);
    let joining = async {
        // A client that fails its handshake does not reach the server.
        let client = timeout(HANDSHAKE_LIMIT, tls.accept(client)).await??;
        let server = connect(&to).await.inspect_err(|error| eprintln!("cannot connect to {to}: {error}"))?;
        io::Result::Ok((client, server))
    };
    let Some(joined) = stop.run_until_cancelled(joining).await else { return Ok(()) };
    let (mut client, mut server) = joined?;
    server.write_all(&header).await?;
    let (from_client, to_client) = split(&mut client);
    let (from_server, to_server) = server.split();
    let ended = try_join(pump(from_client, to_server, &stop), pump(from_server, to_client, &stop)).await;
    if ended.is_err() {
        // A reset tells the server that bytes may be missing.
        server.set_zero_linger()?;
    }
    ended.map(drop)
}

async fn run() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [path, from, to, most @ ..] = &*arguments else {
        return Err("usage: tls_proxy CERTIFICATES.pem ADDRESS SERVER-ADDRESS [CLIENTS]".into());
    };
    let places = Arc::new(Semaphore::new(most.first().map_or(Ok(1000), |most| most.parse())?));
    let (renewed, tls) = watch::channel(load_tls(path.as_ref())?);
    let (stop, to, clients) = (CancellationToken::new(), Arc::<str>::from(&**to), TaskTracker::new());
    tokio::spawn(renew_tls(path.into(), renewed, signal(SignalKind::hangup())?));
    let (mut terminated, stopping) = (signal(SignalKind::terminate())?, stop.clone());
    tokio::spawn(async move {
        terminated.recv().await;
        stopping.cancel();
    });
    let listener = TcpListener::bind(from).await?;
    println!("listening on {}", listener.local_addr()?);
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((client, _)) = accepted.inspect_err(|error| eprintln!("cannot accept: {error}")) else {
            sleep(ACCEPT_RETRY).await;
            continue;
        };
        // A client above the limit is closed.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let forwarding = forward(client, tls.borrow().clone(), Arc::clone(&to), stop.clone());
        clients.spawn(async move {
            // A client that leaves is no error of the proxy.
            drop(forwarding.await);
            drop(place);
        });
    }
    drop(listener);
    clients.close();
    // Clients that are left at the end of the time are cut off.
    drop(timeout(DRAIN, clients.wait()).await);
    Ok(())
}

fn main() -> Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(run())
}
