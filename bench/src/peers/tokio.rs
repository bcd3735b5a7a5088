//! tokio: the single-threaded runtime, and a task and a buffer of 16 KiB for each connection; TLS
//! by tokio-rustls.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::{CHUNK_BYTES, CONNECTION_BUFFER_BYTES, Service, listener, print_ready};
use crate::answers::{RequestDecoder, content};
use crate::{Result, tls};

pub(super) fn serve(address: SocketAddr, service: Service) -> Result<Infallible> {
    if service.datagrams {
        return serve_datagrams(address);
    }
    let (acceptor, detail) = if service.tls {
        let (config, certificate) = tls::server()?;
        (Some(TlsAcceptor::from(config)), tls::to_text(&certificate))
    } else {
        (None, String::new())
    };
    let content = service.answers.then(|| Arc::<[u8]>::from(content()));
    let listener = listener(address)?;
    print_ready(listener.local_addr()?, &detail)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            match acceptor.clone() {
                None => spawn(serve_on(stream, content.clone())),
                // TLS has a task type of its own: a task of plain TCP has no space for a session.
                Some(acceptor) => {
                    let content = content.clone();
                    spawn(async move { serve_on(acceptor.accept(stream).await?, content).await });
                }
            }
        }
    })
}

fn serve_datagrams(address: SocketAddr) -> Result<Infallible> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let socket = UdpSocket::bind(address).await?;
        print_ready(socket.local_addr()?, "")?;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let (count, peer) = socket.recv_from(&mut buffer).await?;
            socket.send_to(&buffer[..count], peer).await?;
        }
    })
}

/// Spawns the task of a connection. Its error is ignored: the server serves the others.
fn spawn(connection: impl Future<Output = std::io::Result<()>> + Send + 'static) {
    tokio::spawn(async { drop(connection.await) });
}

/// Answers requests if there is content for answers. Otherwise echoes.
async fn serve_on(stream: impl AsyncRead + AsyncWrite + Unpin, content: Option<Arc<[u8]>>) -> std::io::Result<()> {
    match content {
        Some(content) => answer(stream, &content).await,
        None => echo(stream).await,
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut buffer = vec![0; CONNECTION_BUFFER_BYTES];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
        // TLS sends the records that it has buffered. On plain TCP this does nothing.
        stream.flush().await?;
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, content: &[u8]) -> std::io::Result<()> {
    let (mut buffer, mut requests) = (vec![0; CONNECTION_BUFFER_BYTES], RequestDecoder::default());
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let mut data = &buffer[..count];
        while let Some(request) = requests.next(&mut data).map_err(|error| std::io::Error::other(error.to_string()))? {
            for piece in request.pieces(content) {
                stream.write_all(piece).await?;
            }
            stream.flush().await?;
        }
    }
}
