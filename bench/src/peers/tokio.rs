//! tokio: the runtime of one thread, a task and a buffer of 16 KiB for every connection.

use std::convert::Infallible;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{OWN_CHUNK, listener, ready};
use crate::Result;

pub(super) fn serve(address: SocketAddr) -> Result<Infallible> {
    let listener = listener(address)?;
    ready(listener.local_addr()?, "")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            // How a connection ends is its own affair.
            tokio::spawn(async { drop(echo(stream).await) });
        }
    })
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; OWN_CHUNK];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count]).await?,
        }
    }
}
