//! monoio: futures on io_uring, one thread, and a task and a buffer of 16 KiB for each connection.

use std::convert::Infallible;
use std::net::SocketAddr;

use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};

use super::{CONNECTION_BUFFER_BYTES, Missing, listener, print_ready};
use crate::Result;

pub(super) fn serve(address: SocketAddr) -> Result<Infallible> {
    let built = RuntimeBuilder::<IoUringDriver>::new().build();
    let mut runtime = built.map_err(|error| Missing(format!("io_uring is not available: {error}")))?;
    let listener = listener(address)?;
    print_ready(listener.local_addr()?, "")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            // The error of a connection is ignored: the server serves the others.
            monoio::spawn(async { drop(echo(stream).await) });
        }
    })
}

async fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(CONNECTION_BUFFER_BYTES);
    loop {
        let (count, read) = stream.read(buffer).await;
        if count? == 0 {
            return Ok(());
        }
        let (written, back) = stream.write_all(read).await;
        written?;
        buffer = back;
        buffer.clear();
    }
}
